//! The configuration: any text at all, and the same text with a secret wherever one may stand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imgate::config::{Config, ConfigErrors, Issuer, KickPolicy, StoreKind};
use imgate::store::redis_url::RedisUrl;
use toml::{Table, Value};

/// What stands in for every secret. A text that has it in it by itself has it as a secret.
const HUSH: &str = "hush-hush-hush";
/// What the secrets of the environment and of `tests/config_files/secrets` have in them.
const KNOWN: &str = "hunter2";

/// The text of a file.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = parse(&text);
    match &read {
        Ok(config) => good(config),
        Err(errors) => bad(errors, &text),
    }
    if !text.contains(KNOWN) {
        shows_no(KNOWN, &read);
    }
    match text.parse::<Table>() {
        Ok(table) => secrets_do_not_show(table),
        // What is on a broken line may be a secret.
        Err(_) => shows_no(HUSH, &read),
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" | "IMGATE_TEST_SECRET" => Some("hunter2-from-the-environment".to_owned()),
        "IMGATE_TEST_REDIS" => Some("redis://:hunter2@127.0.0.1:6379/1".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests: PathBuf = match here.parent() {
        Some(tests) if here.ends_with("tests/fuzz") => tests.to_owned(),
        Some(_) | None => here.join("tests"),
    };
    Config::parse(text, &tests.join("config_files"), &environment)
}

/// What the fields of [`Config`] promise.
fn good(config: &Config) {
    let id = config.replica_id.as_str();
    assert!((1..=63).contains(&id.len()) && id.is_ascii());
    assert!(config.store.lease_ttl >= config.store.operation_timeout * 3);
    assert!(config.backoff.first <= config.backoff.max);
    assert!(config.keepalive.answer_timeout < config.keepalive.heartbeat);
    if let StoreKind::Redis { url } = &config.store.kind {
        RedisUrl::parse(url.expose()).expect("the store takes it");
    }
    let ids: BTreeSet<_> = config.tenants.iter().map(|tenant| &tenant.id).collect();
    assert!(!ids.is_empty() && ids.len() == config.tenants.len());
    for tenant in &config.tenants {
        assert!(!tenant.id.is_reserved() && (1..=63).contains(&tenant.id.as_str().len()));
        assert!((1..=256).contains(&tenant.partitions) && tenant.sdk_app_id > 0);
        assert!(!tenant.upstream_url.ends_with('/'));
        let url = tenant.upstream_url.split_once("://");
        assert!(
            matches!(url, Some(("ws" | "wss", host)) if !host.is_empty() && !host.contains('@'))
        );
        assert!(!tenant.issuers.is_empty());
        assert!(!tenant.issuers.contains(&Issuer::Local) || tenant.secret_key.is_some());
        assert!(tenant.signature_lifetime >= Duration::from_secs(30));
        assert!((0.1..=0.95).contains(&tenant.renew_at));
        assert!(matches!(
            tenant.kick_policy,
            KickPolicy::Yield | KickPolicy::Retake
        ));
        assert!(!tenant.is_open() || config.grpc.listen.ip().is_loopback());
        for key in &tenant.api_keys {
            assert!(!key.scopes.is_empty());
        }
    }
    for warning in config.warnings() {
        assert!(one_line(&warning));
    }
}

fn bad(errors: &ConfigErrors, text: &str) {
    assert!(!errors.problems.is_empty());
    for problem in &errors.problems {
        assert!(!problem.key.is_empty() && !problem.remedy.is_empty());
        let shown = problem.to_string();
        assert!(one_line(&shown), "{shown:?}");
    }
    let keys: BTreeSet<_> = errors.problems.iter().map(|problem| &problem.key).collect();
    assert_eq!(
        keys.len(),
        errors.problems.len(),
        "a key is told of once: {errors}"
    );
    // A line for each thing that is wrong, which can be no more than there is text.
    assert!(errors.to_string().len() <= 16_384 + 512 * text.len());
}

fn one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn shows_no(secret: &str, read: &Result<Config, ConfigErrors>) {
    let shown = match read {
        Ok(config) => format!("{config:?} {:?}", config.warnings()),
        Err(errors) => format!("{errors} {errors:?}"),
    };
    assert!(!shown.contains(secret), "{shown}");
}

/// Puts a secret wherever one may stand, and where somebody may put one by mistake.
fn secrets_do_not_show(mut table: Table) {
    if table.to_string().contains(HUSH) {
        return;
    }
    hide(
        table
            .get_mut("store")
            .and_then(|store| store.get_mut("url")),
    );
    if let Some(Value::Table(keys)) = table.get_mut("seal").and_then(|seal| seal.get_mut("keys")) {
        keys.iter_mut().for_each(|(_, key)| hide(Some(key)));
    }
    for tenant in tables(table.get_mut("tenants")) {
        hide(tenant.get_mut("secret_key"));
        for key in tables(tenant.get_mut("api_keys")) {
            hide(key.get_mut("sha256"));
            key.insert("key".to_owned(), HUSH.into());
        }
        tenant.insert("secretkey".to_owned(), HUSH.into());
    }
    for section in ["store", "seal", "grpc"] {
        if let Some(Value::Table(section)) = table.get_mut(section) {
            section.insert("password".to_owned(), Value::Array(vec![HUSH.into()]));
        }
    }
    table.insert("secret".to_owned(), HUSH.into());
    let text = table.to_string();
    let read = parse(&text);
    assert!(read.is_err(), "there are unknown keys in it");
    shows_no(HUSH, &read);
}

fn tables(value: Option<&mut Value>) -> impl Iterator<Item = &mut Table> {
    let list = value.and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_table_mut)
}

/// Makes secrets of all texts in a value, but of those that say where one is kept.
fn hide(value: Option<&mut Value>) {
    match value {
        Some(Value::String(text)) => HUSH.clone_into(text),
        Some(Value::Array(list)) => list.iter_mut().for_each(|item| hide(Some(item))),
        Some(Value::Table(table)) => {
            let is_place =
                table.len() == 1 && (table.contains_key("file") || table.contains_key("env"));
            if !is_place {
                table.iter_mut().for_each(|(_, item)| hide(Some(item)));
            }
        }
        Some(value) => *value = HUSH.into(),
        None => {}
    }
}
