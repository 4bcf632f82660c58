//! The in-memory twin of the durable stores, for unit tests and simulation.

mod partition;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::Instant;

use self::partition::Held;
pub(crate) use self::partition::Partition;
use super::active::ActiveDays;
use super::shares::Shares;
use super::turns::LocalTurns;
use super::{
    Arrival, Batch, BatchId, Claim, Committed, Lease, LogBounds, LogRead, Position, Renewal,
    Retention, Store, StoreError, StoredSend, StoredSession, StoredSubscription, TenantLayout,
    Trimmed, Turns,
};
use crate::types::{
    AccountId, AppId, Day, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis,
};

/// A store that forgets everything when it is dropped. Leases run out by `tokio::time::Instant`, so that tests
/// with paused time work. It can be told to be away, full or corrupt, to hang, and to lose its data.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    hanging: watch::Sender<bool>,
    trims_hanging: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    away: bool,
    full: bool,
    corrupt: bool,
    /// How many commits are written and answered as if the store were away.
    lost_answers: usize,
    #[cfg(test)]
    panicking: bool,
    /// Events of each commit that was written.
    commits: Vec<usize>,
    /// How often a log was read.
    #[cfg(test)]
    reads: usize,
    /// Of which partition the subscriptions cannot be read.
    #[cfg(test)]
    unreadable: Option<PartitionId>,
    partitions: HashMap<PartitionId, Partition>,
    shares: Shares,
    turns: LocalTurns,
    active: ActiveDays,
    tenants: BTreeMap<TenantId, TenantLayout>,
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

    /// Writes the next `count` commits and loses the answers, which are [`StoreError::Unavailable`] then.
    pub fn lose_answers(&self, count: usize) {
        self.locked(|state| state.lost_answers = count);
    }

    /// While true, trims do not answer. Default false.
    pub fn set_trims_hanging(&self, hanging: bool) {
        self.trims_hanging.send_replace(hanging);
    }

    /// From now on a commit panics.
    #[cfg(test)]
    pub(crate) fn panic_on_commit(&self) {
        self.locked(|state| state.panicking = true);
    }

    /// From now on the subscriptions of this partition, and of no other, cannot be read.
    #[cfg(test)]
    pub(crate) fn corrupt_subscriptions(&self, partition: Option<PartitionId>) {
        self.locked(|state| state.unreadable = partition);
    }

    /// How many events each commit wrote that was written, whatever became of them.
    pub fn commits(&self) -> Vec<usize> {
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
            state.partition(partition).lose_newest(count);
        });
    }

    /// What it holds now, for [`MemoryStore::fall_back`].
    #[cfg(test)]
    pub(crate) fn copy(&self) -> HashMap<PartitionId, Partition> {
        self.locked(|state| state.partitions.clone())
    }

    /// Holds again what it held, but for the leases: as a server does that is replaced by a replica which lags behind
    /// and knows of them.
    #[cfg(test)]
    pub(crate) fn fall_back(&self, copy: HashMap<PartitionId, Partition>) {
        self.locked(|state| {
            for (id, mut former) in copy {
                let present = state.partition(&id);
                (former.lease, former.epoch) = (present.lease.take(), present.epoch);
                *present = former;
            }
        });
    }

    /// Loses all data, as a server does that is restarted empty.
    pub fn lose_data(&self) {
        self.locked(|state| {
            state.partitions.clear();
            state.shares = Shares::default();
            state.active = ActiveDays::default();
            state.turns = LocalTurns::default();
            state.tenants.clear();
        });
    }

    /// Answers when the store does not hang.
    async fn answering(&self) -> Result<(), StoreError> {
        let mut hanging = self.hanging.subscribe();
        // The sender lives as long as self.
        let _released = hanging.wait_for(|hanging| !hanging).await;
        if self.locked(|state| state.corrupt) {
            return Err(corrupt());
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

#[async_trait]
impl Store for MemoryStore {
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Option<Epoch>,
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
            let Some(known) = state.partition(partition).epoch.max(floor) else {
                return Ok(Claim::Unknown);
            };
            state.check_space()?;
            let entry = state.partition(partition);
            let lease = Lease {
                partition: partition.clone(),
                owner: owner.clone(),
                epoch: Epoch(known.0.saturating_add(1)),
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
        #[cfg(test)]
        assert!(!self.locked(|state| state.panicking), "told to panic");
        self.serving(|state| {
            state.check_fence(lease)?;
            state.check_space()?;
            let entry = state.partition(&lease.partition);
            let arrival = entry.write(batch);
            let end = entry.end();
            match arrival {
                Arrival::New => state.commits.push(batch.events.len()),
                Arrival::Again => {}
                Arrival::Late => return Err(StoreError::fenced(lease, Some(lease.epoch))),
            }
            if state.lost_answers > 0 {
                state.lost_answers -= 1;
                return Err(StoreError::Unavailable("told to lose the answer".into()));
            }
            Ok(Committed {
                log: end.log,
                last_sequence: end.sequence,
            })
        })
    }

    async fn last_batch(&self, partition: &PartitionId) -> Result<BatchId, StoreError> {
        self.serving(|state| Ok(state.partition(partition).last_batch()))
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.serving(|state| Ok(state.partition(partition).session(account)))
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        self.serving(|state| Ok(state.partition(partition).sessions()))
    }

    async fn sends(&self, partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError> {
        self.serving(|state| Ok(state.partition(partition).sends()))
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
            Ok(state.partition(partition).read(after, limit))
        })
    }

    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError> {
        let mut hanging = self.trims_hanging.subscribe();
        // The sender lives as long as self.
        let _released = hanging.wait_for(|hanging| !hanging).await;
        self.serving(|state| {
            state.check_fence(lease)?;
            Ok(state.partition(&lease.partition).trim(retention))
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
        self.serving(|state| Ok(state.partition(partition).subscription(name)))
    }

    async fn subscriptions(
        &self,
        partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        self.serving(|state| {
            #[cfg(test)]
            if state.unreadable.as_ref() == Some(partition) {
                return Err(corrupt());
            }
            Ok(state.partition(partition).subscriptions())
        })
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> Result<bool, StoreError> {
        self.serving(|state| {
            state.check_space()?;
            let partition = state.partition(partition);
            Ok(partition.advance(name, position, now, only_if_there))
        })
    }

    async fn remove_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        self.serving(|state| {
            let removed = state.partition(partition).remove(name, unused_since);
            if removed {
                state.shares.forget(partition, name);
            }
            Ok(removed)
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

    async fn take_turns(
        &self,
        app: &AppId,
        per_second: u32,
        most: u32,
    ) -> Result<Turns, StoreError> {
        self.answering().await?;
        self.serving(|state| Ok(state.turns.take(app, per_second, most)))
    }

    async fn note_active(
        &self,
        tenant: &TenantId,
        day: Day,
        accounts: &[AccountId],
    ) -> Result<u64, StoreError> {
        self.serving(|state| {
            if !accounts.is_empty() {
                state.check_space()?;
            }
            Ok(state.active.note(tenant, day, accounts))
        })
    }

    async fn enrol(
        &self,
        tenant: &TenantId,
        layout: TenantLayout,
    ) -> Result<TenantLayout, StoreError> {
        self.serving(|state| Ok(*state.tenants.entry(tenant.clone()).or_insert(layout)))
    }

    async fn enrolled(&self) -> Result<Vec<(TenantId, TenantLayout)>, StoreError> {
        self.serving(|state| {
            let tenants = state.tenants.iter();
            Ok(tenants
                .map(|(tenant, layout)| (tenant.clone(), *layout))
                .collect())
        })
    }

    async fn strike(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.serving(|state| {
            state.tenants.remove(tenant);
            state.active.forget(tenant);
            Ok(())
        })
    }

    async fn purge(&self, lease: &Lease) -> Result<(), StoreError> {
        self.serving(|state| {
            state.check_fence(lease)?;
            state.partition(&lease.partition).purge();
            Ok(())
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.serving(|_| Ok(()))
    }
}

fn corrupt() -> StoreError {
    StoreError::Corrupt {
        place: "memory".into(),
        detail: "told to be corrupt".into(),
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
