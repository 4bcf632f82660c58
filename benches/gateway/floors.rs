//! Floors, as processes in the gateway's place.

use std::path::PathBuf;
use std::time::Duration;

use crate::bench::{Bench, Core};
use crate::clients::LOGINS_IN_FLIGHT;
use crate::parts::raw_sessions::Raised;
use crate::parts::raw_wire;
use crate::process::Process;
use crate::upstream::Upstream;

/// How long a mass login may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// FLOOR, TLSFLOOR and LOGINFLOOR.
pub(crate) struct RawSessions {
    pub(crate) process: Process,
}

impl RawSessions {
    /// Starts it without sessions; there can be `most`.
    pub(crate) fn start(bench: &Bench, upstream: &Upstream, most: usize) -> Self {
        let (logins, in_flight) = (logins(bench, most), LOGINS_IN_FLIGHT.to_string());
        let mut arguments = vec!["raw-sessions", "--upstream", &upstream.address];
        arguments.extend([
            "--logins",
            logins.to_str().unwrap(),
            "--in-flight",
            &in_flight,
        ]);
        if let Some(certificate) = &upstream.certificate {
            arguments.extend(["--certificate", certificate.to_str().unwrap()]);
        }
        let mut process = Process::part(bench, Core::Measured, &arguments);
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

/// The file with so many logins, made once.
fn logins(bench: &Bench, count: usize) -> PathBuf {
    let file = bench.file(&format!("logins-{count}"));
    if !file.exists() {
        let lines = (0..count).flat_map(|number| [raw_wire::login(number), vec![b'\n']]);
        std::fs::write(&file, lines.flatten().collect::<Vec<_>>()).unwrap();
    }
    file
}
