//! What the memory store holds of one partition.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::store::{
    Arrival, Batch, BatchId, Lease, LogBounds, LogEntry, LogId, LogRead, Position, Retention,
    StoredSend, StoredSession, StoredSubscription, TRIM_ENTRIES, Trimmed,
};
use crate::types::{AccountId, Epoch, UnixMillis};

/// One of its partitions.
#[derive(Clone, Default)]
pub(crate) struct Partition {
    pub(super) lease: Option<Held>,
    /// The latest given out; `None` before the first.
    pub(super) epoch: Option<Epoch>,
    sessions: BTreeMap<AccountId, Vec<u8>>,
    additions: BTreeMap<AccountId, Vec<u8>>,
    sends: BTreeMap<(AccountId, String), Vec<u8>>,
    last_batch: BatchId,
    end: Position,
    /// The last sequence that trimming has left behind.
    trimmed: u64,
    entries: VecDeque<LogEntry>,
    bytes: u64,
    subscriptions: BTreeMap<String, (Position, UnixMillis)>,
}

#[derive(Clone)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) until: Instant,
}

impl Partition {
    pub(super) fn held(&self, now: Instant) -> Option<&Held> {
        self.lease.as_ref().filter(|held| held.until > now)
    }

    /// Forgets all but the epoch and the lease.
    pub(super) fn purge(&mut self) {
        *self = Self {
            lease: self.lease.take(),
            epoch: self.epoch,
            ..Self::default()
        };
    }

    pub(super) fn end(&self) -> Position {
        self.end
    }

    pub(super) fn last_batch(&self) -> BatchId {
        self.last_batch
    }

    /// Writes a batch if it is a new one.
    pub(super) fn write(&mut self, batch: &Batch) -> Arrival {
        let arrival = batch.id.after(self.last_batch);
        if arrival != Arrival::New {
            return arrival;
        }
        if !batch.events.is_empty() {
            self.end = batch.begins_after(self.end);
            if self.end.log == LogId::default() {
                self.end.log = LogId::random();
            }
        }
        for payload in &batch.events {
            self.end.sequence += 1;
            self.bytes += bytes(payload);
            self.entries.push_back(LogEntry {
                sequence: self.end.sequence,
                appended_at: batch.now,
                payload: payload.clone(),
            });
        }
        for session in &batch.records {
            self.sessions
                .insert(session.account.clone(), session.record.clone());
            self.additions.remove(&session.account);
        }
        for added in &batch.additions {
            self.additions
                .insert(added.account.clone(), added.record.clone());
        }
        for send in &batch.sends {
            let key = (send.account.clone(), send.client_message_id.clone());
            if send.record.is_empty() {
                self.sends.remove(&key);
            } else {
                self.sends.insert(key, send.record.clone());
            }
        }
        self.last_batch = batch.id;
        Arrival::New
    }

    pub(super) fn session(&self, account: &AccountId) -> Option<Vec<u8>> {
        let record = self.sessions.get(account)?;
        Some(self.with_addition(account, record))
    }

    pub(super) fn sessions(&self) -> Vec<StoredSession> {
        let sessions = self.sessions.iter();
        sessions
            .map(|(account, record)| StoredSession {
                account: account.clone(),
                record: self.with_addition(account, record),
            })
            .collect()
    }

    fn with_addition(&self, account: &AccountId, record: &[u8]) -> Vec<u8> {
        let addition = self.additions.get(account).map_or(&[][..], Vec::as_slice);
        [record, addition].concat()
    }

    pub(super) fn sends(&self) -> Vec<StoredSend> {
        let sends = self.sends.iter();
        sends
            .map(|((account, client_message_id), record)| StoredSend {
                account: account.clone(),
                client_message_id: client_message_id.clone(),
                record: record.clone(),
            })
            .collect()
    }

    pub(super) fn bounds(&self) -> LogBounds {
        LogBounds {
            log: self.end.log,
            first_sequence: self.trimmed.saturating_add(1),
            last_sequence: self.end.sequence,
        }
    }

    pub(super) fn read(&self, after: u64, limit: usize) -> LogRead {
        let start = self
            .entries
            .partition_point(|entry| entry.sequence <= after);
        LogRead {
            entries: self
                .entries
                .iter()
                .skip(start)
                .take(limit)
                .cloned()
                .collect(),
            bounds: self.bounds(),
        }
    }

    pub(super) fn trim(&mut self, retention: &Retention) -> Trimmed {
        let mut trimmed = Trimmed::default();
        while let Some(oldest) = self.entries.front() {
            let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
            let exceeded = retention.exceeded(oldest.appended_at, count, self.bytes);
            trimmed.more = exceeded.is_some() && trimmed.dropped() == TRIM_ENTRIES;
            let Some(bound) = exceeded.filter(|_| !trimmed.more) else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(bytes(&oldest.payload));
            self.entries.pop_front();
            trimmed.count(bound);
        }
        if trimmed.dropped() > 0 {
            let first = self.entries.front();
            self.trimmed = first.map_or(self.end.sequence, |first| first.sequence - 1);
        }
        trimmed
    }

    pub(super) fn lose_newest(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(lost) = self.entries.pop_back() {
                self.bytes = self.bytes.saturating_sub(bytes(&lost.payload));
                let newest = self.entries.back();
                self.end.sequence = newest.map_or(self.trimmed, |newest| newest.sequence);
            }
        }
        self.last_batch = BatchId::default();
    }

    pub(super) fn subscription(&self, name: &str) -> Option<Position> {
        self.subscriptions.get(name).map(|(position, _)| *position)
    }

    pub(super) fn subscriptions(&self) -> Vec<StoredSubscription> {
        let subscriptions = self.subscriptions.iter();
        subscriptions
            .map(|(name, (position, used_at))| StoredSubscription {
                name: name.clone(),
                position: *position,
                used_at: *used_at,
            })
            .collect()
    }

    pub(super) fn advance(
        &mut self,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> bool {
        if only_if_there && !self.subscriptions.contains_key(name) {
            return false;
        }
        let (stored, used_at) = self
            .subscriptions
            .entry(name.into())
            .or_insert((*position, now));
        if position.moves(Some(stored), self.end.log) {
            *stored = *position;
        }
        *used_at = now.max(*used_at);
        true
    }

    pub(super) fn remove(&mut self, name: &str, unused_since: Option<UnixMillis>) -> bool {
        let Some((_, used_at)) = self.subscriptions.get(name) else {
            return false;
        };
        let goes = unused_since.is_none_or(|since| *used_at < since);
        if goes {
            self.subscriptions.remove(name);
        }
        goes
    }
}

fn bytes(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}
