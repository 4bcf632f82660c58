//! The end of a tenant's data: all that the store has of it goes, partition by partition, each under a lease of its own.
//! So nobody else writes there meanwhile, and what somebody owns is not purged.

use std::time::Duration;

use tracing::info;

use crate::error::{Classified, ErrorKind};
use crate::store::{Claim, Store, StoreError};
use crate::types::{Epoch, PartitionId, ReplicaId, TenantId};

/// How long a lease lasts under which a partition is purged.
const TTL: Duration = Duration::from_secs(30);

/// Why a tenant's data is not purged, or not all of it. Asking again goes on with the rest.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// This replica serves it.
    #[error(
        "the tenant is declared: remove it from the configuration first, which logs its sessions out"
    )]
    Declared,
    /// The store has nothing of it.
    #[error("the store has no data of this tenant")]
    Unknown,
    /// A replica holds one of its partitions.
    #[error(
        "replica {0} still holds a partition of this tenant: remove the tenant from its configuration first, and ask again \
         when the lease has run out"
    )]
    Held(ReplicaId),
    /// The store does not serve.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PurgeError {
    /// The reason in ErrorInfo, part of the API.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Declared => "TENANT_DECLARED",
            Self::Unknown => "UNKNOWN_TENANT",
            Self::Held(_) => "TENANT_HELD",
            Self::Store(_) => "STORE_UNAVAILABLE",
        }
    }
}

impl Classified for PurgeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown => ErrorKind::NotFound,
            Self::Declared | Self::Held(_) => ErrorKind::Precondition,
            Self::Store(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Declared | Self::Unknown => None,
            Self::Held(_) => Some(TTL),
            Self::Store(error) => error.retry_after(),
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Declared | Self::Unknown | Self::Held(_) => self.to_string(),
            Self::Store(error) => error.public_text(),
        }
    }
}

/// Removes all that the store has of a tenant. Answers how many partitions that was.
///
/// # Errors
/// [`PurgeError`]; what was purged before stays purged.
pub(super) async fn purge(store: &dyn Store, tenant: &TenantId) -> Result<u16, PurgeError> {
    let enrolled = store.enrolled().await?;
    let layout = enrolled.into_iter().find(|(known, _)| known == tenant);
    let (_, layout) = layout.ok_or(PurgeError::Unknown)?;
    // Nobody's name, so that no restart of somebody takes it for its own.
    let purger = ReplicaId::new(format!("purge~{:016x}", rand::random::<u64>()));
    for number in 0..layout.partitions {
        let partition = PartitionId {
            tenant: tenant.clone(),
            number,
        };
        let claim = store.claim(&partition, &purger, TTL, Some(Epoch::default()));
        let lease = match claim.await? {
            Claim::Granted(lease) => lease,
            Claim::Held { owner, .. } => return Err(PurgeError::Held(owner)),
            // It was never held.
            Claim::Unknown => continue,
        };
        store.purge(&lease).await?;
        store.release(&lease).await?;
    }
    store.strike(tenant).await?;
    info!(%tenant, partitions = layout.partitions, "a tenant's data is purged");
    Ok(layout.partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Lease, StoredSession, TenantLayout};
    use crate::types::AccountId;

    const LAYOUT: TenantLayout = TenantLayout {
        partitions: 3,
        sdk_app_id: 1,
    };

    /// A session in each partition of the tenant, whose leases run.
    async fn fill(store: &MemoryStore, tenant: &TenantId) -> Vec<Lease> {
        let layout = store.enrol(tenant, LAYOUT).await.unwrap();
        let mut leases = Vec::new();
        for number in 0..layout.partitions {
            let partition = PartitionId {
                tenant: tenant.clone(),
                number,
            };
            let owner = ReplicaId::new("r");
            let claim = store.claim(&partition, &owner, TTL, Some(Epoch(0))).await;
            let Ok(Claim::Granted(lease)) = claim else {
                panic!("{claim:?}")
            };
            let batch = Batch {
                records: vec![StoredSession {
                    account: AccountId::new("bot"),
                    record: vec![1],
                }],
                events: vec![vec![2]],
                ..Batch::default()
            };
            store.commit(&lease, &batch).await.unwrap();
            leases.push(lease);
        }
        leases
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_holds_goes_and_nothing_else() {
        let store = MemoryStore::new();
        let (gone, other) = (TenantId::new("gone"), TenantId::new("other"));
        let leases = fill(&store, &gone).await;
        fill(&store, &other).await;
        let held = purge(&store, &gone).await;
        assert!(matches!(held, Err(PurgeError::Held(_))), "{held:?}");
        for lease in &leases {
            store.release(lease).await.unwrap();
        }
        assert_eq!(purge(&store, &gone).await.unwrap(), 3);
        for lease in &leases {
            assert_eq!(store.sessions(&lease.partition).await.unwrap(), []);
            let bounds = store.log_bounds(&lease.partition).await.unwrap();
            assert_eq!(bounds.last_sequence, 0);
            // Whoever held it before writes nothing more.
            let late = store.commit(lease, &Batch::default()).await;
            assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
        }
        let again = purge(&store, &gone).await;
        assert!(matches!(again, Err(PurgeError::Unknown)), "{again:?}");
        assert_eq!(store.enrolled().await.unwrap(), [(other.clone(), LAYOUT)]);
        let there = PartitionId {
            tenant: other,
            number: 0,
        };
        assert_eq!(store.sessions(&there).await.unwrap().len(), 1);
    }
}
