//! A simulated upstream and a gateway, each a process of its own, and a store that outlives both.

use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::join_all;
use imgate::proto::v1;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::control::{Control, Http};
use crate::process::Program;
use crate::redis::RedisServer;

/// The app that exists upstream.
const APP: u32 = 1_400_000_001;
/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// Where the gateway keeps what must outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    Embedded,
    Redis,
}

/// What a story is played with.
pub(crate) struct Stage {
    pub(crate) store: StoreChoice,
    pub(crate) log: &'static str,
    /// More lines for the top of the configuration.
    pub(crate) config: &'static str,
    /// More lines for the tenant.
    pub(crate) tenant: &'static str,
    /// More arguments for the simulator.
    pub(crate) sim: &'static [&'static str],
}

impl Stage {
    pub(crate) const fn new(store: StoreChoice) -> Self {
        Self {
            store,
            log: "warn",
            config: "",
            tenant: "",
            sim: &[],
        }
    }
}

pub(crate) struct World {
    pub(crate) sim: Program,
    pub(crate) control: Control,
    pub(crate) control_address: SocketAddr,
    gateway: Option<Program>,
    /// Where the gateway is; none while it is down.
    grpc: watch::Sender<Option<SocketAddr>>,
    folder: TempDir,
    /// Its process outlives the gateway's.
    pub(crate) redis: Option<RedisServer>,
}

impl World {
    /// Starts the upstream, the store and the gateway, and waits until the gateway is ready.
    pub(crate) async fn start(stage: Stage) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("app.key"), "the app's secret key").unwrap();
        std::fs::write(file("seal.key"), "5a".repeat(32)).unwrap();
        let app = APP.to_string();
        let key_file = file("app.key");
        let mut arguments = vec![
            "sim",
            "--listen",
            "127.0.0.1:0",
            "--control",
            "127.0.0.1:0",
            "--sdk-app-id",
            &app,
            "--secret-key-file",
            key_file.to_str().unwrap(),
        ];
        arguments.extend(stage.sim);
        let mut sim = Program::start(&arguments, &file("sim.log"));
        let upstream = sim.address("sim listening on ").await;
        let control_address = sim.address("sim control on http://").await;
        let redis = (stage.store == StoreChoice::Redis).then(RedisServer::start);
        let config = config(&stage, upstream, redis.as_ref());
        std::fs::write(file("imgate.toml"), config).unwrap();
        let mut world = Self {
            sim,
            control: Control::connect(control_address).await,
            control_address,
            gateway: None,
            grpc: watch::channel(None).0,
            folder,
            redis,
        };
        world.start_gateway().await;
        world
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) async fn start_gateway(&mut self) {
        assert!(self.gateway.is_none(), "it runs already");
        let file = |name: &str| self.folder.path().join(name);
        let config = file("imgate.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let mut gateway = Program::start(&arguments, &file("imgate.log"));
        let grpc = gateway.address("imgate grpc on ").await;
        let ops = gateway.address("imgate ops on http://").await;
        self.gateway = Some(gateway);
        let mut ops = Http::connect(ops).await;
        until("the gateway is ready", async || {
            ops.ask("GET", "/ready", "").await.0 == 200
        })
        .await;
        self.grpc.send_replace(Some(grpc));
    }

    /// Ends the gateway without any warning.
    pub(crate) async fn kill_gateway(&mut self) {
        let gateway = self.gateway.take().expect("it runs");
        gateway.kill().await;
        self.grpc.send_replace(None);
    }

    /// Asks the gateway to stop.
    pub(crate) async fn ask_gateway_to_stop(&self) {
        self.gateway.as_ref().expect("it runs").signal("TERM").await;
    }

    /// Waits until the gateway has ended.
    pub(crate) async fn gateway_ended(&mut self, within: Duration) -> ExitStatus {
        let mut gateway = self.gateway.take().expect("it runs");
        let ended = gateway.ended(within).await;
        self.grpc.send_replace(None);
        ended
    }

    /// Where the gateway is, now and later.
    pub(crate) fn grpc(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.grpc.subscribe()
    }

    pub(crate) async fn channel(&self) -> Channel {
        let address = self.grpc.borrow().expect("it runs");
        endpoint(address).connect().await.unwrap()
    }

    pub(crate) async fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel().await)
    }

    /// Logs accounts in, all at once, and expects success for each.
    pub(crate) async fn log_in(&self, accounts: &[String]) {
        let sessions = self.sessions().await;
        let all = accounts.iter().map(|account| {
            let mut sessions = sessions.clone();
            async move {
                let answer = log_in(&mut sessions, account).await.unwrap();
                assert_eq!(answer.code, 0, "{account}: {}", answer.desc);
                let session = answer.session.unwrap();
                assert_eq!(session.state(), v1::SessionState::Online, "{account}");
            }
        });
        join_all(all).await;
    }

    pub(crate) async fn session(&self, account: &str) -> v1::Session {
        let request = v1::GetSessionRequest {
            account: account.into(),
        };
        let answer = self.sessions().await.get_session(request).await;
        answer.unwrap().into_inner().session.unwrap()
    }

    /// Every session, by pages.
    pub(crate) async fn all_sessions(&self) -> Vec<v1::Session> {
        let mut client = self.sessions().await;
        let mut request = v1::ListSessionsRequest {
            page_size: 1000,
            page_token: String::new(),
        };
        let mut all = Vec::new();
        loop {
            let page = client.list_sessions(request.clone()).await;
            let page = page.unwrap().into_inner();
            all.extend(page.sessions);
            if page.next_page_token.is_empty() {
                return all;
            }
            request.page_token = page.next_page_token;
        }
    }
}

pub(crate) async fn log_in(
    sessions: &mut SessionServiceClient<Channel>,
    account: &str,
) -> Result<v1::LoginResponse, Status> {
    let request = v1::LoginRequest {
        account: account.into(),
        signature: String::new(),
    };
    Ok(sessions.login(request).await?.into_inner())
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// Names for so many accounts.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bot{number}")).collect()
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !so().await {
        assert!(since.elapsed() < PATIENCE, "not in time: {what}");
        pause(LOOK).await;
    }
}

/// Between two looks at something.
pub(crate) fn pause(duration: Duration) -> impl Future<Output = ()> {
    tokio::time::sleep(duration)
}

fn config(stage: &Stage, upstream: SocketAddr, redis: Option<&RedisServer>) -> String {
    let mut text = String::from("replica_id = \"imgate-0\"\n");
    let log = stage.log;
    write!(
        text,
        "grpc.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\nlog.level = \"{log}\"\n"
    )
    .unwrap();
    match redis {
        Some(redis) => {
            let url = redis.url();
            write!(
                text,
                "store = {{ kind = \"redis\", url = \"{url}\" }}\n\
                 seal = {{ active = \"k1\", keys = {{ k1 = {{ file = \"seal.key\" }} }} }}\n"
            )
        }
        None => writeln!(
            text,
            "store = {{ kind = \"embedded\", path = \"data/imgate.redb\" }}"
        ),
    }
    .unwrap();
    let Stage { config, tenant, .. } = stage;
    write!(
        text,
        "{config}\n[[tenants]]\nid = \"acme\"\nsdk_app_id = {APP}\nupstream_url = \"ws://{upstream}\"\n\
         secret_key = {{ file = \"app.key\" }}\n{tenant}\n"
    )
    .unwrap();
    text
}
