//! What is measured of the configuration: whether what runs is what the files say.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Configurations read while the gateway runs, by `outcome`.
pub const RELOADS: &str = "imgate_config_reloads_total";
/// 1 while the gateway runs by what its files say, else 0.
pub const IN_FORCE: &str = "imgate_config_in_force";

/// Declares the metrics and starts them.
pub(crate) fn describe_metrics() {
    describe_counter!(
        RELOADS,
        Unit::Count,
        "Configurations read while the gateway runs, by outcome"
    );
    describe_gauge!(
        IN_FORCE,
        Unit::Count,
        "1 while the gateway runs by what its files say, 0 while they say something that was refused"
    );
    for outcome in ["applied", "unchanged", "refused"] {
        counter!(RELOADS, "outcome" => outcome).absolute(0);
    }
    gauge!(IN_FORCE).set(1.0);
}
