//! What a session remembers of sends with a client message ID, so that a repetition does not send twice. Pure.
//!
//! The store has the same: an intent before the message goes out, its outcome before the caller is answered.

use std::collections::VecDeque;
use std::time::Duration;

use aws_lc_rs::digest;
use prost::Message as _;
use tracing::error;

use crate::connectors::{Conversation, OutgoingMessage, RequestId};
use crate::proto::record::{SendOutcome, SendRecord};
use crate::proto::v1;
use crate::runtime::handle::{Outcome, Sent};
use crate::store::StoredSend;
use crate::types::UnixMillis;

/// For how long a repetition is answered as the first one was.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// How many sends a session remembers. Policy when full: the oldest that is not in flight is forgotten.
const REMEMBERED: usize = 1024;
/// For how long after it was asked for a message may go out once more. The upstream knows a double for 5 minutes; ten
/// seconds of that are for the way.
pub(in crate::runtime) const REPEATABLE_FOR: Duration = Duration::from_secs(290);
/// How much of the SHA-256 tells one message from another.
const DIGEST: usize = 16;

/// What tells a message from others: where it goes and all that it says, but not its ID.
pub(in crate::runtime) type Digest = [u8; DIGEST];

/// The sends of one session that are remembered, oldest first.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Remembered(VecDeque<Entry>);

/// What is remembered of one send.
#[derive(Debug)]
pub(in crate::runtime) struct Entry {
    pub(in crate::runtime) client_message_id: String,
    /// When it was first asked for.
    pub(in crate::runtime) asked: UnixMillis,
    /// The client time that it was and will be sent with, Unix seconds.
    pub(in crate::runtime) client_time: u64,
    /// `None` if the record of it has none.
    digest: Option<Digest>,
    /// What the upstream answered, if that is known.
    pub(in crate::runtime) outcome: Option<Box<Sent>>,
    /// It may have reached the upstream without an answer that is known.
    pub(in crate::runtime) in_doubt: bool,
    /// The request that is under way for it.
    pub(in crate::runtime) request: Option<RequestId>,
}

/// The digest of a message.
pub(in crate::runtime) fn digest(message: &OutgoingMessage) -> Digest {
    use v1::send_request::Conversation as To;
    let content = v1::SendRequest {
        account: String::new(),
        conversation: Some(match &message.conversation {
            Conversation::User(user) => To::To(user.clone()),
            Conversation::Group(group) => To::Group(group.clone()),
        }),
        elements: message.elements.clone(),
        client_message_id: String::new(),
        cloud_custom_data: message.cloud_custom_data.clone(),
        online_only: message.online_only,
    };
    let whole = digest::digest(&digest::SHA256, &content.encode_to_vec());
    let mut digest = [0; DIGEST];
    for (byte, of_whole) in digest.iter_mut().zip(whole.as_ref()) {
        *byte = *of_whole;
    }
    digest
}

impl Remembered {
    /// What the store has, and the IDs of what is to be forgotten there.
    pub(in crate::runtime) fn restore(
        stored: Vec<StoredSend>,
        now: UnixMillis,
    ) -> (Self, Vec<String>) {
        let mut forgotten = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        for send in stored {
            match SendRecord::decode(send.record.as_slice()) {
                Ok(record) => entries.push(Entry::restore(send.client_message_id, record)),
                Err(error) => {
                    error!(account = %send.account, %error, "a stored send cannot be read; it is forgotten");
                    forgotten.push(send.client_message_id);
                }
            }
        }
        entries.sort_by_key(|entry| entry.asked);
        let mut remembered = Self(entries.into());
        while remembered.0.len() > REMEMBERED {
            forgotten.extend(
                remembered
                    .0
                    .pop_front()
                    .map(|oldest| oldest.client_message_id),
            );
        }
        forgotten.extend(remembered.expire(now));
        (remembered, forgotten)
    }

    /// What is remembered of an ID.
    pub(in crate::runtime) fn find(&mut self, client_message_id: &str) -> Option<&mut Entry> {
        let mut newest_first = self.0.iter_mut().rev();
        newest_first.find(|entry| entry.client_message_id == client_message_id)
    }

    /// Remembers that a message was asked for. Answers the ID that had to make room for it.
    pub(in crate::runtime) fn begin(
        &mut self,
        client_message_id: String,
        digest: Digest,
        now: UnixMillis,
        request: RequestId,
    ) -> Option<String> {
        let mut removed = None;
        if self.0.len() >= REMEMBERED
            && let Some(oldest) = self.0.iter().position(|entry| entry.request.is_none())
        {
            removed = self.0.remove(oldest).map(|entry| entry.client_message_id);
        }
        self.0.push_back(Entry {
            client_message_id,
            asked: now,
            client_time: now.as_secs(),
            digest: Some(digest),
            outcome: None,
            in_doubt: false,
            request: Some(request),
        });
        removed
    }

    /// Forgets an ID.
    pub(in crate::runtime) fn forget(&mut self, client_message_id: &str) {
        self.0
            .retain(|entry| entry.client_message_id != client_message_id);
    }

    /// Forgets what is too old; answers which IDs these were.
    pub(in crate::runtime) fn expire(&mut self, now: UnixMillis) -> Vec<String> {
        let mut expired = Vec::new();
        while let Some(oldest) = self.0.pop_front_if(|entry| {
            entry.request.is_none() && now.since(entry.asked) >= REMEMBERED_FOR
        }) {
            expired.push(oldest.client_message_id);
        }
        expired
    }

    /// When nothing is remembered any more; `None` if nothing is.
    pub(in crate::runtime) fn until(&self) -> Option<UnixMillis> {
        self.0
            .back()
            .map(|newest| newest.asked.plus(REMEMBERED_FOR))
    }

    pub(in crate::runtime) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

impl Entry {
    fn restore(client_message_id: String, record: SendRecord) -> Self {
        let outcome = record.outcome.map(|outcome| {
            Box::new(Sent {
                outcome: Outcome {
                    code: 0,
                    desc: outcome.desc,
                },
                message_id: outcome.message_id,
                sent_at: outcome.sent_at,
                upstream_sequence: outcome.upstream_sequence,
            })
        });
        Self {
            client_message_id,
            asked: UnixMillis(record.asked_ms),
            client_time: record.client_time,
            digest: record.digest.try_into().ok(),
            in_doubt: outcome.is_none(),
            outcome,
            request: None,
        }
    }

    /// For the store.
    pub(in crate::runtime) fn record(&self) -> Vec<u8> {
        let outcome = self.outcome.as_ref().map(|sent| SendOutcome {
            desc: sent.outcome.desc.clone(),
            message_id: sent.message_id.clone(),
            sent_at: sent.sent_at,
            upstream_sequence: sent.upstream_sequence,
        });
        let record = SendRecord {
            asked_ms: self.asked.0,
            client_time: self.client_time,
            outcome,
            digest: self.digest.map(Vec::from).unwrap_or_default(),
        };
        record.encode_to_vec()
    }

    /// Whether it is this message.
    pub(in crate::runtime) fn is(&self, digest: &Digest) -> bool {
        self.digest.is_none_or(|own| own == *digest)
    }

    /// For how much longer it may go out.
    pub(in crate::runtime) fn repeatable_for(&self, now: UnixMillis) -> Duration {
        REPEATABLE_FOR.saturating_sub(now.since(self.asked))
    }
}
