//! What is counted of a log.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

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

    /// The store did not take a commit, which is tried again.
    pub(super) fn retry(self, reason: &'static str) {
        if self.counts {
            counter!(names::APPEND_RETRIES, "reason" => reason).increment(1);
        }
    }

    /// An append has failed for good.
    pub(super) fn failed(self, error: AppendError) {
        if self.counts {
            counter!(names::APPEND_FAILURES, "reason" => error.label()).increment(1);
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
                counter!(names::TRIMMED, "reason" => reason).increment(dropped);
            }
        }
    }

    /// The store did not trim.
    pub(super) fn not_trimmed(self) {
        if self.counts {
            counter!(names::TRIM_FAILURES).increment(1);
        }
    }
}

/// Measures the commits of one log, but for the gateway's own. The instruments are looked up once: a busy log commits some
/// thousand times a second.
#[derive(Debug)]
pub(super) struct Commits {
    size: Histogram,
    seconds: Histogram,
    events: Counter,
}

impl Commits {
    pub(super) fn of(partition: &PartitionId) -> Self {
        if partition.tenant.is_reserved() {
            return Self {
                size: Histogram::noop(),
                seconds: Histogram::noop(),
                events: Counter::noop(),
            };
        }
        Self {
            size: histogram!(names::BATCH_SIZE),
            seconds: histogram!(names::APPEND_SECONDS),
            events: counter!(names::APPENDED),
        }
    }

    /// One with so many events and records begins.
    pub(super) fn began(&self, size: usize) {
        self.size.record(u32::try_from(size).unwrap_or(u32::MAX));
    }

    /// One has an end, good or bad.
    pub(super) fn ended(&self, after: Duration) {
        self.seconds.record(after);
    }

    /// Events are in the log.
    pub(super) fn appended(&self, events: u64) {
        self.events.increment(events);
    }
}
