//! Callers who are not known: counted each, and told in the log in at most one line a second for each reason, however many
//! they are.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::sync::Notify;
use tracing::warn;

use super::metrics::UNAUTHENTICATED;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::tenants::auth::AuthError;

/// How long refusals are gathered for one line.
const GATHER: Duration = Duration::from_secs(1);

/// Where refusals are noted. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Refusals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// In the order of [`AuthError::UNAUTHENTICATED`].
    reasons: Vec<Reason>,
    /// Told at the first refusal after a line.
    first: Notify,
}

struct Reason {
    name: &'static str,
    counter: Counter,
    /// Since the last line.
    count: AtomicU64,
    /// From where the first of them came. Only that one takes the lock.
    from: Mutex<Option<SocketAddr>>,
}

impl std::fmt::Debug for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Refusals {
    /// Starts the task that writes the lines.
    pub(super) fn start(tasks: &Tasks) -> Self {
        let reasons = AuthError::UNAUTHENTICATED.map(|name| Reason {
            name,
            counter: counter!(UNAUTHENTICATED, "reason" => name),
            count: AtomicU64::new(0),
            from: Mutex::new(None),
        });
        let refusals = Self(Arc::new(Inner {
            reasons: reasons.into(),
            first: Notify::new(),
        }));
        let writing = refusals.clone().write(tasks.clone());
        tasks.spawn("refusals", TaskKind::Work, writing);
        refusals
    }

    /// Notes a refusal, if it is one that leaves the caller unknown.
    pub(super) fn note(&self, error: AuthError, from: Option<SocketAddr>) {
        let name = error.reason();
        let Some(reason) = self.0.reasons.iter().find(|reason| reason.name == name) else {
            return;
        };
        reason.counter.increment(1);
        if reason.count.fetch_add(1, Ordering::Relaxed) == 0 {
            *reason.from.lock().unwrap_or_else(PoisonError::into_inner) = from;
            self.0.first.notify_one();
        }
    }

    async fn write(self, tasks: Tasks) {
        while !tasks.is_stopping() {
            let gathered = async {
                self.0.first.notified().await;
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                () = gathered => {}
                () = tasks.stopping() => {}
            }
            for reason in &self.0.reasons {
                reason.write();
            }
        }
    }
}

impl Reason {
    fn write(&self) {
        let from = self
            .from
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let count = self.count.swap(0, Ordering::Relaxed);
        if count > 0 {
            let from = from.map(tracing::field::display);
            warn!(
                reason = self.name,
                count, from, "callers were refused who are not known"
            );
        }
    }
}
