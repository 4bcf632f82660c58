//! Events of a tenant that wants them sealed: nothing of their text is in the store's files, and subscribers read them,
//! also after a rotation of the keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imgate::config::{Config, Seal, SealKeys, StoreKind};
use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use imgate::types::Secret;

use crate::fixture::*;
use crate::redis_server::RedisServer;
use crate::store::on_redis;

const PLAIN: &str = "written before anybody asked for sealing";
const FIRST: &str = "sealed under the first of the two keys";
const SECOND: &str = "sealed under the second of the two keys";

/// The keys of these names, of which the last seals.
fn keys(names: &[&str]) -> Seal {
    let key = |name: &str| Secret::new([name.as_bytes()[1]; 32]);
    let keys: BTreeMap<String, _> = names
        .iter()
        .map(|name| ((*name).to_owned(), key(name)))
        .collect();
    Seal::Keys(SealKeys {
        active: names.last().unwrap().to_string(),
        keys,
    })
}

/// Whether a text is anywhere in the files of a folder.
fn has(folder: &Path, text: &str) -> bool {
    let mut entries = std::fs::read_dir(folder).unwrap();
    entries.any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return has(&path, text);
        }
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

/// Starts a gateway, brings the bot a text, reads it, and stops the gateway.
async fn live_with(config: Config, upstream: &Upstream, text: &str) -> Config {
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    if client.session("bot").await.is_err() {
        client.online("bot").await;
    }
    client.until_state("bot", SessionState::Online).await;
    upstream.texts("friend", "bot", [text.to_owned()]);
    assert_eq!(events.text("bot").await, text);
    gateway.stop().await
}

/// What a subscriber gets who begins at the beginning, until this text: texts, and reasons of gaps.
async fn all_until(config: Config, last: &str) -> (Config, Vec<String>) {
    let gateway = Gateway::start(config).await.ready().await;
    let at = v1::StartAt::Earliest.into();
    let client = gateway.client().await;
    let events = client.subscribe_from(v1::subscribe_request::Start::At(at));
    let mut events = events.await.unwrap();
    let mut all: Vec<String> = Vec::new();
    while all.last().is_none_or(|text| text != last) {
        all.extend(match events.next().await.kind {
            Some(Kind::Gap(gap)) => Some(gap.reason().as_str_name().to_owned()),
            Some(kind) => text_of(kind),
            None => None,
        });
    }
    all.dedup();
    (gateway.stop().await, all)
}

/// From plain to sealed, and from one key to the next, with what the files have of it.
async fn story(mut config: Config, upstream: &Upstream, files: &Path) {
    config.seal = keys(&["k1"]);
    config = live_with(config, upstream, PLAIN).await;
    assert!(has(files, PLAIN), "the files have what is not sealed");

    config.tenants[0].log.seal = true;
    config = live_with(config, upstream, FIRST).await;
    config.seal = keys(&["k1", "k2"]);
    config = live_with(config, upstream, SECOND).await;
    let (mut config, all) = all_until(config, SECOND).await;
    assert_eq!(all, [PLAIN, FIRST, SECOND]);
    assert!(!has(files, FIRST) && !has(files, SECOND));

    // What an earlier key has sealed cannot be read without it, and that is told.
    config.seal = keys(&["k2"]);
    let (_, all) = all_until(config, SECOND).await;
    assert_eq!(all, [PLAIN, "GAP_REASON_CORRUPT", SECOND]);
}

#[tokio::test]
async fn sealed_events_are_read_and_are_not_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let path = folder.path().join("imgate.redb");
    let tenant = tenant("acme", upstream.url());
    let config = config(StoreKind::Embedded { path }, vec![tenant]);
    story(config, &upstream, folder.path()).await;
}

#[tokio::test]
async fn sealed_events_are_read_and_are_not_in_redis() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let answer: Vec<String> = redis::cmd("CONFIG")
        .arg(&["GET", "dir"])
        .query(&mut redis.client())
        .unwrap();
    let files = PathBuf::from(answer.last().unwrap());
    story(on_redis(&redis, &upstream), &upstream, &files).await;
}
