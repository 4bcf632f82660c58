//! Keeps a log to what is retained, beside the task that writes it: a long trim delays no append.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use super::LogOptions;
use super::meter::Meter;
use crate::runtime::supervisor::Tasks;
use crate::store::{Lease, Retention, Store, StoreError};
use crate::types::{UnixMillis, WallClock};

/// Trims the log that a writer fills, while its replica owns it.
pub(super) struct Trimmer {
    pub(super) store: Arc<dyn Store>,
    pub(super) lease: watch::Receiver<Option<Lease>>,
    pub(super) options: watch::Receiver<LogOptions>,
    /// How many events the writer has appended.
    pub(super) appended: watch::Receiver<u64>,
    pub(super) meter: Meter,
}

impl Trimmer {
    /// Trims whenever enough was appended or enough time has passed, until told to stop or until the writer has
    /// ended.
    pub(super) async fn run(mut self, tasks: Tasks) {
        let mut next_at = self.options.borrow().trim_every_events;
        loop {
            let trim_every = self.options.borrow().trim_every;
            let pass = async {
                let enough = self.appended.wait_for(|appended| *appended >= next_at);
                tokio::select! {
                    enough = enough => enough.map(|_| ())?,
                    () = tokio::time::sleep(trim_every) => {}
                }
                next_at = *self.appended.borrow() + self.options.borrow().trim_every_events;
                self.trim().await;
                Ok::<(), watch::error::RecvError>(())
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                writing = pass => if writing.is_err() {
                    return;
                }
            }
        }
    }

    /// Trims step by step. What the store does not do now it does later.
    async fn trim(&self) {
        loop {
            let lease = self.lease.borrow().clone();
            let Some(lease) = lease else { return };
            match self.store.trim(&lease, &self.retention()).await {
                Ok(trimmed) => {
                    self.meter.trimmed(&trimmed);
                    if !trimmed.more {
                        return;
                    }
                }
                // The writer finds it out, too, and tells.
                Err(StoreError::Fenced { .. }) => return,
                Err(
                    refusal @ (StoreError::Unavailable(_)
                    | StoreError::Full(_)
                    | StoreError::Corrupt { .. }),
                ) => {
                    self.meter.not_trimmed();
                    warn!(error = %refusal, "the log was not trimmed; it will be later");
                    return;
                }
            }
        }
    }

    fn retention(&self) -> Retention {
        let options = self.options.borrow();
        let age = u64::try_from(options.retain_age.as_millis()).unwrap_or(u64::MAX);
        Retention {
            events: options.retain_events,
            bytes: options.retain_bytes,
            since: UnixMillis(WallClock.now().0.saturating_sub(age)),
        }
    }
}
