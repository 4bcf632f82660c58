//! How a send is taken in: it is new, or repeats one that is under way, is answered, or came to no known end.

use metrics::counter;
use tokio::time::Instant;

use crate::connectors::OutgoingMessage;
use crate::runtime::handle::{CallError, Sent};
use crate::runtime::metrics as names;
use crate::runtime::sends::remembered::{self, Digest, REPEATABLE_FOR};
use crate::runtime::sends::{PendingSend, SendReply, Sends, Stage, Step, answer};
use crate::session::input::Now;

impl Sends {
    /// Takes a send in. It goes out by `until`; one that repeats an earlier one joins it or is answered.
    pub(in crate::runtime) fn admit(
        &mut self,
        now: Now,
        message: OutgoingMessage,
        until: Instant,
        reply: SendReply,
    ) {
        self.expire(now.wall);
        if message.client_message_id.is_empty() {
            let upstream = |pending: &&PendingSend| matches!(pending.stage, Stage::Upstream);
            if self.pending.values().filter(upstream).count() >= self.max_pending {
                return answer(reply, Err(self.too_many()));
            }
            let id = self.begin(String::new(), reply, Stage::Upstream);
            self.out.push_back(Step::Send {
                id,
                message: Box::new(message),
                client_time: now.wall.as_secs(),
                // After a drop it is sent again, and only for so long the upstream would know a double.
                until: until.min((now.at + REPEATABLE_FOR).into()),
            });
            return;
        }
        let digest = remembered::digest(&message);
        if self.remembered.find(&message.client_message_id).is_some() {
            self.repeat(now, message, &digest, until, reply);
        } else if self.pending.len() >= self.max_pending {
            answer(reply, Err(self.too_many()));
        } else {
            self.intend(now, message, digest, until, reply);
        }
    }

    /// A message whose ID is new.
    fn intend(
        &mut self,
        now: Now,
        message: OutgoingMessage,
        digest: Digest,
        until: Instant,
        reply: SendReply,
    ) {
        let client_message_id = message.client_message_id.clone();
        let message = Box::new(message);
        let stage = Stage::Intended { message, until };
        let id = self.begin(client_message_id.clone(), reply, stage);
        let removed = self
            .remembered
            .begin(client_message_id, digest, now.wall, id);
        if let Some(removed) = removed {
            self.forget_stored(removed, false);
        }
        self.remember(id, true);
    }

    /// A message whose ID is known.
    fn repeat(
        &mut self,
        now: Now,
        message: OutgoingMessage,
        digest: &Digest,
        until: Instant,
        reply: SendReply,
    ) {
        let Some(entry) = self.remembered.find(&message.client_message_id) else {
            return;
        };
        if !entry.is(digest) {
            let remedy = "names another message than before: give each message an ID of its own";
            return answer(
                reply,
                Err(CallError::Invalid {
                    field: "client_message_id",
                    remedy: remedy.into(),
                }),
            );
        }
        let left = entry.repeatable_for(now.wall);
        let repeatable_until = until.min((now.at + left).into());
        if let Some(id) = entry.request {
            count_repeated("joined");
            let Some(pending) = self.pending.get_mut(&id) else {
                return;
            };
            pending.replies.retain(|reply| !reply.is_closed());
            pending.replies.push(reply);
            match &mut pending.stage {
                Stage::Intended { until: before, .. } => *before = until.max(*before),
                Stage::Upstream => self.out.push_back(Step::Extend {
                    id,
                    until: repeatable_until,
                }),
                Stage::Done(_) => {}
            }
            return;
        }
        if let Some(sent) = &entry.outcome {
            count_repeated("answered");
            return answer(reply, Ok(Sent::clone(sent)));
        }
        if left.is_zero() {
            count_repeated("unknown");
            return answer(reply, Err(CallError::SendOutcomeUnknown));
        }
        if self.pending.len() >= self.max_pending {
            return answer(reply, Err(self.too_many()));
        }
        count_repeated("sent_again");
        entry.in_doubt = true;
        let client_time = entry.client_time;
        let id = self.begin(message.client_message_id.clone(), reply, Stage::Upstream);
        if let Some(entry) = self.remembered.find(&message.client_message_id) {
            entry.request = Some(id);
        }
        self.out.push_back(Step::Send {
            id,
            message: Box::new(message),
            client_time,
            until: repeatable_until,
        });
    }
}

fn count_repeated(outcome: &'static str) {
    counter!(names::REPEATED_SENDS, "outcome" => outcome).increment(1);
}
