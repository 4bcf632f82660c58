//! Floors, as processes in the gateway's place.

use std::time::Duration;

use crate::bench::{Bench, Core};
use crate::clients::LOGINS_IN_FLIGHT;
use crate::parts::raw_sessions::Raised;
use crate::process::Process;
use crate::upstream::Upstream;

/// How long a mass login may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// FLOOR and LOGINFLOOR.
pub(crate) struct RawSessions {
    pub(crate) process: Process,
}

impl RawSessions {
    /// Starts it without sessions; there can be `most`.
    pub(crate) fn start(bench: &Bench, upstream: &Upstream, most: usize) -> Self {
        let mut process = Process::part(
            bench,
            Core::Measured,
            &[
                "raw-sessions",
                "--upstream",
                &upstream.address,
                "--most",
                &most.to_string(),
                "--in-flight",
                &LOGINS_IN_FLIGHT.to_string(),
            ],
        );
        let _ready: Raised = process.report(PATIENCE);
        Self { process }
    }

    /// Logs in until there are so many. Answers how many seconds it took.
    pub(crate) fn raise(&mut self, count: usize) -> f64 {
        self.process.tell(&count.to_string());
        let raised: Raised = self.process.report(PATIENCE);
        assert_eq!(raised.sessions, count);
        raised.seconds
    }
}
