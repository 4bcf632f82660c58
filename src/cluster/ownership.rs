//! Keeps the leases of this replica's partitions, and tells the runtime what it may hold.
//!
//! A store that does not answer is not a lost lease: sessions go on, and the lease is renewed when the store is
//! back. A lease that the store has forgotten is claimed again, with a greater epoch; one that is another's is lost,
//! and the partition's sessions close at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use tokio::sync::{mpsc, watch};
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
    /// Partitions whose lease a write found refused.
    pub fenced: mpsc::Receiver<PartitionId>,
    /// True once everything is held.
    pub complete: watch::Sender<bool>,
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
                Some(partition) = self.fenced.recv() => vec![partition],
                _ = renew.tick() => self.partitions.keys().cloned().collect(),
                _ = claim.tick() => self.not_held(),
            };
            for partition in due {
                tokio::select! {
                    biased;
                    () = tasks.stopping() => return,
                    lost = self.see_to(&partition) => {
                        if lost {
                            self.step_back();
                        }
                    }
                }
            }
            let missing = self.not_held().len();
            gauge!(PARTITIONS).set(u32::try_from(self.partitions.len() - missing).unwrap_or(0));
            self.complete.send_replace(missing == 0);
        }
    }

    /// Gives all leases back, so that another replica need not wait for them to run out.
    pub async fn release(&mut self) {
        for lease in self.partitions.values() {
            let Some(lease) = lease.send_replace(None) else {
                continue;
            };
            if let Err(error) = self.store.release(&lease).await {
                warn!(partition = %lease.partition, %error, "the lease is left to run out");
            }
        }
    }

    fn not_held(&self) -> Vec<PartitionId> {
        let held = |lease: &watch::Sender<Option<Lease>>| lease.borrow().is_some();
        let missing = self.partitions.iter().filter(|(_, lease)| !held(lease));
        missing.map(|(partition, _)| partition.clone()).collect()
    }

    /// A process that lost a lease does not claim as the restart of whoever has it: two processes with one replica
    /// ID would take every partition from each other for ever. It waits until the lease is free.
    fn step_back(&mut self) {
        let name = self.replica.as_str();
        let name = name.split_once('~').map_or(name, |(name, _)| name);
        self.replica = ReplicaId::new(format!("{name}~{:08x}", rand::random::<u32>()));
    }

    /// Claims or renews one partition. True if it was lost to another.
    async fn see_to(&self, partition: &PartitionId) -> bool {
        let Some(keeper) = self.partitions.get(partition) else {
            return false;
        };
        let held = keeper.borrow().clone();
        let Some(lease) = held else {
            return self.claim(partition, keeper, None).await;
        };
        match self.store.renew(&lease, self.ttl).await {
            Ok(Renewal::Renewed) => false,
            Ok(Renewal::Missing) => {
                warn!(%partition, "the store has forgotten the lease; claiming it again");
                self.claim(partition, keeper, Some(lease)).await
            }
            Ok(Renewal::Lost) => {
                self.lose(partition, keeper).await;
                true
            }
            Err(error) => {
                warn!(%partition, %error, "the lease is not renewed; trying again");
                false
            }
        }
    }

    async fn claim(
        &self,
        partition: &PartitionId,
        keeper: &watch::Sender<Option<Lease>>,
        before: Option<Lease>,
    ) -> bool {
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
                false
            }
            Ok(Claim::Granted(lease)) => {
                self.take(partition, keeper, lease).await;
                false
            }
            Ok(Claim::Held { owner, remaining }) => {
                if before.is_some() {
                    self.lose(partition, keeper).await;
                    return true;
                }
                info!(%partition, %owner, ?remaining, "the partition is another's; waiting");
                false
            }
            Err(error) => {
                warn!(%partition, %error, "the partition is not claimed; trying again");
                false
            }
        }
    }

    async fn take(
        &self,
        partition: &PartitionId,
        keeper: &watch::Sender<Option<Lease>>,
        lease: Lease,
    ) {
        match self.store.sessions(partition).await {
            Ok(stored) => {
                info!(%partition, epoch = %lease.epoch, sessions = stored.len(), "partition held");
                keeper.send_replace(Some(lease));
                self.gateway.adopt(partition, stored);
            }
            Err(error) => error!(%partition, %error, "the partition cannot be read; trying again"),
        }
    }

    async fn lose(&self, partition: &PartitionId, keeper: &watch::Sender<Option<Lease>>) {
        counter!(LEASES_LOST).increment(1);
        error!(%partition, "the partition is another replica's now; closing its sessions");
        keeper.send_replace(None);
        self.gateway.lose(partition).await;
    }
}
