//! The simulated upstream, `imgate sim`, and its control port.

use crate::bench::{Bench, Core};
use crate::http::Http;
use crate::process::Process;

/// The app of the bench, and its secret key.
pub(crate) const APP: u64 = 1_400_000_001;
pub(crate) const APP_KEY: &str = "bench-app-key-0123456789abcdef00";

/// The name of the account with this number.
pub(crate) fn account(number: usize) -> String {
    format!("bot{number:06}")
}

pub(crate) struct Upstream {
    pub(crate) process: Process,
    /// `HOST:PORT`, where clients connect.
    pub(crate) address: String,
    pub(crate) control: Http,
}

impl Upstream {
    pub(crate) fn start(bench: &Bench) -> Self {
        let key = bench.file("app.key");
        std::fs::write(&key, APP_KEY).unwrap();
        let mut process = Process::imgate(
            bench,
            Core::Load,
            &[
                "sim",
                "--listen",
                "127.0.0.1:0",
                "--control",
                "127.0.0.1:0",
                "--sdk-app-id",
                &APP.to_string(),
                "--secret-key-file",
                key.to_str().unwrap(),
                // Floors send no heartbeat.
                "--heartbeat-timeout",
                "3600",
                // A frame has the size that it was made with.
                "--compress",
                "none",
            ],
        );
        let address = process.after("sim listening on ");
        let control = process.after("sim control on http://");
        Self {
            process,
            address,
            control: Http::connect(&control),
        }
    }

    /// The URL for a tenant's `upstream_url`.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Cuts all connections at once.
    pub(crate) fn cut_all(&mut self) {
        self.control.post("/drop", "{}");
    }
}
