//! Sees to it that a tenant's data is laid out as its configuration says: with another number of partitions its sessions
//! would not be found, and another upstream app knows nothing of its tickets.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::AppError;
use crate::config::Tenant;
use crate::error::{Classified as _, ErrorKind};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{Store, TenantLayout};

/// How often a store that was away is asked.
const AGAIN: Duration = Duration::from_secs(2);

/// Compares a tenant with its data, or notes it as the first that the data is made by.
pub(super) async fn enrol(store: &Arc<dyn Store>, tenant: &Tenant) -> Result<(), AppError> {
    let configured = TenantLayout {
        partitions: tenant.partitions,
        sdk_app_id: tenant.sdk_app_id,
    };
    let stored = store.enrol(&tenant.id, configured).await?;
    let facts = [
        (
            "partitions",
            configured.partitions.into(),
            stored.partitions.into(),
        ),
        ("sdk_app_id", configured.sdk_app_id, stored.sdk_app_id),
    ];
    match facts
        .into_iter()
        .find(|(_, configured, stored)| configured != stored)
    {
        None => Ok(()),
        Some((key, configured, stored)) => Err(AppError::Layout {
            tenant: tenant.id.clone(),
            key,
            configured,
            stored,
        }),
    }
}

/// The same for all tenants. While the store is away it is asked again and again; should it then say that the data is
/// another's, `tasks` stop.
pub(super) async fn at_start(
    store: &Arc<dyn Store>,
    tenants: &[Tenant],
    tasks: &Tasks,
) -> Result<(), AppError> {
    match all(store, tenants).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => {}
        done => return done,
    }
    let (store, tenants, stop) = (Arc::clone(store), tenants.to_vec(), tasks.clone());
    let asking = async move {
        loop {
            tokio::time::sleep(AGAIN).await;
            match all(&store, &tenants).await {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => {
                    error!(%error, "stopping");
                    return stop.stop();
                }
            }
        }
    };
    let stop = tasks.clone();
    tasks.spawn("enrolment", TaskKind::Work, async move {
        tokio::select! {
            () = asking => {}
            () = stop.stopping() => {}
        }
    });
    Ok(())
}

async fn all(store: &Arc<dyn Store>, tenants: &[Tenant]) -> Result<(), AppError> {
    for tenant in tenants {
        enrol(store, tenant).await?;
    }
    for (tenant, _) in store.enrolled().await? {
        if tenants.iter().all(|declared| declared.id != tenant) {
            warn!(%tenant, "the store has data of a tenant that is not declared: declare it, or purge it");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::types::TenantId;

    fn tenant(id: &str) -> Tenant {
        Tenant::new(TenantId::new(id), 1, "ws://127.0.0.1:1".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn data_that_was_made_otherwise_is_not_touched() {
        let memory = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = memory.clone();
        let tasks = Tasks::new();
        let mut tenants = vec![tenant("a"), tenant("b")];
        at_start(&store, &tenants, &tasks).await.unwrap();
        at_start(&store, &tenants, &tasks).await.unwrap();
        tenants[1].partitions = 16;
        let refused = at_start(&store, &tenants, &tasks).await.unwrap_err();
        let said = "tenants[b].partitions = 16: its data in the store was made with 8;";
        assert!(refused.to_string().starts_with(said), "{refused}");

        // Found out only when the store is back.
        memory.set_available(false);
        at_start(&store, &tenants, &tasks).await.unwrap();
        tokio::time::sleep(10 * AGAIN).await;
        assert!(!tasks.is_stopping());
        memory.set_available(true);
        tasks.stopping().await;
        tasks.ended().await;
    }
}
