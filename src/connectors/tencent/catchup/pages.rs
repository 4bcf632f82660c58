//! Reading the answers of a round: what each page brings, how far it moves the position, and what to ask for next.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CatchUp, GROUP_BACKFILL, Step};
use crate::connectors::tencent::message::{self, MAX_ENTRIES, Parsed};
use crate::connectors::tencent::outgoing;
use crate::connectors::tencent::sync::{Generation, GroupOrder, Position};
use crate::proto::v1;

/// What an answer brought.
#[derive(Debug, Default)]
pub(in crate::connectors::tencent) struct Fetched {
    pub(in crate::connectors::tencent) events: Vec<v1::event::Kind>,
    /// The identities of the one-to-one messages of the page, also of those that were known.
    pub(in crate::connectors::tencent) messages: Vec<String>,
    /// There was a message in it, be it one that was known: that may not be stored yet.
    pub(in crate::connectors::tencent) has_messages: bool,
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
    group_id_list: Option<Vec<JoinedGroup>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JoinedGroup {
    group_id: String,
    next_msg_seq: Option<u64>,
    /// In Unix seconds.
    create_time: Option<u64>,
    /// In Unix seconds.
    last_msg_time: Option<u64>,
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
    /// 0 if the answer was cut short: its oldest messages are not in it.
    #[serde(default = "finished")]
    is_finished: i64,
    #[serde(borrow, default)]
    rsp_msg_list: Vec<&'a RawValue>,
}

/// Refuses a page that holds more than any real one.
fn bounded(entries: usize) -> Result<(), serde_json::Error> {
    if entries > MAX_ENTRIES {
        return Err(serde::de::Error::custom(
            "the page holds more than a page can",
        ));
    }
    Ok(())
}

impl CatchUp {
    pub(super) fn c2c_page(
        &mut self,
        account: &str,
        position: &mut Position,
        online: bool,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        const COMMAND: &str = "openim.getmsg";
        let page: C2cPage<'_> = serde_json::from_str(body.get())?;
        bounded(page.msg_list.len() + page.event_array.len())?;
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
                Parsed::C2c { message, .. } => fetched.add_c2c(position, message),
                Parsed::Group {
                    group,
                    sequence,
                    message,
                } => {
                    let order = position.group_order(&group, sequence);
                    if sequence > 0 && matches!(order, GroupOrder::GapAfter(_)) {
                        let given_up = bound_backfill(position, &group, sequence);
                        fetched.events.extend(given_up);
                        let upto = sequence;
                        self.steps.push_back(Step::Group { group, upto });
                    } else {
                        fetched.add_group(position, &group, sequence, message);
                    }
                }
                Parsed::Notice(notice) => {
                    fetched.events.push(v1::event::Kind::UpstreamNotice(notice));
                }
                // A kick of the past says nothing of the present.
                Parsed::Kick(_) => {}
            }
        }
        let moved = position.cookie() != page.cookie;
        let last = page.sync_flag == 2 || page.cookie.is_empty() || !moved;
        if moved && !page.cookie.is_empty() {
            position.set_cookie(page.cookie);
        }
        if last {
            position.caught_up();
        } else {
            self.steps.push_front(Step::C2c {
                sync_flag: page.sync_flag,
                online,
            });
        }
        Ok(fetched)
    }

    pub(super) fn joined_groups(
        &mut self,
        position: &mut Position,
        offset: usize,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        let list: GroupList = serde_json::from_str(body.get())?;
        let mut fetched = Fetched::default();
        let Some(list) = list.group_id_list else {
            return Ok(fetched);
        };
        bounded(list.len())?;
        if offset == 0 {
            self.list_began = Some(position.list_begins());
        }
        let goes_on = list.len() == outgoing::JOINED_GROUPS_PAGE;
        if goes_on {
            let offset = offset + outgoing::JOINED_GROUPS_PAGE;
            self.steps.push_back(Step::JoinedGroups { offset });
        }
        for group in list {
            position.names_group(&group.group_id);
            let Some(upto) = group.next_msg_seq.map(|next| next.saturating_sub(1)) else {
                continue;
            };
            let id = group.group_id;
            let created = group.create_time.unwrap_or(0);
            match (position.group(&id), position.generation(&id, created, upto)) {
                (_, Generation::Old) => continue,
                (Some(_), Generation::Same) => {}
                // It was made again under its old name, and counts from the beginning. What was to be fetched of the one
                // before it is gone.
                (Some(_), Generation::New) => {
                    self.steps.retain(|step| !step.is_of(&id));
                    position.begin_group(&id, 0);
                }
                // It is new here: it begins where the account has read to, as far as the upstream says.
                (None, Generation::Same | Generation::New) => {
                    position.begin_group(&id, group.self_info.msg_seq.unwrap_or(upto).min(upto));
                }
            }
            position.group_was_made(&id, created);
            position.group_message_sent(&id, group.last_msg_time.unwrap_or(0));
            fetched.events.extend(bound_backfill(position, &id, upto));
            if position.group(&id).is_none_or(|last| upto > last) {
                self.steps.push_back(Step::Group { group: id, upto });
            }
        }
        if !goes_on && let Some(began) = self.list_began.take() {
            position.listed(began);
        }
        Ok(fetched)
    }

    pub(super) fn group_page(
        &mut self,
        account: &str,
        position: &mut Position,
        group: String,
        upto: u64,
        body: &RawValue,
    ) -> Result<Fetched, serde_json::Error> {
        let page: GroupPage<'_> = serde_json::from_str(body.get())?;
        bounded(page.rsp_msg_list.len())?;
        let last = position.group(&group).unwrap_or(0);
        let asked_upto = last + upto.saturating_sub(last).min(self.asked);
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
                    other @ (Parsed::C2c { .. } | Parsed::Kick(_) | Parsed::Notice(_)) => {
                        (0, other)
                    }
                }
            })
            .collect();
        // They come newest first.
        messages.sort_by_key(|(sequence, _)| *sequence);
        let oldest = messages
            .iter()
            .map(|(sequence, _)| *sequence)
            .find(|sequence| *sequence > 0);
        if let (0, Some(oldest)) = (page.is_finished, oldest)
            && oldest > last.saturating_add(1)
            && oldest <= asked_upto
        {
            // What is older comes first; the rest is asked for again after it.
            self.steps.push_front(Step::Group {
                group: group.clone(),
                upto,
            });
            self.steps.push_front(Step::Group {
                group,
                upto: oldest - 1,
            });
            return Ok(Fetched::default());
        }
        let missing = missing(last, asked_upto, &messages);
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
                Parsed::Group { .. } | Parsed::C2c { .. } | Parsed::Kick(_) => {}
            }
        }
        // Withdrawn messages are in the answer: what is not there is not to be had any more.
        if missing > 0 {
            fetched.events.push(gap(missing));
        }
        position.advance_group(&group, asked_upto);
        if asked_upto < upto {
            self.steps.push_front(Step::Group { group, upto });
        }
        Ok(fetched)
    }
}

impl Fetched {
    fn add_c2c(&mut self, position: &mut Position, mut message: v1::Message) {
        self.has_messages = true;
        self.messages.push(message.id.clone());
        if position.fetched(&message.id) {
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
        self.has_messages = true;
        let new = match sequence {
            0 => position.fetched(&message.id),
            sequence => position.group(group).is_none_or(|last| sequence > last),
        };
        if new {
            if sequence > 0 {
                position.read_group_message(group, sequence, &message);
            }
            message.backfilled = true;
            self.events.push(v1::event::Kind::Message(message));
        }
    }
}

const fn finished() -> i64 {
    1
}

/// How many sequences after `last`, up to and with `upto`, are not there. What has no readable sequence counts as
/// one of them.
fn missing(last: u64, upto: u64, messages: &[(u64, Parsed)]) -> u64 {
    let mut there = 0;
    let mut before = last;
    for (sequence, _) in messages {
        if *sequence == 0 || (*sequence > before && *sequence <= upto) {
            there += 1;
            before = before.max(*sequence);
        }
    }
    (upto - last).saturating_sub(there)
}

/// Gives up what is too far behind `upto` to be fetched; answers the gap that this leaves.
pub(in crate::connectors::tencent) fn bound_backfill(
    position: &mut Position,
    group: &str,
    upto: u64,
) -> Option<v1::event::Kind> {
    let last = position.group(group)?;
    let skipped = upto.saturating_sub(last).saturating_sub(GROUP_BACKFILL);
    if skipped == 0 {
        return None;
    }
    position.advance_group(group, last + skipped);
    Some(gap(skipped))
}

/// Something is missing; 0 if it is not known how many.
pub(in crate::connectors::tencent) fn gap(count: u64) -> v1::event::Kind {
    v1::event::Kind::Gap(v1::Gap {
        reason: v1::GapReason::Upstream.into(),
        from_sequence: 0,
        to_sequence: 0,
        count,
    })
}
