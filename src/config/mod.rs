//! What an operator may set. A file of options goes in, a checked [`Config`] comes out, or every problem at once.
//!
//! `options` is the documented tree of keys, `load` reads the file and the secrets it refers to, `check`
//! holds the rules, and [`reference()`] writes the commented example file from the same text. Everything that runs
//! takes its part of [`Config`], in which nothing is left to check.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::{ReplicaId, Secret, TenantId, UnixMillis};

mod change;
mod check;
mod error;
mod files;
mod load;
pub mod metrics;
mod options;
mod reference;
mod seal;
mod section;
mod setting;

pub use crate::connectors::invoke::CommandList;
pub use change::Change;
pub use error::{ConfigErrors, Problem};
pub use files::{Files, Seen};
pub use options::{
    Backoff, DailyActiveUsersAction, Issuer, Keepalive, KickPolicy, Limits, Log, LogFormat, Ops,
    Pacing, Scope, Shutdown, TenantLog,
};
pub use reference::reference;
pub use seal::{Seal, SealError, SealKeys};
pub use setting::ByteSize;

/// The checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The name of this process, kept over restarts.
    pub replica_id: ReplicaId,
    /// The API for bots.
    pub grpc: Grpc,
    /// The operations port.
    pub ops: Ops,
    /// Logs.
    pub log: Log,
    /// The store.
    pub store: Store,
    /// The keys that seal credentials in the store.
    pub seal: Seal,
    /// What happens at SIGTERM.
    pub shutdown: Shutdown,
    /// How mass logins are spread.
    pub pacing: Pacing,
    /// The delay before a lost upstream connection is dialled again; `first` is at most `max`.
    pub backoff: Backoff,
    /// How a dead upstream connection is found out; `answer_timeout` is less than `heartbeat`.
    pub keepalive: Keepalive,
    /// Whose JWTs are believed; with different IDs and names.
    pub jwt_issuers: Vec<JwtIssuer>,
    /// The operators' keys.
    pub operators: Vec<Key>,
    /// The customers; at least one, with different IDs.
    pub tenants: Vec<Tenant>,
}

/// The gRPC API for bots.
#[derive(Clone, Debug, PartialEq)]
pub struct Grpc {
    /// The address to listen on; a loopback address if any tenant is open.
    pub listen: SocketAddr,
    /// The greatest message that a caller may send, in bytes.
    pub max_message_bytes: usize,
    /// The most headers of a call, in bytes.
    pub max_header_bytes: u32,
    /// How many connections there may be.
    pub max_connections: u32,
    /// How many connections are accepted per second; at least 1.
    pub connections_per_second: u32,
    /// How long the TLS handshake and the beginning of HTTP/2 may take together.
    pub handshake_timeout: Duration,
    /// How many calls may be open on one connection, streams included.
    pub max_streams_per_connection: u32,
    /// How long a connection may be silent before the caller is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// How long that answer may take before the connection is closed.
    pub keepalive_timeout: Duration,
    /// After how long, give or take a tenth, a client is told to go to another connection.
    pub max_connection_age: Duration,
    /// How long calls in flight may go on then.
    pub max_connection_age_grace: Duration,
    /// TLS; `None` for plain text.
    pub tls: Option<GrpcTls>,
}

/// TLS of the gRPC API.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcTls {
    /// The server's certificate chain, PEM.
    pub cert_pem: Vec<u8>,
    /// Its private key, PEM.
    pub key_pem: Secret<Vec<u8>>,
    /// The authorities of callers' certificates, PEM; `None` when they need no certificate.
    pub client_ca_pem: Option<Vec<u8>>,
    /// Whether a caller may come without a certificate all the same.
    pub clients_optional: bool,
}

/// Where sessions, leases and the event log are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Which kind, and where.
    pub kind: StoreKind,
    /// How long one operation may take before it counts as failed.
    pub operation_timeout: Duration,
    /// How long a lease lasts; it is renewed at a third of it. At least three times `operation_timeout`.
    pub lease_ttl: Duration,
}

/// Which kind of store, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A database file of this replica.
    Embedded {
        /// The file. Its folder may not be there yet.
        path: PathBuf,
    },
    /// A Redis server, or the sentinels that watch one.
    Redis {
        /// Where it is; [`RedisUrl`](crate::store::redis_url::RedisUrl) takes it.
        url: Secret<String>,
    },
    /// Nothing outlives the process.
    Memory,
}

/// A customer of the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// The tenant's name.
    pub id: TenantId,
    /// Over how many partitions its accounts are spread; 1 to 256.
    pub partitions: u16,
    /// The upstream app's number; not 0.
    pub sdk_app_id: u32,
    /// The upstream: `ws://` or `wss://`, host and port, without a path or a slash at its end.
    pub upstream_url: String,
    /// Authorities to trust beside the system's, PEM.
    pub upstream_ca_pem: Option<Vec<u8>>,
    /// The upstream app's secret key; there if `issuers` has [`Issuer::Local`].
    pub secret_key: Option<Secret<String>>,
    /// Where signatures come from when one runs out, in this order; at least one.
    pub issuers: Vec<Issuer>,
    /// The tenant's own issuer; there if `issuers` has [`Issuer::Callback`].
    pub callback: Option<Callback>,
    /// How long a signature of [`Issuer::Local`] is valid; at least 30 s.
    pub signature_lifetime: Duration,
    /// At which part of its lifetime a signature is renewed; 0.1 to 0.95.
    pub renew_at: f64,
    /// What a kick leads to.
    pub kick_policy: KickPolicy,
    /// How long [`KickPolicy::Retake`] waits.
    pub retake_delay: Duration,
    /// The least time between two upstream logins of one account.
    pub login_spacing: Duration,
    /// The upstream commands that Invoke may send.
    pub invoke_commands: CommandList,
    /// The event log.
    pub log: TenantLog,
    /// Who may call by key.
    pub api_keys: Vec<ApiKey>,
    /// Who may call by certificate.
    pub client_certificates: Vec<ClientCertificate>,
    /// Who may call by JWT.
    pub jwt_subjects: Vec<JwtSubject>,
    /// Bounds.
    pub limits: Limits,
}

/// A tenant's own service that makes signatures.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// Where it is: `https://` or, on a loopback address, `http://`, host and port, without a path.
    pub url: String,
    /// The authorities that its certificate must come from, PEM; `None` for the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The certificate chain that the gateway shows, and its private key, PEM.
    pub identity: Option<(Vec<u8>, Secret<Vec<u8>>)>,
    /// The gateway's bearer token, of visible ASCII.
    pub token: Option<Secret<String>>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The most calls that are begun per second; not 0.
    pub calls_per_second: u32,
    /// The most calls in flight; not 0.
    pub concurrency: u32,
}

/// A key of a tenant or of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key's name in logs.
    pub id: String,
    /// The SHA-256 of the key: 64 small hexadecimal digits. No other key has the same.
    pub sha256: String,
    /// The key's first characters, by which it is found: 8 to 32, and none the beginning of another key's.
    pub prefix: Option<String>,
    /// From when it is valid.
    pub not_before: Option<UnixMillis>,
    /// Until when; later than `not_before`.
    pub not_after: Option<UnixMillis>,
}

/// An API key of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The key.
    pub key: Key,
    /// What it may do; at least one thing.
    pub scopes: Vec<Scope>,
}

impl ApiKey {
    /// A key that is found by its digest and always valid. The arguments are as the fields of the same names say.
    pub fn new(id: impl Into<String>, sha256: impl Into<String>, scopes: Vec<Scope>) -> Self {
        let key = Key {
            id: id.into(),
            sha256: sha256.into(),
            prefix: None,
            not_before: None,
            not_after: None,
        };
        Self { key, scopes }
    }
}

/// A client certificate of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its name in logs.
    pub id: String,
    /// The subject alternative name that it has: a URI, or a DNS name in small letters. No other tenant has the same.
    pub name: String,
    /// What it may do; at least one thing.
    pub scopes: Vec<Scope>,
}

/// A subject whose JWTs are a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSubject {
    /// Its name in logs.
    pub id: String,
    /// The ID of its issuer, which is there.
    pub issuer: String,
    /// The claim `sub`. No other tenant has the same of this issuer.
    pub subject: String,
    /// What it may do; at least one thing.
    pub scopes: Vec<Scope>,
}

/// Someone who signs JWTs that are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIssuer {
    /// Its name in logs and metrics.
    pub id: String,
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `aud`.
    pub audience: String,
    /// Where its keys are.
    pub keys: JwtKeys,
    /// How often they are read again.
    pub refresh: Duration,
    /// How far its clock may be from this one.
    pub clock_skew: Duration,
}

/// Where the keys of an issuer are. The files are there, as far as one can know beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// In a file.
    File(PathBuf),
    /// Behind a URL.
    Url {
        /// `https://`, or `http://` on this machine.
        url: String,
        /// The authorities to trust, PEM; the system's without it.
        ca_file: Option<PathBuf>,
        /// What is sent as a bearer token.
        token_file: Option<PathBuf>,
    },
}

impl Config {
    /// A configuration made in code, with the defaults of everything that is not given.
    pub fn new(store: StoreKind, tenants: Vec<Tenant>) -> Self {
        let options = options::Options::default();
        Self {
            replica_id: ReplicaId::new("imgate-local"),
            grpc: Grpc::of(&options.grpc, None),
            ops: options.ops,
            log: options.log,
            seal: Seal::default_for(&store),
            store: Store {
                kind: store,
                operation_timeout: options.store.operation_timeout,
                lease_ttl: options.store.lease_ttl,
            },
            shutdown: options.shutdown,
            pacing: options.pacing,
            backoff: options.backoff,
            keepalive: options.keepalive,
            jwt_issuers: Vec::new(),
            operators: Vec::new(),
            tenants,
        }
    }

    /// What is allowed and yet perhaps not meant; for the log at the start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.grpc.tls.is_none() && !self.grpc.listen.ip().is_loopback() {
            warnings.push(format!(
                "grpc.listen = \"{}\" without [grpc.tls]: API keys cross the network in plain text",
                self.grpc.listen
            ));
        }
        if self.store.kind == StoreKind::Memory {
            warnings.push("store.kind = \"memory\": nothing outlives this process".into());
        }
        for tenant in &self.tenants {
            if tenant.is_open() {
                warnings.push(format!(
                    "tenants[{}] is open: it has no API keys, client certificates or JWT subjects, and whoever reaches \
                     grpc.listen = \"{}\" can use it",
                    tenant.id, self.grpc.listen
                ));
            }
            if let Some(host) = tenant.upstream_url.strip_prefix("ws://")
                && !is_loopback(host)
            {
                warnings.push(format!(
                    "tenants[{}].upstream_url = \"{}\": signatures cross the network in plain text",
                    tenant.id, tenant.upstream_url
                ));
            }
            let of = |issuer| tenant.issuers.iter().position(|one| *one == issuer);
            if let (Some(local), Some(callback)) = (of(Issuer::Local), of(Issuer::Callback))
                && local < callback
            {
                warnings.push(format!(
                    "tenants[{}].issuers: \"local\" always answers, so \"callback\" behind it is never asked",
                    tenant.id
                ));
            }
        }
        warnings
    }
}

impl Grpc {
    fn of(options: &options::GrpcOptions, tls: Option<GrpcTls>) -> Self {
        Self {
            listen: options.listen,
            max_message_bytes: options.max_message_bytes.0,
            max_header_bytes: u32::try_from(options.max_header_bytes.0).unwrap_or(u32::MAX),
            max_connections: options.max_connections,
            connections_per_second: options.connections_per_second,
            handshake_timeout: options.handshake_timeout,
            max_streams_per_connection: options.max_streams_per_connection,
            keepalive_interval: options.keepalive_interval,
            keepalive_timeout: options.keepalive_timeout,
            max_connection_age: options.max_connection_age,
            max_connection_age_grace: options.max_connection_age_grace,
            tls,
        }
    }
}

/// Whether HOST[:PORT] is this machine.
fn is_loopback(authority: &str) -> bool {
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(authority, |(host, _)| host);
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

impl Tenant {
    /// Whether callers need not show anything: nobody is known, so everybody is let in.
    pub const fn is_open(&self) -> bool {
        self.api_keys.is_empty()
            && self.client_certificates.is_empty()
            && self.jwt_subjects.is_empty()
    }

    /// A tenant made in code, open, without a secret key and with the defaults of everything else. The
    /// arguments are as the fields of the same names say.
    pub fn new(id: TenantId, sdk_app_id: u32, upstream_url: String) -> Self {
        let options = options::TenantOptions::default();
        Self {
            id,
            partitions: options.partitions,
            sdk_app_id,
            upstream_url,
            upstream_ca_pem: None,
            secret_key: None,
            issuers: vec![Issuer::Manual],
            callback: None,
            signature_lifetime: options.signature_lifetime,
            renew_at: options.renew_at,
            kick_policy: options.kick_policy,
            retake_delay: options.retake_delay,
            login_spacing: options.login_spacing,
            invoke_commands: CommandList::default(),
            log: options.log,
            api_keys: Vec::new(),
            client_certificates: Vec::new(),
            jwt_subjects: Vec::new(),
            limits: options.limits,
        }
    }

    /// The same tenant with a secret key, which the first issuer signs with.
    pub fn with_secret_key(mut self, secret_key: Secret<String>) -> Self {
        self.secret_key = Some(secret_key);
        self.issuers = vec![Issuer::Local, Issuer::Manual];
        self
    }

    /// The same tenant with a service of its own, which is the first issuer. The argument is as the field `url` of
    /// [`Callback`] says; everything else of it has its default.
    pub fn with_callback(mut self, url: String) -> Self {
        let options = options::CallbackOptions::default();
        self.callback = Some(Callback {
            url,
            ca_pem: None,
            identity: None,
            token: None,
            timeout: options.timeout,
            calls_per_second: options.calls_per_second,
            concurrency: options.concurrency,
        });
        self.issuers.insert(0, Issuer::Callback);
        self
    }
}
