//! Pushes: what each means, and the order in which they are passed on.

use std::collections::VecDeque;
use std::time::Duration;

use rapidhash::v3::rapidhash_v3;
use serde::Deserialize;

use super::{Phase, Protocol};
use crate::connectors::tencent::catchup::{CatchUp, Held, MESSAGES_PER_SYNC, Step, bound_backfill};
use crate::connectors::tencent::message::{self, MAX_ENTRIES, Parsed};
use crate::connectors::tencent::outgoing;
use crate::connectors::tencent::push::Push;
use crate::connectors::tencent::requests::Purpose;
use crate::connectors::tencent::sync::GroupOrder;
use crate::connectors::{Delivery, PushAck, Report};
use crate::proto::v1;
use crate::session::input::Now;

/// An announced overload is believed for this long at the most.
const MAX_OVERLOAD: Duration = Duration::from_secs(60);
/// The least time between two logins that the upstream asks for. Policy: what comes too early waits.
const REASSERT_SPACING: Duration = Duration::from_secs(15);
/// How many announced overloads are remembered. Policy when full: further ones are not believed.
const MAX_OVERLOADS: usize = 64;
/// The longest name of a command that is overloaded, in bytes.
const MAX_COMMAND: usize = 128;
/// Pushes that concern only what a user interface shows.
const IRRELEVANT_PUSHES: [&str; 1] = ["im_sdk_config_mgr.push_imsdk_purchase_bitsv2"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Overload {
    over_load_serv_cmd: String,
    #[serde(default)]
    delay_secs: u64,
}

impl Protocol {
    pub(super) fn pushed(&mut self, now: Now, push: Push<'_>) {
        let Push {
            servcmd,
            body,
            read,
        } = push;
        if IRRELEVANT_PUSHES.contains(&&*servcmd) {
            return;
        }
        let mut entries = Vec::new();
        let mut ack = None;
        let mut more = false;
        match read {
            Some(push) => {
                match push.event_array {
                    Some(array) if array.len() <= MAX_ENTRIES => {
                        entries = message::parse_push(&self.who.account, &servcmd, body, array);
                    }
                    Some(_) | None => entries.push(message::notice(&servcmd, body)),
                }
                ack = (push.need_ack == 1).then_some(PushAck::Push(push.session_data));
                more = push.flag == 1;
            }
            None => entries.push(message::notice(&servcmd, body)),
        }
        self.react(now, &servcmd, body);
        for entry in &entries {
            if let Parsed::Kick(kick_type) = entry {
                let desc = format!("another login took the account (kick type {kick_type})");
                self.out.reports.push_back(Report::Kicked {
                    kick_type: *kick_type,
                    desc,
                });
            }
        }
        entries.retain(|entry| !matches!(entry, Parsed::Kick(_)));
        if more && self.is_online() {
            // It lies before what the push brings, which waits for it.
            let step = Step::C2c {
                sync_flag: 0,
                online: true,
            };
            self.catch_up(now, CatchUp::of([step]));
        }
        if !entries.is_empty() || ack.is_some() {
            self.take_push(
                now,
                Held {
                    entries: entries.into(),
                    ack,
                    bytes: body.len(),
                    body: likeness(body),
                },
            );
        }
    }

    /// What pushes ask of the connector itself.
    fn react(&mut self, now: Now, servcmd: &str, body: &str) {
        match servcmd {
            "OverLoadPush.notify2" => {
                if let Ok(overload) = serde_json::from_str::<Overload>(body) {
                    let delay = Duration::from_secs(overload.delay_secs).min(MAX_OVERLOAD);
                    self.overloads.retain(|_, until| *until > now.at);
                    let command = &overload.over_load_serv_cmd;
                    let has_room = self.overloads.len() < MAX_OVERLOADS
                        || self.overloads.contains_key(command);
                    if has_room && command.len() <= MAX_COMMAND {
                        self.overloads
                            .insert(overload.over_load_serv_cmd, now.at + delay);
                    }
                }
            }
            // A login in flight answers this too, and after a logout there is nothing to assert.
            "StatSvc.KickOther" if self.is_online() && !self.requests.has_reassert_or_logout() => {
                let at = self.reassert_not_before.unwrap_or(now.at).max(now.at);
                self.reassert_at = Some(at);
                self.reassert_if_due(now);
            }
            _ => {}
        }
    }

    /// Logs in once more on this connection, if the upstream asked for that and it is time.
    pub(super) fn reassert_if_due(&mut self, now: Now) {
        if self.reassert_at.is_none_or(|at| at > now.at) {
            return;
        }
        self.reassert_at = None;
        if self.is_online() && !self.requests.has_reassert_or_logout() {
            self.reassert_not_before = Some(now.at + REASSERT_SPACING);
            self.request(
                now,
                "im_open_status.wslogin",
                outgoing::LOGIN.into(),
                Purpose::Reassert,
            );
        }
    }

    /// Passes a push on, or keeps it until what came before it has been fetched.
    fn take_push(&mut self, now: Now, mut push: Held) {
        let messages = u32::try_from(push.entries.len()).unwrap_or(u32::MAX);
        self.messages_since_sync = self.messages_since_sync.saturating_add(messages);
        match &mut self.phase {
            Phase::CatchingUp(round) if self.stalled => {
                round.once_more();
                self.leave_out(&push);
            }
            Phase::CatchingUp(round) if round.is_routine() => {
                self.deliver(now, VecDeque::from([push]));
            }
            Phase::CatchingUp(round) if round.holds(&push) => {}
            Phase::CatchingUp(round) => {
                self.left_out.take_up(&mut push);
                self.left_out.keep_track(&push, &self.position);
                if let Some(push) = round.hold(push) {
                    round.once_more();
                    self.leave_out(&push);
                }
            }
            Phase::Live if self.stalled => {
                let mut round = CatchUp::default();
                round.once_more();
                self.phase = Phase::CatchingUp(round);
                self.leave_out(&push);
            }
            Phase::Live => {
                self.deliver(now, VecDeque::from([push]));
                let due = self.messages_since_sync >= MESSAGES_PER_SYNC;
                if due && !self.trouble.c2c_is_paused(now.at) {
                    self.catch_up(now, CatchUp::routine());
                }
            }
            // What follows the login fetches what can be.
            Phase::LoggingIn => self.leave_out(&push),
            // Without a login there is nothing that could be missed.
            Phase::Offline => {}
        }
    }

    fn leave_out(&mut self, push: &Held) {
        let gone = self.left_out.leave_out(push, &self.position);
        self.give_up(gone);
    }

    /// Reports pushes as one delivery, up to the first that shows a gap in a group, or that the group was made again.
    pub(super) fn deliver(&mut self, now: Now, mut pushes: VecDeque<Held>) {
        let mut delivery = Delivery::default();
        let mut gap = None;
        while let Some(mut push) = pushes.pop_front() {
            self.left_out.take_up(&mut push);
            gap = self.deliver_one(&mut push, &mut delivery);
            if gap.is_some() {
                pushes.push_front(push);
                break;
            }
            delivery.acks.extend(push.ack);
        }
        if !delivery.events.is_empty() || !delivery.acks.is_empty() {
            self.report_events(delivery);
        }
        if let Some(step) = gap {
            let mut round = CatchUp::of([step]);
            while let Some(push) = pushes.pop_back() {
                self.left_out.keep_track(&push, &self.position);
                round.hold_first(push);
            }
            match &mut self.phase {
                Phase::CatchingUp(running) => running.join(round),
                Phase::Offline | Phase::LoggingIn | Phase::Live => self.catch_up(now, round),
            }
        }
    }

    fn deliver_one(&mut self, push: &mut Held, delivery: &mut Delivery) -> Option<Step> {
        while let Some(entry) = push.entries.pop_front() {
            match entry {
                Parsed::C2c { message, .. } => {
                    if self.position.pushed(&message.id) {
                        delivery.events.push(v1::event::Kind::Message(message));
                    }
                }
                Parsed::Group {
                    group,
                    sequence,
                    message,
                } => {
                    let new = match (sequence, self.position.group_order(&group, sequence)) {
                        (0, _) => self.position.pushed(&message.id),
                        (_, GroupOrder::Seen) => {
                            if self.position.doubts_group(&group, &message) {
                                push.entries.push_front(Parsed::Group {
                                    group,
                                    sequence,
                                    message,
                                });
                                // The list says when the group was made.
                                return Some(Step::JoinedGroups { offset: 0 });
                            }
                            false
                        }
                        (_, GroupOrder::Next) => true,
                        (_, GroupOrder::GapAfter(_)) => {
                            let given_up = bound_backfill(&mut self.position, &group, sequence - 1);
                            delivery.events.extend(given_up);
                            let step = Step::Group {
                                group: group.clone(),
                                upto: sequence - 1,
                            };
                            push.entries.push_front(Parsed::Group {
                                group,
                                sequence,
                                message,
                            });
                            return Some(step);
                        }
                    };
                    if new {
                        if sequence > 0 {
                            self.position.read_group_message(&group, sequence, &message);
                        }
                        delivery.events.push(v1::event::Kind::Message(message));
                    }
                }
                Parsed::Notice(notice) => {
                    delivery
                        .events
                        .push(v1::event::Kind::UpstreamNotice(notice));
                }
                Parsed::Kick(_) => {}
            }
        }
        None
    }
}

/// What the bodies of a push and of its repetition have in common. Not stored, so it need not stay what it is: it takes a
/// fiftieth of the time of [`fingerprint`](crate::connectors::tencent::sync::fingerprint), which every push would wait
/// for. Whoever makes two alike harms but the second of them.
fn likeness(body: &str) -> u64 {
    rapidhash_v3(body.as_bytes())
}
