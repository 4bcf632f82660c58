//! The simulated upstream, `imgate sim`, and its control port.

use std::path::PathBuf;
use std::thread::JoinHandle;

use imgate::sim::{LoadOptions, LoadOutcome};

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

/// The number of the account with this name.
pub(crate) fn number_of(account: &str) -> usize {
    let number = account
        .strip_prefix("bot")
        .and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{account} is no account of the bench"))
}

/// How connections to the upstream are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls,
}

impl Wire {
    pub(crate) const BOTH: [Self; 2] = [Self::Plain, Self::Tls];

    /// In a row's text.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "WSS",
        }
    }
}

pub(crate) struct Upstream {
    _process: Process,
    /// `HOST:PORT`, where clients connect.
    pub(crate) address: String,
    pub(crate) control: Http,
    control_address: String,
    /// The certificate to trust, if it speaks TLS.
    pub(crate) certificate: Option<PathBuf>,
}

impl Upstream {
    pub(crate) fn start(bench: &Bench, wire: Wire) -> Self {
        let key = bench.file("app.key");
        std::fs::write(&key, APP_KEY).unwrap();
        let app = APP.to_string();
        let mut arguments = vec![
            "sim",
            "--listen",
            "127.0.0.1:0",
            "--control",
            "127.0.0.1:0",
            "--sdk-app-id",
            &app,
            "--secret-key-file",
            key.to_str().unwrap(),
            // Floors send no heartbeat.
            "--heartbeat-timeout",
            "3600",
            // A frame has the size that it was made with.
            "--compress",
            "none",
        ];
        let files = match wire {
            Wire::Plain => None,
            Wire::Tls => Some(certify(bench)),
        };
        if let Some((certificate, key)) = &files {
            arguments.extend(["--tls-cert-file", certificate.to_str().unwrap()]);
            arguments.extend(["--tls-key-file", key.to_str().unwrap()]);
        }
        let mut process = Process::imgate(bench, Core::Load, &arguments);
        let address = process.after("sim listening on ");
        let control = process.after("sim control on http://");
        Self {
            _process: process,
            address,
            control: Http::connect(&control),
            control_address: control,
            certificate: files.map(|files| files.0),
        }
    }

    /// The URL for a tenant's `upstream_url`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() {
            "wss"
        } else {
            "ws"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Begins a load, and waits for its end in another thread.
    pub(crate) fn load(&self, load: &LoadOptions) -> JoinHandle<LoadOutcome> {
        let body = serde_json::to_string(load).unwrap();
        let mut control = Http::connect(&self.control_address);
        std::thread::spawn(move || serde_json::from_str(&control.post("/load", &body)).unwrap())
    }

    /// Cuts all connections at once.
    pub(crate) fn cut_all(&mut self) {
        self.control.post("/drop", "{}");
    }
}

/// Makes a certificate for loopback. Answers its file and that of its key.
fn certify(bench: &Bench) -> (PathBuf, PathBuf) {
    let pair = rcgen::generate_simple_self_signed([String::from("127.0.0.1")]).unwrap();
    let files = (bench.file("upstream.crt"), bench.file("upstream.key"));
    std::fs::write(&files.0, pair.cert.pem()).unwrap();
    std::fs::write(&files.1, pair.signing_key.serialize_pem()).unwrap();
    files
}
