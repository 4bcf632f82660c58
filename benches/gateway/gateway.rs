//! The gateway under measure: `imgate serve` with everything on.

use std::fmt::Write as _;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::bench::{Bench, Core};
use crate::http::Http;
use crate::process::{PATIENCE, Process};
use crate::redis_server::RedisServer;
use crate::upstream::{APP, APP_KEY, Upstream};

/// How many upstream connections per second stand for no pace at all: the greatest number that the configuration takes.
pub(crate) const UNPACED: u32 = 100_000;

/// How long many events may take.
const EVENTS: Duration = Duration::from_secs(300);
/// Between two looks at the metrics.
const BEAT: Duration = Duration::from_millis(20);

/// Where the gateway keeps its sessions and events.
pub(crate) enum Store<'a> {
    Memory,
    Embedded,
    Redis(&'a RedisServer),
}

/// What is particular to a scenario.
pub(crate) struct Setup<'a> {
    pub(crate) store: Store<'a>,
    pub(crate) upstream: &'a Upstream,
    /// Upstream connections per second.
    pub(crate) pace: u32,
    pub(crate) tenants: &'a [Tenant<'a>],
}

/// A tenant, and how often it may call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant<'a> {
    pub(crate) id: &'a str,
    pub(crate) logins_per_minute: u32,
    pub(crate) sends_per_second: u32,
    pub(crate) subscribers: u32,
    /// Events that a partition of its log keeps, and so far behind a subscriber may be.
    pub(crate) kept: u32,
}

impl<'a> Tenant<'a> {
    /// One that may call as often as it likes.
    pub(crate) fn free(id: &'a str) -> Self {
        Self {
            id,
            logins_per_minute: 10_000_000,
            sends_per_second: 1_000_000,
            subscribers: 1000,
            kept: 100_000,
        }
    }

    /// One whose log keeps all of a flood.
    pub(crate) fn keeping_all(id: &'a str) -> Self {
        let kept = 2_000_000;
        Self {
            kept,
            ..Self::free(id)
        }
    }
}

/// The API key of a tenant.
pub(crate) fn api_key(tenant: &str) -> String {
    format!("imgate_bench_{tenant}_0123456789abcdef0123456789abcdef")
}

pub(crate) struct Gateway<'a> {
    bench: &'a Bench,
    // Dropped in this order: the process ends before its folder goes.
    pub(crate) process: Process,
    folder: TempDir,
    /// `HOST:PORT` of the API.
    pub(crate) grpc: String,
    ops: Http,
}

impl<'a> Gateway<'a> {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(bench: &'a Bench, setup: &Setup<'_>) -> Self {
        let folder = tempfile::tempdir_in(bench.folder()).unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("imgate.toml"), configuration(setup)).unwrap();
        std::fs::write(file("app.key"), APP_KEY).unwrap();
        std::fs::write(file("seal.key"), "5a".repeat(32)).unwrap();
        let (process, grpc, ops) = serve(bench, &folder);
        let mut gateway = Self {
            bench,
            process,
            folder,
            grpc,
            ops,
        };
        gateway.until_ready();
        gateway
    }

    /// Stops it. Its store stays.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it after it was stopped, and waits until it is ready.
    pub(crate) fn start_again(&mut self) {
        (self.process, self.grpc, self.ops) = serve(self.bench, &self.folder);
        self.until_ready();
    }

    /// How many sessions are in a state, such as `online`.
    pub(crate) fn sessions(&mut self, state: &str) -> usize {
        let label = format!("state=\"{state}\"");
        self.metric("imgate_session_sessions", &label) as usize
    }

    /// The sum of a metric over its series that have this label; all if it is empty.
    pub(crate) fn metric(&mut self, name: &str, label: &str) -> f64 {
        let (_, page) = self.ops.get("/metrics");
        let of_name = page.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        });
        of_name
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until so many sessions are online.
    pub(crate) fn until_online(&mut self, count: usize, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let online = self.sessions("online");
            if online >= count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{online} of {count} are online after {within:?}"
            );
            std::thread::sleep(BEAT);
        }
    }

    /// Waits until upstreams have brought so many events since it was started.
    pub(crate) fn until_events(&mut self, count: usize) {
        let deadline = Instant::now() + EVENTS;
        loop {
            let came = self.metric("imgate_session_events_in_total", "") as usize;
            if came >= count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{came} of {count} events have come after {EVENTS:?}"
            );
            std::thread::sleep(BEAT);
        }
    }

    fn until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.ops.get("/ready").0 != 200 {
            assert!(Instant::now() < deadline, "the gateway is never ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn serve(bench: &Bench, folder: &TempDir) -> (Process, String, Http) {
    let config = folder.path().join("imgate.toml");
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let mut process = Process::imgate(bench, Core::Measured, &arguments);
    let grpc = process.after("imgate grpc on ");
    let ops = process.after("imgate ops on http://");
    (process, grpc, Http::connect(&ops))
}

fn configuration(setup: &Setup<'_>) -> String {
    let store = match setup.store {
        Store::Memory => String::from("kind = \"memory\""),
        Store::Embedded => String::from("kind = \"embedded\""),
        Store::Redis(server) => format!("kind = \"redis\", url = \"{}\"", server.url()),
    };
    let mut text = format!(
        r#"replica_id = "bench"
grpc.listen = "127.0.0.1:0"
ops.listen = "127.0.0.1:0"
log.level = "warn"
# Disks and machines are busy at times, and that is not what is measured.
store = {{ {store}, operation_timeout = "10s", lease_ttl = "60s" }}
seal = {{ active = "k1", keys = {{ k1 = {{ file = "seal.key" }} }} }}
pacing = {{ connects_per_second = {pace}, start_jitter = "0ms" }}
"#,
        pace = setup.pace
    );
    let certificate = setup.upstream.certificate.as_ref();
    let trust = certificate.map_or_else(String::new, |file| {
        format!("upstream_ca_file = \"{}\"\n", file.display())
    });
    for tenant in setup.tenants {
        let sha256 = hex_digest(&api_key(tenant.id));
        write!(
            text,
            r#"
[[tenants]]
id = "{id}"
sdk_app_id = {APP}
upstream_url = "{url}"
{trust}secret_key = {{ file = "app.key" }}
limits.logins_per_minute = {logins}
limits.sends_per_second = {sends}
limits.subscribers = {subscribers}
log = {{ retain_events = {kept}, retain_bytes = {bytes} }}
[[tenants.api_keys]]
id = "all"
sha256 = "{sha256}"
scopes = ["sessions", "events", "messages"]
"#,
            id = tenant.id,
            url = setup.upstream.url(),
            logins = tenant.logins_per_minute,
            sends = tenant.sends_per_second,
            subscribers = tenant.subscribers,
            kept = tenant.kept,
            // Enough for as many events of the bench.
            bytes = u64::from(tenant.kept) * 670,
        )
        .unwrap();
    }
    text
}

fn hex_digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
