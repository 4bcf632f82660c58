//! Tells the subscribers of a tenant that a log of theirs has grown. It holds positions, never events.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::store::Position;
use crate::types::{PartitionId, TenantId};

/// The ends of the logs that this replica writes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    tenants: Arc<Mutex<HashMap<TenantId, watch::Sender<Ends>>>>,
}

/// The ends of a tenant's logs, by partition number.
type Ends = BTreeMap<u16, Position>;

impl Hub {
    /// A hub that knows of no log yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells that a log now ends at `end`. Never waits.
    pub fn publish(&self, partition: &PartitionId, end: Position) {
        self.with_tenant(&partition.tenant, |ends| {
            ends.send_modify(|ends| {
                ends.insert(partition.number, end);
            });
        });
    }

    /// Watches the logs of a tenant.
    pub fn watch(&self, tenant: &TenantId) -> Tails {
        Tails {
            ends: self.with_tenant(tenant, |ends| ends.subscribe()),
        }
    }

    fn with_tenant<T>(
        &self,
        tenant: &TenantId,
        work: impl FnOnce(&mut watch::Sender<Ends>) -> T,
    ) -> T {
        // A poisoned map is whole: an entry is inserted in one step.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        work(
            tenants
                .entry(tenant.clone())
                .or_insert_with(|| watch::Sender::new(Ends::new())),
        )
    }
}

/// One subscriber's view of the ends of its tenant's logs. Dropping it leaves nothing behind in the hub.
#[derive(Clone, Debug)]
pub struct Tails {
    ends: watch::Receiver<Ends>,
}

impl Tails {
    /// Waits until a log has grown since the last look. What grew before a look that came later is not missed.
    pub async fn grown(&mut self) {
        if self.ends.changed().await.is_err() {
            // The hub is gone and with it all writers of this replica.
            std::future::pending::<()>().await;
        }
    }

    /// Looks at the ends known so far, by partition number.
    pub fn look<T>(&mut self, view: impl FnOnce(&BTreeMap<u16, Position>) -> T) -> T {
        view(&self.ends.borrow_and_update())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::LogId;

    fn partition(tenant: &str, number: u16) -> PartitionId {
        PartitionId {
            tenant: TenantId::new(tenant),
            number,
        }
    }

    fn end(sequence: u64) -> Position {
        Position {
            log: LogId(7),
            sequence,
        }
    }

    #[tokio::test]
    async fn a_watcher_is_woken_once_for_all_that_has_grown() {
        let hub = Hub::new();
        let mut tails = hub.watch(&TenantId::new("a"));
        assert!(tails.grown().now_or_never().is_none());
        hub.publish(&partition("a", 0), end(1));
        hub.publish(&partition("a", 3), end(5));
        tails.grown().now_or_never().unwrap();
        let seen = tails.look(Clone::clone);
        assert_eq!(seen, BTreeMap::from([(0, end(1)), (3, end(5))]));
        assert!(tails.grown().now_or_never().is_none());
    }

    #[tokio::test]
    async fn tenants_do_not_wake_each_other() {
        let hub = Hub::new();
        let mut tails = hub.watch(&TenantId::new("a"));
        hub.publish(&partition("b", 0), end(1));
        assert!(tails.grown().now_or_never().is_none());
        // What is known before a watch begins is seen at the first look.
        let mut late = hub.watch(&TenantId::new("b"));
        assert_eq!(late.look(BTreeMap::len), 1);
    }
}
