//! Looks after the named subscriptions of the partitions that this replica holds: measures how far they are behind, and
//! forgets those that nobody has used for long.
//!
//! Who reads a subscription touches it in all its partitions at once, so that each partition's owner decides for its
//! own part and all come to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{Instrument as _, info, info_span, warn};

use super::metrics as names;
use super::named::reads_after;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{Lease, LogBounds, Position, Store, StoreError};
use crate::types::{PartitionId, TenantId, UnixMillis, WallClock};

/// How often it is done.
const EVERY: Duration = Duration::from_secs(15);
/// How many subscriptions have a series of their own in the metrics of a process, as long as that runs: a series that
/// was made once stays. Those beyond share one.
const MAX_SERIES: usize = 100;
/// What the shared series is called.
const OTHER: &str = "other";

/// A partition that this replica may hold.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Which.
    pub partition: PartitionId,
    /// Whether it holds it now.
    pub lease: watch::Receiver<Option<Lease>>,
    /// After this time without use its tenant's subscriptions are forgotten.
    pub expiry: Duration,
}

/// A tenant's subscription.
type Name = (TenantId, String);

struct Upkeep {
    store: Arc<dyn Store>,
    partitions: watch::Receiver<Vec<Kept>>,
    series: Series,
}

/// What one pass has found.
#[derive(Default)]
struct Found {
    lags: BTreeMap<Name, u64>,
    /// From which partitions a subscription was removed.
    forgotten: BTreeMap<Name, Vec<u16>>,
    /// Who has a partition in which they cannot be read.
    unreadable: BTreeSet<TenantId>,
}

/// Which subscriptions have a series of their own.
#[derive(Default)]
struct Series {
    made: BTreeSet<Name>,
}

/// Starts it for the partitions that there are at each time; it ends when `tasks` are told to stop.
pub fn start(store: Arc<dyn Store>, partitions: watch::Receiver<Vec<Kept>>, tasks: &Tasks) {
    let mut upkeep = Upkeep {
        store,
        partitions,
        series: Series::default(),
    };
    let stop = tasks.clone();
    let keeping = async move {
        show(None, 0);
        let mut turns = tokio::time::interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let turn = async {
                turns.tick().await;
                upkeep.pass().await;
            };
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                () = turn => {}
            }
        }
    };
    let span = info_span!("upkeep");
    tasks.spawn(
        "subscription upkeep",
        TaskKind::Work,
        keeping.instrument(span),
    );
}

impl Upkeep {
    async fn pass(&mut self) {
        let mut found = Found::default();
        let done = self.look_at_all(WallClock.now(), &mut found).await;
        for ((tenant, subscription), numbers) in &found.forgotten {
            info!(%tenant, subscription, partitions = numbers.len(), "nobody uses the subscription; it is forgotten");
            // Each has a part in this one, so that it counts once, whoever holds the others.
            if numbers.contains(&0) {
                metrics::counter!(names::SUBSCRIPTIONS_EXPIRED).increment(1);
            }
        }
        match done {
            Ok(()) => {
                for (name, lag) in self.series.assign(&found) {
                    show(name.as_ref(), lag);
                }
            }
            // Half a figure would be a wrong one.
            Err(error) => warn!(%error, "the subscriptions were not seen to; they will be later"),
        }
    }

    async fn look_at_all(&self, now: UnixMillis, found: &mut Found) -> Result<(), StoreError> {
        let partitions = self.partitions.borrow().clone();
        for kept in &partitions {
            if kept.lease.borrow().is_none() {
                continue;
            }
            match self.look_at(kept, now, found).await {
                Err(error @ StoreError::Corrupt { .. }) => {
                    let partition = &kept.partition;
                    warn!(%partition, %error, "its subscriptions are not seen to until that is repaired");
                    found.unreadable.insert(partition.tenant.clone());
                }
                seen => seen?,
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        kept: &Kept,
        now: UnixMillis,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let partition = &kept.partition;
        let subscriptions = self.store.subscriptions(partition).await?;
        if subscriptions.is_empty() {
            return Ok(());
        }
        let bounds = self.store.log_bounds(partition).await?;
        let expiry = u64::try_from(kept.expiry.as_millis()).unwrap_or(u64::MAX);
        let since = UnixMillis(now.0.saturating_sub(expiry));
        for subscription in subscriptions {
            let name = (partition.tenant.clone(), subscription.name);
            let unused = subscription.used_at < since;
            // The store looks again: somebody may have come back just now.
            if unused
                && self
                    .store
                    .remove_subscription(partition, &name.1, Some(since))
                    .await?
            {
                let numbers = found.forgotten.entry(name).or_default();
                numbers.push(partition.number);
            } else {
                *found.lags.entry(name).or_default() += lag(subscription.position, bounds);
            }
        }
        Ok(())
    }
}

impl Series {
    /// What to show: each subscription's lag, or that none is left of one that is gone; under no name the greatest of
    /// those that have no series of their own. Of a tenant whose subscriptions cannot all be read nothing is shown: half
    /// a figure would be a wrong one.
    fn assign(&mut self, found: &Found) -> Vec<(Option<Name>, u64)> {
        let is_whole = |name: &Name| !found.unreadable.contains(&name.0);
        let mut shared = 0;
        for (name, lag) in found.lags.iter().filter(|(name, _)| is_whole(name)) {
            if self.made.len() < MAX_SERIES {
                self.made.insert(name.clone());
            }
            if !self.made.contains(name) {
                shared = shared.max(*lag);
            }
        }
        let made = self.made.iter().filter(|name| is_whole(name));
        let own = made.map(|name| {
            let lag = found.lags.get(name).copied().unwrap_or_default();
            (Some(name.clone()), lag)
        });
        own.chain([(None, shared)]).collect()
    }
}

/// How many retained events lie after a position, as it is listed for the tenant.
fn lag(position: Position, bounds: LogBounds) -> u64 {
    let read = reads_after(position, bounds);
    bounds.last_sequence.saturating_sub(read)
}

fn show(name: Option<&Name>, lag: u64) {
    let (tenant, subscription) = match name {
        Some((tenant, subscription)) => (tenant.as_str(), subscription.as_str()),
        None => (OTHER, OTHER),
    };
    let labels = [
        ("tenant", tenant.to_owned()),
        ("subscription", subscription.to_owned()),
    ];
    metrics::gauge!(names::SUBSCRIPTION_LAG, &labels).set(lag as f64);
}

#[cfg(test)]
mod tests;
