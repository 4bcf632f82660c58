//! The store: away, stopped, emptied, broken, and another replica's.

use std::sync::Arc;
use std::time::Duration;

use imgate::config::{Config, StoreKind, Tenant};
use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use imgate::proto::v1::subscribe_request::Start;
use imgate::store::Store as _;
use imgate::store::redis::{RedisOptions, RedisStore};
use imgate::types::{PartitionId, TenantId};
use redis::Commands as _;

use crate::fixture::*;
use crate::redis_server::{Data, RedisServer};

/// One partition, whose keys are easily named.
pub(crate) fn on_redis(redis: &RedisServer, upstream: &Upstream) -> Config {
    config(
        StoreKind::Redis {
            url: secret(&redis.url()),
        },
        vec![tenant_of_one_partition(upstream)],
    )
}

pub(crate) fn tenant_of_one_partition(upstream: &Upstream) -> Tenant {
    let mut tenant = tenant("acme", upstream.url());
    tenant.partitions = 1;
    tenant
}

pub(crate) fn partition() -> PartitionId {
    PartitionId {
        tenant: TenantId::new("acme"),
        number: 0,
    }
}

/// The names of the partition's keys.
pub(crate) fn key(part: &str) -> String {
    format!("imgate:{{acme:0}}:{part}")
}

pub(crate) async fn raw_store(redis: &RedisServer) -> RedisStore {
    RedisStore::connect(&RedisOptions::new(redis.url()))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_gateway_that_starts_without_its_store_says_so_and_works_when_the_store_comes() {
    let mut redis = RedisServer::stopped(&[]);
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream)).await;
    let client = gateway.client().await;
    let ready = gateway.asked_ready().await;
    assert!(ready.starts_with("HTTP/1.0 503"), "{ready}");
    assert!(ready.contains("store"), "{ready}");
    assert_store_away(client.login("bot", &sig("bot")).await);
    assert_store_away(client.session("bot").await);
    assert_store_away(client.list(0, "").await);
    assert_store_away(client.logout("bot").await);
    assert_store_away(client.renew("bot", &sig("bot")).await);
    let earliest = Start::At(v1::StartAt::Earliest.into());
    assert_store_away(client.subscribe_from(earliest).await.map(|_| ()));
    assert_eq!(upstream.sim.stats().connections, 0);

    redis.restart(Data::Kept);
    let gateway = gateway.ready().await;
    let ready = gateway.asked_ready().await;
    assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
    let mut events = client.subscribe().await;
    client.online("bot").await;
    upstream.texts("friend", "bot", ["hello".into()]);
    assert_eq!(events.text("bot").await, "hello");
}

#[tokio::test]
async fn a_store_that_stops_answering_costs_neither_a_socket_nor_a_message() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("quiet").await;
    upstream.texts("friend", "bot", ["before".into()]);
    assert_eq!(events.text("bot").await, "before");
    until("it is not acknowledged", || upstream.user("bot").acked == 1).await;

    redis.pause();
    upstream.texts("friend", "bot", numbered("meanwhile", 20));
    until("they are not pushed", || {
        upstream.user("bot").delivered == 21
    })
    .await;
    // Each of these waits for the store until it is said to be away.
    assert_store_away(client.login("new", &sig("new")).await);
    assert_store_away(client.login("bot", &sig_for("bot", PATIENCE)).await);
    assert_store_away(client.renew("bot", &sig_for("bot", PATIENCE)).await);
    assert_store_away(client.logout("bot").await);
    for account in ["bot", "quiet"] {
        client.until_state(account, SessionState::Online).await;
    }
    let sent = client.send("bot", "friend", "sent", "").await.unwrap();
    assert_eq!(sent.code, 0);
    let ready = "imgate_ops_ready_condition_met";
    until("it stays ready", || {
        gateway.metrics.sum(ready, "condition=\"store\"") == 0.0
    })
    .await;
    assert_store_away(client.login("new", &sig("new")).await);
    // Nothing has to be stored for a login of one that is online.
    assert_eq!(client.login("quiet", "").await.unwrap().code, 0);
    assert_eq!(upstream.user("bot").acked, 1);
    assert_eq!(upstream.user("new").connections, 0);

    redis.resume();
    let texts = events.texts_until("bot", "meanwhile-19").await;
    assert_eq!(texts, numbered("meanwhile", 20));
    until("not all is acknowledged", || {
        upstream.user("bot").acked >= 21
    })
    .await;
    let gateway = gateway.ready().await;
    client.online("new").await;
    for account in ["bot", "quiet"] {
        let user = upstream.user(account);
        assert_eq!((user.logins, user.resumes, user.online), (1, 0, true));
    }
    drop(gateway);
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back_with_its_data_costs_nothing() {
    let mut redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    let mut sent = Vec::new();
    for round in 0..3 {
        let texts = numbered(&format!("up-{round}"), 3);
        upstream.texts("friend", "bot", texts.clone());
        sent.extend(texts);
        redis.kill();
        let texts = numbered(&format!("down-{round}"), 3);
        upstream.texts("friend", "bot", texts.clone());
        sent.extend(texts);
        assert_store_away(client.login("new", &sig("new")).await);
        redis.restart(Data::Kept);
    }
    let last = sent.last().unwrap();
    let mut texts = Vec::new();
    while texts.last() != Some(last) {
        match events.next().await.kind {
            Some(Kind::Gap(gap)) => panic!("{gap:?}"),
            // What the store had taken without saying so comes twice.
            Some(kind) => texts.extend(text_of(kind).filter(|text| !texts.contains(text))),
            None => {}
        }
    }
    assert_eq!(texts, sent);
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.resumes), (1, 0));
}

#[tokio::test]
async fn more_messages_than_can_wait_for_the_store_are_fetched_when_it_is_back() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    redis.pause();
    let texts = numbered("text", 3000);
    for (delivered, text) in (1..).zip(&texts) {
        // One after the other: what comes together waits as one.
        upstream.texts("friend", "bot", [text.clone()]);
        until("it is not pushed", || {
            upstream.user("bot").delivered >= delivered
        })
        .await;
    }
    assert_eq!(upstream.user("bot").acked, 0);
    let taken = gateway.metrics.sum("imgate_session_events_in_total", "");
    assert!(
        taken < 3000.0,
        "{taken} were taken: what waits has no bound"
    );
    redis.resume();
    let seen = events.texts_until("bot", "text-2999").await;
    assert!(seen == texts, "{} of {}", seen.len(), texts.len());
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.resumes), (1, 0));
}

#[tokio::test]
async fn a_store_that_comes_back_empty_is_filled_again_and_what_is_lost_is_told() {
    let mut redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    let beginning = Start::Cursor(events.cursor.clone());
    client.online("bot").await;
    client.online("quiet").await;
    upstream.texts("friend", "bot", ["before".into()]);
    assert_eq!(events.text("bot").await, "before");

    redis.restart(Data::Lost);
    let mut connection = redis.client();
    until("the records are not written again", || {
        connection.hlen::<_, u64>(key("sessions")).unwrap() == 2
    })
    .await;
    upstream.texts("friend", "bot", ["after".into()]);
    // Who had read all that was lost misses nothing; who had not is told.
    let next = events.next().await;
    let sequence = next.sequence;
    assert_eq!(next.kind.and_then(text_of).as_deref(), Some("after"));
    let mut behind = client.subscribe_from(beginning).await.unwrap();
    match behind.next().await.kind {
        Some(Kind::Gap(gap)) => {
            assert_eq!(gap.reason(), v1::GapReason::LogReset);
            assert_eq!(gap.to_sequence + 1, sequence);
        }
        // Or gets it: the replica may still have it in memory.
        Some(Kind::SessionChanged(_)) => assert_eq!(behind.text("bot").await, "before"),
        other => panic!("not told: {other:?}"),
    }
    assert_eq!(behind.text("bot").await, "after");

    let gateway = gateway.restart().await;
    let client = gateway.client().await;
    for account in ["bot", "quiet"] {
        client.until_state(account, SessionState::Online).await;
        let user = upstream.user(account);
        assert_eq!((user.logins, user.resumes), (1, 1), "{account}");
    }
}

#[tokio::test]
async fn a_store_that_is_full_keeps_messages_unacknowledged_until_there_is_room() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    let mut connection = redis.client();
    let mut limit = |bytes: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(bytes);
        let _: () = set.query(&mut connection).unwrap();
    };
    limit("1");
    upstream.texts("friend", "bot", numbered("full", 10));
    let retries = "imgate_events_append_retries_total";
    until("nothing is refused", || {
        gateway.metrics.sum(retries, "reason=\"full\"") >= 2.0
    })
    .await;
    let session = client.session("bot").await.unwrap();
    assert_eq!(session.state(), SessionState::Online);
    assert_eq!(upstream.user("bot").acked, 0);
    limit("0");
    let texts = events.texts_until("bot", "full-9").await;
    assert_eq!(texts, numbered("full", 10));
    until("not all is acknowledged", || {
        upstream.user("bot").acked >= 10
    })
    .await;
    assert_eq!(upstream.user("bot").connections, 1);
}

#[tokio::test]
async fn a_connection_to_the_store_that_is_cut_is_made_anew() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    let mut connection = redis.client();
    for round in numbered("round", 5) {
        let _: u64 = redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .query(&mut connection)
            .unwrap();
        upstream.texts("friend", "bot", [round.clone()]);
        assert_eq!(events.texts_until("bot", &round).await, [round]);
    }
    let user = upstream.user("bot");
    assert_eq!((user.connections, user.online), (1, true));
    let store = Arc::new(raw_store(&redis).await);
    let log = store.log_bounds(&partition()).await.unwrap();
    assert!(log.last_sequence >= 6);
}

#[tokio::test]
async fn a_gateway_whose_store_is_away_still_stops_within_its_grace() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let mut config = on_redis(&redis, &upstream);
    config.shutdown.grace = Duration::from_secs(8);
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    client.online("bot").await;
    upstream.texts("friend", "bot", ["before".into()]);
    until("it is not acknowledged", || upstream.user("bot").acked == 1).await;
    redis.pause();
    upstream.texts("friend", "bot", ["not stored".into()]);
    until("it is not pushed", || upstream.user("bot").delivered == 2).await;
    let began = tokio::time::Instant::now();
    let config = gateway.stop_anyway().await;
    assert!(began.elapsed() < Duration::from_secs(12));
    assert!(!upstream.user("bot").online);
    assert_eq!(upstream.user("bot").acked, 1);
    redis.resume();

    // What was not stored was not acknowledged either, and comes again.
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    let earliest = Start::At(v1::StartAt::Earliest.into());
    let mut events = client.subscribe_from(earliest).await.unwrap();
    let texts = events.texts_until("bot", "not stored").await;
    assert_eq!(texts, ["before", "not stored"]);
    assert_eq!(upstream.user("bot").logins, 1);
}
