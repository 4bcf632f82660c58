//! Where subscribers read: the store, with its entries decoded, and how long they leave it alone when it refuses.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error};

use super::entry::{Entry, Print};
use super::metrics as names;
use crate::store::seal::Sealer;
use crate::store::{LogBounds, Store, StoreError};
use crate::types::PartitionId;

const RETRY_MIN: Duration = Duration::from_millis(50);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(2);

/// The store, and the keys to what is sealed in it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) store: Arc<dyn Store>,
    pub(super) sealer: Arc<Sealer>,
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    /// What the entry is at the place that the read began at, if there is one.
    pub(super) anchor: Option<Print>,
    /// The entries behind that place, in order.
    pub(super) entries: Vec<Arc<Entry>>,
    /// The log that they are of, at the same moment.
    pub(super) bounds: LogBounds,
}

impl Source {
    /// At most `limit` entries behind the one at `place`, and what that one is: who has read it sees whether it is
    /// still the same.
    pub(super) async fn read(
        &self,
        partition: &PartitionId,
        place: u64,
        limit: usize,
    ) -> Result<Read, StoreError> {
        let before = place.saturating_sub(1);
        let read = self
            .store
            .read(partition, before, limit.saturating_add(1))
            .await?;
        let (anchor, following) = match read.entries.split_first() {
            Some((first, rest)) if first.sequence == place => (Some(first), rest),
            Some(_) | None => (None, read.entries.as_slice()),
        };
        let open = |stored| Arc::new(Entry::open(partition, &self.sealer, stored));
        Ok(Read {
            anchor: anchor.map(|stored| Print::of_stored(partition, &self.sealer, stored)),
            entries: following.iter().map(open).collect(),
            bounds: read.bounds,
        })
    }
}

/// When to read again what could not be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retry {
    /// Failures in a row.
    failures: u32,
    not_before: Option<Instant>,
}

impl Retry {
    /// Notes a failure: the next try is put off, each time longer, with jitter.
    pub(super) fn failed(&mut self, partition: &PartitionId, refusal: &StoreError) {
        match refusal {
            StoreError::Corrupt { .. } if self.failures == 0 => {
                error!(%partition, error = %refusal, "a log cannot be read; trying again");
            }
            // The writer of the log warns; every subscriber doing so would be a flood.
            StoreError::Corrupt { .. }
            | StoreError::Unavailable(_)
            | StoreError::Fenced { .. }
            | StoreError::Full(_) => {
                debug!(%partition, error = %refusal, "a log cannot be read; trying again");
            }
        }
        metrics::counter!(names::READ_RETRIES).increment(1);
        self.not_before = Some(Instant::now() + pause(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes that it works.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Until when to wait, if that is not over.
    pub(super) fn wait(&self) -> Option<Instant> {
        self.not_before.filter(|&moment| Instant::now() < moment)
    }
}

/// How long to wait after a failure that `failures` others went before.
pub(super) fn pause(failures: u32) -> Duration {
    let bound = RETRY_MIN
        .saturating_mul(1 << failures.min(10))
        .min(RETRY_MAX);
    bound.mul_f64(rand::random_range(0.5..=1.0))
}
