//! Keeps the leases of this replica's partitions, and tells the runtime what it may hold.
//!
//! A store that does not answer is not a lost lease: sessions go on, and the lease is renewed when the store is
//! back. A lease that the store has forgotten is claimed again, with a greater epoch; one that is another's is lost,
//! and the partition's sessions close at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, info, warn};

use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::Tasks;
use crate::store::{Claim, Lease, Renewal, Store};
use crate::types::{Epoch, PartitionId, ReplicaId};

/// Leases lost to another replica.
const LEASES_LOST: &str = "imgate_cluster_leases_lost_total";
/// Partitions held.
const PARTITIONS: &str = "imgate_cluster_partitions";
/// How often a partition that is not held is tried for.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// Declares the metrics and starts them at zero.
pub fn describe_metrics() {
    describe_counter!(
        LEASES_LOST,
        Unit::Count,
        "Partitions lost to another replica"
    );
    describe_gauge!(
        PARTITIONS,
        Unit::Count,
        "Partitions that this replica holds"
    );
    counter!(LEASES_LOST).absolute(0);
    gauge!(PARTITIONS).set(0.0);
}

/// Who keeps which leases, and how.
#[derive(Debug)]
pub struct Ownership {
    /// Where the leases are.
    pub store: Arc<dyn Store>,
    /// Who keeps them.
    pub replica: ReplicaId,
    /// How long a lease lasts; it is renewed after a third of that.
    pub ttl: Duration,
    /// Who is told.
    pub gateway: Gateway,
    /// What is to be held, and where its writer looks for the lease.
    pub partitions: HashMap<PartitionId, watch::Sender<Option<Lease>>>,
    /// Partitions whose new claim was not answered: the store may have granted it, and then refuses the old lease.
    pub unsure: HashSet<PartitionId>,
    /// Partitions whose lease a write found refused.
    pub fenced: mpsc::Receiver<PartitionId>,
    /// What is to be held, and no more to be held, from now on.
    pub changes: mpsc::Receiver<Change>,
    /// True once everything is held.
    pub complete: watch::Sender<bool>,
}

/// A change of what is to be held.
#[derive(Debug)]
pub enum Change {
    /// These as well.
    Hold(HashMap<PartitionId, watch::Sender<Option<Lease>>>),
    /// These no more: nothing writes there any longer. Their leases are given back, and then the answer is dropped.
    LetGo(Vec<PartitionId>, oneshot::Sender<()>),
}

/// How things stand with a partition after it was seen to.
enum Seen {
    /// Held or not, the store said so, or has not been asked for anything new.
    Settled,
    /// A new claim was not answered.
    Unsure,
    /// It was lost to another.
    Lost,
}

impl Ownership {
    /// Claims and renews until told to stop. Then call [`Ownership::release`], when nothing writes any more.
    pub async fn run(&mut self, tasks: &Tasks) {
        let mut renew = tokio::time::interval(self.ttl / 3);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claim = tokio::time::interval_at(Instant::now() + CLAIM_EVERY, CLAIM_EVERY);
        claim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due: Vec<PartitionId> = tokio::select! {
                biased;
                () = tasks.stopping() => return,
                Some(change) = self.changes.recv() => self.change(change).await,
                Some(partition) = self.fenced.recv() => vec![partition],
                _ = renew.tick() => self.partitions.keys().cloned().collect(),
                _ = claim.tick() => self.not_held(),
            };
            for partition in due {
                tokio::select! {
                    biased;
                    () = tasks.stopping() => return,
                    seen = self.see_to(&partition) => self.note(partition, seen),
                }
            }
            self.report();
        }
    }

    /// Tells how many partitions are held, and whether all are. The gateway's own is not among them: without it no
    /// session is missing.
    fn report(&self) {
        let tenants = self.partitions.iter();
        let tenants = tenants.filter(|(partition, _)| !partition.tenant.is_reserved());
        let (held, missing): (Vec<_>, Vec<_>) =
            tenants.partition(|(_, lease)| lease.borrow().is_some());
        gauge!(PARTITIONS).set(u32::try_from(held.len()).unwrap_or(u32::MAX));
        self.complete.send_replace(missing.is_empty());
    }

    /// Gives all leases back, so that another replica need not wait for them to run out.
    pub async fn release(&mut self) {
        for keeper in self.partitions.values() {
            self.give_back(keeper).await;
        }
    }

    async fn give_back(&self, keeper: &watch::Sender<Option<Lease>>) {
        let Some(lease) = keeper.send_replace(None) else {
            return;
        };
        if let Err(error) = self.store.release(&lease).await {
            warn!(partition = %lease.partition, %error, "the lease is left to run out");
        }
    }

    /// Makes a change; answers which partitions are to be seen to at once.
    async fn change(&mut self, change: Change) -> Vec<PartitionId> {
        match change {
            Change::Hold(more) => {
                let due = more.keys().cloned().collect();
                self.partitions.extend(more);
                due
            }
            Change::LetGo(partitions, _done) => {
                for partition in partitions {
                    self.unsure.remove(&partition);
                    if let Some(keeper) = self.partitions.remove(&partition) {
                        self.give_back(&keeper).await;
                    }
                }
                Vec::new()
            }
        }
    }

    fn not_held(&self) -> Vec<PartitionId> {
        let held = |lease: &watch::Sender<Option<Lease>>| lease.borrow().is_some();
        let missing = self.partitions.iter().filter(|(_, lease)| !held(lease));
        missing.map(|(partition, _)| partition.clone()).collect()
    }

    fn note(&mut self, partition: PartitionId, seen: Seen) {
        match seen {
            Seen::Settled => {
                self.unsure.remove(&partition);
            }
            Seen::Unsure => {
                self.unsure.insert(partition);
            }
            Seen::Lost => {
                self.unsure.remove(&partition);
                self.step_back();
            }
        }
    }

    /// A process that lost a lease does not claim as the restart of whoever has it: two processes with one replica
    /// ID would take every partition from each other for ever. It waits until the lease is free.
    fn step_back(&mut self) {
        let name = self.replica.as_str();
        let name = name.split_once('~').map_or(name, |(name, _)| name);
        self.replica = ReplicaId::new(format!("{name}~{:08x}", rand::random::<u32>()));
    }

    /// Claims or renews one partition.
    async fn see_to(&self, partition: &PartitionId) -> Seen {
        let Some(keeper) = self.partitions.get(partition) else {
            return Seen::Settled;
        };
        let held = keeper.borrow().clone();
        let Some(lease) = held else {
            return self.claim(partition, keeper, None).await;
        };
        if self.unsure.contains(partition) {
            return self.claim(partition, keeper, Some(lease)).await;
        }
        match self.store.renew(&lease, self.ttl).await {
            Ok(Renewal::Renewed) => Seen::Settled,
            Ok(Renewal::Missing) => {
                warn!(%partition, "the store has forgotten the lease; claiming it again");
                self.claim(partition, keeper, Some(lease)).await
            }
            Ok(Renewal::Lost) => {
                self.lose(partition, keeper).await;
                Seen::Lost
            }
            Err(error) => {
                warn!(%partition, %error, "the lease is not renewed; trying again");
                Seen::Settled
            }
        }
    }

    async fn claim(
        &self,
        partition: &PartitionId,
        keeper: &watch::Sender<Option<Lease>>,
        before: Option<Lease>,
    ) -> Seen {
        let floor = before
            .as_ref()
            .map_or_else(Epoch::default, |lease| lease.epoch);
        match self
            .store
            .claim(partition, &self.replica, self.ttl, floor)
            .await
        {
            Ok(Claim::Granted(lease)) if before.is_some() => {
                info!(%partition, epoch = %lease.epoch, "the partition is held again");
                keeper.send_replace(Some(lease));
                self.gateway.save_all(partition);
                Seen::Settled
            }
            Ok(Claim::Granted(lease)) => {
                self.take(partition, keeper, lease).await;
                Seen::Settled
            }
            Ok(Claim::Held { owner, remaining }) => {
                if before.is_some() {
                    self.lose(partition, keeper).await;
                    return Seen::Lost;
                }
                info!(%partition, %owner, ?remaining, "the partition is another's; waiting");
                Seen::Settled
            }
            Err(error) => {
                warn!(%partition, %error, "the partition is not claimed; trying again");
                // Without a lease before, another claim finds out; with one, it may be refused from now on.
                if before.is_some() {
                    Seen::Unsure
                } else {
                    Seen::Settled
                }
            }
        }
    }

    async fn take(
        &self,
        partition: &PartitionId,
        keeper: &watch::Sender<Option<Lease>>,
        lease: Lease,
    ) {
        let stored = self.store.sessions(partition).await;
        let sends = self.store.sends(partition).await;
        match stored.and_then(|stored| Ok((stored, sends?))) {
            Ok((stored, sends)) => {
                info!(%partition, epoch = %lease.epoch, sessions = stored.len(), "partition held");
                keeper.send_replace(Some(lease));
                self.gateway.adopt(partition, stored, sends);
            }
            Err(error) => error!(%partition, %error, "the partition cannot be read; trying again"),
        }
    }

    async fn lose(&self, partition: &PartitionId, keeper: &watch::Sender<Option<Lease>>) {
        if !partition.tenant.is_reserved() {
            counter!(LEASES_LOST).increment(1);
        }
        error!(%partition, "the partition is another replica's now; closing its sessions");
        keeper.send_replace(None);
        self.gateway.lose(partition).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::types::TenantId;

    const TTL: Duration = Duration::from_secs(30);

    /// One partition, held, and then claimed once more under the same name without this process hearing of it.
    async fn world() -> (Ownership, PartitionId) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let partition = PartitionId {
            tenant: TenantId::new("t"),
            number: 0,
        };
        let replica = ReplicaId::new("r");
        let claim = store.claim(&partition, &replica, TTL, Epoch(0)).await;
        let Ok(Claim::Granted(lease)) = claim else {
            panic!("{claim:?}")
        };
        let again = store.claim(&partition, &replica, TTL, lease.epoch).await;
        assert!(matches!(again, Ok(Claim::Granted(_))), "{again:?}");
        let keeper = watch::channel(Some(lease)).0;
        let ownership = Ownership {
            gateway: Gateway::new(Vec::new(), Arc::clone(&store), &Tasks::new()),
            store,
            replica,
            ttl: TTL,
            partitions: HashMap::from([(partition.clone(), keeper)]),
            unsure: HashSet::new(),
            fenced: mpsc::channel(1).1,
            changes: mpsc::channel(1).1,
            complete: watch::channel(false).0,
        };
        (ownership, partition)
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_whose_answer_was_lost_is_made_again() {
        let (mut ownership, partition) = world().await;
        ownership.note(partition.clone(), Seen::Unsure);
        let seen = ownership.see_to(&partition).await;
        ownership.note(partition.clone(), seen);
        let held = ownership.partitions[&partition].borrow().clone();
        assert_eq!(held.map(|lease| lease.epoch), Some(Epoch(3)));
        assert!(ownership.unsure.is_empty());
        assert_eq!(ownership.replica.as_str(), "r");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_lost_its_lease_to_its_own_name_waits_until_it_is_free() {
        let (mut ownership, partition) = world().await;
        let seen = ownership.see_to(&partition).await;
        ownership.note(partition.clone(), seen);
        assert!(ownership.replica.as_str().starts_with("r~"));
        let seen = ownership.see_to(&partition).await;
        ownership.note(partition.clone(), seen);
        assert!(
            ownership.partitions[&partition].borrow().is_none(),
            "taken back"
        );
        tokio::time::sleep(TTL).await;
        let seen = ownership.see_to(&partition).await;
        ownership.note(partition.clone(), seen);
        assert!(ownership.partitions[&partition].borrow().is_some());
    }
}
