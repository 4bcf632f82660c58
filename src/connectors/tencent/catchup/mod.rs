//! Catching up: what has been missed is fetched, in the upstream's order, before anything newer is passed on.

mod pages;
mod trouble;

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::value::RawValue;

use crate::connectors::PushAck;
use crate::connectors::tencent::message::Parsed;
use crate::connectors::tencent::outgoing;
use crate::connectors::tencent::sync::Position;
pub(super) use pages::{Fetched, bound_backfill, gap};
pub(super) use trouble::Trouble;

/// After so many messages the cookie is moved on, or a restart would fetch all of them again.
pub(super) const MESSAGES_PER_SYNC: u32 = 64;
/// How many pushes wait while catching up. Policy when full: a push is left out unacknowledged, and another
/// round fetches it.
const HELD_PUSHES: usize = 128;
/// How many bytes of JSON they may be, with the same policy; a larger one waits alone.
const HELD_BYTES: usize = 256 << 10;
/// How many messages of a group are fetched at a time, where that goes well.
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
    /// Where the list of groups began that is being read; see [`Position::listed`].
    list_began: Option<u64>,
    /// How many messages of a group the request in flight is for.
    asked: u64,
    /// A step was left out because it rests.
    skipped: bool,
    /// It tries again what failed before, and was told then.
    retry: bool,
    /// That something may be missing is the last that was told.
    told: bool,
    /// Nothing is known to be missing: only the cookie is moved on. Pushes do not wait for that.
    routine: bool,
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

impl Step {
    /// What was missed of one-to-one messages.
    pub(super) const FIRST: Self = Self::C2c {
        sync_flag: 0,
        online: false,
    };

    fn is_of(&self, name: &str) -> bool {
        matches!(self, Self::Group { group, .. } if group == name)
    }
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

    /// What moves the cookie on.
    pub(super) fn routine() -> Self {
        let mut round = Self::of([Step::FIRST]);
        round.routine = true;
        round
    }

    /// Only what `steps` say.
    pub(super) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    /// What has failed before and rested long enough.
    pub(super) fn retry() -> Self {
        let mut round = Self::whole();
        round.retry = true;
        round
    }

    /// Everything, because something may be missing; whether that is the last that was told.
    pub(super) fn after_gap(told: bool) -> Self {
        let mut round = Self::whole();
        round.told = told;
        round
    }

    /// Whether pushes are passed on meanwhile.
    pub(super) const fn is_routine(&self) -> bool {
        self.routine
    }

    /// What another round fetches, with what waits for it, comes behind this one, for which nothing waits.
    pub(super) fn join(&mut self, other: Self) {
        self.routine = false;
        self.steps.extend(other.steps);
        self.held_bytes += other.held_bytes;
        self.held.extend(other.held);
    }

    fn plan_whole(&mut self) {
        self.again = false;
        self.retry = false;
        self.list_began = None;
        self.steps = VecDeque::from([Step::FIRST, Step::JoinedGroups { offset: 0 }]);
    }

    /// Whether a push repeats one that is kept for later.
    pub(super) fn holds(&self, push: &Held) -> bool {
        let same = |held: &Held| held.body == push.body;
        push.ack.is_some() && self.held.iter().any(same)
    }

    /// Keeps a push for later, if there is room for it; else it comes back, and is to be left out.
    pub(super) fn hold(&mut self, push: Held) -> Option<Held> {
        let has_bytes = self.held_bytes + push.bytes <= HELD_BYTES || self.held.is_empty();
        if self.held.len() == HELD_PUSHES || !has_bytes {
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

    /// Another round is to follow this one, and what comes from now on waits for it.
    pub(super) const fn once_more(&mut self) {
        self.again = true;
        self.routine = false;
    }

    /// The next request, as command and body, if none is in flight. `None` with nothing in flight: all is fetched.
    pub(super) fn next_request(
        &mut self,
        account: &str,
        position: &mut Position,
        trouble: &Trouble,
        now: Instant,
    ) -> Option<(&'static str, String)> {
        if self.in_flight {
            return None;
        }
        loop {
            match self.steps.front() {
                // Another step may have fetched a group already.
                Some(Step::Group { group, upto })
                    if position.group(group).is_some_and(|last| last >= *upto) =>
                {
                    self.steps.pop_front();
                }
                Some(step) if trouble.is_paused(step, now) => {
                    // In a retry it is not what has rested long enough.
                    self.skipped |= !self.retry && !self.told;
                    self.steps.pop_front();
                }
                None if self.again => self.plan_whole(),
                Some(_) | None => break,
            }
        }
        let request = match self.steps.front()? {
            Step::C2c { sync_flag, online } => {
                position.asked();
                (
                    "openim.getmsg",
                    outgoing::getmsg(position.cookie(), *sync_flag, *online),
                )
            }
            Step::JoinedGroups { offset } => (
                "group_open_http_svc.get_joined_group_list",
                outgoing::joined_groups(account, *offset),
            ),
            Step::Group { group, upto } => {
                let last = position.group(group).unwrap_or(0);
                let count = upto.saturating_sub(last).min(trouble.group_page());
                self.asked = count;
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

    /// Whether a step was left out since this was last asked.
    pub(super) const fn has_skipped(&mut self) -> bool {
        std::mem::replace(&mut self.skipped, false)
    }

    /// Whether the last that was told is that something may be missing.
    pub(super) const fn has_told(&self) -> bool {
        self.told
    }

    /// The last that was told is that something may be missing, or it is something else.
    pub(super) const fn set_told(&mut self, told: bool) {
        self.told = told;
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
        trouble: &mut Trouble,
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
            Ok(_) => {
                self.in_flight = false;
                trouble.went_well(&step);
            }
            Err(_) => self.steps.push_front(step),
        }
        read
    }

    /// The present step was refused, or its answer cannot be read: it is given up, and told. It comes again with the
    /// next round; what had failed before rests longer.
    pub(super) fn refused(
        &mut self,
        position: &mut Position,
        trouble: &mut Trouble,
        now: Instant,
        fraction: f64,
    ) -> Fetched {
        match self.steps.front() {
            Some(step) if trouble.has_failed(step) => {
                self.give_up(position, trouble, now, fraction)
            }
            Some(_) | None => self.leave_step(position),
        }
    }

    fn leave_step(&mut self, position: &mut Position) -> Fetched {
        self.in_flight = false;
        let mut count = 0;
        if let Some(Step::Group { group, upto }) = self.steps.pop_front() {
            count = upto.saturating_sub(position.group(&group).unwrap_or(0));
            position.advance_group(&group, upto);
        }
        Fetched {
            events: vec![gap(count)],
            ..Fetched::default()
        }
    }

    /// The present step's answer is too large to be read. Less is asked for, where that can be said; else the step is
    /// given up. Answers what that leaves.
    pub(super) fn too_large(
        &mut self,
        position: &mut Position,
        trouble: &mut Trouble,
        now: Instant,
        fraction: f64,
    ) -> Option<Fetched> {
        let Some(Step::Group { group, .. }) = self.steps.front() else {
            return Some(self.give_up(position, trouble, now, fraction));
        };
        self.in_flight = false;
        if self.asked > 1 {
            trouble.halve(self.asked);
            return None;
        }
        // It is this one message.
        let last = position.group(group).unwrap_or(0);
        position.advance_group(group, last + 1);
        Some(Fetched {
            events: vec![gap(1)],
            ..Fetched::default()
        })
    }

    /// The present step got no answer in time. `None` if a fresh connection is to try it again; else it is given up.
    pub(super) fn unanswered(
        &mut self,
        position: &mut Position,
        trouble: &mut Trouble,
        now: Instant,
        fraction: f64,
    ) -> Option<Fetched> {
        let step = self.steps.front()?;
        if trouble.unanswered(step) {
            return Some(self.give_up(position, trouble, now, fraction));
        }
        if matches!(step, Step::Group { .. }) {
            trouble.halve(self.asked);
        }
        None
    }

    fn give_up(
        &mut self,
        position: &mut Position,
        trouble: &mut Trouble,
        now: Instant,
        fraction: f64,
    ) -> Fetched {
        let mut told = false;
        if let Some(step) = self.steps.front() {
            // A group's gap has a size, which was not told.
            let is_group = matches!(step, Step::Group { .. });
            told = !is_group && (self.told || self.retry && trouble.has_failed(step));
            trouble.pause(step, now, fraction);
        }
        let mut fetched = self.leave_step(position);
        if told {
            fetched.events.clear();
        }
        fetched
    }
}
