//! Keeps the leases of this replica's partitions, and tells the runtime what it may hold.
//!
//! A store that does not answer is not a lost lease: sessions go on, and the lease is renewed when the store is
//! back. A lease that the store has forgotten is claimed again, with a greater epoch; one that is another's is lost,
//! and the partition's sessions close at once.
//!
//! After an outage, and where a store has lost everything, a partition looks free whose owner lives and holds what is
//! stored nowhere else. So whoever waits for it leaves its owner the time to come back first.

mod keeper;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::Tasks;
use crate::store::Store;
use crate::types::{PartitionId, ReplicaId};

pub use self::keeper::Keeper;

use self::keeper::{Hand, Seen};

/// Leases lost to another replica.
const LEASES_LOST: &str = "imgate_cluster_leases_lost_total";
/// Partitions held.
const PARTITIONS: &str = "imgate_cluster_partitions";
/// How often a partition that is not held is tried for, and a store that was away.
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// How many partitions are seen to at a time. One after the other, a thousand renewals would take longer than a lease
/// lasts where the store takes some hundredths of a second for each.
const AT_ONCE: usize = 32;
/// Of how many what they hold is read at a time.
const READ_AT_ONCE: usize = 8;
/// How much longer than the time between two renewals owners have to come back.
const PATIENCE_MARGIN: Duration = Duration::from_secs(2);

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
    /// What is to be held.
    pub partitions: HashMap<PartitionId, Keeper>,
    /// Partitions whose new claim was not answered: the store may have granted it, and then refuses the old lease.
    pub unsure: HashSet<PartitionId>,
    /// Partitions whose lease a write found refused.
    pub fenced: mpsc::Receiver<PartitionId>,
    /// What is to be held, and no more to be held, from now on.
    pub changes: mpsc::Receiver<Change>,
    /// True once everything is held.
    pub complete: watch::Sender<bool>,
    /// Whether the store can be asked.
    pub reach: Reach,
}

/// A change of what is to be held.
#[derive(Debug)]
pub enum Change {
    /// These as well.
    Hold(HashMap<PartitionId, Keeper>),
    /// These no more: nothing writes there any longer. Their leases are given back, and then the answer is dropped.
    LetGo(Vec<PartitionId>, oneshot::Sender<()>),
}

/// Whether the store can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It answers.
    #[default]
    There,
    /// It did not answer.
    Away,
    /// It answers again; until then its partitions are their owners' to claim.
    Back(Instant),
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
                _ = claim.tick() => self.due_to_claim(),
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = self.see_to_all(due) => {}
            }
            self.report();
        }
    }

    /// Tells how many partitions are held, and whether all are. The gateway's own is not among them: without it no
    /// session is missing.
    fn report(&self) {
        let tenants = self.partitions.iter();
        let tenants = tenants.filter(|(partition, _)| !partition.tenant.is_reserved());
        let (held, missing): (Vec<_>, Vec<_>) = tenants.partition(|(_, keeper)| keeper.is_held());
        gauge!(PARTITIONS).set(u32::try_from(held.len()).unwrap_or(u32::MAX));
        self.complete.send_replace(missing.is_empty());
    }

    /// Gives all leases back, so that another replica need not wait for them to run out.
    pub async fn release(&mut self) {
        let kept = stream::iter(self.partitions.values());
        kept.for_each_concurrent(AT_ONCE, |keeper| self.give_back(keeper))
            .await;
    }

    async fn give_back(&self, keeper: &Keeper) {
        let Some(lease) = keeper.lease.send_replace(None) else {
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

    /// What is not held; everything while the store is away, so that it is renewed as soon as that is back.
    fn due_to_claim(&self) -> Vec<PartitionId> {
        let is_due = |partition: &PartitionId, keeper: &Keeper| {
            self.reach == Reach::Away || self.unsure.contains(partition) || !keeper.is_held()
        };
        let due = self.partitions.iter();
        let due = due.filter(|(partition, keeper)| is_due(partition, keeper));
        due.map(|(partition, _)| partition.clone()).collect()
    }

    /// Sees to partitions, some at a time, as long as the store answers.
    async fn see_to_all(&mut self, due: Vec<PartitionId>) {
        match self.reach {
            Reach::Away => match self.store.ping().await {
                Ok(()) => self.reach = Reach::Back(Instant::now() + self.patience()),
                Err(error) => {
                    warn!(%error, "the store is away; leases are neither renewed nor claimed");
                    return;
                }
            },
            Reach::Back(until) if until <= Instant::now() => self.reach = Reach::There,
            Reach::Back(_) | Reach::There => {}
        }
        for some in due.chunks(AT_ONCE) {
            self.see_to(some).await;
            if self.reach == Reach::Away {
                return;
            }
        }
    }

    /// How long an owner may take to come back after an outage: it tries as often as who waits for its partitions, and
    /// one of an earlier version as often as it renews.
    fn patience(&self) -> Duration {
        self.ttl / 3 + PATIENCE_MARGIN
    }

    fn note(&mut self, partition: PartitionId, seen: Seen) {
        match seen {
            Seen::Settled => {
                self.unsure.remove(&partition);
            }
            Seen::Unsure => {
                self.unsure.insert(partition);
                self.reach = Reach::Away;
            }
            Seen::Away => self.reach = Reach::Away,
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

    /// Claims or renews these partitions.
    async fn see_to(&mut self, some: &[PartitionId]) {
        let hand = Hand {
            store: &*self.store,
            replica: &self.replica,
            ttl: self.ttl,
            gateway: &self.gateway,
            patience: self.patience(),
            is_patient: matches!(self.reach, Reach::Back(_)),
            readers: &Semaphore::new(READ_AT_ONCE),
        };
        let (hand, unsure) = (&hand, &self.unsure);
        let some: HashSet<_> = some.iter().collect();
        let kept = self.partitions.iter_mut();
        let kept = kept.filter(|(partition, _)| some.contains(partition));
        let seeing = kept.map(|(partition, keeper)| async move {
            let unsure = unsure.contains(partition);
            let seen = hand.see_to(partition, keeper, unsure).await;
            (partition.clone(), seen)
        });
        for (partition, seen) in join_all(seeing).await {
            self.note(partition, seen);
        }
    }
}

#[cfg(test)]
mod tests;
