//! Configuration files as operators write them: good ones load, bad ones say exactly what is wrong.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imgate::config::{
    Config, ConfigErrors, DailyActiveUsersAction, Issuer, JwtKeys, KickPolicy, LogFormat, Scope,
    Seal, StoreKind, reference,
};
use imgate::types::UnixMillis;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn environment(name: &str) -> Option<String> {
    match name {
        "IMGATE_TEST_SECRET" => Some("hunter2-from-the-environment".to_owned()),
        "IMGATE_TEST_HEADER" => Some("hunter2\r\nx-admin: yes".to_owned()),
        "IMGATE_TEST_REDIS" => Some("redis://:hunter2@127.0.0.1:6379/1".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, &folder("tests/config_files"), &environment)
}

fn files(kind: &str) -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = fs::read_dir(folder("tests/config_files").join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn valid_files_load() {
    for (path, text) in files("valid") {
        let config = parse(&text).unwrap_or_else(|errors| panic!("{}: {errors}", path.display()));
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2"), "{}: {shown}", path.display());
    }
}

/// Each bad file has its whole message beside it. `IMGATE_WRITE_EXPECTED=1` writes the messages anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for people")]
fn invalid_files_say_what_is_wrong() {
    for (path, text) in files("invalid") {
        let message = match parse(&text) {
            Ok(_) => panic!("{} is accepted", path.display()),
            Err(errors) => format!("{errors}\n"),
        };
        assert!(!message.contains("hunter2"), "{message}");
        // Messages of the system differ in nothing but the folder of the checkout.
        let message = message.replace(env!("CARGO_MANIFEST_DIR"), "CHECKOUT");
        let expected = path.with_extension("expect");
        if std::env::var("IMGATE_WRITE_EXPECTED").is_ok() {
            fs::write(&expected, &message).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(message, expected, "{}", path.display());
    }
}

/// The beginning of 2026.
const YEAR: UnixMillis = UnixMillis::from_secs(1_767_225_600);

#[expect(clippy::panic, reason = "a helper of a test, which is to fail")]
fn assert_callers_of_all_tenants(config: &Config) {
    let [cluster, file, here] = &config.jwt_issuers[..] else {
        panic!("{:?}", config.jwt_issuers)
    };
    assert_eq!(cluster.refresh, Duration::from_secs(60));
    assert_eq!(file.clock_skew, Duration::from_secs(30));
    let JwtKeys::Url {
        ca_file: Some(ca_file),
        token_file: Some(token_file),
        ..
    } = &cluster.keys
    else {
        panic!("{cluster:?}")
    };
    assert!(ca_file.is_file() && token_file.is_file());
    assert!(matches!(&file.keys, JwtKeys::File(path) if path.is_file()));
    assert!(matches!(&here.keys, JwtKeys::Url { url, .. } if url.starts_with("http://localhost")));
    let operator = &config.operators[0];
    assert_eq!(operator.not_before, Some(YEAR));
}

#[test]
fn every_value_of_a_full_file_arrives() {
    let (_, text) = files("valid")
        .into_iter()
        .find(|(path, _)| path.ends_with("full.toml"))
        .unwrap();
    let config = parse(&text).unwrap();
    assert_callers_of_all_tenants(&config);
    assert_eq!(config.replica_id.as_str(), "imgate-7");
    assert_eq!(config.grpc.listen.to_string(), "0.0.0.0:6000");
    assert_eq!(config.grpc.max_message_bytes, 1 << 20);
    assert_eq!(config.grpc.max_header_bytes, 32 << 10);
    assert_eq!(config.grpc.max_connections, 500);
    assert_eq!(config.grpc.connections_per_second, 50);
    assert_eq!(config.grpc.handshake_timeout, Duration::from_secs(3));
    assert_eq!(config.grpc.max_streams_per_connection, 64);
    assert_eq!(config.grpc.max_connection_age, Duration::from_secs(1800));
    let grace = config.grpc.max_connection_age_grace;
    assert_eq!(grace, Duration::from_secs(60));
    let tls = config.grpc.tls.unwrap();
    assert!(tls.client_ca_pem.is_some() && tls.clients_optional);
    assert_eq!(config.log.format, LogFormat::Json);
    let StoreKind::Redis { url } = &config.store.kind else {
        panic!("{:?}", config.store)
    };
    assert_eq!(url.expose(), "redis://:hunter2@127.0.0.1:6379/1");
    let keys = config.seal.open().unwrap();
    assert_eq!(keys.active, "k2");
    assert_eq!(keys.keys.len(), 2);
    assert_eq!(config.backoff.first, Duration::from_millis(250));

    let [acme, globex, by_jwt] = &config.tenants[..] else {
        panic!("{:?}", config.tenants)
    };
    assert_eq!(acme.upstream_url, "wss://im.example.com:8443");
    let in_order = [Issuer::Manual, Issuer::Callback, Issuer::Local];
    assert_eq!(acme.issuers, in_order);
    let callback = acme.callback.as_ref().unwrap();
    assert_eq!(callback.url, "https://signatures.example.com:8443");
    assert!(callback.ca_pem.is_some() && callback.identity.is_some());
    let token = callback.token.as_ref().unwrap();
    assert_eq!(token.expose(), "hunter2-from-the-environment");
    assert_eq!(callback.timeout, Duration::from_secs(2));
    assert_eq!((callback.calls_per_second, callback.concurrency), (7, 3));
    assert_eq!(acme.kick_policy, KickPolicy::Retake);
    let secret = acme.secret_key.as_ref().unwrap();
    assert_eq!(secret.expose(), "hunter2-from-a-file");
    assert_eq!(acme.api_keys[1].scopes, [Scope::Events]);
    let reader = &acme.api_keys[1].key;
    assert_eq!(reader.not_before, Some(YEAR));
    assert_eq!(reader.prefix.as_deref(), Some("imgate_4vJ8kQ2xT"));
    assert_eq!(acme.client_certificates[1].name, "bots.example.com");
    assert_eq!(acme.jwt_subjects[0].issuer, "cluster");
    assert!(!by_jwt.is_open());
    assert_eq!(acme.limits.sessions, 10);
    assert!(acme.upstream_ca_pem.is_some());
    assert!(acme.invoke_commands.has("profile.get") && !acme.invoke_commands.has("openim.x"));
    let secret = globex.secret_key.as_ref().unwrap();
    assert_eq!(secret.expose(), "hunter2-from-the-environment");
    let in_order = [Issuer::Callback, Issuer::Local, Issuer::Manual];
    assert_eq!(globex.issuers, in_order);
    let callback = globex.callback.as_ref().unwrap();
    assert_eq!(callback.url, "http://[::1]:50061");
    assert_eq!(callback.timeout, Duration::from_secs(5));
    assert_eq!((callback.calls_per_second, callback.concurrency), (50, 16));
}

#[test]
fn an_issuer_that_is_never_asked_is_warned_of() {
    let text = |issuers: &str| {
        format!(
            "[[tenants]]\nid = \"acme\"\nsdk_app_id = 1\nsecret_key = {{ env = \"IMGATE_TEST_SECRET\" }}\n\
             issuers = {issuers}\ncallback.url = \"http://localhost:1\"\n"
        )
    };
    let warnings = |issuers: &str| parse(&text(issuers)).unwrap().warnings();
    let of_issuers = |issuers: &str| {
        let warnings = warnings(issuers);
        let mut lines = warnings.iter();
        lines.any(|line| line.contains("tenants[acme].issuers"))
    };
    assert!(of_issuers(r#"["local", "callback"]"#));
    assert!(!of_issuers(r#"["callback", "local"]"#));
}

#[test]
fn the_limits_of_a_full_file_arrive() {
    let (_, text) = files("valid")
        .into_iter()
        .find(|(path, _)| path.ends_with("full.toml"))
        .unwrap();
    let config = parse(&text).unwrap();
    let [acme, globex] = [0, 1].map(|n| &config.tenants[n].limits);
    assert_eq!((acme.logins_per_minute, acme.sends_per_second), (60, 5));
    assert_eq!((acme.subscribers, globex.subscribers), (0, 1000));
    assert_eq!(acme.daily_active_users, Some(1000));
    assert_eq!(globex.daily_active_users, None);
    let action = acme.daily_active_users_action;
    assert_eq!(action, DailyActiveUsersAction::Refuse);
}

#[test]
fn the_least_file_has_the_documented_defaults() {
    let (_, text) = files("valid")
        .into_iter()
        .find(|(path, _)| path.ends_with("least.toml"))
        .unwrap();
    let config = parse(&text).unwrap();
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.store.lease_ttl, Duration::from_secs(30));
    assert!(matches!(&config.store.kind, StoreKind::Embedded { path } if path.is_relative()));
    assert!(matches!(&config.seal, Seal::KeyFile { path, .. } if path.ends_with("imgate.key")));
    assert_eq!(config.tenants[0].partitions, 8);
    assert_eq!(config.tenants[0].issuers, [Issuer::Manual]);
    assert!(!config.tenants[0].invoke_commands.has("profile.get"));
    assert!(!config.replica_id.as_str().is_empty());
}

/// Who runs a gateway that lets everybody in is told so, by the tenant's name.
#[test]
fn open_tenants_are_warned_of_by_name() {
    let (_, text) = files("valid")
        .into_iter()
        .find(|(path, _)| path.ends_with("open_tenants_on_ipv6_loopback.toml"))
        .unwrap();
    let config = parse(&text).unwrap();
    let warnings = config.warnings();
    for tenant in &config.tenants {
        let name = format!("tenants[{}] is open", tenant.id);
        let warned = warnings.iter().any(|warning| warning.contains(&name));
        assert_eq!(warned, tenant.is_open(), "{warnings:?}");
    }
    assert!(config.tenants.iter().any(imgate::config::Tenant::is_open));
    // Any kind of caller closes it.
    let text = "[[jwt_issuers]]\nid = \"i\"\nissuer = \"i\"\naudience = \"a\"\n\
                jwks_file = \"secrets/jwks.json\"\n\
                [[tenants]]\nid = \"acme\"\nsdk_app_id = 1\n\
                [[tenants.jwt_subjects]]\nid = \"s\"\nissuer = \"i\"\nsubject = \"s\"\n\
                scopes = [\"events\"]\n";
    assert!(!parse(text).unwrap().tenants[0].is_open());
    let open = text.split("[[tenants.jwt_subjects]]").next().unwrap();
    assert!(parse(open).unwrap().tenants[0].is_open());
}

/// `IMGATE_WRITE_EXPECTED=1` writes the example anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for people")]
fn the_example_is_the_reference() {
    let path = folder("deploy/imgate.example.toml");
    if std::env::var("IMGATE_WRITE_EXPECTED").is_ok() {
        fs::write(&path, reference()).unwrap();
    }
    let example = fs::read_to_string(&path).unwrap();
    assert_eq!(
        example,
        reference(),
        "run IMGATE_WRITE_EXPECTED=1 cargo test --test config"
    );
}

#[test]
fn the_example_loads_as_it_is() {
    let config = Config::load(&folder("deploy/imgate.example.toml")).unwrap();
    assert_eq!(config.tenants.len(), 1);
    assert_eq!(config.warnings(), [] as [&str; 0]);
}

/// With all of its examples taken at their word, the example file is still one that the reader understands: the
/// only things wrong are files that are not there, and keys that exclude each other.
#[test]
fn the_example_names_every_key_correctly() {
    let text: String = reference()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || is_assignment(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let errors = parse(&text).unwrap_err();
    let keys: BTreeSet<_> = errors.problems.iter().map(|p| p.key.as_str()).collect();
    let expected = BTreeSet::from([
        "grpc.tls.cert_file",
        "grpc.tls.client_ca_file",
        "grpc.tls.key_file",
        "jwt_issuers[cluster].jwks_url",
        "seal.keys.k1",
        "store.url",
        "tenants[acme].callback.ca_file",
        "tenants[acme].callback.cert_file",
        "tenants[acme].callback.key_file",
        "tenants[acme].callback.token",
        "tenants[acme].secret_key",
        "tenants[acme].upstream_ca_file",
    ]);
    assert_eq!(keys, expected, "{errors}");
}

fn is_assignment(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

#[test]
fn a_missing_file_is_named() {
    let errors = Config::load(Path::new("no/such/imgate.toml")).unwrap_err();
    assert!(
        errors.to_string().contains("no/such/imgate.toml"),
        "{errors}"
    );
}

#[test]
fn a_secret_on_a_broken_line_is_not_shown() {
    let errors = parse("[store]\nurl = \"redis://:hunter2@h\n").unwrap_err();
    let text = errors.to_string();
    assert!(
        text.contains("line 2") && !text.contains("hunter2"),
        "{text}"
    );
}
