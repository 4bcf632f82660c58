//! The in-memory twin of the durable stores, for unit tests and simulation.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::shares::Shares;
use super::{
    Batch, Claim, Committed, Lease, LogBounds, LogEntry, LogId, LogRead, Position, Renewal,
    Retention, Store, StoreError, StoredSend, StoredSession, StoredSubscription, Trimmed,
};
use crate::types::{AccountId, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis};

/// A store that forgets everything when it is dropped. Leases run out by `tokio::time::Instant`, so that tests
/// with paused time work. It can be told to be away, full or corrupt, to hang, and to lose its data.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    hanging: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    away: bool,
    full: bool,
    corrupt: bool,
    /// Events of each commit that was written.
    #[cfg(test)]
    commits: Vec<usize>,
    /// How often a log was read.
    #[cfg(test)]
    reads: usize,
    partitions: HashMap<PartitionId, Partition>,
    shares: Shares,
}

#[derive(Default)]
struct Partition {
    lease: Option<Held>,
    /// The latest given out; `None` before the first.
    epoch: Option<Epoch>,
    sessions: BTreeMap<AccountId, Vec<u8>>,
    sends: BTreeMap<(AccountId, String), Vec<u8>>,
    last_batch: u64,
    end: Position,
    entries: VecDeque<LogEntry>,
    bytes: u64,
    subscriptions: BTreeMap<String, (Position, UnixMillis)>,
}

struct Held {
    lease: Lease,
    until: Instant,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// While false, every call answers [`StoreError::Unavailable`] and changes nothing. Default true.
    pub fn set_available(&self, available: bool) {
        self.locked(|state| state.away = !available);
    }

    /// While true, a claim, a commit and a moved subscription answer [`StoreError::Full`] and change nothing;
    /// everything else works. Default false.
    pub fn set_full(&self, full: bool) {
        self.locked(|state| state.full = full);
    }

    /// While true, commits and reads answer [`StoreError::Corrupt`]. Default false.
    pub fn set_corrupt(&self, corrupt: bool) {
        self.locked(|state| state.corrupt = corrupt);
    }

    /// While true, commits and reads do not answer. Default false.
    pub fn set_hanging(&self, hanging: bool) {
        self.hanging.send_replace(hanging);
    }

    /// How many events each commit wrote that was written.
    #[cfg(test)]
    pub(crate) fn commits(&self) -> Vec<usize> {
        self.locked(|state| state.commits.clone())
    }

    /// How often a log was read.
    #[cfg(test)]
    pub(crate) fn reads(&self) -> usize {
        self.locked(|state| state.reads)
    }

    /// Loses its newest entries, as a server does that is replaced by a replica which lags behind.
    pub fn lose_newest(&self, partition: &PartitionId, count: usize) {
        self.locked(|state| {
            let entry = state.partition(partition);
            for _ in 0..count {
                if let Some(lost) = entry.entries.pop_back() {
                    entry.bytes = entry.bytes.saturating_sub(bytes(&lost.payload));
                    // Where it ended before that one was appended, which may have left a hole.
                    let last = entry.entries.back().map(|last| last.sequence);
                    entry.end.sequence = last.unwrap_or(lost.sequence - 1);
                }
            }
            entry.last_batch = 0;
        });
    }

    /// Loses all data, as a server does that is restarted empty.
    pub fn lose_data(&self) {
        self.locked(|state| {
            state.partitions.clear();
            state.shares = Shares::default();
        });
    }

    /// Answers when the store does not hang.
    async fn answering(&self) -> Result<(), StoreError> {
        let mut hanging = self.hanging.subscribe();
        // The sender lives as long as self.
        let _released = hanging.wait_for(|hanging| !hanging).await;
        if self.locked(|state| state.corrupt) {
            return Err(StoreError::Corrupt {
                place: "memory".into(),
                detail: "told to be corrupt".into(),
            });
        }
        Ok(())
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing here panics half-way through a change, so a poisoned state is whole.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` on the state unless the store is away.
    fn serving<T>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.locked(|state| {
            if state.away {
                return Err(StoreError::Unavailable("told to be away".into()));
            }
            work(state)
        })
    }
}

impl State {
    fn partition(&mut self, id: &PartitionId) -> &mut Partition {
        self.partitions.entry(id.clone()).or_default()
    }

    fn check_space(&self) -> Result<(), StoreError> {
        if self.full {
            return Err(StoreError::Full("told to be full".into()));
        }
        Ok(())
    }

    fn check_fence(&self, lease: &Lease) -> Result<(), StoreError> {
        let current = self
            .partitions
            .get(&lease.partition)
            .and_then(|partition| partition.epoch);
        if current == Some(lease.epoch) {
            Ok(())
        } else {
            Err(StoreError::fenced(lease, current))
        }
    }
}

impl Partition {
    fn held(&self, now: Instant) -> Option<&Held> {
        self.lease.as_ref().filter(|held| held.until > now)
    }

    fn write(&mut self, batch: &Batch) {
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
    }

    fn bounds(&self) -> LogBounds {
        let next = self.end.sequence.saturating_add(1);
        LogBounds {
            log: self.end.log,
            first_sequence: self.entries.front().map_or(next, |first| first.sequence),
            last_sequence: self.end.sequence,
        }
    }

    fn trim(&mut self, retention: &Retention) -> u64 {
        let mut dropped = 0;
        while let Some(oldest) = self.entries.front() {
            let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
            if count <= retention.events
                && self.bytes <= retention.bytes
                && oldest.appended_at >= retention.since
            {
                break;
            }
            self.bytes = self.bytes.saturating_sub(bytes(&oldest.payload));
            self.entries.pop_front();
            dropped += 1;
        }
        dropped
    }
}

fn bytes(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Epoch,
    ) -> Result<Claim, StoreError> {
        self.serving(|state| {
            let now = Instant::now();
            if let Some(held) = state.partition(partition).held(now)
                && held.lease.owner != *owner
            {
                return Ok(Claim::Held {
                    owner: held.lease.owner.clone(),
                    remaining: held.until - now,
                });
            }
            state.check_space()?;
            let entry = state.partition(partition);
            let latest = entry.epoch.unwrap_or_default().max(floor);
            let lease = Lease {
                partition: partition.clone(),
                owner: owner.clone(),
                epoch: Epoch(latest.0.saturating_add(1)),
            };
            entry.epoch = Some(lease.epoch);
            entry.lease = Some(Held {
                lease: lease.clone(),
                until: now + ttl,
            });
            Ok(Claim::Granted(lease))
        })
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError> {
        self.serving(|state| {
            let now = Instant::now();
            let entry = state.partition(&lease.partition);
            if entry.held(now).is_some_and(|held| held.lease == *lease) {
                entry.lease = Some(Held {
                    lease: lease.clone(),
                    until: now + ttl,
                });
                return Ok(Renewal::Renewed);
            }
            let later = entry.epoch.is_some_and(|epoch| epoch > lease.epoch);
            Ok(if later || entry.held(now).is_some() {
                Renewal::Lost
            } else {
                Renewal::Missing
            })
        })
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.serving(|state| {
            let entry = state.partition(&lease.partition);
            entry.lease.take_if(|held| held.lease == *lease);
            Ok(())
        })
    }

    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError> {
        self.answering().await?;
        self.serving(|state| {
            state.check_fence(lease)?;
            state.check_space()?;
            let entry = state.partition(&lease.partition);
            if batch.id == 0 || batch.id != entry.last_batch {
                entry.write(batch);
                #[cfg(test)]
                state.commits.push(batch.events.len());
            }
            let entry = state.partition(&lease.partition);
            Ok(Committed {
                log: entry.end.log,
                last_sequence: entry.end.sequence,
            })
        })
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.serving(|state| Ok(state.partition(partition).sessions.get(account).cloned()))
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        self.serving(|state| {
            let sessions = state.partition(partition).sessions.iter();
            Ok(sessions
                .map(|(account, record)| StoredSession {
                    account: account.clone(),
                    record: record.clone(),
                })
                .collect())
        })
    }

    async fn sends(&self, partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError> {
        self.serving(|state| {
            let sends = state.partition(partition).sends.iter();
            Ok(sends
                .map(|((account, client_message_id), record)| StoredSend {
                    account: account.clone(),
                    client_message_id: client_message_id.clone(),
                    record: record.clone(),
                })
                .collect())
        })
    }

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        self.serving(|state| Ok(state.partition(partition).bounds()))
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<LogRead, StoreError> {
        self.answering().await?;
        self.serving(|state| {
            #[cfg(test)]
            {
                state.reads += 1;
            }
            let partition = state.partition(partition);
            let entries = &partition.entries;
            let start = entries.partition_point(|entry| entry.sequence <= after);
            Ok(LogRead {
                entries: entries.iter().skip(start).take(limit).cloned().collect(),
                bounds: partition.bounds(),
            })
        })
    }

    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError> {
        self.serving(|state| {
            state.check_fence(lease)?;
            let dropped = state.partition(&lease.partition).trim(retention);
            Ok(Trimmed {
                dropped,
                more: false,
            })
        })
    }

    async fn growth(&self) -> Result<BoxStream<'static, (PartitionId, Position)>, StoreError> {
        // One process writes it and knows what it has written.
        Ok(stream::pending().boxed())
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        self.serving(|state| {
            let stored = state.partition(partition).subscriptions.get(name);
            Ok(stored.map(|(position, _)| *position))
        })
    }

    async fn subscriptions(
        &self,
        partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        self.serving(|state| {
            let stored = state.partition(partition).subscriptions.iter();
            Ok(stored
                .map(|(name, (position, used_at))| StoredSubscription {
                    name: name.clone(),
                    position: *position,
                    used_at: *used_at,
                })
                .collect())
        })
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.serving(|state| {
            state.check_space()?;
            let entry = state.partition(partition);
            let present = entry.end.log;
            let (stored, used_at) = entry
                .subscriptions
                .entry(name.into())
                .or_insert((*position, now));
            if position.moves(Some(stored), present) {
                *stored = *position;
            }
            *used_at = now.max(*used_at);
            Ok(())
        })
    }

    async fn remove_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        self.serving(|state| {
            let subscriptions = &mut state.partition(partition).subscriptions;
            let unused = |used_at: &UnixMillis| unused_since.is_none_or(|since| *used_at < since);
            let goes = subscriptions
                .get(name)
                .is_some_and(|(_, used_at)| unused(used_at));
            if goes {
                subscriptions.remove(name);
            }
            Ok(goes)
        })
    }

    async fn attend(
        &self,
        tenant: &TenantId,
        subscription: &str,
        member: &MemberId,
        ttl: Option<Duration>,
    ) -> Result<Vec<MemberId>, StoreError> {
        self.serving(|state| Ok(state.shares.attend(tenant, subscription, member, ttl)))
    }

    async fn members(
        &self,
        tenant: &TenantId,
        subscription: &str,
    ) -> Result<Vec<MemberId>, StoreError> {
        self.serving(|state| Ok(state.shares.members(tenant, subscription)))
    }

    async fn claim_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.serving(|state| Ok(state.shares.claim(partition, subscription, member, ttl)))
    }

    async fn release_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
    ) -> Result<(), StoreError> {
        self.serving(|state| {
            state.shares.release(partition, subscription, member);
            Ok(())
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.serving(|_| Ok(()))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TenantId;

    const TTL: Duration = Duration::from_secs(10);

    fn partition() -> PartitionId {
        PartitionId {
            tenant: TenantId::new("t"),
            number: 0,
        }
    }

    async fn claim(store: &MemoryStore, owner: &str) -> Claim {
        store
            .claim(&partition(), &ReplicaId::new(owner), TTL, Epoch(0))
            .await
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_on_the_paused_clock() {
        let store = MemoryStore::new();
        let Claim::Granted(lease) = claim(&store, "a").await else {
            panic!("refused");
        };
        tokio::time::advance(TTL - Duration::from_secs(1)).await;
        let owner = ReplicaId::new("a");
        let remaining = Duration::from_secs(1);
        assert_eq!(claim(&store, "b").await, Claim::Held { owner, remaining });

        assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Renewed);
        tokio::time::advance(TTL - Duration::from_secs(1)).await;
        assert!(matches!(claim(&store, "b").await, Claim::Held { .. }));

        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Missing);
        assert!(matches!(claim(&store, "b").await, Claim::Granted(_)));
        assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Lost);
    }

    #[tokio::test]
    async fn it_can_be_away_and_be_full() {
        let store = MemoryStore::new();
        let Claim::Granted(lease) = claim(&store, "a").await else {
            panic!("refused");
        };
        let batch = Batch {
            events: vec![b"one".to_vec()],
            ..Batch::default()
        };
        store.set_available(false);
        let away = store.commit(&lease, &batch).await.unwrap_err();
        assert!(matches!(away, StoreError::Unavailable(_)));
        assert!(store.ping().await.is_err());

        store.set_available(true);
        store.set_full(true);
        let full = store.commit(&lease, &batch).await.unwrap_err();
        assert!(matches!(full, StoreError::Full(_)));
        assert_eq!(store.read(&partition(), 0, 9).await.unwrap().entries, []);

        store.set_full(false);
        assert_eq!(store.commit(&lease, &batch).await.unwrap().last_sequence, 1);
    }

    #[tokio::test]
    async fn lost_data_fences_the_owner_and_begins_another_log() {
        let store = MemoryStore::new();
        let batch = Batch {
            events: vec![b"one".to_vec()],
            ..Batch::default()
        };
        let Claim::Granted(lease) = claim(&store, "a").await else {
            panic!("refused");
        };
        let before = store.commit(&lease, &batch).await.unwrap();
        store.lose_data();
        assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Missing);
        assert!(matches!(
            store.commit(&lease, &batch).await.unwrap_err(),
            StoreError::Fenced { current: None, .. }
        ));
        let Claim::Granted(lease) = claim(&store, "a").await else {
            panic!("refused");
        };
        let after = store.commit(&lease, &batch).await.unwrap();
        assert_eq!(after.last_sequence, 1);
        assert_ne!(after.log, before.log);
    }
}
