//! Clients of the gateway's API, as processes beside it.

use std::ops::Range;
use std::time::Duration;

use crate::bench::{Bench, Core};
use crate::gateway::Gateway;
use crate::parts::logins::LoggedIn;
use crate::process::Process;

/// How many logins are on their way at a time, at the gateway and at the floor.
pub(crate) const LOGINS_IN_FLIGHT: usize = 200;
/// How long a mass login may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Logs these accounts in at a tenant. Answers how many seconds it took.
pub(crate) fn log_in(
    bench: &Bench,
    gateway: &Gateway<'_>,
    tenant: &str,
    numbers: Range<usize>,
) -> f64 {
    let mut client = Process::part(
        bench,
        Core::Load,
        &[
            "logins",
            "--gateway",
            &gateway.grpc,
            "--tenant",
            tenant,
            "--first",
            &numbers.start.to_string(),
            "--count",
            &numbers.len().to_string(),
            "--in-flight",
            &LOGINS_IN_FLIGHT.to_string(),
        ],
    );
    client.report::<LoggedIn>(PATIENCE).seconds
}
