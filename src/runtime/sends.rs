//! Commands that wait for the upstream's answer, and the memory that makes a send safe to repeat.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connectors::{Answer, RequestId};
use crate::runtime::handle::{CallError, Invoked, Outcome, Sent};

/// For how long a repeated client message ID is answered as the first one was.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// How many client message IDs a session remembers. Policy when full: the oldest is forgotten.
const REMEMBERED: usize = 1024;

/// Who waits for the outcome of a send.
pub(super) type SendReply = oneshot::Sender<Result<Sent, CallError>>;
/// Who waits for the outcome of a raw command.
pub(super) type InvokeReply = oneshot::Sender<Result<Invoked, CallError>>;

/// The commands of one session in flight.
#[derive(Debug)]
pub(super) struct Sends {
    last_id: u64,
    max_pending: usize,
    sends: HashMap<RequestId, PendingSend>,
    invokes: HashMap<RequestId, InvokeReply>,
    sent: HashMap<String, (Instant, Sent)>,
}

#[derive(Debug)]
struct PendingSend {
    client_message_id: String,
    replies: Vec<SendReply>,
}

impl Sends {
    pub(super) fn new(max_pending: usize) -> Self {
        Self {
            last_id: 0,
            max_pending,
            sends: HashMap::new(),
            invokes: HashMap::new(),
            sent: HashMap::new(),
        }
    }

    /// Admits a send, unless it repeats an earlier one: then it joins or is answered, and `None` comes back.
    pub(super) fn admit(&mut self, client_message_id: &str, reply: SendReply) -> Option<RequestId> {
        if !client_message_id.is_empty() {
            if let Some((at, sent)) = self.sent.get(client_message_id)
                && at.elapsed() < REMEMBERED_FOR
            {
                answer(reply, Ok(sent.clone()));
                return None;
            }
            let running = self
                .sends
                .values_mut()
                .find(|pending| pending.client_message_id == client_message_id);
            if let Some(running) = running {
                running.replies.push(reply);
                return None;
            }
        }
        if self.sends.len() >= self.max_pending {
            answer(reply, Err(CallError::SendsPending));
            return None;
        }
        let id = self.next_id();
        let client_message_id = client_message_id.to_owned();
        self.sends.insert(
            id,
            PendingSend {
                client_message_id,
                replies: vec![reply],
            },
        );
        Some(id)
    }

    /// Admits a raw command.
    pub(super) fn admit_invoke(&mut self, reply: InvokeReply) -> Option<RequestId> {
        if self.invokes.len() >= self.max_pending {
            answer(reply, Err(CallError::SendsPending));
            return None;
        }
        let id = self.next_id();
        self.invokes.insert(id, reply);
        Some(id)
    }

    /// The upstream answered.
    pub(super) fn answered(&mut self, id: RequestId, answer_: Answer) {
        let outcome = Outcome {
            code: answer_.code,
            desc: answer_.desc,
        };
        if let Some(reply) = self.invokes.remove(&id) {
            answer(
                reply,
                Ok(Invoked {
                    outcome,
                    body_json: answer_.body_json,
                }),
            );
        } else if let Some(pending) = self.sends.remove(&id) {
            let sent = Sent {
                outcome,
                message_id: answer_.message_id,
                sent_at: answer_.sent_at,
                upstream_sequence: answer_.upstream_sequence,
            };
            // What the upstream refused was not sent: a repetition is to try again.
            if sent.outcome.code == 0 && !pending.client_message_id.is_empty() {
                self.remember(pending.client_message_id, &sent);
            }
            for reply in pending.replies {
                answer(reply, Ok(sent.clone()));
            }
        }
    }

    /// The upstream did not answer.
    pub(super) fn unanswered(&mut self, id: RequestId) {
        if let Some(reply) = self.invokes.remove(&id) {
            answer(reply, Err(CallError::UpstreamUnanswered));
        }
        for reply in self
            .sends
            .remove(&id)
            .into_iter()
            .flat_map(|pending| pending.replies)
        {
            answer(reply, Err(CallError::UpstreamUnanswered));
        }
    }

    fn remember(&mut self, client_message_id: String, sent: &Sent) {
        if self.sent.len() >= REMEMBERED {
            self.sent.retain(|_, (at, _)| at.elapsed() < REMEMBERED_FOR);
        }
        if self.sent.len() >= REMEMBERED {
            let oldest = self.sent.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.sent.remove(&oldest);
            }
        }
        self.sent
            .insert(client_message_id, (Instant::now(), sent.clone()));
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
