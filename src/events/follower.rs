//! Hears from the store which logs grow, by another replica, and tells the hub. While all that is followed is written on
//! this one it does not listen: a store would tell of each commit of one's own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::hub::Hub;
use super::source::{RETRY_MAX, pause};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{Position, Store, StoreError};
use crate::types::PartitionId;

/// How long the store is still listened to when all that is followed is written on this replica.
const LINGER: Duration = Duration::from_secs(10);

type Opening = BoxFuture<'static, Result<Growth, StoreError>>;
type Growth = BoxStream<'static, (PartitionId, Position)>;

/// Follows the growth of logs that others write until `tasks` are told to stop. When the store begins to tell, or has
/// ceased and tells again, every subscriber looks at its logs once, for what grew meanwhile was not told.
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
    let mut foreign = hub.foreign();
    loop {
        if foreign.wait_for(|foreign| *foreign > 0).await.is_err() {
            // The hub is gone, and with it all who read.
            return;
        }
        match open().await {
            Ok(growth) => {
                if failures > 0 {
                    info!("the store tells again which logs grow");
                }
                let began = Instant::now();
                hub.look_again();
                let told = tokio::select! {
                    told = tell(growth, hub) => told,
                    () = all_own(&mut foreign) => {
                        failures = 0;
                        continue;
                    }
                };
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

/// Waits until all that is followed has been written on this replica for a while: subscribers come and go, and each
/// beginning has all of them look at the store.
async fn all_own(foreign: &mut watch::Receiver<usize>) {
    loop {
        if foreign.wait_for(|foreign| *foreign == 0).await.is_err() {
            return;
        }
        let again = foreign.wait_for(|foreign| *foreign > 0);
        if tokio::time::timeout(LINGER, again).await.is_err() {
            return;
        }
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
