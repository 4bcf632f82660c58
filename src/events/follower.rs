//! Hears from the store which logs grow, by whichever replica, and tells the hub.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::hub::Hub;
use super::source::{RETRY_MAX, pause};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{Position, Store, StoreError};
use crate::types::PartitionId;

type Opening = BoxFuture<'static, Result<Growth, StoreError>>;
type Growth = BoxStream<'static, (PartitionId, Position)>;

/// Follows the growth of all logs until `tasks` are told to stop. When the store tells no more it is asked again, and
/// every subscriber looks at its logs once, for what grew meanwhile was not told.
pub fn start(store: Arc<dyn Store>, hub: Hub, tasks: &Tasks) {
    let stop = tasks.clone();
    let open = move || {
        let store = Arc::clone(&store);
        async move { store.growth().await }.boxed()
    };
    tasks.spawn("log follower", TaskKind::Critical, async move {
        tokio::select! {
            () = follow(open, &hub) => {}
            () = stop.stopping() => {}
        }
    });
}

async fn follow(open: impl Fn() -> Opening, hub: &Hub) {
    let mut failures = 0;
    loop {
        match open().await {
            Ok(growth) => {
                if failures > 0 {
                    info!("the store tells again which logs grow");
                }
                let began = Instant::now();
                hub.look_again();
                let told = tell(growth, hub).await;
                // A store that ends at once, again and again, is not asked all the time.
                if told || began.elapsed() >= RETRY_MAX {
                    failures = 0;
                }
                debug!("the store has ceased to tell which logs grow");
            }
            Err(refusal) if failures == 0 => {
                warn!(error = %refusal, "the store does not tell which logs grow; trying again");
            }
            Err(refusal) => {
                debug!(error = %refusal, "the store does not tell which logs grow; trying again");
            }
        }
        tokio::time::sleep(pause(failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Tells the hub until the stream ends. True if there was anything.
async fn tell(mut growth: Growth, hub: &Hub) -> bool {
    let mut told = false;
    while let Some((partition, end)) = growth.next().await {
        told = true;
        hub.publish(&partition, end);
    }
    told
}

#[cfg(test)]
mod tests;
