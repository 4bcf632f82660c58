//! The documented tree of options: every key of the file with its meaning, unit and default. The reference is
//! made of this text.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::setting::{ByteSize, KeySha256, MaybeSecret, SecretRef, choice};
use crate::types::{Secret, UnixMillis};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn days(number: u64) -> Duration {
    secs(number * 24 * 60 * 60)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

choice! {
    /// How log lines are written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// Which kind of store.
    pub(super) enum StoreKindOption {
        /// A database file of this replica.
        Embedded = "embedded",
        /// A Redis server.
        Redis = "redis",
        /// Nothing outlives the process.
        Memory = "memory",
    }
}

choice! {
    /// Where a renewed signature comes from.
    pub enum Issuer {
        /// Asked of the tenant's own service.
        Callback = "callback",
        /// Minted with the tenant's secret key.
        Local = "local",
        /// Asked of the bots: an event goes out, and RenewSignature or Login continues the session.
        Manual = "manual",
    }
}

choice! {
    /// What a kick by another login of the account leads to.
    pub enum KickPolicy {
        /// Nothing: the session is parked until a new Login.
        Yield = "yield",
        /// One login after a delay; a second kick parks.
        Retake = "retake",
    }
}

choice! {
    /// Whether callers need a certificate.
    pub(super) enum ClientCertificates {
        /// One without it is refused at the handshake.
        Required = "required",
        /// One without it may be known by a key or a JWT.
        Optional = "optional",
    }
}

choice! {
    /// What happens to an account that would be one more daily active user than there may be.
    pub enum DailyActiveUsersAction {
        /// A warning in the log and in the metrics.
        Warn = "warn",
        /// Its Login is refused.
        Refuse = "refuse",
    }
}

choice! {
    /// What a caller may do.
    pub enum Scope {
        /// Log in and out, renew, look at sessions.
        Sessions = "sessions",
        /// Subscribe and acknowledge.
        Events = "events",
        /// Send messages and raw commands.
        Messages = "messages",
    }
}

section! {
    /// The whole file.
    pub(super) struct Options {
        /// The name of this process, kept over restarts: it owns leases under it. Letters, digits, dots, dashes
        /// and underscores, at most 63. Default: the host name, which for a pod of a StatefulSet is the pod's name.
        pub(super) replica_id: Option<String> = optional("imgate-0".to_owned()),
    }
    tables {
        /// The API for bots.
        pub(super) grpc: GrpcOptions = table,
        /// The operations port.
        pub(super) ops: Ops = table,
        /// Logs.
        pub(super) log: Log = table,
        /// The store.
        pub(super) store: StoreOptions = table,
        /// Keys that seal credentials.
        pub(super) seal: SealOptions = table,
        /// Stopping.
        pub(super) shutdown: Shutdown = table,
        /// Mass logins.
        pub(super) pacing: Pacing = table,
        /// Delays after a loss.
        pub(super) backoff: Backoff = table,
        /// Proof of life.
        pub(super) keepalive: Keepalive = table,
        /// Whose JWTs are believed.
        pub(super) jwt_issuers: Vec<JwtIssuerOptions> = optional_tables,
        /// Who runs the gateway.
        pub(super) operators: Vec<OperatorOptions> = optional_tables,
        /// Customers.
        pub(super) tenants: Vec<TenantOptions> = tables,
    }
}

section! {
    /// The gRPC API for bots.
    pub(super) struct GrpcOptions {
        /// The address to listen on. While a tenant is open (without API keys, client certificates and JWT subjects)
        /// it must be a loopback address.
        pub(super) listen: SocketAddr = default(loopback(50051)),
        /// The greatest message that a caller may send.
        pub(super) max_message_bytes: ByteSize = default(ByteSize::mib(4)),
        /// The most headers of a call.
        pub(super) max_header_bytes: ByteSize = default(ByteSize(16 << 10)),
        /// How many connections there may be; one that is too many is closed at once. Each is an open file, so the
        /// process must be allowed as many (`ulimit -n`), and some more.
        pub(super) max_connections: u32 = default(10_000),
        /// How many connections are accepted per second, and at once after a calm second. Those beyond wait in the
        /// kernel's queue, where they are neither refused nor cost anything here.
        pub(super) connections_per_second: u32 = default(1000),
        /// How long the TLS handshake and the beginning of HTTP/2 may take together.
        pub(super) handshake_timeout: Duration = default(secs(10)),
        /// How many calls may be open on one connection, streams included; a client queues those beyond.
        pub(super) max_streams_per_connection: u32 = default(1024),
        /// How long a connection may be silent before the caller is asked whether it is still there.
        pub(super) keepalive_interval: Duration = default(secs(30)),
        /// How long that answer may take before the connection is closed.
        pub(super) keepalive_timeout: Duration = default(secs(20)),
        /// After how long, give or take a tenth, a client is told to make its next calls on another connection, so
        /// that connections spread over replicas and fresh certificates come into use. Calls in flight go on.
        pub(super) max_connection_age: Duration = default(secs(60 * 60)),
        /// How long they may go on. Then a Subscribe ends with UNAVAILABLE, CONNECTION_RETIRED, and is to be called
        /// again with its last cursor; what is still open 5 s later is cut.
        pub(super) max_connection_age_grace: Duration = default(secs(10 * 60)),
    }
    tables {
        /// TLS.
        pub(super) tls: Option<GrpcTlsOptions> = optional_table,
    }
}

section! {
    /// TLS of the gRPC API. Default: none, plain text. The files may change while imgate runs: new connections use what is
    /// new. What does not go together is refused, and the old stays in use.
    pub(super) struct GrpcTlsOptions {
        /// The server's certificate chain, PEM.
        pub(super) cert_file: PathBuf = required("tls.crt".into()),
        /// The private key of the certificate, PEM.
        pub(super) key_file: PathBuf = required("tls.key".into()),
        /// The authorities of callers' certificates, PEM. Default: callers need no certificate.
        pub(super) client_ca_file: Option<PathBuf> = optional("clients-ca.crt".into()),
        /// Only with client_ca_file: "required", or "optional" where some callers have a key or a JWT and no
        /// certificate. One that is shown must be good in both cases.
        pub(super) client_certificates: ClientCertificates = default(ClientCertificates::Required),
    }
}

section! {
    /// The operations port: /metrics, /live and /ready over plain HTTP, without authentication. Keep it inside.
    pub struct Ops {
        /// The address to listen on.
        pub listen: SocketAddr = default(loopback(9090)),
    }
}

section! {
    /// The log, written to standard error.
    pub struct Log {
        /// How lines are written: "text" or "json".
        pub format: LogFormat = default(LogFormat::Text),
        /// What is logged: "error", "warn", "info", "debug" or "trace", also by module, as in
        /// "info,imgate::connectors=debug". Secrets and message bodies never show above "trace".
        pub level: String = default("info".to_owned()),
    }
}

section! {
    /// Where sessions, leases and the event log are kept.
    pub(super) struct StoreOptions {
        /// "embedded" is a database file, for one replica; "redis" a Redis server, for any number; "memory" keeps
        /// nothing over a restart and is for trying things.
        pub(super) kind: StoreKindOption = default(StoreKindOption::Embedded),
        /// The database file; only for "embedded". Its folder is made if it is not there.
        /// Default: imgate-data/imgate.redb in the folder where imgate is started.
        pub(super) path: Option<PathBuf> = optional("imgate-data/imgate.redb".into()),
        /// The Redis server, only and always for "redis": redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or the
        /// sentinels that watch it: redis-sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/MASTER[/DATABASE]
        /// (port 26379 if none is given). User and password are the master's; a sentinel that asks for some gets the
        /// same. With a password in it, better { file = "PATH" } or { env = "VARIABLE" }, where the URL is kept.
        pub(super) url: Option<MaybeSecret> =
            optional(MaybeSecret::Plain(Secret::new("redis://127.0.0.1:6379".to_owned()))),
        /// How long one operation of the store may take before it counts as failed.
        pub(super) operation_timeout: Duration = default(secs(2)),
        /// How long a replica owns a partition without renewing; it renews at a third of it. A crashed replica's
        /// sessions come back on another one after at most this time. At least three times operation_timeout.
        pub(super) lease_ttl: Duration = default(secs(30)),
    }
}

section! {
    /// The keys that seal credentials in the store, and that cursors and page tokens are made under: AES-256 keys, 32
    /// random bytes each, written in base64 or hexadecimal (`openssl rand -base64 32`). Required for "redis". Default
    /// for "embedded": a key file that is made beside the database file at the first start, imgate.key for imgate.redb,
    /// whose key has the name "file".
    pub(super) struct SealOptions {
        /// The name of the key that seals; the others only open. To rotate, add a key, make it active, and take
        /// the old one out once every session has been written anew and no log keeps events that it has sealed. A
        /// cursor that was made under a key that was taken out is refused.
        pub(super) active: Option<String> = optional("k1".to_owned()),
        /// The keys by name: letters, digits and dashes, at most 32.
        pub(super) keys: Option<BTreeMap<String, SecretRef>> = optional(BTreeMap::from([
            ("k1".to_owned(), SecretRef::File("seal-k1.key".into())),
        ])),
    }
}

section! {
    /// What happens at SIGTERM.
    pub struct Shutdown {
        /// How long handing over and flushing may take before the process ends anyway. Keep it below the grace
        /// period of whatever sends the signal.
        pub grace: Duration = default(secs(25)),
    }
}

section! {
    /// How mass logins are spread: at a start, after an outage, after a take-over.
    pub struct Pacing {
        /// The most upstream connections that are opened per second to one upstream app (sdk_app_id and upstream_url), for
        /// all of its tenants and by all replicas together. While the store is away a replica opens its share of them:
        /// as much as it holds of the app's partitions.
        pub connects_per_second: u32 = default(200),
        /// Each session waits a random time up to this before its first connection after a start.
        pub start_jitter: Duration = default(secs(2)),
    }
}

section! {
    /// The delay before a lost upstream connection is dialled again: random, up to a bound that doubles.
    pub struct Backoff {
        /// The first bound.
        pub first: Duration = default(Duration::from_millis(500)),
        /// The greatest bound.
        pub max: Duration = default(secs(60)),
    }
}

section! {
    /// How a dead upstream connection is found out.
    pub struct Keepalive {
        /// A heartbeat is sent when nothing came for this long.
        pub heartbeat: Duration = default(secs(10)),
        /// A connection whose heartbeat is not answered for this long is lost. Shorter than heartbeat.
        pub answer_timeout: Duration = default(secs(3)),
    }
}

section! {
    /// Someone who signs JWTs by which callers are known, such as a Kubernetes cluster for its service accounts. Callers
    /// send `authorization: Bearer JWT`; whose they are is said by tenants.jwt_subjects. Only algorithms of public
    /// keys are taken; `exp` is required.
    pub(super) struct JwtIssuerOptions {
        /// The name in this file, in logs and in metrics: small letters, digits and dashes, at most 63.
        pub(super) id: String = required("cluster".to_owned()),
        /// The claim `iss`, exactly.
        pub(super) issuer: String = required("https://kubernetes.default.svc.cluster.local".to_owned()),
        /// The claim `aud`, exactly, or one of its list.
        pub(super) audience: String = required("imgate".to_owned()),
        /// The file with its public keys, a JSON Web Key Set. Either this or jwks_url.
        pub(super) jwks_file: Option<PathBuf> = optional("jwks.json".into()),
        /// Where its public keys are: https://, or http:// on this machine. Redirects are not followed.
        pub(super) jwks_url: Option<String> =
            optional("https://kubernetes.default.svc.cluster.local/openid/v1/jwks".to_owned()),
        /// The authorities to trust for jwks_url, PEM, read anew at each fetch. Default: the system's.
        pub(super) jwks_ca_file: Option<PathBuf> =
            optional("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".into()),
        /// A file with a token that is sent to jwks_url, read anew at each fetch. Default: none is sent.
        pub(super) jwks_token_file: Option<PathBuf> =
            optional("/var/run/secrets/kubernetes.io/serviceaccount/token".into()),
        /// How often the keys are read again. A JWT with an unknown key has them read at once, at most each 10s.
        /// While that fails, the last ones are used.
        pub(super) refresh: Duration = default(secs(5 * 60)),
        /// How far the issuer's clock may be from this one.
        pub(super) clock_skew: Duration = default(secs(30)),
    }
}

section! {
    /// An operator's key, for AdminService and for nothing else. `imgate api-key --operator` makes one.
    pub(super) struct OperatorOptions {
        /// The key's name in logs: small letters, digits and dashes, at most 63.
        pub(super) id: String = required("on-call".to_owned()),
        /// The SHA-256 of the key in hexadecimal. It must be no tenant's.
        pub(super) sha256: KeySha256 = required(KeySha256(
            "c7a1f0be53d24e968a07b1d95c3e6f2840a9d7e1bb5c6f083e2d14976af5c80b".to_owned(),
        )),
        /// The key's first characters, as for tenants.api_keys.
        pub(super) prefix: Option<String> = optional("imgate_Zk3vQ9xTb".to_owned()),
        /// From when it is valid. Default: always.
        pub(super) not_before: Option<UnixMillis> = optional(UnixMillis::from_secs(1_767_225_600)),
        /// Until when. Default: for ever.
        pub(super) not_after: Option<UnixMillis> = optional(UnixMillis::from_secs(1_893_456_000)),
    }
}

section! {
    /// A customer of the gateway, and its upstream app. At least one.
    pub(super) struct TenantOptions {
        /// The tenant's name: small letters, digits and dashes, at most 63, no dash first. Stored with all its
        /// data, so it stays.
        pub(super) id: String = required("acme".to_owned()),
        /// Over how many partitions its accounts are spread, 1 to 256. It is fixed once the tenant has data.
        pub(super) partitions: u16 = default(8),
        /// The upstream app's number.
        pub(super) sdk_app_id: u32 = required(1_400_000_001),
        /// The upstream: wss://HOST[:PORT], or ws:// without TLS.
        pub(super) upstream_url: String = default("wss://wss.im.qcloud.com".to_owned()),
        /// Authorities to trust beside the system's for wss, PEM. Default: the system's alone.
        pub(super) upstream_ca_file: Option<PathBuf> = optional("upstream-ca.crt".into()),
        /// The upstream app's secret key, which the issuer "local" signs with, and which signatures of "callback" must
        /// be made with. Default: none.
        pub(super) secret_key: Option<SecretRef> = optional(SecretRef::File("acme-secret.key".into())),
        /// Where signatures come from when one runs out, or when a Login brings none: asked in this order until one
        /// answers. "callback" calls the tenant's service, see [tenants.callback]; "local" mints with secret_key;
        /// "manual" asks the bots by an event, and what stands behind it has its turn in the next attempt. Default:
        /// "callback" if there is [tenants.callback], "local" if there is a secret_key, then "manual".
        pub(super) issuers: Option<Vec<Issuer>> =
            optional(vec![Issuer::Callback, Issuer::Local, Issuer::Manual]),
        /// How long a signature of "local" is valid; at least 30s.
        pub(super) signature_lifetime: Duration = default(days(7)),
        /// At which part of its lifetime a signature is renewed, 0.1 to 0.95; jittered.
        pub(super) renew_at: f64 = default(0.8),
        /// What happens when another login of the account kicks the session out: "yield" parks it until a new
        /// Login, "retake" logs in once more after retake_delay.
        pub(super) kick_policy: KickPolicy = default(KickPolicy::Yield),
        /// How long "retake" waits.
        pub(super) retake_delay: Duration = default(secs(30)),
        /// The least time between two upstream logins of one account.
        pub(super) login_spacing: Duration = default(secs(15)),
        /// The upstream commands that Invoke may send: whole names, or beginnings of names followed by a star, as in
        /// "profile.*". Those that log in and out and keep a session alive are the gateway's own, whatever the list
        /// says. Default: none.
        pub(super) invoke_commands: Vec<String> = default(Vec::new()),
    }
    tables {
        /// The tenant's own issuer.
        pub(super) callback: Option<CallbackOptions> = optional_table,
        /// The event log.
        pub(super) log: TenantLog = table,
        /// Who may call.
        pub(super) api_keys: Vec<ApiKeyOptions> = tables,
        /// Who may call by certificate.
        pub(super) client_certificates: Vec<ClientCertificateOptions> = optional_tables,
        /// Who may call by JWT.
        pub(super) jwt_subjects: Vec<JwtSubjectOptions> = optional_tables,
        /// Bounds.
        pub(super) limits: Limits = table,
    }
}

section! {
    /// The tenant's service that makes signatures: `imgate.v1.SignatureIssuerService`, called by the issuer "callback".
    pub(super) struct CallbackOptions {
        /// Where it is: https://HOST[:PORT], or http:// on a loopback address.
        pub(super) url: String = required("https://signatures.example.com".to_owned()),
        /// The authorities that its certificate must come from, PEM. Default: the system's.
        pub(super) ca_file: Option<PathBuf> = optional("issuer-ca.crt".into()),
        /// The certificate chain that imgate shows it, PEM, with key_file. Default: none.
        pub(super) cert_file: Option<PathBuf> = optional("imgate.crt".into()),
        /// The private key of that certificate, PEM.
        pub(super) key_file: Option<PathBuf> = optional("imgate.key".into()),
        /// What imgate sends as `authorization: Bearer TOKEN`. Default: nothing.
        pub(super) token: Option<SecretRef> = optional(SecretRef::File("issuer-token.key".into())),
        /// How long an answer may take; told to the service as the deadline.
        pub(super) timeout: Duration = default(secs(5)),
        /// The most calls that are begun per second.
        pub(super) calls_per_second: u32 = default(50),
        /// The most calls in flight.
        pub(super) concurrency: u32 = default(16),
    }
}

section! {
    /// The tenant's event log, from which subscribers read. What is beyond any of the three bounds is dropped, oldest
    /// first; a subscriber that had not read it yet is told of the gap.
    pub struct TenantLog {
        /// How old an event may become.
        pub retain_age: Duration = default(days(7)),
        /// How many events each partition keeps.
        pub retain_events: u32 = default(100_000),
        /// How many bytes of events each partition keeps.
        pub retain_bytes: ByteSize = default(ByteSize::mib(64)),
        /// Whether events are sealed in the store, like credentials, by the keys of the section `seal`.
        pub seal: bool = default(false),
        /// A named subscription that is not used for so long is forgotten.
        pub subscription_expiry: Duration = default(days(30)),
    }
}

section! {
    /// An API key of the tenant. Callers send `authorization: Bearer KEY`. `imgate api-key` makes one and prints this
    /// section; any other text of 32 random bytes or more will do. A tenant without keys, client certificates and JWT
    /// subjects is open to everybody who reaches the loopback listener.
    pub(super) struct ApiKeyOptions {
        /// The key's name in logs: small letters, digits and dashes, at most 63.
        pub(super) id: String = required("bot-fleet".to_owned()),
        /// The SHA-256 of the key in hexadecimal (`printf %s KEY | sha256sum`).
        pub(super) sha256: KeySha256 = required(KeySha256(
            "5f0d8b1e6ac24a7793d1c08e24be7f5a1b6690c2d7e3f84415a9e0637cdb2f18".to_owned(),
        )),
        /// What it may do: "sessions", "events", "messages".
        pub(super) scopes: Vec<Scope> = required(vec![Scope::Sessions, Scope::Events, Scope::Messages]),
        /// The key's first characters, 8 to 32, by which it is found. They are no secret and tell keys apart: none may
        /// be the beginning of another's. Default: it is found by its digest.
        pub(super) prefix: Option<String> = optional("imgate_4vJ8kQ2xT".to_owned()),
        /// From when it is valid, as 2026-01-01T00:00:00Z. Default: always.
        pub(super) not_before: Option<UnixMillis> = optional(UnixMillis::from_secs(1_767_225_600)),
        /// Until when. Default: for ever.
        pub(super) not_after: Option<UnixMillis> = optional(UnixMillis::from_secs(1_893_456_000)),
    }
}

section! {
    /// A client certificate of the tenant, for callers who send no `authorization`. Needs grpc.tls.client_ca_file.
    pub(super) struct ClientCertificateOptions {
        /// The certificate's name in logs: small letters, digits and dashes, at most 63.
        pub(super) id: String = required("echo".to_owned()),
        /// The subject alternative name (DNS or URI) that the certificate has, exactly. It must be of one tenant only.
        pub(super) name: String = required("spiffe://cluster.local/ns/bots/sa/echo".to_owned()),
        /// What it may do: "sessions", "events", "messages".
        pub(super) scopes: Vec<Scope> = required(vec![Scope::Sessions, Scope::Events, Scope::Messages]),
    }
}

section! {
    /// A subject whose JWTs are the tenant's, such as a service account.
    pub(super) struct JwtSubjectOptions {
        /// The subject's name in logs: small letters, digits and dashes, at most 63.
        pub(super) id: String = required("echo".to_owned()),
        /// The id of the one of jwt_issuers that signs for it.
        pub(super) issuer: String = required("cluster".to_owned()),
        /// The claim `sub`, exactly. It must be of one tenant only.
        pub(super) subject: String = required("system:serviceaccount:bots:echo".to_owned()),
        /// What it may do: "sessions", "events", "messages".
        pub(super) scopes: Vec<Scope> = required(vec![Scope::Sessions, Scope::Events, Scope::Messages]),
    }
}

section! {
    /// Bounds of one tenant. Who is at one gets RESOURCE_EXHAUSTED, with the key in the details. Rates hold over all replicas:
    /// each enforces its share, as much as it holds of the tenant's partitions.
    pub struct Limits {
        /// How many accounts it may have logged in, at each replica.
        pub sessions: u32 = default(50_000),
        /// How many calls of Login per minute may lead to an upstream login by signature; as many may come at once.
        pub logins_per_minute: u32 = default(6000),
        /// How many calls of Send and Invoke per second there may be; as many may come at once.
        pub sends_per_second: u32 = default(1000),
        /// How many streams of Subscribe it may have open, at each replica.
        pub subscribers: u32 = default(1000),
        /// How many accounts may log in by signature on one day, which the vendor's plans count. A day is one in UTC+8, our
        /// reading of the vendor's natural day; the count may be off by 1 %. There is a warning at 80 %. Default: any number.
        pub daily_active_users: Option<u32> = optional(10_000),
        /// What happens to an account beyond daily_active_users: "warn" lets it log in, "refuse" refuses its Login. Sessions
        /// that are logged in, and accounts that were counted on that day, go on.
        pub daily_active_users_action: DailyActiveUsersAction = default(DailyActiveUsersAction::Warn),
        /// How many sends of one session may wait for it to come back.
        pub pending_sends_per_session: u32 = default(64),
        /// How many named subscriptions it may have.
        pub subscriptions: u32 = default(100),
        /// The greatest upstream frame or message that is passed on, from 512KiB. Of a frame up to four times as large, and of no
        /// more than 16MiB, the parts within the limit are passed on and a Gap stands for each other. An event carries a message's
        /// text and its JSON and so may be twice the limit, and gRPC clients refuse more than 4MiB where they are not told otherwise.
        pub upstream_frame_bytes: ByteSize = default(ByteSize::mib(1)),
    }
}
