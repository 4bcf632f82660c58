//! The metrics of this room. No label is made of a tenant or an account.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Events that are in the log.
pub const APPENDED: &str = "imgate_events_appended_total";
/// Events and records per commit.
pub const BATCH_SIZE: &str = "imgate_events_append_batch_size";
/// From taking a batch to its being in the store, retries included.
pub const APPEND_SECONDS: &str = "imgate_events_append_duration_seconds";
/// Commits that the store did not take and that are tried again; label `reason`.
pub const APPEND_RETRIES: &str = "imgate_events_append_retries_total";
/// Appends that failed for good; label `reason`.
pub const APPEND_FAILURES: &str = "imgate_events_append_failures_total";
/// Trims that the store did not do; they are done with the next.
pub const TRIM_FAILURES: &str = "imgate_events_trim_failures_total";
/// Events sent to subscribers.
pub const DELIVERED: &str = "imgate_events_delivered_total";
/// Gaps sent to subscribers; label `reason`.
pub const GAPS: &str = "imgate_events_gaps_total";
/// Subscriptions being served.
pub const SUBSCRIBERS: &str = "imgate_events_subscribers";
/// Reads for a subscriber that the store did not answer and that are tried again.
pub const READ_RETRIES: &str = "imgate_events_read_retries_total";

/// Declares the metrics and sets the counters to zero, so that they are there before anything happens.
pub fn describe_metrics() {
    describe_counter!(APPENDED, Unit::Count, "Events appended to the log");
    describe_histogram!(
        BATCH_SIZE,
        Unit::Count,
        "Events and session records in one commit"
    );
    describe_histogram!(
        APPEND_SECONDS,
        Unit::Seconds,
        "Time from taking a batch to its being in the store, retries included"
    );
    describe_counter!(
        APPEND_RETRIES,
        Unit::Count,
        "Commits that the store did not take and that are tried again, by reason"
    );
    describe_counter!(
        APPEND_FAILURES,
        Unit::Count,
        "Appends that failed for good, by reason"
    );
    describe_counter!(
        TRIM_FAILURES,
        Unit::Count,
        "Trims of the log that the store did not do"
    );
    describe_counter!(DELIVERED, Unit::Count, "Events sent to subscribers");
    describe_counter!(GAPS, Unit::Count, "Gaps sent to subscribers, by reason");
    describe_gauge!(SUBSCRIBERS, Unit::Count, "Subscriptions being served");
    describe_counter!(
        READ_RETRIES,
        Unit::Count,
        "Reads for a subscriber that the store did not answer and that are tried again"
    );
    for name in [APPENDED, TRIM_FAILURES, DELIVERED, READ_RETRIES] {
        counter!(name).absolute(0);
    }
    for reason in ["unavailable", "full"] {
        counter!(APPEND_RETRIES, "reason" => reason).absolute(0);
    }
    for reason in ["queue_full", "fenced", "corrupt", "unsealed", "stopping"] {
        counter!(APPEND_FAILURES, "reason" => reason).absolute(0);
    }
    for reason in [
        "retention",
        "log_reset",
        "upstream",
        "corrupt",
        "not_stored",
        "unspecified",
    ] {
        counter!(GAPS, "reason" => reason).absolute(0);
    }
    gauge!(SUBSCRIBERS).set(0.0);
}
