//! The rules: unchecked options in, a checked [`Config`] out. What is refused is noted with its key; the result
//! then holds a stand-in and is thrown away.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use self::callers::Known;
use super::load::Sources;
use super::options::{ClientCertificates, GrpcOptions, GrpcTlsOptions, Options};
use super::setting::Setting;
use super::{ByteSize, Config, Grpc, GrpcTls};
use crate::types::ReplicaId;

mod callback;
mod callers;
mod store;
mod tenants;

const LONGEST_AGE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Applies all rules.
pub(super) fn check(options: Options, sources: &mut Sources<'_>) -> Config {
    let replica_id = replica_id(options.replica_id, sources);
    let grpc = grpc(options.grpc, sources);
    let directive = &options.log.level;
    if EnvFilter::builder().parse(directive).is_err() {
        let remedy = "must be a level (error, warn, info, debug, trace), or levels by module such as \
                      \"info,imgate::connectors=debug\"";
        sources.refuse("log.level", directive, remedy);
    }
    let store = store::store(options.store, sources);
    let seal = store::seal(options.seal, &store.kind, sources);
    sources.within("shutdown.grace", &options.shutdown.grace, &SECOND, &HOUR);
    let connects = &options.pacing.connects_per_second;
    sources.within("pacing.connects_per_second", connects, &1, &100_000);
    let jitter = &options.pacing.start_jitter;
    sources.within("pacing.start_jitter", jitter, &Duration::ZERO, &HOUR);
    let (first, max) = (&options.backoff.first, &options.backoff.max);
    sources.within("backoff.first", first, &MILLISECOND, &HOUR);
    sources.within("backoff.max", max, &MILLISECOND, &HOUR);
    if first > max {
        let remedy = format!("must not be greater than backoff.max = {}", max.to_toml());
        sources.refuse_because(&["backoff.first", "backoff.max"], first, remedy);
    }
    let (heartbeat, answer) = (
        &options.keepalive.heartbeat,
        &options.keepalive.answer_timeout,
    );
    sources.within("keepalive.heartbeat", heartbeat, &SECOND, &HOUR);
    sources.within("keepalive.answer_timeout", answer, &MILLISECOND, &HOUR);
    if answer >= heartbeat {
        let keys = ["keepalive.answer_timeout", "keepalive.heartbeat"];
        let remedy = format!(
            "must be less than keepalive.heartbeat = {}",
            heartbeat.to_toml()
        );
        sources.refuse_because(&keys, answer, remedy);
    }
    let mut known = Known::default();
    let jwt_issuers = callers::jwt_issuers(options.jwt_issuers, sources);
    let operators = callers::operators(options.operators, &mut known, sources);
    let tenants = tenants::tenants(options.tenants, &grpc, &jwt_issuers, &mut known, sources);
    Config {
        replica_id,
        grpc,
        ops: options.ops,
        log: options.log,
        store,
        seal,
        shutdown: options.shutdown,
        pacing: options.pacing,
        backoff: options.backoff,
        keepalive: options.keepalive,
        jwt_issuers,
        operators,
        tenants,
    }
}

impl Sources<'_> {
    /// Notes a problem of a key that is no secret.
    fn refuse(&mut self, key: &str, value: &impl Setting, remedy: impl Into<String>) {
        self.refuse_because(&[key], value, remedy);
    }

    /// Notes a problem of the first key, which the others have a part in.
    fn refuse_because(&mut self, keys: &[&str], value: &impl Setting, remedy: impl Into<String>) {
        self.problems.report(keys, Some(value.to_toml()), remedy);
    }

    fn within<T: Setting + PartialOrd>(&mut self, key: &str, value: &T, least: &T, most: &T) {
        if value < least || value > most {
            let remedy = format!("must be from {} to {}", least.to_toml(), most.to_toml());
            self.refuse(key, value, remedy);
        }
    }
}

fn replica_id(given: Option<String>, sources: &mut Sources<'_>) -> ReplicaId {
    let from_host = given.is_none();
    let Some(id) = given.or_else(|| sources.host_name()) else {
        let remedy =
            "is required where the host has no name: set it to a name that stays over restarts";
        sources.problems.report(&["replica_id"], None, remedy);
        return ReplicaId::new("");
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if id.is_empty() || id.len() > 63 || !id.chars().all(allowed) {
        let remedy = if from_host {
            "(the host name) cannot be used: set replica_id to letters, digits, dots, dashes and underscores, at most 63"
        } else {
            "must be letters, digits, dots, dashes and underscores, at most 63"
        };
        sources.refuse("replica_id", &id, remedy);
    }
    ReplicaId::new(id)
}

fn grpc(options: GrpcOptions, sources: &mut Sources<'_>) -> Grpc {
    let most = ByteSize::mib(64);
    let message = options.max_message_bytes;
    sources.within("grpc.max_message_bytes", &message, &ByteSize(1024), &most);
    let (least, most) = (ByteSize(4 << 10), ByteSize::mib(1));
    let headers = &options.max_header_bytes;
    sources.within("grpc.max_header_bytes", headers, &least, &most);
    let connections = &options.max_connections;
    sources.within("grpc.max_connections", connections, &1, &1_000_000);
    let rate = &options.connections_per_second;
    sources.within("grpc.connections_per_second", rate, &1, &100_000);
    let streams = &options.max_streams_per_connection;
    sources.within("grpc.max_streams_per_connection", streams, &1, &100_000);
    for (key, value) in [
        ("grpc.handshake_timeout", &options.handshake_timeout),
        ("grpc.keepalive_interval", &options.keepalive_interval),
        ("grpc.keepalive_timeout", &options.keepalive_timeout),
    ] {
        sources.within(key, value, &SECOND, &HOUR);
    }
    let (age, grace) = (
        &options.max_connection_age,
        &options.max_connection_age_grace,
    );
    sources.within("grpc.max_connection_age", age, &SECOND, &LONGEST_AGE);
    sources.within(
        "grpc.max_connection_age_grace",
        grace,
        &SECOND,
        &LONGEST_AGE,
    );
    let tls = options.tls.as_ref().and_then(|tls| grpc_tls(tls, sources));
    Grpc::of(&options, tls)
}

fn grpc_tls(options: &GrpcTlsOptions, sources: &mut Sources<'_>) -> Option<GrpcTls> {
    let cert_pem = sources.certificates("grpc.tls.cert_file", &options.cert_file);
    let key_pem = sources.private_key("grpc.tls.key_file", &options.key_file);
    let client_ca_pem = options
        .client_ca_file
        .as_ref()
        .and_then(|path| sources.certificates("grpc.tls.client_ca_file", path));
    let clients_optional = options.client_certificates == ClientCertificates::Optional;
    if clients_optional && options.client_ca_file.is_none() {
        let keys = ["grpc.tls.client_certificates", "grpc.tls.client_ca_file"];
        let remedy =
            "needs grpc.tls.client_ca_file: without it callers' certificates are not looked at";
        sources.refuse_because(&keys, &options.client_certificates, remedy);
    }
    Some(GrpcTls {
        cert_pem: cert_pem?,
        key_pem: key_pem?,
        client_ca_pem,
        clients_optional,
    })
}
