//! Commands that wait for the upstream's answer, and the care that makes a send safe to repeat.
//!
//! A send with a client message ID goes three ways, one after the other: its intent to the store, the message to the
//! upstream, its outcome to the store; then it is answered. What the upstream refused is forgotten. A repetition joins
//! the send that is under way, or is answered with the outcome, or sends again with the same identity while the
//! upstream still knows a double.

mod admission;
pub(super) mod remembered;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connectors::{Answer, OutgoingMessage, RequestId};
use crate::runtime::handle::{CallError, Invoked, Outcome, Sent};
use crate::runtime::sends::remembered::Remembered;
use crate::session::input::Now;
use crate::store::StoredSend;
use crate::tenants::quotas::{Exceeded, Quota};
use crate::types::{TenantId, UnixMillis};

/// Who waits for the outcome of a send.
pub(super) type SendReply = oneshot::Sender<Result<Sent, CallError>>;
/// Who waits for the outcome of a raw command.
pub(super) type InvokeReply = oneshot::Sender<Result<Invoked, CallError>>;

/// The commands of one session in flight, and the sends that it remembers.
#[derive(Debug)]
pub(super) struct Sends {
    last_id: u64,
    max_pending: usize,
    tenant: TenantId,
    pending: BTreeMap<RequestId, PendingSend>,
    invokes: BTreeMap<RequestId, InvokeReply>,
    remembered: Remembered,
    /// What is to be done, in order. Emptied after each call.
    pub(super) out: VecDeque<Step>,
}

/// What a send needs next.
#[derive(Debug)]
pub(super) enum Step {
    /// To be stored.
    Store(SendWrite),
    /// To go out, with this client time in Unix seconds, and not after `until`.
    Send {
        id: RequestId,
        message: Box<OutgoingMessage>,
        client_time: u64,
        until: Instant,
    },
    /// To be sent again after a drop until this moment.
    Extend { id: RequestId, until: Instant },
}

/// What the store is to remember of a send.
#[derive(Debug)]
pub(super) struct SendWrite {
    pub(super) client_message_id: String,
    /// Encoded; empty to forget it.
    pub(super) record: Vec<u8>,
    /// The request that goes on when it is stored.
    pub(super) waits: Option<RequestId>,
    /// It does not wait for something else to be stored with.
    pub(super) prompt: bool,
}

#[derive(Debug)]
struct PendingSend {
    /// Empty if it has none.
    client_message_id: String,
    replies: Vec<SendReply>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Its intent is on the way to the store.
    Intended {
        message: Box<OutgoingMessage>,
        until: Instant,
    },
    /// The upstream has it, or gets it when the session is online.
    Upstream,
    /// Its outcome is on the way to the store.
    Done(Sent),
}

impl Sends {
    /// With what the store remembers.
    pub(super) fn new(
        tenant: TenantId,
        max_pending: usize,
        stored: Vec<StoredSend>,
        now: UnixMillis,
    ) -> Self {
        let (remembered, forgotten) = Remembered::restore(stored, now);
        let mut sends = Self {
            last_id: 0,
            max_pending,
            tenant,
            pending: BTreeMap::new(),
            invokes: BTreeMap::new(),
            remembered,
            out: VecDeque::new(),
        };
        forgotten
            .into_iter()
            .for_each(|id| sends.forget_stored(id, false));
        sends
    }

    /// Admits a raw command.
    pub(super) fn admit_invoke(&mut self, reply: InvokeReply) -> Option<RequestId> {
        if self.invokes.len() >= self.max_pending {
            answer(reply, Err(self.too_many()));
            return None;
        }
        let id = self.next_id();
        self.invokes.insert(id, reply);
        Some(id)
    }

    fn too_many(&self) -> CallError {
        Exceeded::count(&self.tenant, Quota::PendingSends, self.max_pending).into()
    }

    /// What a request waited for is stored.
    pub(super) fn stored(&mut self, now: Now, id: RequestId) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut pending.stage, Stage::Upstream) {
            Stage::Intended { message, until } => {
                let entry = self.remembered.find(&pending.client_message_id);
                let (client_time, until) = entry.map_or((now.wall.as_secs(), until), |entry| {
                    let repeatable_until = now.at + entry.repeatable_for(now.wall);
                    (entry.client_time, until.min(repeatable_until.into()))
                });
                if until.into_std() <= now.at {
                    self.not_sent(id, || CallError::UpstreamUnanswered);
                    return;
                }
                self.out.push_back(Step::Send {
                    id,
                    message,
                    client_time,
                    until,
                });
            }
            Stage::Done(sent) => self.finish(id, || Ok(sent.clone())),
            Stage::Upstream => {}
        }
    }

    /// What a request waited for is not stored, and will not be.
    pub(super) fn not_stored(&mut self, id: RequestId, error: impl Fn() -> CallError) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut pending.stage, Stage::Upstream) {
            Stage::Intended { .. } => {
                let client_message_id = pending.client_message_id.clone();
                self.finish(id, || Err(error()));
                self.remembered.forget(&client_message_id);
            }
            // It was sent all the same. The next append tries to store that once more.
            Stage::Done(sent) => {
                self.remember(id, false);
                self.finish(id, || Ok(sent.clone()));
            }
            Stage::Upstream => {}
        }
    }

    /// The upstream answered.
    pub(super) fn answered(&mut self, id: RequestId, answer_: Answer) {
        let outcome = Outcome {
            code: answer_.code,
            desc: answer_.desc,
        };
        if let Some(reply) = self.invokes.remove(&id) {
            let body_json = answer_.body_json;
            return answer(reply, Ok(Invoked { outcome, body_json }));
        }
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let sent = Sent {
            outcome,
            message_id: answer_.message_id,
            sent_at: answer_.sent_at,
            upstream_sequence: answer_.upstream_sequence,
        };
        let Some(entry) = self.remembered.find(&pending.client_message_id) else {
            return self.finish(id, || Ok(sent.clone()));
        };
        if sent.outcome.code == 0 {
            entry.outcome = Some(Box::new(sent.clone()));
            pending.stage = Stage::Done(sent);
            self.remember(id, true);
        } else {
            // What the upstream refused was not sent, unless an earlier try was taken and its answer lost.
            entry.in_doubt |= answer_.in_doubt;
            self.give_up(id, || Ok(sent.clone()));
        }
    }

    /// The upstream did not answer.
    pub(super) fn unanswered(&mut self, id: RequestId) {
        if let Some(reply) = self.invokes.remove(&id) {
            return answer(reply, Err(CallError::UpstreamUnanswered));
        }
        if let Some(pending) = self.pending.get(&id)
            && let Some(entry) = self.remembered.find(&pending.client_message_id)
        {
            entry.in_doubt = true;
        }
        self.finish(id, || Err(CallError::UpstreamUnanswered));
    }

    /// The message did not go out, and will not.
    pub(super) fn not_sent(&mut self, id: RequestId, error: impl Fn() -> CallError) {
        self.give_up(id, || Err(error()));
    }

    /// The session ends: whoever still waits is told by the end itself.
    pub(super) fn abandon(&mut self, id: RequestId) {
        self.pending.remove(&id);
    }

    /// Forgets what is too old, in the store with the next append.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        for id in self.remembered.expire(now) {
            self.forget_stored(id, false);
        }
    }

    /// Has everything stored again: the store has lost it.
    pub(super) fn store_again(&mut self) {
        let writes = self.remembered.iter().map(|entry| {
            Step::Store(SendWrite {
                client_message_id: entry.client_message_id.clone(),
                record: entry.record(),
                waits: None,
                prompt: false,
            })
        });
        self.out.extend(writes);
    }

    /// When nothing is remembered any more; `None` if nothing is.
    pub(super) fn remembered_until(&self) -> Option<UnixMillis> {
        self.remembered.until()
    }

    fn begin(&mut self, client_message_id: String, reply: SendReply, stage: Stage) -> RequestId {
        let id = self.next_id();
        let pending = PendingSend {
            client_message_id,
            replies: vec![reply],
            stage,
        };
        self.pending.insert(id, pending);
        id
    }

    /// Answers a request that has come to its end.
    fn finish(&mut self, id: RequestId, result: impl Fn() -> Result<Sent, CallError>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        if let Some(entry) = self.remembered.find(&pending.client_message_id) {
            entry.request = None;
        }
        for reply in pending.replies {
            answer(reply, result());
        }
    }

    /// As [`Sends::finish`], for a request that sent nothing: its ID is free again, unless an earlier try may have.
    fn give_up(&mut self, id: RequestId, result: impl Fn() -> Result<Sent, CallError>) {
        if let Some(pending) = self.pending.get(&id)
            && let Some(entry) = self.remembered.find(&pending.client_message_id)
            && !entry.in_doubt
        {
            let client_message_id = pending.client_message_id.clone();
            self.remembered.forget(&client_message_id);
            self.forget_stored(client_message_id, true);
        }
        self.finish(id, result);
    }

    /// Has what is known of a request's message stored; the request waits for it if `waits`.
    fn remember(&mut self, id: RequestId, waits: bool) {
        if let Some(pending) = self.pending.get(&id)
            && let Some(entry) = self.remembered.find(&pending.client_message_id)
        {
            self.out.push_back(Step::Store(SendWrite {
                client_message_id: entry.client_message_id.clone(),
                record: entry.record(),
                waits: waits.then_some(id),
                prompt: waits,
            }));
        }
    }

    fn forget_stored(&mut self, client_message_id: String, prompt: bool) {
        self.out.push_back(Step::Store(SendWrite {
            client_message_id,
            record: Vec::new(),
            waits: None,
            prompt,
        }));
    }

    const fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        RequestId(self.last_id)
    }
}

/// Answers a caller; one that has gone away meanwhile is not waited for.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _gone = reply.send(value);
}
