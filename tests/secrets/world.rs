//! An upstream, a store with a password and a gateway with TLS, each a process of its own, and all their secrets.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imgate::connectors::tencent::usersig;
use imgate::runtime::record;
use imgate::store::embedded::EmbeddedStore;
use imgate::store::redis::{RedisOptions, RedisStore};
use imgate::store::seal::{KeyRing, Sealer};
use imgate::store::{Store, StoredSession};
use imgate::tenants::token::Tokens;
use imgate::types::{PartitionId, Secret, SessionKey, TenantId, UnixMillis, WallClock};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::control::{Control, Http};
use crate::issuer::Issuer;
use crate::needles::Known;
use crate::panics;
use crate::places::{self, Place};
use crate::program::Program;
use crate::redis_server::RedisServer;

/// The app that exists upstream.
pub(crate) const APP: u32 = 1_400_000_001;
/// Its secret key.
pub(crate) const APP_KEY: &str = "the-secret/key+of=the&app?0123456789";
pub(crate) const API_KEY: &str = "the-api-key/of+acme=5f0d8b1e6ac24a77";
pub(crate) const CALLING_API_KEY: &str = "the-api-key/of+calls=5bb5c6f083e2d149";
pub(crate) const OTHER_API_KEY: &str = "the-api-key/of+bring=93d1c08e24be7f5a";
pub(crate) const OPERATOR_KEY: &str = "the-operator-key/of+ops=08e24be7f5a1b669";
/// The gateway's own, shown to the issuer of a tenant.
const CALLBACK_TOKEN: &str = "the-token/of+the=gateway-c3e6f2840a9d7e1b";
/// Nobody's.
pub(crate) const WRONG_API_KEY: &str = "an-api-key/that+nobody=has-1b6690c2d7";
const REDIS_PASSWORD: &str = "the-password-of-redis-7e3f84415a9e0637";
const PARTITIONS: u16 = 2;
/// How long a signature of the gateway's own is good.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    Embedded,
    Redis,
}

pub(crate) struct World {
    pub(crate) control: Control,
    _sim: Program,
    gateway: Option<Program>,
    grpc: SocketAddr,
    ops: SocketAddr,
    folder: TempDir,
    redis: Option<RedisServer>,
    authority: String,
    tls_key: KeyPair,
    seal_keys: [[u8; 32]; 2],
    began: UnixMillis,
    /// Signatures that were shown to the gateway, and other texts in their place.
    brought: Vec<Known>,
    issuer: Issuer,
    /// All that the gateway has answered.
    answers: Vec<u8>,
    /// What its operations port has.
    shown: Vec<u8>,
}

impl World {
    /// Starts the upstream and the store, and writes the configuration of the gateway.
    pub(crate) async fn start(store: StoreChoice) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).unwrap();
        write("app.key", APP_KEY);
        write("callback.token", CALLBACK_TOKEN);
        let app = APP.to_string();
        let key_file = file("app.key");
        let sim = [
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
        // What the upstream logs is not ours to keep.
        let mut sim = Program::start(&sim, &std::env::temp_dir().join("imgate-secrets-sim.log"));
        let upstream = sim.address("sim listening on ").await;
        let control = sim.address("sim control on http://").await;

        let seal_keys: [[u8; 32]; 2] = [rand::random(), rand::random()];
        let hex: String = seal_keys[0]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        write("k1.key", &hex);
        write("k2.key", &STANDARD.encode(seal_keys[1]));
        let (authority, certificate, tls_key) = certificates();
        write("tls.crt", &certificate);
        write("tls.key", &tls_key.serialize_pem());
        let redis = (store == StoreChoice::Redis).then(|| {
            let redis = RedisServer::start_with(&["--rdbcompression", "no"]);
            let set = ["SET", "requirepass", REDIS_PASSWORD];
            let _: () = redis::cmd("CONFIG")
                .arg(&set)
                .query(&mut redis.client())
                .unwrap();
            write("redis.url", &url(&redis));
            redis
        });
        let issuer = Issuer::start().await;
        let config = config(redis.is_some(), upstream, issuer.address);
        write("imgate.toml", &config);
        Self {
            control: Control::connect(control).await,
            _sim: sim,
            gateway: None,
            grpc: control,
            ops: control,
            folder,
            redis,
            authority,
            tls_key,
            seal_keys,
            began: WallClock.now(),
            brought: Vec::new(),
            issuer,
            answers: Vec::new(),
            shown: Vec::new(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the gateway, which logs all that it can, and waits until it is ready.
    pub(crate) async fn start_gateway(&mut self) {
        let config = self.file("imgate.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let mut gateway = Program::start(&arguments, &self.file("imgate.log"));
        self.grpc = gateway.address("imgate grpc on ").await;
        self.ops = gateway.address("imgate ops on http://").await;
        self.gateway = Some(gateway);
        let began = Instant::now();
        let mut ops = Http::connect(self.ops).await;
        while ops.ask("GET", "/ready", "").await.0 != 200 {
            assert!(began.elapsed() < PATIENCE, "the gateway is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Looks at all that the operations port has, and stops the gateway.
    pub(crate) async fn stop_gateway(&mut self) {
        let mut ops = Http::connect(self.ops).await;
        for path in ["/metrics", "/ready", "/live"] {
            let (status, body) = ops.ask("GET", path, "").await;
            assert_eq!(status, 200, "{path}");
            self.shown.extend(body);
        }
        let mut gateway = self.gateway.take().unwrap();
        gateway.signal("TERM").await;
        assert!(gateway.ended(PATIENCE).await.success());
    }

    /// A connection to the gateway.
    pub(crate) async fn channel(&self) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .domain_name("imgate.test");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.grpc)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, body: Value) {
        self.control.post(path, body).await;
    }

    /// Keeps what was answered, to be searched.
    pub(crate) fn note<T: Message>(
        &mut self,
        answer: Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        match answer {
            Ok(answer) => {
                self.answers
                    .extend(format!("{:?}", answer.metadata()).bytes());
                self.answers.extend(answer.get_ref().encode_to_vec());
                Ok(answer.into_inner())
            }
            Err(status) => {
                self.answers.extend(format!("{status:?}").bytes());
                self.answers.extend(status.details());
                Err(status)
            }
        }
    }

    pub(crate) fn note_event(&mut self, event: &impl Message) {
        self.answers.extend(event.encode_to_vec());
    }

    /// A signature for an account that a bot brings.
    pub(crate) fn signature(&mut self, account: &str) -> String {
        self.signature_by(APP_KEY, account)
    }

    /// The same, made with any key.
    pub(crate) fn signature_by(&mut self, key: &str, account: &str) -> String {
        let (now, hour) = (WallClock.now(), Duration::from_secs(3600));
        let key = Secret::new(key.to_owned());
        let signature = usersig::mint(APP.into(), &key, account, now, hour, None);
        self.bring(signature.expose())
    }

    /// A text that is brought in the place of a signature.
    pub(crate) fn bring(&mut self, text: &str) -> String {
        let name = format!("brought signature {}", self.brought.len());
        self.brought.push(Known::new(name, text));
        text.to_owned()
    }

    fn sealer(&self) -> (Sealer, Tokens) {
        let [k1, k2] = self.seal_keys.map(Secret::new);
        let keys = [("k1".to_owned(), k1.clone()), ("k2".to_owned(), k2.clone())];
        let ring = KeyRing::of("k2", keys.iter().map(|(id, key)| (id, key))).unwrap();
        (Sealer::new(ring), Tokens::new(&k2, [&k1]))
    }

    /// What the store has of the sessions of a tenant. The gateway must have ended.
    async fn stored(&self, tenant: &str) -> Vec<StoredSession> {
        let store: Box<dyn Store> = match &self.redis {
            Some(redis) => {
                let options = RedisOptions::new(url(redis));
                Box::new(RedisStore::connect(&options).await.unwrap())
            }
            None => Box::new(EmbeddedStore::open(self.file("data/imgate.redb")).unwrap()),
        };
        let mut all = Vec::new();
        for number in 0..PARTITIONS {
            let tenant = TenantId::new(tenant);
            let partition = PartitionId { tenant, number };
            all.extend(store.sessions(&partition).await.unwrap());
        }
        all
    }

    /// Every secret of the life.
    pub(crate) async fn secrets(&self) -> Vec<Known> {
        let der = self.tls_key.serialize_der();
        let mut secrets = vec![
            Known::new("app key", APP_KEY),
            Known::new("API key", API_KEY),
            Known::new("other API key", OTHER_API_KEY),
            Known::new("API key of the tenant with an issuer", CALLING_API_KEY),
            Known::new("operator's key", OPERATOR_KEY),
            Known::new("token of the callback", CALLBACK_TOKEN),
            Known::new("wrong API key", WRONG_API_KEY),
            Known::new("Redis password", REDIS_PASSWORD),
            Known::new("sealing key 1", self.seal_keys[0]),
            Known::new("sealing key 2", self.seal_keys[1]),
            // PKCS #8 of a P-256 key: what comes behind these is the public part.
            Known::new("TLS key", &der[36..68]),
        ];
        secrets.extend(
            self.brought
                .iter()
                .map(|known| Known::new(&*known.name, &known.bytes)),
        );
        let issued = self.issuer.issued();
        assert!(!issued.is_empty(), "the issuer was asked");
        secrets.extend(issued);
        // What the gateway has made by itself can be made again, for it tells nothing but the second.
        let key = Secret::new(APP_KEY.to_owned());
        for second in self.began.as_secs()..=WallClock.now().as_secs() {
            for account in ["alice", "bob", "mallory"] {
                let at = UnixMillis::from_secs(second);
                let made = usersig::mint(APP.into(), &key, account, at, LIFETIME, None);
                secrets.push(Known::new(format!("signature of {account}"), made.expose()));
            }
        }
        // The sealed records of the store know what the gateway had at its end.
        let (sealer, _) = self.sealer();
        let mut tickets = 0;
        for tenant in ["acme", "bring", "calls"] {
            for StoredSession { account, record } in self.stored(tenant).await {
                let tenant = TenantId::new(tenant);
                let name = format!("of {account}");
                let key = SessionKey { tenant, account };
                let restored = record::decode(&sealer, &key, &record).unwrap();
                let durable = &restored.durable;
                for signature in durable.signature.iter().chain(&durable.next_signature) {
                    let known = |known: &Known| known.bytes == signature.text.expose().as_bytes();
                    assert!(
                        secrets.iter().any(known),
                        "a signature {name} that is not known"
                    );
                }
                if !restored.ticket.a2.is_empty() {
                    tickets += 1;
                    secrets.push(Known::new(format!("ticket {name}"), &restored.ticket.a2));
                }
            }
        }
        assert!(tickets >= 2, "sessions have tickets");
        secrets
    }

    /// Everything that can be read. The gateway must have ended.
    pub(crate) async fn places(&self) -> Vec<Place> {
        let config = self.file("imgate.toml");
        let check = Command::new(env!("CARGO_BIN_EXE_imgate"))
            .args(["check-config", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let log = std::fs::read(self.file("imgate.log")).unwrap();
        let text = String::from_utf8_lossy(&log);
        // Libraries, too, say what they say.
        for line in ["\"target\":\"imgate::audit\"", "\"target\":\"h2::"] {
            assert!(text.contains(line), "the log has no {line}");
        }
        let (sealer, tokens) = self.sealer();
        let stored = self.stored("acme").await;
        let signature = &self.brought[0].bytes;
        let signature = std::str::from_utf8(signature).unwrap();
        let panic = panics::with_everything(&config, &sealer, &tokens, &stored, signature);
        let mut places = vec![
            Place::new("the log", log),
            Place::new("the answers", self.answers.clone()),
            Place::new("the operations port", self.shown.clone()),
            Place::new("check-config", [check.stdout, check.stderr].concat()),
            Place::new("the output of a panic", panic),
        ];
        match &self.redis {
            Some(redis) => {
                let client = redis::Client::open(url(redis)).unwrap();
                places.extend(places::redis(&mut client.get_connection().unwrap()));
            }
            None => places.extend(places::files(&self.file("data"))),
        }
        places
    }
}

fn url(redis: &RedisServer) -> String {
    format!("redis://:{REDIS_PASSWORD}@127.0.0.1:{}", redis.port())
}

/// An authority, a certificate of the gateway's, and its key.
fn certificates() -> (String, String, KeyPair) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["imgate.test".into()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key)
}

fn digest(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn config(redis: bool, upstream: SocketAddr, issuer: SocketAddr) -> String {
    let mut text = String::from(
        "replica_id = \"imgate-0\"\n\
         grpc = { listen = \"127.0.0.1:0\", tls = { cert_file = \"tls.crt\", key_file = \"tls.key\" } }\n\
         ops.listen = \"127.0.0.1:0\"\n\
         log = { level = \"trace\", format = \"json\" }\n\
         seal = { active = \"k2\", keys = { k1 = { file = \"k1.key\" }, k2 = { file = \"k2.key\" } } }\n",
    );
    let store = if redis {
        "store = { kind = \"redis\", url = { file = \"redis.url\" } }\n"
    } else {
        "store = { kind = \"embedded\", path = \"data/imgate.redb\" }\n"
    };
    text.push_str(store);
    let operator = digest(OPERATOR_KEY);
    writeln!(text, "[[operators]]\nid = \"ops\"\nsha256 = \"{operator}\"").unwrap();
    for (tenant, key, more) in [
        (
            "acme",
            API_KEY,
            "secret_key = { file = \"app.key\" }\nlog.seal = true\n",
        ),
        ("bring", OTHER_API_KEY, "issuers = [\"manual\"]\n"),
        (
            "calls",
            CALLING_API_KEY,
            &*format!(
                "callback = {{ url = \"http://{issuer}\", token = {{ file = \"callback.token\" }} }}\n"
            ),
        ),
    ] {
        write!(
            text,
            "[[tenants]]\nid = {id}\nsdk_app_id = {APP}\nupstream_url = \"ws://{upstream}\"\npartitions = {PARTITIONS}\n\
             login_spacing = \"100ms\"\n{more}\
             [[tenants.api_keys]]\nid = \"all\"\nsha256 = \"{digest}\"\nscopes = [\"sessions\", \"events\", \"messages\"]\n",
            id = json!(tenant),
            digest = digest(key),
        )
        .unwrap();
    }
    text
}

/// A request with an API key.
pub(crate) fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}
