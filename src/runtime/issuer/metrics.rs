//! The metrics of issuers. Labels are closed lists: neither an account nor a tenant is one.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use super::breaker::Condition;
use super::callback::Outcome;

/// Signatures asked of issuers, by issuer and outcome.
pub const CALLS: &str = "imgate_runtime_issuer_calls_total";
/// How long calls of tenants' services took, from sending to the answer.
pub const CALL_SECONDS: &str = "imgate_runtime_issuer_call_duration_seconds";
/// Sessions that wait for their turn or for an answer.
pub const WAITING: &str = "imgate_runtime_issuer_waiting";
/// Breakers by state; there is one for each tenant with a callback.
pub const BREAKERS: &str = "imgate_runtime_issuer_breakers";

/// Declares the metrics and starts them at zero.
pub fn describe_metrics() {
    describe_counter!(
        CALLS,
        Unit::Count,
        "Signatures asked of issuers, by issuer and outcome"
    );
    describe_histogram!(
        CALL_SECONDS,
        Unit::Seconds,
        "Time from calling a tenant's issuer to its answer"
    );
    describe_gauge!(
        WAITING,
        Unit::Count,
        "Sessions that wait for a tenant's issuer"
    );
    describe_gauge!(
        BREAKERS,
        Unit::Count,
        "Circuit breakers of tenants' issuers, by state"
    );
    counter!(CALLS, "issuer" => "local", "outcome" => "ok").absolute(0);
    for outcome in Outcome::all() {
        counter!(CALLS, "issuer" => "callback", "outcome" => outcome.label()).absolute(0);
    }
    gauge!(WAITING).set(0.0);
    for condition in Condition::ALL {
        gauge!(BREAKERS, "state" => condition.label()).set(0.0);
    }
}

/// Counts one breaker in its present state; gone when dropped.
#[derive(Debug)]
pub(super) struct BreakerGauge(Condition);

impl BreakerGauge {
    pub(super) fn new(condition: Condition) -> Self {
        gauge!(BREAKERS, "state" => condition.label()).increment(1.0);
        Self(condition)
    }

    pub(super) fn move_to(&mut self, condition: Condition) {
        if condition != self.0 {
            gauge!(BREAKERS, "state" => self.0.label()).decrement(1.0);
            gauge!(BREAKERS, "state" => condition.label()).increment(1.0);
            self.0 = condition;
        }
    }
}

impl Drop for BreakerGauge {
    fn drop(&mut self) {
        gauge!(BREAKERS, "state" => self.0.label()).decrement(1.0);
    }
}
