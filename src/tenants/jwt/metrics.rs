//! What is measured of the keys of JWT issuers. The label `issuer` is the ID of one of the configuration's `jwt_issuers`.

use metrics::{Unit, describe_counter, describe_gauge};

/// Readings of an issuer's keys; labels `issuer` and `outcome`.
pub const JWKS_READS: &str = "imgate_tenants_jwks_reads_total";
/// How old the keys of an issuer are that are in use; label `issuer`.
pub const JWKS_AGE: &str = "imgate_tenants_jwks_age_seconds";

/// Declares the metrics.
pub fn describe_metrics() {
    describe_counter!(
        JWKS_READS,
        Unit::Count,
        "Readings of the keys of a JWT issuer, by outcome"
    );
    describe_gauge!(
        JWKS_AGE,
        Unit::Seconds,
        "Time since the keys of a JWT issuer were last read well"
    );
}
