//! Named subscriptions: where they stand in all partitions of their tenant, and who may make one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::service::{EventsError, TenantLogs};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{LogBounds, LogId, Position, Store, StoreError};
use crate::tenants::quotas::{Exceeded, Quota};
use crate::types::{UnixMillis, WallClock};

/// How often a subscription that a stream reads is noted as used.
const NOTE_USE_EVERY: Duration = Duration::from_secs(60);

/// A named subscription of a tenant, which there may or may not be.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) store: Arc<dyn Store>,
    pub(super) logs: TenantLogs,
    pub(super) name: String,
}

/// What is known of a named subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: String,
    /// How many events that the log retains are after its position. Where the store has lost entries and left their
    /// numbers out, these count too: they are still to be told as a gap.
    pub lag_events: u64,
    /// When the oldest of them was appended.
    pub oldest_pending_at: Option<UnixMillis>,
    /// When it was last read or acknowledged, to the minute.
    pub last_used_at: UnixMillis,
    /// How many streams share it.
    pub members: usize,
}

impl Named {
    /// Where it stands in each partition, and in which it does not.
    pub(super) async fn stored(&self) -> Result<Vec<Option<Position>>, StoreError> {
        try_join_all(self.logs.numbers().map(|number| self.stored_in(number))).await
    }

    /// Where it stands in one partition.
    pub(super) async fn stored_in(&self, number: u16) -> Result<Option<Position>, StoreError> {
        let partition = self.logs.partition(number);
        self.store.subscription(&partition, &self.name).await
    }

    /// Moves it forward where it is. False if it is nowhere.
    pub(super) async fn advance(
        &self,
        positions: &BTreeMap<u16, Position>,
    ) -> Result<bool, StoreError> {
        self.advance_all(positions, true).await
    }

    /// Where it stands, and whether it had to be made. Where it does not stand yet it is put at `ends`: everywhere for a
    /// new one, unless the tenant has as many as it may; in some partitions for one whose making was broken off.
    pub(super) async fn open(
        &self,
        ends: impl AsyncFnOnce() -> Result<BTreeMap<u16, Position>, StoreError>,
    ) -> Result<(BTreeMap<u16, Position>, bool), EventsError> {
        let stored = self.stored().await?;
        if let Some(all) = stored.iter().copied().collect::<Option<Vec<Position>>>() {
            return Ok((self.logs.numbers().zip(all).collect(), false));
        }
        if stored.iter().all(Option::is_none) {
            self.check_limit().await?;
        }
        let mut positions = ends().await?;
        let mut missing = positions.clone();
        for (number, stored) in self.logs.numbers().zip(stored) {
            if let Some(stored) = stored {
                positions.insert(number, stored);
                missing.remove(&number);
            }
        }
        self.advance_all(&missing, false).await?;
        Ok((positions, true))
    }

    /// Forgets it. False if there was none.
    pub(super) async fn remove(&self) -> Result<bool, StoreError> {
        let removals = self.logs.numbers().map(|number| async move {
            let partition = self.logs.partition(number);
            let (store, name) = (&self.store, &self.name);
            store.remove_subscription(&partition, name, None).await
        });
        let removed = try_join_all(removals).await?;
        Ok(removed.contains(&true))
    }

    /// Notes it as used, now and from time to time, until the guard is dropped or the tasks are told to stop, so that
    /// it does not expire while a stream reads it. `positions` is where it stands.
    pub(super) fn keep(self, positions: BTreeMap<u16, Position>, tasks: &Tasks) -> DropGuard {
        let (ended, stop) = (CancellationToken::new(), tasks.clone());
        let guard = ended.clone().drop_guard();
        tasks.spawn("subscription use", TaskKind::Work, async move {
            tokio::select! {
                () = stop.stopping() => {}
                () = ended.cancelled() => {}
                () = self.note_use(positions) => {}
            }
        });
        guard
    }

    async fn note_use(&self, mut positions: BTreeMap<u16, Position>) {
        loop {
            let notes = positions
                .iter_mut()
                .map(|(&number, position)| self.note_use_in(number, position));
            for noted in join_all(notes).await {
                if let Err(error) = noted {
                    // The next time is soon enough: expiry takes an hour at the least.
                    debug!(%error, "the use of a subscription is not noted");
                }
            }
            tokio::time::sleep(NOTE_USE_EVERY).await;
        }
    }

    /// `last` is where it last stood. One that was deleted stays so; one that the store has lost with the log is put
    /// back, so that who comes later is told of the loss and does not begin at the end.
    async fn note_use_in(&self, number: u16, last: &mut Position) -> Result<(), StoreError> {
        let stored = self.stored_in(number).await?;
        match stored {
            Some(position) => *last = position,
            None => {
                let bounds = self.store.log_bounds(&self.logs.partition(number)).await?;
                if last.log == bounds.log {
                    *last = Position::default();
                }
                if last.log == LogId::default() {
                    return Ok(());
                }
            }
        }
        self.advance_in(number, last, stored.is_some()).await?;
        Ok(())
    }

    async fn advance_all(
        &self,
        positions: &BTreeMap<u16, Position>,
        only_if_there: bool,
    ) -> Result<bool, StoreError> {
        let moves = positions.iter();
        let moves =
            moves.map(|(&number, position)| self.advance_in(number, position, only_if_there));
        Ok(try_join_all(moves).await?.contains(&true))
    }

    async fn advance_in(
        &self,
        number: u16,
        position: &Position,
        only_if_there: bool,
    ) -> Result<bool, StoreError> {
        let (partition, now) = (self.logs.partition(number), WallClock.now());
        let (store, name) = (&self.store, &self.name);
        store
            .advance_subscription(&partition, name, position, now, only_if_there)
            .await
    }

    /// Refuses one more than the tenant may have. Several that are made at the same moment may all get through.
    async fn check_limit(&self) -> Result<(), EventsError> {
        let lists = self.logs.numbers().map(|number| {
            let partition = self.logs.partition(number);
            async move { self.store.subscriptions(&partition).await }
        });
        let lists = try_join_all(lists).await?;
        let names: BTreeSet<&str> = lists.iter().flatten().map(|it| it.name.as_str()).collect();
        let most = self.logs.max_subscriptions;
        if names.len() >= most {
            let exceeded = Exceeded::count(&self.logs.tenant, Quota::Subscriptions, most);
            return Err(exceeded.into());
        }
        Ok(())
    }
}

/// All named subscriptions of a tenant, in the order of their names.
pub(super) async fn list(
    store: &Arc<dyn Store>,
    logs: &TenantLogs,
) -> Result<Vec<SubscriptionStatus>, StoreError> {
    let parts = logs.numbers().map(|number| list_in(store, logs, number));
    let mut all = BTreeMap::new();
    for part in try_join_all(parts).await?.into_iter().flatten() {
        match all.get_mut(&part.name) {
            None => {
                all.insert(part.name.clone(), part);
            }
            Some(whole) => merge(whole, &part),
        }
    }
    let counted = all.into_values().map(|status| async move {
        let members = store.members(&logs.tenant, &status.name).await?.len();
        Ok(SubscriptionStatus { members, ..status })
    });
    try_join_all(counted).await
}

/// What there is of them in one partition.
async fn list_in(
    store: &Arc<dyn Store>,
    logs: &TenantLogs,
    number: u16,
) -> Result<Vec<SubscriptionStatus>, StoreError> {
    let partition = logs.partition(number);
    let stored = store.subscriptions(&partition).await?;
    // Looked up later than the positions, none of which can be ahead of it.
    let bounds = store.log_bounds(&partition).await?;
    let mut all = Vec::with_capacity(stored.len());
    for subscription in stored {
        let after = reads_after(subscription.position, bounds);
        let lag_events = bounds.last_sequence.saturating_sub(after);
        let oldest_pending_at = if lag_events > 0 {
            let read = store.read(&partition, after, 1).await?;
            read.entries.first().map(|entry| entry.appended_at)
        } else {
            None
        };
        all.push(SubscriptionStatus {
            name: subscription.name,
            lag_events,
            oldest_pending_at,
            last_used_at: subscription.used_at,
            members: 0,
        });
    }
    Ok(all)
}

/// After which entry of a log a reader who stands at `position` goes on: another log is read from its beginning, and
/// what was trimmed cannot be read.
pub(super) fn reads_after(position: Position, bounds: LogBounds) -> u64 {
    let trimmed = bounds.first_sequence.saturating_sub(1);
    if position.log == bounds.log {
        position.sequence.max(trimmed)
    } else {
        trimmed
    }
}

fn merge(whole: &mut SubscriptionStatus, part: &SubscriptionStatus) {
    whole.lag_events = whole.lag_events.saturating_add(part.lag_events);
    let oldest = [whole.oldest_pending_at, part.oldest_pending_at];
    whole.oldest_pending_at = oldest.into_iter().flatten().min();
    whole.last_used_at = whole.last_used_at.max(part.last_used_at);
}

#[cfg(test)]
mod tests;
