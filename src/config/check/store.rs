//! The rules of `[store]` and `[seal]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{HOUR, SECOND};
use crate::config::load::Sources;
use crate::config::options::{SealOptions, StoreKindOption, StoreOptions};
use crate::config::setting::{SecretRef, Setting as _};
use crate::config::{Seal, SealKeys, Store, StoreKind, seal};
use crate::store::redis_url::RedisUrl;
use crate::types::Secret;

const DEFAULT_DATABASE: &str = "imgate-data/imgate.redb";

pub(super) fn store(options: StoreOptions, sources: &mut Sources<'_>) -> Store {
    let kind = store_kind(&options, sources);
    let (timeout, ttl) = (options.operation_timeout, options.lease_ttl);
    let shortest = Duration::from_millis(10);
    sources.within("store.operation_timeout", &timeout, &shortest, &HOUR);
    sources.within("store.lease_ttl", &ttl, &SECOND, &HOUR);
    if ttl < timeout.saturating_mul(3) {
        let keys = ["store.lease_ttl", "store.operation_timeout"];
        let remedy = format!(
            "must be at least three times store.operation_timeout = {}, for a lease is renewed at a third of it",
            timeout.to_toml()
        );
        sources.refuse_because(&keys, &ttl, remedy);
    }
    Store {
        kind,
        operation_timeout: timeout,
        lease_ttl: ttl,
    }
}

fn store_kind(options: &StoreOptions, sources: &mut Sources<'_>) -> StoreKind {
    let kind = options.kind;
    if let Some(path) = &options.path
        && kind != StoreKindOption::Embedded
    {
        let remedy = format!(
            "is for store.kind = \"embedded\" only: remove it, or change store.kind = {}",
            kind.to_toml()
        );
        sources.refuse_because(&["store.path", "store.kind"], path, remedy);
    }
    if options.url.is_some() && kind != StoreKindOption::Redis {
        let remedy = format!(
            "is for store.kind = \"redis\" only: remove it, or change store.kind = {}",
            kind.to_toml()
        );
        sources
            .problems
            .report(&["store.url", "store.kind"], None, remedy);
    }
    match kind {
        StoreKindOption::Embedded => StoreKind::Embedded {
            path: match &options.path {
                Some(path) => sources.path(path),
                None => DEFAULT_DATABASE.into(),
            },
        },
        StoreKindOption::Redis => redis_store(options, sources),
        StoreKindOption::Memory => StoreKind::Memory,
    }
}

fn redis_store(options: &StoreOptions, sources: &mut Sources<'_>) -> StoreKind {
    let key = "store.url";
    let Some(value) = &options.url else {
        let remedy = "is required for store.kind = \"redis\": set it, for example url = \"redis://127.0.0.1:6379\"";
        sources.problems.report(&[key], None, remedy);
        return StoreKind::Redis {
            url: Secret::default(),
        };
    };
    let url = sources.maybe_secret(key, value).unwrap_or_default();
    if let Err(remedy) = RedisUrl::parse(url.expose()) {
        sources.problems.report(&[key], None, remedy);
    }
    StoreKind::Redis { url }
}

pub(super) fn seal(options: SealOptions, store: &StoreKind, sources: &mut Sources<'_>) -> Seal {
    match (options.active, options.keys) {
        (Some(active), Some(places)) => seal_keys(active, &places, sources),
        (Some(active), None) => {
            let remedy = format!(
                "names the active key, but there are no keys: add the section [seal.keys] with \
                 {active} = {{ file = \"PATH\" }}"
            );
            sources.refuse("seal.active", &active, remedy);
            Seal::Ephemeral
        }
        (None, Some(places)) => {
            let first = places.keys().next().map_or("k1", String::as_str);
            let remedy = format!(
                "is required beside seal.keys: name the key that seals, for example active = \"{first}\""
            );
            sources
                .problems
                .report(&["seal.active", "seal.keys"], None, remedy);
            Seal::Ephemeral
        }
        (None, None) => {
            if matches!(store, StoreKind::Redis { .. }) {
                let remedy = "is required for store.kind = \"redis\", where others could read credentials: make a key \
                              with `openssl rand -base64 32` and set active = \"k1\" and keys = { k1 = { file = \"PATH\" } }";
                let keys = ["seal", "seal.keys", "seal.active", "store.kind"];
                sources.problems.report(&keys, None, remedy);
            }
            Seal::default_for(store)
        }
    }
}

fn seal_keys(
    active: String,
    places: &BTreeMap<String, SecretRef>,
    sources: &mut Sources<'_>,
) -> Seal {
    let mut keys = BTreeMap::new();
    for (name, place) in places {
        let key = format!("seal.keys.{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) {
            let remedy = "the key's name must be letters, digits and dashes, at most 32";
            sources.refuse(&key, place, remedy);
        }
        let Some(text) = sources.secret(&key, place) else {
            continue;
        };
        match seal::parse_key(text.expose()) {
            Some(parsed) => drop(keys.insert(name.clone(), parsed)),
            None => {
                let remedy = "must hold 32 bytes in base64 or hexadecimal: make one with `openssl rand -base64 32`";
                sources.refuse(&key, place, remedy);
            }
        }
    }
    if !places.contains_key(&active) {
        let names: Vec<_> = places.keys().map(String::as_str).collect();
        let remedy = format!("must be one of seal.keys: {}", names.join(", "));
        sources.refuse_because(&["seal.active", "seal.keys"], &active, remedy);
    }
    Seal::Keys(SealKeys { active, keys })
}
