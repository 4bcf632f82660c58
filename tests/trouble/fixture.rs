//! A simulator, a gateway in front of it, and a bot's client of that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use imgate::app::App;
use imgate::config::{ApiKey, Config, Scope, Seal, SealKeys, StoreKind, Tenant};
use imgate::connectors::tencent::usersig;
use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use imgate::runtime::supervisor::Tasks;
use imgate::sim::{Sim, SimHandle, SimOptions, UserStats};
use imgate::types::{ReplicaId, Secret, TenantId, WallClock};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

pub(crate) use imgate::proto::v1::{ParkReason, SessionState};

pub(crate) use crate::client::{Client, Events};

/// The app of every test.
pub(crate) const APP: u32 = 1_400_000_001;
/// Its key.
pub(crate) const KEY: &str = "local-test-key-0123456789abcdef";
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// The greatest delay between attempts to come online.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_millis(200);

/// A secret for a configuration or a signature.
pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

/// A good signature of an hour.
pub(crate) fn sig(account: &str) -> String {
    sig_for(account, Duration::from_secs(3600))
}

/// A good signature.
pub(crate) fn sig_for(account: &str, lifetime: Duration) -> String {
    sig_of(APP, KEY, account, lifetime)
}

/// Any signature, made now.
pub(crate) fn sig_of(app: u32, key: &str, account: &str, lifetime: Duration) -> String {
    let (app, key) = (app.into(), secret(key));
    let sig = usersig::mint(app, &key, account, WallClock.now(), lifetime, None);
    sig.expose().clone()
}

/// A simulator of its own, gone with the value.
pub(crate) struct Upstream {
    pub(crate) sim: SimHandle,
    tasks: Tasks,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// At an address that was another's before, or nobody's.
    pub(crate) async fn start_at(listen: SocketAddr) -> Self {
        let tasks = Tasks::new();
        let mut options = SimOptions::new(APP.into(), secret(KEY));
        options.listen = listen;
        // A little less than what the gateway keeps to: a login that comes too soon is refused.
        options.login_spacing = Duration::from_millis(250);
        let sim = Sim::start(options, &tasks).await.unwrap();
        Self { sim, tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.sim.listen_addr())
    }

    /// What has happened to an account; all zero if it is not known.
    pub(crate) fn user(&self, account: &str) -> UserStats {
        let stats = self.sim.stats();
        stats.users.get(account).copied().unwrap_or_default()
    }

    /// Sends these texts from one account to another.
    pub(crate) fn texts(&self, from: &str, to: &str, texts: impl IntoIterator<Item = String>) {
        self.sim.account(from).unwrap();
        for text in texts {
            self.sim.message(from, to, &text).unwrap();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A tenant whose bots bring the signatures. Its API key is `<id>-key`.
pub(crate) fn tenant(id: &str, upstream_url: String) -> Tenant {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key_of(id).as_bytes());
    let hex = |byte: &u8| format!("{byte:02x}");
    let mut tenant = Tenant::new(TenantId::new(id), APP, upstream_url);
    tenant.partitions = 2;
    tenant.login_spacing = Duration::from_millis(300);
    tenant.retake_delay = Duration::from_millis(300);
    tenant.api_keys = vec![ApiKey::new(
        "all",
        digest.as_ref().iter().map(hex).collect::<String>(),
        vec![Scope::Sessions, Scope::Events, Scope::Messages],
    )];
    tenant
}

/// A tenant with the upstream's key: the gateway makes the signatures itself.
pub(crate) fn issuing_tenant(id: &str, upstream_url: String) -> Tenant {
    tenant(id, upstream_url).with_secret_key(secret(KEY))
}

pub(crate) fn key_of(tenant: &str) -> String {
    format!("{tenant}-key")
}

/// Everything short, and every port free.
pub(crate) fn config(store: StoreKind, tenants: Vec<Tenant>) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let redis = matches!(store, StoreKind::Redis { .. });
    let mut config = Config::new(store, tenants);
    if redis {
        config.seal = Seal::Keys(seal_keys(7));
    }
    config.replica_id = ReplicaId::new("first");
    config.grpc.listen = any;
    config.ops.listen = any;
    config.store.operation_timeout = Duration::from_millis(500);
    config.store.lease_ttl = Duration::from_secs(3);
    config.pacing.start_jitter = Duration::from_millis(50);
    config.backoff.first = Duration::from_millis(50);
    config.backoff.max = MAX_BACKOFF;
    config.keepalive.heartbeat = Duration::from_millis(500);
    config.keepalive.answer_timeout = Duration::from_millis(400);
    config
}

/// A ring of one key, whose bytes are all the same.
pub(crate) fn seal_keys(byte: u8) -> SealKeys {
    SealKeys {
        active: "k1".into(),
        keys: BTreeMap::from([("k1".into(), Secret::new([byte; 32]))]),
    }
}

/// What this test's thread has counted. Each test has a thread of its own and runs everything on it.
pub(crate) struct Metrics(PrometheusHandle);

thread_local! {
    static METRICS: PrometheusHandle = {
        let recorder: &'static _ = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        std::mem::forget(metrics::set_default_local_recorder(recorder));
        recorder.handle()
    };
}

impl Metrics {
    pub(crate) fn here() -> Self {
        Self(METRICS.with(Clone::clone))
    }

    /// See [`sum_of`].
    pub(crate) fn sum(&self, name: &str, labels: &str) -> f64 {
        sum_of(&self.0.render(), name, labels)
    }
}

/// A running gateway, with what it takes to start it again.
pub(crate) struct Gateway {
    app: App,
    config: Config,
    pub(crate) metrics: Metrics,
    _no_panics: NoPanics,
}

/// Fails the test if a task of the gateway's has panicked.
struct NoPanics;

impl Drop for NoPanics {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let panics = Metrics::here().sum("imgate_runtime_task_panics_total", "");
            assert_eq!(panics, 0.0, "a task has panicked");
        }
    }
}

impl Gateway {
    /// Starts a gateway, which need not be ready yet.
    pub(crate) async fn start(config: Config) -> Self {
        let metrics = Metrics::here();
        let app = App::start(config.clone(), metrics.0.clone()).await.unwrap();
        Self {
            app,
            config,
            metrics,
            _no_panics: NoPanics,
        }
    }

    /// A ready one with a store in memory.
    pub(crate) async fn with(tenants: Vec<Tenant>) -> Self {
        Self::start(config(StoreKind::Memory, tenants))
            .await
            .ready()
            .await
    }

    pub(crate) async fn ready(self) -> Self {
        within(self.app.ready()).await;
        self
    }

    /// What `/ready` answers: its status line and its body.
    pub(crate) async fn asked_ready(&self) -> String {
        http_get(self.app.ops_address(), "/ready").await
    }

    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.app.grpc_address()
    }

    /// Stops it as a signal does.
    pub(crate) async fn stop(self) -> Config {
        assert!(within(self.app.stop()).await, "it does not stop in time");
        self.config
    }

    /// Stops it when the store is away: in time or not.
    pub(crate) async fn stop_anyway(self) -> Config {
        let _in_time = within(self.app.stop()).await;
        self.config
    }

    /// Stops it and starts it again.
    pub(crate) async fn restart(self) -> Self {
        let config = self.stop().await;
        Self::start(config).await.ready().await
    }

    /// A client of the tenant `acme`.
    pub(crate) async fn client(&self) -> Client {
        self.client_of("acme").await
    }

    pub(crate) async fn client_of(&self, tenant: &str) -> Client {
        Client::connect(self.app.grpc_address(), tenant).await
    }
}

pub(crate) fn text_of(kind: Kind) -> Option<String> {
    let Kind::Message(message) = kind else {
        return None;
    };
    match message.elements.into_iter().next()?.kind? {
        v1::element::Kind::Text(text) => Some(text.text),
        _ => None,
    }
}

/// `prefix-0`, `prefix-1`, ...
pub(crate) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// A refusal by the gateway: its code, its reason, and the field or an empty text.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, String) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(info.domain, "imgate");
    let field = info.metadata.get("field").cloned().unwrap_or_default();
    (status.code(), info.reason.clone(), field)
}

/// Asserts that the caller's deadline has passed: by the gateway's clock or by the caller's own, whoever is first.
pub(crate) fn assert_late<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let code = answer.unwrap_err().code();
    let late = matches!(code, Code::DeadlineExceeded | Code::Cancelled);
    assert!(late, "{code:?}");
}

/// Asserts that the store is said to be away, and that waiting is said to help.
pub(crate) fn assert_store_away<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.as_ref().unwrap_err();
    let retry = status.get_error_details().retry_info().cloned();
    assert!(retry.is_some_and(|retry| retry.retry_delay.is_some()));
    let (code, reason, _) = refusal(answer);
    assert_eq!(
        (code, reason.as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
}

/// A whole HTTP answer.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// The sum of all series of a metric whose labels contain this text, in what `/metrics` says.
pub(crate) fn sum_of(metrics: &str, name: &str, labels: &str) -> f64 {
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// The outcome of something that does not take long.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("too late")
}

/// Looks again and again until something is found, or for too long.
pub(crate) async fn poll<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let found = look().await;
        if found.is_some() || began.elapsed() > PATIENCE {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until something is true.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let found = poll(async || holds().then_some(())).await;
    assert!(found.is_some(), "{what}");
}
