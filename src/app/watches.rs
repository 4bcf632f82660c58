//! What keeps the conditions of readiness true, and tells gRPC health.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::watch;

use crate::events::canary::CanaryHandle;
use crate::events::metrics::CANARY_AGE;
use crate::grpc::server::Health;
use crate::observability::readiness::{Condition, Readiness};
use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::Store;

/// How often the store is asked whether it answers.
const STORE_CHECK: Duration = Duration::from_secs(2);
/// How often the canary is looked at.
const DELIVERY_CHECK: Duration = Duration::from_secs(1);

/// Starts the watches of a process.
#[derive(Clone)]
pub(super) struct Watches {
    pub(super) readiness: Readiness,
    /// How long the store, or the delivery of events, may fail until the gateway is not ready.
    pub(super) grace: Duration,
    pub(super) tasks: Tasks,
}

impl Watches {
    /// The store: away or full for longer than the grace, and the gateway is not ready.
    pub(super) fn store(&self, store: Arc<dyn Store>, gateway: Gateway) {
        let watch = self.clone();
        let mut last_answer = None;
        self.spawn("store check", async move {
            loop {
                // A full store answers, and takes nothing.
                match store.ping().await.and_then(|()| gateway.accepts()) {
                    Ok(()) => {
                        last_answer = Some(tokio::time::Instant::now());
                        watch.readiness.met(Condition::Store);
                    }
                    Err(error) => {
                        if last_answer.is_none_or(|at| at.elapsed() > watch.grace) {
                            watch.readiness.unmet(Condition::Store, error.to_string());
                        }
                    }
                }
                tokio::time::sleep(STORE_CHECK).await;
            }
        });
    }

    /// The canary: no younger one than the grace came through, and the gateway is not ready.
    pub(super) fn delivery(&self, mut canary: CanaryHandle) {
        let watch = self.clone();
        self.spawn("delivery check", async move {
            loop {
                gauge!(CANARY_AGE).set(canary.age().as_secs_f64());
                match canary.complaint(watch.grace) {
                    None => watch.readiness.met(Condition::Delivery),
                    Some(reason) => watch.readiness.unmet(Condition::Delivery, reason),
                }
                tokio::select! {
                    () = canary.changed() => {}
                    () = tokio::time::sleep(DELIVERY_CHECK) => {}
                }
            }
        });
    }

    /// Ready needs every partition once. One that is lost later is another replica's, which is no fault of this one.
    pub(super) fn restore(&self, mut complete: watch::Receiver<bool>) {
        let readiness = self.readiness.clone();
        self.spawn("restore check", async move {
            if complete.wait_for(|complete| *complete).await.is_ok() {
                readiness.met(Condition::SessionsRestored);
            }
        });
    }

    /// Says to gRPC health checks what `/ready` says.
    pub(super) fn tell_health(&self, health: Health) {
        let readiness = self.readiness.clone();
        self.spawn("health", async move {
            loop {
                let ready = readiness.is_ready();
                health.set_serving(ready).await;
                if ready {
                    readiness.not_ready().await;
                } else {
                    readiness.ready().await;
                }
            }
        });
    }

    fn spawn(&self, name: &'static str, watching: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.tasks.clone();
        self.tasks.spawn(name, TaskKind::Work, async move {
            tokio::select! {
                () = watching => {}
                () = tasks.stopping() => {}
            }
        });
    }
}
