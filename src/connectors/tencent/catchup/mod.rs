//! Catching up: what has been missed is fetched, in the upstream's order, before anything newer is passed on.

mod pages;

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::connectors::PushAck;
use crate::connectors::tencent::message::Parsed;
use crate::connectors::tencent::outgoing;
use crate::connectors::tencent::sync::Position;
pub(super) use pages::{Fetched, bound_backfill, gap};

/// After so many messages the cookie is moved on, or a restart would fetch all of them again.
pub(super) const MESSAGES_PER_SYNC: u32 = 64;
/// How many pushes wait while catching up. Policy when full: a push is left out unacknowledged, and another
/// round fetches it.
const HELD_PUSHES: usize = 128;
/// How many bytes of JSON they may be, with the same policy.
const HELD_BYTES: usize = 1 << 20;
/// How many messages of a group are fetched at a time.
const GROUP_PAGE: u64 = 20;
/// How many missed messages of one group are fetched at the most; what is older is told as a gap.
const GROUP_BACKFILL: u64 = 1000;

/// One round of catching up.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    steps: VecDeque<Step>,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Something was left out meanwhile: another round is needed.
    again: bool,
    in_flight: bool,
}

/// One thing to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next page of one-to-one messages; `online` if the upstream asked for it in a push.
    C2c { sync_flag: i64, online: bool },
    /// Which groups there are, and how far they have come.
    JoinedGroups { offset: usize },
    /// A group's messages up to and with a sequence.
    Group { group: String, upto: u64 },
}

/// A push that has been read but not passed on.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) entries: VecDeque<Parsed>,
    pub(super) ack: Option<PushAck>,
    /// Of its body.
    pub(super) bytes: usize,
    /// The fingerprint of its body: what the upstream repeats has the same.
    pub(super) body: u64,
}

impl CatchUp {
    /// Everything, after a login.
    pub(super) fn whole() -> Self {
        let mut round = Self::default();
        round.plan_whole();
        round
    }

    /// Only what `steps` say.
    pub(super) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    fn plan_whole(&mut self) {
        self.again = false;
        self.steps = VecDeque::from([
            Step::C2c {
                sync_flag: 0,
                online: false,
            },
            Step::JoinedGroups { offset: 0 },
        ]);
    }

    /// Whether a push repeats one that is kept for later.
    pub(super) fn holds(&self, push: &Held) -> bool {
        let same = |held: &Held| held.body == push.body;
        push.ack.is_some() && self.held.iter().any(same)
    }

    /// Keeps a push for later, if there is room for it; else it comes back, and is to be left out.
    pub(super) fn hold(&mut self, push: Held) -> Option<Held> {
        if self.held.len() == HELD_PUSHES || self.held_bytes + push.bytes > HELD_BYTES {
            return Some(push);
        }
        self.held_bytes += push.bytes;
        self.held.push_back(push);
        None
    }

    /// Puts a push back that met a gap, before all others.
    pub(super) fn hold_first(&mut self, push: Held) {
        self.held_bytes += push.bytes;
        self.held.push_front(push);
    }

    /// Another round is to follow this one.
    pub(super) const fn once_more(&mut self) {
        self.again = true;
    }

    /// The next request, as command and body, if none is in flight. `None` with nothing in flight: all is fetched.
    pub(super) fn next_request(
        &mut self,
        account: &str,
        position: &Position,
    ) -> Option<(&'static str, String)> {
        if self.in_flight {
            return None;
        }
        // Another step may have fetched a group already.
        while let Some(Step::Group { group, upto }) = self.steps.front()
            && position.group(group).is_some_and(|last| last >= *upto)
        {
            self.steps.pop_front();
        }
        if self.steps.is_empty() && self.again {
            self.plan_whole();
        }
        let request = match self.steps.front()? {
            Step::C2c { sync_flag, online } => (
                "openim.getmsg",
                outgoing::getmsg(&position.cookie, *sync_flag, *online),
            ),
            Step::JoinedGroups { offset } => (
                "group_open_http_svc.get_joined_group_list",
                outgoing::joined_groups(account, *offset),
            ),
            Step::Group { group, upto } => {
                let last = position.group(group).unwrap_or(0);
                let count = upto.saturating_sub(last).min(GROUP_PAGE);
                (
                    "group_open_http_svc.group_msg_get",
                    outgoing::group_messages(group, last + count, count),
                )
            }
        };
        self.in_flight = true;
        Some(request)
    }

    /// Whether a request is in flight.
    pub(super) const fn is_waiting(&self) -> bool {
        self.in_flight
    }

    /// Gives out the pushes that waited: all is fetched, or the connection is gone.
    pub(super) fn finish(self) -> VecDeque<Held> {
        self.held
    }

    /// The present step was answered. If the answer cannot be read, the step stays: it is [`CatchUp::refused`] then.
    pub(super) fn answered(
        &mut self,
        account: &str,
        position: &mut Position,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        let Some(step) = self.steps.pop_front() else {
            return Ok(Fetched::default());
        };
        let read = match step.clone() {
            Step::C2c { online, .. } => self.c2c_page(account, position, online, body),
            Step::JoinedGroups { offset } => self.joined_groups(position, offset, body),
            Step::Group { group, upto } => self.group_page(account, position, group, upto, body),
        };
        match read {
            Ok(_) => self.in_flight = false,
            Err(_) => self.steps.push_front(step),
        }
        read
    }

    /// The present step was refused, or its answer cannot be read: it is given up, and told.
    pub(super) fn refused(&mut self, position: &mut Position) -> Fetched {
        self.in_flight = false;
        let mut count = 0;
        if let Some(Step::Group { group, upto }) = self.steps.pop_front() {
            count = upto.saturating_sub(position.group(&group).unwrap_or(0));
            position.advance_group(&group, upto);
        }
        Fetched {
            events: vec![gap(count)],
            messages: Vec::new(),
        }
    }
}
