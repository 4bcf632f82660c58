//! The in-memory twin of the durable stores, for unit tests and simulation.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Batch, Claim, Committed, Lease, LogBounds, LogEntry, LogId, Position, Renewal, Store,
    StoreError, StoredSession,
};
use crate::types::{AccountId, Epoch, PartitionId, ReplicaId};

/// A store that forgets everything when it is dropped. Leases run out by `tokio::time::Instant`, so that tests
/// with paused time work. It can be told to be away, to be full and to lose its data.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    away: bool,
    full: bool,
    partitions: HashMap<PartitionId, Partition>,
}

#[derive(Default)]
struct Partition {
    lease: Option<Held>,
    /// The latest given out; `None` before the first.
    epoch: Option<Epoch>,
    sessions: BTreeMap<AccountId, Vec<u8>>,
    log: LogId,
    last_sequence: u64,
    entries: VecDeque<LogEntry>,
    subscriptions: HashMap<String, Position>,
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

    /// Loses all data, as a server does that is restarted empty.
    pub fn lose_data(&self) {
        self.locked(|state| state.partitions.clear());
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

    fn append(&mut self, batch: &Batch) {
        if !batch.events.is_empty() && self.log == LogId::default() {
            self.log = LogId::random();
        }
        for payload in &batch.events {
            self.last_sequence += 1;
            self.entries.push_back(LogEntry {
                sequence: self.last_sequence,
                appended_at: batch.now,
                payload: payload.clone(),
            });
        }
    }
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
        self.serving(|state| {
            state.check_fence(lease)?;
            state.check_space()?;
            let entry = state.partition(&lease.partition);
            entry.append(batch);
            for session in &batch.records {
                entry
                    .sessions
                    .insert(session.account.clone(), session.record.clone());
            }
            Ok(Committed {
                log: entry.log,
                last_sequence: entry.last_sequence,
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

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        self.serving(|state| {
            let entry = state.partition(partition);
            let next = entry.last_sequence.saturating_add(1);
            Ok(LogBounds {
                log: entry.log,
                first_sequence: entry.entries.front().map_or(next, |first| first.sequence),
                last_sequence: entry.last_sequence,
            })
        })
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.serving(|state| {
            let entries = &state.partition(partition).entries;
            let start = entries.partition_point(|entry| entry.sequence <= after);
            Ok(entries.iter().skip(start).take(limit).cloned().collect())
        })
    }

    async fn trim(&self, lease: &Lease, first_kept: u64) -> Result<(), StoreError> {
        self.serving(|state| {
            state.check_fence(lease)?;
            let entries = &mut state.partition(&lease.partition).entries;
            let kept = entries.partition_point(|entry| entry.sequence < first_kept);
            entries.drain(..kept);
            Ok(())
        })
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        self.serving(|state| Ok(state.partition(partition).subscriptions.get(name).copied()))
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
    ) -> Result<(), StoreError> {
        self.serving(|state| {
            let entry = state.partition(partition);
            let stored = entry.subscriptions.get(name);
            if position.moves(stored, entry.log) {
                state.check_space()?;
                let entry = state.partition(partition);
                entry.subscriptions.insert(name.into(), *position);
            }
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
        assert_eq!(store.read(&partition(), 0, 9).await.unwrap(), []);

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
