//! Catching up: what has been missed is fetched, in the upstream's order, before anything newer is passed on.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::connectors::PushAck;
use crate::connectors::tencent::message::{self, Parsed};
use crate::connectors::tencent::outgoing;
use crate::connectors::tencent::sync::Position;
use crate::proto::v1;

/// After so many pushes the cookie is moved on, or a restart would fetch all of them again.
pub(super) const PUSHES_PER_SYNC: u32 = 64;
/// How many pushes wait while catching up. Policy when full: a push is left out unacknowledged, and another
/// round fetches it.
const HELD_PUSHES: usize = 128;
/// How many messages of a group are fetched at a time.
const GROUP_PAGE: u64 = 20;
/// How many missed messages of one group are fetched at the most; what is older is told as a gap.
const GROUP_BACKFILL: u64 = 1000;

/// One round of catching up.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    steps: VecDeque<Step>,
    held: VecDeque<Held>,
    /// Something was left out meanwhile: another round is needed.
    again: bool,
    in_flight: bool,
}

/// One thing to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next page of one-to-one messages.
    C2c { sync_flag: i64 },
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
}

/// What an answer brought.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) events: Vec<v1::event::Kind>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct C2cPage<'a> {
    #[serde(default)]
    cookie: String,
    #[serde(default)]
    sync_flag: i64,
    #[serde(borrow, default)]
    msg_list: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    event_array: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupList {
    #[serde(default)]
    group_id_list: Vec<JoinedGroup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JoinedGroup {
    group_id: String,
    #[serde(default)]
    next_msg_seq: u64,
    #[serde(default)]
    self_info: SelfInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SelfInfo {
    msg_seq: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupPage<'a> {
    #[serde(borrow, default)]
    rsp_msg_list: Vec<&'a RawValue>,
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

    /// Something could not be taken in: begins with nothing to do but to start over when that is possible.
    pub(super) fn later() -> Self {
        Self {
            again: true,
            ..Self::default()
        }
    }

    fn plan_whole(&mut self) {
        self.again = false;
        self.steps = VecDeque::from([Step::C2c { sync_flag: 0 }, Step::JoinedGroups { offset: 0 }]);
    }

    /// Keeps a push for later, if there is room for it.
    pub(super) fn hold(&mut self, push: Held) {
        if self.held.len() < HELD_PUSHES {
            self.held.push_back(push);
        } else {
            self.again = true;
        }
    }

    /// Puts a push back that met a gap, before all others.
    pub(super) fn hold_first(&mut self, push: Held) {
        self.held.push_front(push);
    }

    /// A push was left out: it is to be fetched.
    pub(super) const fn missed_one(&mut self) {
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
        if self.steps.is_empty() && self.again {
            self.plan_whole();
        }
        let request = match self.steps.front()? {
            Step::C2c { sync_flag } => (
                "openim.getmsg",
                outgoing::getmsg(&position.cookie, *sync_flag, false),
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

    /// All is fetched: gives out the pushes that waited.
    pub(super) fn finish(self) -> VecDeque<Held> {
        self.held
    }

    /// The present step was answered.
    pub(super) fn answered(
        &mut self,
        account: &str,
        position: &mut Position,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        self.in_flight = false;
        let Some(step) = self.steps.pop_front() else {
            return Ok(Fetched::default());
        };
        match step {
            Step::C2c { .. } => self.c2c_page(account, position, body),
            Step::JoinedGroups { offset } => self.joined_groups(position, offset, body),
            Step::Group { group, upto } => self.group_page(account, position, group, upto, body),
        }
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
        }
    }

    fn c2c_page(
        &mut self,
        account: &str,
        position: &mut Position,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        const COMMAND: &str = "openim.getmsg";
        let page: C2cPage<'_> = serde_json::from_str(body.get())?;
        let mut entries = Vec::new();
        for item in &page.msg_list {
            entries.push(message::parse_c2c(account, COMMAND, item));
        }
        for entry in &page.event_array {
            message::parse_event(account, COMMAND, entry, &mut entries);
        }
        let mut fetched = Fetched::default();
        for entry in entries {
            match entry {
                Parsed::C2c(message) => fetched.add_c2c(position, message),
                Parsed::Group {
                    group,
                    sequence,
                    message,
                } => {
                    fetched.add_group(position, &group, sequence, message);
                }
                Parsed::Notice(notice) => {
                    fetched.events.push(v1::event::Kind::UpstreamNotice(notice));
                }
                // A kick of the past says nothing of the present.
                Parsed::Kick(_) => {}
            }
        }
        let moved = position.cookie != page.cookie;
        let last = page.sync_flag == 2 || page.cookie.is_empty() || !moved;
        if !page.cookie.is_empty() {
            position.cookie = page.cookie;
        }
        if !last {
            self.steps.push_front(Step::C2c {
                sync_flag: page.sync_flag,
            });
        }
        Ok(fetched)
    }

    fn joined_groups(
        &mut self,
        position: &mut Position,
        offset: usize,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        let list: GroupList = serde_json::from_str(body.get())?;
        let mut fetched = Fetched::default();
        if list.group_id_list.len() == outgoing::JOINED_GROUPS_PAGE {
            let offset = offset + outgoing::JOINED_GROUPS_PAGE;
            self.steps.push_back(Step::JoinedGroups { offset });
        }
        for group in list.group_id_list {
            let upto = group.next_msg_seq.saturating_sub(1);
            // A group that is new here begins where the account has read to, as far as the upstream says.
            let last = position
                .group(&group.group_id)
                .unwrap_or_else(|| group.self_info.msg_seq.unwrap_or(upto).min(upto));
            position.advance_group(&group.group_id, last);
            if upto.saturating_sub(last) > GROUP_BACKFILL {
                let skipped = upto - GROUP_BACKFILL - last;
                position.advance_group(&group.group_id, last + skipped);
                fetched.events.push(gap(skipped));
            }
            if upto > last {
                self.steps.push_back(Step::Group {
                    group: group.group_id,
                    upto,
                });
            }
        }
        Ok(fetched)
    }

    fn group_page(
        &mut self,
        account: &str,
        position: &mut Position,
        group: String,
        upto: u64,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        let page: GroupPage<'_> = serde_json::from_str(body.get())?;
        let asked_upto = {
            let last = position.group(&group).unwrap_or(0);
            last + upto.saturating_sub(last).min(GROUP_PAGE)
        };
        let mut messages: Vec<(u64, Parsed)> = page
            .rsp_msg_list
            .iter()
            .map(|item| {
                match message::parse_group(account, "group_open_http_svc.group_msg_get", item) {
                    Parsed::Group {
                        sequence, message, ..
                    } => {
                        let group = group.clone();
                        (
                            sequence,
                            Parsed::Group {
                                group,
                                sequence,
                                message,
                            },
                        )
                    }
                    other @ (Parsed::C2c(_) | Parsed::Kick(_) | Parsed::Notice(_)) => (0, other),
                }
            })
            .collect();
        // They come newest first.
        messages.sort_by_key(|(sequence, _)| *sequence);
        let mut fetched = Fetched::default();
        for (_, entry) in messages {
            match entry {
                Parsed::Group {
                    group,
                    sequence,
                    message,
                } if sequence <= upto => {
                    fetched.add_group(position, &group, sequence, message);
                }
                Parsed::Notice(notice) => {
                    fetched.events.push(v1::event::Kind::UpstreamNotice(notice));
                }
                Parsed::Group { .. } | Parsed::C2c(_) | Parsed::Kick(_) => {}
            }
        }
        // What the upstream left out of the range was withdrawn.
        position.advance_group(&group, asked_upto);
        if asked_upto < upto {
            self.steps.push_front(Step::Group { group, upto });
        }
        Ok(fetched)
    }
}

impl Fetched {
    fn add_c2c(&mut self, position: &mut Position, mut message: v1::Message) {
        if position.remember(&message.id) {
            message.backfilled = true;
            self.events.push(v1::event::Kind::Message(message));
        }
    }

    fn add_group(
        &mut self,
        position: &mut Position,
        group: &str,
        sequence: u64,
        mut message: v1::Message,
    ) {
        let new = match sequence {
            0 => position.remember(&message.id),
            sequence => position.group(group).is_none_or(|last| sequence > last),
        };
        if new {
            position.advance_group(group, sequence);
            message.backfilled = true;
            self.events.push(v1::event::Kind::Message(message));
        }
    }
}

fn gap(count: u64) -> v1::event::Kind {
    v1::event::Kind::Gap(v1::Gap {
        reason: v1::GapReason::Upstream.into(),
        from_sequence: 0,
        to_sequence: 0,
        count,
    })
}
