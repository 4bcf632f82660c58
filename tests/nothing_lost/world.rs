//! The upstream, the store and the gateway: each a process of its own, each can be stopped while the others go on.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::arguments::Store;
use crate::control::{Control, Http};
use crate::process::Program;
use crate::redis::RedisServer;
use crate::schedule::Settings;

/// The app that exists upstream.
const APP: u32 = 1_400_000_001;
/// The tenant.
const TENANT: &str = "acme";
/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// Where the gateway is, and which process it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) grpc: SocketAddr,
    pub(crate) process: u32,
}

pub(crate) struct World {
    pub(crate) sim: Program,
    pub(crate) control: SocketAddr,
    pub(crate) redis: Mutex<Option<RedisServer>>,
    pub(crate) settings: Settings,
    gateway: Mutex<Option<Program>>,
    place: watch::Sender<Option<Place>>,
    folder: Option<TempDir>,
    config: PathBuf,
    log: PathBuf,
}

impl World {
    /// Starts the upstream, the store and the gateway, and waits until the gateway is ready.
    pub(crate) async fn start(store: Store, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("app.key"), "the app's secret key").unwrap();
        std::fs::write(file("seal.key"), "5a".repeat(32)).unwrap();
        let mut sim = start_sim(folder.path(), &settings);
        let upstream = sim.address("sim listening on ").await;
        let control = sim.address("sim control on http://").await;
        let redis =
            (store == Store::Redis).then(|| RedisServer::start_with(&["--appendfsync", "always"]));
        let text = config(&settings, upstream, redis.as_ref());
        let config = file("imgate.toml");
        std::fs::write(&config, text).unwrap();
        let log = file("imgate.log");
        let world = Self {
            sim,
            control,
            redis: Mutex::new(redis),
            settings,
            gateway: Mutex::default(),
            place: watch::channel(None).0,
            folder: Some(folder),
            config,
            log,
        };
        let ops = world.start_gateway().await;
        let mut ops = Http::connect(ops).await;
        until("the gateway is ready", async || {
            ops.ask("GET", "/ready", "").await.0 == 200
        })
        .await;
        world
    }

    /// Starts the gateway, which may not be ready for long when the store is away; answers where its operations port is.
    pub(crate) async fn start_gateway(&self) -> SocketAddr {
        let arguments = ["serve", "--config", self.config.to_str().unwrap()];
        let mut gateway = Program::start(&arguments, &self.log);
        let grpc = gateway.address("imgate grpc on ").await;
        let ops = gateway.address("imgate ops on http://").await;
        let process = gateway.id();
        let before = self.gateway.lock().await.replace(gateway);
        assert!(before.is_none(), "it runs already");
        self.place.send_replace(Some(Place { grpc, process }));
        ops
    }

    /// Ends the gateway without any warning.
    pub(crate) async fn kill_gateway(&self) {
        let gateway = self.gateway.lock().await.take().expect("it runs");
        gateway.kill().await;
        self.place.send_replace(None);
    }

    /// Asks the gateway to stop, and waits until it has.
    pub(crate) async fn stop_gateway(&self, within: Duration) {
        let mut gateway = self.gateway.lock().await.take().expect("it runs");
        gateway.signal("TERM").await;
        let ended = gateway.ended(within).await;
        self.place.send_replace(None);
        assert!(
            matches!(ended.code(), Some(0 | 1)),
            "it ended in a way of its own: {ended}"
        );
    }

    /// Sends a signal to the gateway.
    pub(crate) async fn signal_gateway(&self, name: &str) {
        let gateway = self.gateway.lock().await;
        gateway.as_ref().expect("it runs").signal(name).await;
    }

    /// Where the gateway is, now and later.
    pub(crate) fn place(&self) -> watch::Receiver<Option<Place>> {
        self.place.subscribe()
    }

    /// The memory of the gateway's process, in MiB; 0 while it is down.
    pub(crate) fn gateway_memory(&self) -> u64 {
        let process = self.place.borrow().map_or(0, |place| place.process);
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        let kib = status.ok().and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        kib.unwrap_or(0) / 1024
    }

    pub(crate) async fn control(&self) -> Control {
        Control::connect(self.control).await
    }

    /// The sessions, if the gateway tells.
    pub(crate) async fn sessions(&self) -> Result<Vec<v1::Session>, Status> {
        let mut client = SessionServiceClient::new(self.channel().await?);
        let request = v1::ListSessionsRequest {
            page_size: 1000,
            page_token: String::new(),
        };
        Ok(client.list_sessions(request).await?.into_inner().sessions)
    }

    /// Logs accounts in, which must succeed.
    pub(crate) async fn log_in(&self, accounts: &[String]) {
        let client = SessionServiceClient::new(self.channel().await.unwrap());
        let all = accounts.iter().map(|account| {
            let mut client = client.clone();
            let request = v1::LoginRequest {
                account: account.clone(),
                signature: String::new(),
            };
            async move {
                let answer = client.login(request).await.unwrap().into_inner();
                assert_eq!(answer.code, 0, "{account}: {}", answer.desc);
            }
        });
        futures_util::future::join_all(all).await;
    }

    /// How many sessions Redis holds.
    pub(crate) async fn sessions_in_redis(&self) -> u64 {
        let redis = self.redis.lock().await;
        let mut client = redis.as_ref().expect("it runs").client();
        let key = |number| format!("imgate:{{{TENANT}:{number}}}:sessions");
        let count = |number| {
            let mut ask = redis::cmd("HLEN");
            ask.arg(key(number)).query::<u64>(&mut client).unwrap()
        };
        (0..self.settings.partitions).map(count).sum()
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let place = *self.place.borrow();
        let place = place.ok_or_else(|| Status::unavailable("the gateway is down"))?;
        connect(place.grpc).await
    }

    /// What the gateway has logged that it never should; the first lines of it.
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = BufReader::new(File::open(&self.log).unwrap());
        let lines = log.split(b'\n').map(|line| line.unwrap());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
        let wrong = |line: &String| line.contains(" ERROR ") || line.contains("panicked at");
        lines.filter(wrong).take(10).collect()
    }

    /// Keeps the logs, and answers where.
    pub(crate) fn keep_logs(&mut self) -> PathBuf {
        let folder = self.folder.take().expect("the logs are kept once");
        folder.keep()
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await;
    channel.map_err(|error| Status::unavailable(error.to_string()))
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, so: impl AsyncFnMut() -> bool) {
    assert!(soon(so).await, "not in time: {what}");
}

/// Looks again and again until it is so; false if that takes too long.
pub(crate) async fn soon(mut so: impl AsyncFnMut() -> bool) -> bool {
    let since = Instant::now();
    while !so().await {
        if since.elapsed() > PATIENCE {
            return false;
        }
        pause(LOOK).await;
    }
    true
}

/// Lets time pass.
pub(crate) fn pause(duration: Duration) -> impl Future<Output = ()> {
    tokio::time::sleep(duration)
}

fn start_sim(folder: &Path, settings: &Settings) -> Program {
    let (app, key) = (APP.to_string(), folder.join("app.key"));
    let arguments = [
        ["sim", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"].as_slice(),
        &[
            "--sdk-app-id",
            &app,
            "--secret-key-file",
            key.to_str().unwrap(),
        ],
        &[
            "--ack-timeout",
            settings.ack_timeout,
            "--page-size",
            settings.page_size,
        ],
    ]
    .concat();
    Program::start(&arguments, &folder.join("sim.log"))
}

fn config(settings: &Settings, upstream: SocketAddr, redis: Option<&RedisServer>) -> String {
    let Settings {
        partitions,
        lease_ttl,
        ..
    } = settings;
    let kept = match redis {
        Some(redis) => format!("kind = \"redis\", url = \"{}\"", redis.url()),
        None => "kind = \"embedded\", path = \"data/imgate.redb\"".to_owned(),
    };
    let mut text = format!(
        r#"
        replica_id = "imgate-0"
        grpc.listen = "127.0.0.1:0"
        ops.listen = "127.0.0.1:0"
        log.level = "info"
        store = {{ {kept}, operation_timeout = "1s", lease_ttl = "{lease_ttl}" }}
        shutdown.grace = "6s"
        pacing.start_jitter = "200ms"
        keepalive = {{ heartbeat = "1s", answer_timeout = "800ms" }}
        backoff = {{ first = "50ms", max = "1s" }}
        "#
    );
    if redis.is_some() {
        text += "seal = { active = \"k1\", keys = { k1 = { file = \"seal.key\" } } }\n";
    }
    write!(
        text,
        r#"
        [[tenants]]
        id = "{TENANT}"
        partitions = {partitions}
        sdk_app_id = {APP}
        upstream_url = "ws://{upstream}"
        secret_key = {{ file = "app.key" }}
        login_spacing = "300ms"
        "#
    )
    .unwrap();
    text
}
