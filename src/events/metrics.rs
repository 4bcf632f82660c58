//! The metrics of this room. No label is made of an account; the lag of subscriptions has one of the tenant, with a
//! cap.

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
/// Events dropped from the log because they were beyond a bound of its retention; label `reason`.
pub const TRIMMED: &str = "imgate_events_trimmed_total";
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

/// The time since the youngest canary was sent that came through.
pub const CANARY_AGE: &str = "imgate_events_canary_age_seconds";
/// From sending a canary to its delivery.
pub const CANARY_DELAY: &str = "imgate_events_canary_delay_seconds";
/// Named subscriptions that were forgotten, for nobody used them.
pub const SUBSCRIPTIONS_EXPIRED: &str = "imgate_events_subscriptions_expired_total";
/// Events after a named subscription's place; labels `tenant` and `subscription`, with a cap.
pub const SUBSCRIPTION_LAG: &str = "imgate_events_subscription_lag_events";

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
    describe_counter!(
        TRIMMED,
        Unit::Count,
        "Events dropped from the log, by the bound that they were beyond"
    );
    describe_counter!(DELIVERED, Unit::Count, "Events sent to subscribers");
    describe_counter!(GAPS, Unit::Count, "Gaps sent to subscribers, by reason");
    describe_gauge!(SUBSCRIBERS, Unit::Count, "Subscriptions being served");
    describe_counter!(
        READ_RETRIES,
        Unit::Count,
        "Reads for a subscriber that the store did not answer and that are tried again"
    );
    describe_gauge!(
        CANARY_AGE,
        Unit::Seconds,
        "Time since the youngest event of the replica's own was sent that came through to a subscriber"
    );
    describe_histogram!(
        CANARY_DELAY,
        Unit::Seconds,
        "Time from sending an event of the replica's own to its delivery"
    );
    describe_counter!(
        SUBSCRIPTIONS_EXPIRED,
        Unit::Count,
        "Named subscriptions that were forgotten, for nobody used them"
    );
    describe_gauge!(
        SUBSCRIPTION_LAG,
        Unit::Count,
        "Events after the place of a named subscription, in the partitions that this replica holds"
    );
    start_at_zero();
}

fn start_at_zero() {
    for name in [
        APPENDED,
        TRIM_FAILURES,
        DELIVERED,
        READ_RETRIES,
        SUBSCRIPTIONS_EXPIRED,
    ] {
        counter!(name).absolute(0);
    }
    for reason in ["unavailable", "full"] {
        counter!(APPEND_RETRIES, "reason" => reason).absolute(0);
    }
    for reason in ["age", "events", "bytes"] {
        counter!(TRIMMED, "reason" => reason).absolute(0);
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
