//! What is counted of a log.

use std::time::Duration;

use super::AppendError;
use crate::events::metrics as names;
use crate::store::Trimmed;
use crate::types::PartitionId;

/// Counts what one log does. Of the gateway's own logs nothing is counted: they are no traffic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    counts: bool,
}

impl Meter {
    pub(super) fn of(partition: &PartitionId) -> Self {
        Self {
            counts: !partition.tenant.is_reserved(),
        }
    }

    /// A commit with so many events and records begins.
    pub(super) fn batch(self, size: usize) {
        if self.counts {
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            metrics::histogram!(names::BATCH_SIZE).record(size);
        }
    }

    /// A batch has an end, good or bad.
    pub(super) fn ended(self, after: Duration) {
        if self.counts {
            metrics::histogram!(names::APPEND_SECONDS).record(after);
        }
    }

    /// Events are in the log.
    pub(super) fn appended(self, events: u64) {
        if self.counts {
            metrics::counter!(names::APPENDED).increment(events);
        }
    }

    /// The store did not take a commit, which is tried again.
    pub(super) fn retry(self, reason: &'static str) {
        if self.counts {
            metrics::counter!(names::APPEND_RETRIES, "reason" => reason).increment(1);
        }
    }

    /// An append has failed for good.
    pub(super) fn failed(self, error: AppendError) {
        if self.counts {
            metrics::counter!(names::APPEND_FAILURES, "reason" => error.label()).increment(1);
        }
    }

    /// The store has trimmed.
    pub(super) fn trimmed(self, trimmed: &Trimmed) {
        if self.counts {
            for (reason, dropped) in [
                ("age", trimmed.too_old),
                ("events", trimmed.too_many),
                ("bytes", trimmed.too_large),
            ] {
                metrics::counter!(names::TRIMMED, "reason" => reason).increment(dropped);
            }
        }
    }

    /// The store did not trim.
    pub(super) fn not_trimmed(self) {
        if self.counts {
            metrics::counter!(names::TRIM_FAILURES).increment(1);
        }
    }
}
