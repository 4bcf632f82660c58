//! A simulated upstream and a gateway that follows its files.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use imgate::proto::v1;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::control::{Control, Http};
use crate::process::Program;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The operator's key.
const OPERATOR: &str = "the-operators-key-of-the-test";
pub(crate) const ONLINE: v1::SessionState = v1::SessionState::Online;

/// The file of a tenant that has one API key. Its upstream is still to be named.
pub(crate) fn tenant(id: &str, key: &str) -> String {
    let hex = digest_of(key);
    format!(
        "[[tenants]]\nid = \"{id}\"\nsdk_app_id = 1400000001\nupstream_url = \"UPSTREAM\"\n\
         secret_key = {{ file = \"app.key\" }}\npartitions = 2\nlogin_spacing = \"0s\"\n\n\
         [[tenants.api_keys]]\nid = \"only\"\nscopes = [\"sessions\"]\nsha256 = \"{hex}\"\n"
    )
}

/// A file with who signs for [`SUBJECT`], and an operator whose key is `operators-key`.
pub(crate) const ISSUER_AND_OPERATOR: &str = r#"
[[jwt_issuers]]
id = "cluster"
issuer = "https://cluster.test"
audience = "imgate"
jwks_file = "jwks.json"
refresh = "1s"

[[operators]]
id = "on-call"
sha256 = "efbefc3cb71091b4504c341e37fe4e036397126ebc37ff35d3bea9cd056abf66"
"#;

/// What makes the issuer's subject the caller of a tenant.
pub(crate) const SUBJECT: &str = r#"
[[tenants.jwt_subjects]]
id = "echo"
issuer = "cluster"
subject = "system:serviceaccount:bots:echo"
scopes = ["sessions"]
"#;

/// The key pair of the issuer.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    /// Its public key, as a set.
    pub(crate) fn set(&self) -> String {
        let x = BASE64.encode(self.0.public_key().as_ref());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#)
    }

    /// A JWT of [`SUBJECT`] that outlives the test.
    pub(crate) fn token(&self) -> String {
        let header = BASE64.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
        let claims = BASE64.encode(
            r#"{"iss":"https://cluster.test","aud":"imgate","sub":"system:serviceaccount:bots:echo","exp":99999999999}"#,
        );
        let message = format!("{header}.{claims}");
        let signature = BASE64.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn digest_of(key: &str) -> String {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) struct World {
    pub(crate) control: Control,
    gateway: Program,
    grpc: Channel,
    address: SocketAddr,
    ops: Http,
    upstream: SocketAddr,
    _sim: Program,
    // Dropped last: those before it show their logs when a test fails.
    folder: TempDir,
}

impl World {
    /// Starts the upstream, and a gateway with these tenants, each in a file of its own in a folder; waits until it is
    /// ready.
    pub(crate) async fn start(tenants: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let text = |name: &str| file(name).to_str().unwrap().to_owned();
        std::fs::create_dir(file("tenants")).unwrap();
        std::fs::write(file("app.key"), "the app's secret key").unwrap();
        std::fs::write(file("operator.key"), OPERATOR).unwrap();
        let common = "replica_id = \"r\"\ngrpc.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\n\
                      store = { kind = \"embedded\", path = \"data/imgate.redb\" }\n";
        let operator = digest_of(OPERATOR);
        let operator = format!("[[operators]]\nid = \"ops\"\nsha256 = \"{operator}\"\n");
        std::fs::write(file("imgate.toml"), format!("{common}{operator}")).unwrap();
        let key = text("app.key");
        let mut sim = Program::start(
            &[
                "sim",
                "--listen",
                "127.0.0.1:0",
                "--control",
                "127.0.0.1:0",
                "--sdk-app-id",
                "1400000001",
                "--secret-key-file",
                &key,
            ],
            &file("sim.log"),
        );
        let upstream = sim.address("sim listening on ").await;
        let control = sim.address("sim control on http://").await;
        for (name, tenant) in tenants {
            let tenant = with_upstream(tenant, upstream);
            std::fs::write(file(&format!("tenants/{name}.toml")), tenant).unwrap();
        }
        let (first, second) = (text("imgate.toml"), text("tenants"));
        let arguments = ["serve", "--config", &first, "--config", &second];
        let mut gateway = Program::start(&arguments, &file("imgate.log"));
        let grpc = gateway.address("imgate grpc on ").await;
        let ops = gateway.address("imgate ops on http://").await;
        let mut ops = Http::connect(ops).await;
        until("the gateway is ready", async || {
            ops.ask("GET", "/ready", "").await.0 == 200
        })
        .await;
        let address = grpc;
        let grpc = Channel::from_shared(format!("http://{address}")).unwrap();
        Self {
            address,
            control: Control::connect(control).await,
            gateway,
            grpc: grpc.connect().await.unwrap(),
            ops,
            upstream,
            folder,
            _sim: sim,
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let text = with_upstream(text, self.upstream);
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// Has the gateway read its configuration.
    pub(crate) async fn hang_up(&self) {
        self.gateway.signal("HUP").await;
    }

    /// Waits until so many configurations have had this outcome.
    pub(crate) async fn reloaded(&mut self, outcome: &str, times: f64) {
        let label = format!("{{outcome=\"{outcome}\"}}");
        until(outcome, async || {
            let count = self.metric("imgate_config_reloads_total", &label).await;
            assert!(count <= times, "{count} were {outcome}");
            count >= times
        })
        .await;
    }

    /// All series.
    pub(crate) async fn metrics(&mut self) -> String {
        let (_, body) = self.ops.ask("GET", "/metrics", "").await;
        String::from_utf8(body).unwrap()
    }

    /// A connection to the API.
    pub(crate) fn channel(&self) -> Channel {
        self.grpc.clone()
    }

    /// The value of a series.
    pub(crate) async fn metric(&mut self, name: &str, labels: &str) -> f64 {
        let body = self.metrics().await;
        let series = format!("{name}{labels} ");
        let value = body.lines().find_map(|line| line.strip_prefix(&series));
        value
            .unwrap_or_else(|| panic!("{series} is not in {body}"))
            .parse()
            .unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("imgate.log")).unwrap()
    }

    /// Runs `imgate purge-tenant` as a person would. Whether it succeeded, and what it said.
    pub(crate) async fn purge(&self, tenant: &str) -> (bool, String) {
        let key = self.folder.path().join("operator.key");
        let output = Command::new(env!("CARGO_BIN_EXE_imgate"))
            .args([
                "purge-tenant",
                "--gateway",
                &format!("http://{}", self.address),
            ])
            .arg("--operator-key-file")
            .arg(key)
            .arg(tenant)
            .output();
        let output = output.await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    pub(crate) async fn try_log_in(&self, key: &str, account: &str) -> Result<i32, Status> {
        let request = v1::LoginRequest {
            account: account.into(),
            signature: String::new(),
        };
        let mut client = SessionServiceClient::new(self.grpc.clone());
        let answer = client.login(with_key(key, request)).await?;
        Ok(answer.into_inner().code)
    }

    /// Logs an account in, once its partition is held.
    pub(crate) async fn log_in(&self, key: &str, account: &str) {
        until("the account is logged in", async || {
            self.try_log_in(key, account)
                .await
                .is_ok_and(|code| code == 0)
        })
        .await;
    }

    pub(crate) async fn session(&self, key: &str, account: &str) -> Result<v1::Session, Status> {
        let request = v1::GetSessionRequest {
            account: account.into(),
        };
        let mut client = SessionServiceClient::new(self.grpc.clone());
        let answer = client.get_session(with_key(key, request)).await?;
        Ok(answer.into_inner().session.unwrap())
    }

    /// Stops the gateway. Whether it ended well.
    pub(crate) async fn stop(mut self) -> bool {
        self.gateway.signal("TERM").await;
        self.gateway.ended(PATIENCE).await.success()
    }
}

fn with_upstream(text: &str, upstream: SocketAddr) -> String {
    text.replace("UPSTREAM", &format!("ws://{upstream}"))
}

fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !so().await {
        assert!(since.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
