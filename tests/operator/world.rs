//! A simulated upstream, and a gateway with an operator and one tenant.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::admin_service_client::AdminServiceClient;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::Channel;

use crate::control::{Control, Http};
use crate::program::Program;

pub(crate) const APP: u32 = 1_400_000_001;
pub(crate) const APP_KEY: &str = "the app's secret key";
pub(crate) const OPERATOR_KEY: &str = "the-operator's-key-0123456789abcdef";
pub(crate) const API_KEY: &str = "acme's-api-key-0123456789abcdef";
/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct World {
    pub(crate) control: Control,
    gateway: Option<Program>,
    grpc: SocketAddr,
    ops: SocketAddr,
    upstream: SocketAddr,
    log_level: &'static str,
    _sim: Program,
    /// Dropped last: the processes that end before it log there.
    folder: TempDir,
}

impl World {
    /// Starts everything; `k1` alone seals.
    pub(crate) async fn start(log_level: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("app.key", APP_KEY);
        write("operator.key", OPERATOR_KEY);
        write("api.key", API_KEY);
        for (name, byte) in [("k1", "11"), ("k2", "22"), ("k3", "33")] {
            write(&format!("{name}.key"), &byte.repeat(32));
        }
        let key = folder.path().join("app.key");
        let app = APP.to_string();
        let mut sim = vec!["sim", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"];
        sim.extend(["--sdk-app-id", &app]);
        sim.extend(["--secret-key-file", key.to_str().unwrap()]);
        let mut sim = Program::start(&sim, &folder.path().join("sim.log"));
        let upstream = sim.address("sim listening on ").await;
        let control = sim.address("sim control on http://").await;
        let mut world = Self {
            control: Control::connect(control).await,
            gateway: None,
            grpc: control,
            ops: control,
            upstream,
            folder,
            log_level,
            _sim: sim,
        };
        world.configure("k1", &["k1"], "");
        world.start_gateway().await;
        world
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration, with these sealing keys and these further lines for the tenant.
    pub(crate) fn configure(&self, active: &str, keys: &[&str], tenant: &str) {
        let keys: Vec<String> = keys
            .iter()
            .map(|key| format!("{key} = {{ file = \"{key}.key\" }}"))
            .collect();
        let mut text = format!(
            "replica_id = \"r\"\ngrpc.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\n\
             log = {{ format = \"json\", level = \"{level}\" }}\n\
             store = {{ kind = \"embedded\", path = \"data/imgate.redb\" }}\n\
             seal = {{ active = \"{active}\", keys = {{ {keys} }} }}\n\
             keepalive = {{ heartbeat = \"1s\", answer_timeout = \"900ms\" }}\n",
            level = self.log_level,
            keys = keys.join(", "),
        );
        writeln!(
            text,
            "[[operators]]\nid = \"ops-1\"\nsha256 = \"{}\"\n\
             [[tenants]]\nid = \"acme\"\nsdk_app_id = {APP}\nupstream_url = \"ws://{}\"\n\
             secret_key = {{ file = \"app.key\" }}\npartitions = 2\nlogin_spacing = \"0s\"\n\
             invoke_commands = [\"openim.unheard_of\"]\nkick_policy = \"retake\"\nretake_delay = \"1s\"\nlog.seal = true\n{tenant}\n\
             [[tenants.api_keys]]\nid = \"all\"\nsha256 = \"{}\"\n\
             scopes = [\"sessions\", \"events\", \"messages\"]",
            digest(OPERATOR_KEY),
            self.upstream,
            digest(API_KEY),
        )
        .unwrap();
        std::fs::write(self.file("imgate.toml"), text).unwrap();
    }

    pub(crate) async fn start_gateway(&mut self) {
        let config = self.file("imgate.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let mut gateway = Program::start(&arguments, &self.file("imgate.log"));
        self.grpc = gateway.address("imgate grpc on ").await;
        self.ops = gateway.address("imgate ops on http://").await;
        self.gateway = Some(gateway);
        let mut ops = Http::connect(self.ops).await;
        until("the gateway is ready", async || {
            ops.ask("GET", "/ready", "").await.0 == 200
        })
        .await;
    }

    pub(crate) async fn restart(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.signal("TERM").await;
        assert!(gateway.ended(PATIENCE).await.success());
        self.start_gateway().await;
    }

    /// Has the gateway read its configuration, and waits until that has had its outcome so many times.
    pub(crate) async fn reload(&self, outcome: &str, times: f64) {
        self.gateway.as_ref().unwrap().signal("HUP").await;
        let mut ops = Http::connect(self.ops).await;
        let series = format!("imgate_config_reloads_total{{outcome=\"{outcome}\"}} ");
        until(outcome, async || {
            let (_, body) = ops.ask("GET", "/metrics", "").await;
            let body = String::from_utf8(body).unwrap();
            let count = body.lines().find_map(|line| line.strip_prefix(&series));
            count.unwrap().parse::<f64>().unwrap() >= times
        })
        .await;
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel().await)
    }

    pub(crate) async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel().await)
    }

    /// Logs in, and expects this of the upstream.
    pub(crate) async fn log_in(&self, account: &str, code: i32) {
        let request = v1::LoginRequest {
            account: account.into(),
            signature: String::new(),
        };
        let answer = self.sessions().await.login(as_tenant(request)).await;
        assert_eq!(answer.unwrap().into_inner().code, code, "{account}");
    }

    pub(crate) async fn log_out(&self, account: &str) {
        let request = v1::LogoutRequest {
            account: account.into(),
        };
        let answer = self.sessions().await.logout(as_tenant(request)).await;
        assert!(!answer.unwrap().into_inner().session.unwrap().desired);
    }

    pub(crate) async fn session(&self, account: &str) -> v1::Session {
        let request = v1::GetSessionRequest {
            account: account.into(),
        };
        let answer = self.sessions().await.get_session(as_tenant(request)).await;
        answer.unwrap().into_inner().session.unwrap()
    }

    pub(crate) async fn is_online(&self, account: &str) -> bool {
        self.session(account).await.state() == v1::SessionState::Online
    }

    /// `imgate keys rotate` with a key of this file, and more arguments.
    pub(crate) async fn rotate(&self, key: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgate"));
        command
            .args([
                "keys",
                "rotate",
                "--gateway",
                &format!("http://{}", self.grpc),
            ])
            .arg("--operator-key-file")
            .arg(self.file(key))
            .args(more);
        let running = tokio::task::spawn_blocking(move || command.output().unwrap());
        running.await.unwrap()
    }

    /// What the audit has so far, without the time.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.file("imgate.log")).unwrap();
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["target"] == "imgate::audit")
            .collect()
    }
}

fn digest(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A request of the tenant's.
pub(crate) fn as_tenant<T>(message: T) -> Request<T> {
    with_key(API_KEY, message)
}

/// A request of the operator's.
pub(crate) fn as_operator<T>(message: T) -> Request<T> {
    with_key(OPERATOR_KEY, message)
}

fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
