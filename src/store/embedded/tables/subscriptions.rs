//! Named subscriptions: where they stand and when they were used.

use redb::{ReadTransaction, ReadableTable as _};

use super::{SUBSCRIPTIONS, Step, Tables, USES, place, row, written};
use crate::store::{LogId, Position, StoredSubscription};
use crate::types::{PartitionId, UnixMillis};

impl Tables<'_> {
    /// [`crate::store::Store::advance_subscription`].
    pub(in super::super) fn advance(
        &mut self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> Step<bool> {
        let (tenant, number) = place(partition);
        let key = (tenant, number, name);
        let stored = self
            .subscriptions
            .get(key)?
            .map(|at| at_position(at.value()));
        if only_if_there && stored.is_none() {
            return Ok(false);
        }
        let present = row(&self.partitions, partition)?.log;
        if position.moves(stored.as_ref(), present) {
            let value = (position.log.0, position.sequence);
            self.subscriptions.insert(key, value)?;
        }
        let used_at = self.uses.get(key)?.map_or(0, |used_at| used_at.value());
        self.uses.insert(key, used_at.max(now.0))?;
        Ok(true)
    }

    /// [`crate::store::Store::remove_subscription`].
    pub(in super::super) fn remove_subscription(
        &mut self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Step<bool> {
        let (tenant, number) = place(partition);
        let key = (tenant, number, name);
        if let Some(since) = unused_since {
            let used_at = self.uses.get(key)?.map(|used_at| used_at.value());
            // One of a version that did not note its use may be in use.
            if used_at.is_none_or(|used_at| used_at >= since.0) {
                return Ok(false);
            }
        }
        self.uses.remove(key)?;
        Ok(self.subscriptions.remove(key)?.is_some())
    }
}

/// [`crate::store::Store::subscription`].
pub(in super::super) fn position(
    transaction: &ReadTransaction,
    partition: &PartitionId,
    name: &str,
) -> Step<Option<Position>> {
    let Some(subscriptions) = written(transaction.open_table(SUBSCRIPTIONS))? else {
        return Ok(None);
    };
    let (tenant, number) = place(partition);
    let found = subscriptions.get((tenant, number, name))?;
    Ok(found.map(|at| at_position(at.value())))
}

/// [`crate::store::Store::subscriptions`].
pub(in super::super) fn all(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<Vec<StoredSubscription>> {
    let Some(subscriptions) = written(transaction.open_table(SUBSCRIPTIONS))? else {
        return Ok(Vec::new());
    };
    let uses = written(transaction.open_table(USES))?;
    let (tenant, number) = place(partition);
    let mut found = Vec::new();
    for entry in subscriptions.range((tenant, number, "")..)? {
        let (key, at) = entry?;
        let (of_tenant, of_number, name) = key.value();
        if (of_tenant, of_number) != (tenant, number) {
            break;
        }
        let used_at = match &uses {
            Some(uses) => uses.get((tenant, number, name))?,
            None => None,
        };
        found.push(StoredSubscription {
            name: name.to_owned(),
            position: at_position(at.value()),
            used_at: UnixMillis(used_at.map_or(0, |used_at| used_at.value())),
        });
    }
    Ok(found)
}

fn at_position((log, sequence): (u64, u64)) -> Position {
    Position {
        log: LogId(log),
        sequence,
    }
}
