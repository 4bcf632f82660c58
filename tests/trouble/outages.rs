//! The store stops, forgets, waits, is full or is slow, under traffic.

use std::net::SocketAddr;
use std::time::Duration;

use imgate::config::StoreKind;
use imgate::proto::v1::GapReason;
use imgate::types::Secret;
use redis::Commands as _;

use crate::books::{Books, assert_undisturbed};
use crate::delay::Delay;
use crate::fixture::*;
use crate::redis_server::{Data, RedisServer};
use crate::store::tenant_of_one_partition;

/// Longer than each bound of a gateway on a store: its lease, its time-outs, the grace of its readiness, the
/// greatest pause between two tries. With those in their usual length half a minute would be as much.
const LONG_OUTAGE: Duration = Duration::from_secs(5);

/// A gateway whose bounds are short.
async fn quick(url: &str, upstream: &Upstream) -> Gateway {
    let url = secret(url);
    let mut config = config(
        StoreKind::Redis { url },
        vec![tenant_of_one_partition(upstream)],
    );
    config.store.operation_timeout = Duration::from_millis(300);
    config.store.lease_ttl = Duration::from_secs(1);
    Gateway::start(config).await.ready().await
}

/// The server by a way on which every byte is so late in each direction.
async fn far(redis: &RedisServer, late: Duration) -> (Delay, Secret<String>) {
    let to = SocketAddr::from(([127, 0, 0, 1], redis.port()));
    let way = Delay::start(to, late).await;
    let url = secret(&format!("redis://{}", way.address));
    (way, url)
}

fn command(redis: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: () = command.query(&mut redis.client()).unwrap();
}

/// Waits until the gateway says that it is not ready, because of the store.
async fn unready(gateway: &Gateway) {
    let met = || {
        gateway
            .metrics
            .sum("imgate_ops_ready_condition_met", "condition=\"store\"")
    };
    until("it stays ready", || met() == 0.0).await;
}

#[tokio::test]
async fn a_store_that_is_gone_for_long_costs_nothing() {
    let mut server = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = quick(&server.url(), &upstream).await;
    let trouble = async {
        server.kill();
        tokio::time::sleep(LONG_OUTAGE).await;
        unready(&gateway).await;
        server.restart(Data::Kept);
    };
    let books = Books::of(&gateway, &upstream, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    gateway.ready().await.stop().await;
}

#[tokio::test]
async fn a_store_that_hangs_for_long_costs_nothing() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = quick(&redis.url(), &upstream).await;
    let trouble = async {
        redis.pause();
        tokio::time::sleep(LONG_OUTAGE).await;
        unready(&gateway).await;
        redis.resume();
    };
    let books = Books::of(&gateway, &upstream, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    gateway.ready().await.stop().await;
}

#[tokio::test]
async fn a_store_that_forgets_everything_leaves_at_most_a_gap() {
    let mut redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = quick(&redis.url(), &upstream).await;
    let trouble = async {
        redis.restart(Data::Lost);
    };
    let books = Books::of(&gateway, &upstream, trouble).await;
    // Who had read all that was lost misses nothing, if the log goes on behind it.
    let told = !books.gaps.is_empty();
    assert!(told || !books.miss_any(), "nobody was told: {books:?}");
    assert!(
        books
            .gaps
            .iter()
            .all(|&reason| reason == GapReason::LogReset),
        "{books:?}"
    );
    books.are_in_order();
    books.miss_one_stretch();
    assert_undisturbed(&upstream);
}

#[tokio::test]
async fn a_store_whose_clients_are_paused_costs_nothing() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = quick(&redis.url(), &upstream).await;
    let retries = || {
        gateway
            .metrics
            .sum("imgate_events_append_retries_total", "unavailable")
    };
    let trouble = async {
        for what in ["WRITE", "ALL"] {
            let before = retries();
            // Longer than the lease and every time-out; it ends by itself.
            command(&redis, &["CLIENT", "PAUSE", "2500", what]);
            tokio::time::sleep(Duration::from_millis(2600)).await;
            assert!(retries() > before, "{what} holds up nothing");
        }
    };
    let books = Books::of(&gateway, &upstream, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    gateway.ready().await.stop().await;
}

#[tokio::test]
async fn a_store_that_is_full_under_traffic_costs_nothing() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = quick(&redis.url(), &upstream).await;
    let trouble = async {
        command(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
        let refused = || {
            gateway
                .metrics
                .sum("imgate_events_append_retries_total", "reason=\"full\"")
        };
        until("nothing is refused", || refused() >= 3.0).await;
        unready(&gateway).await;
        command(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    };
    let books = Books::of(&gateway, &upstream, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    gateway.ready().await.stop().await;
}

#[tokio::test]
async fn the_leases_of_many_partitions_last_where_the_store_is_slow() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let (_way, url) = far(&redis, Duration::from_millis(20)).await;
    let mut acme = tenant("acme", upstream.url());
    acme.partitions = 256;
    let mut config = config(StoreKind::Redis { url }, vec![acme]);
    // One after the other the renewals would take ten seconds, and the first claims forty.
    config.store.operation_timeout = Duration::from_secs(1);
    let ttl = Duration::from_secs(8);
    config.store.lease_ttl = ttl;
    let gateway = Gateway::start(config).await.ready().await;
    let epochs = || -> Vec<String> {
        let mut keys: Vec<String> = redis.client().keys("imgate:{acme:*}:epoch").unwrap();
        keys.sort_unstable();
        redis.client().mget(keys).unwrap()
    };
    let before = epochs();
    assert_eq!(before.len(), 256);
    tokio::time::sleep(ttl + ttl / 3).await;
    assert_eq!(gateway.metrics.sum("imgate_cluster_partitions", ""), 256.0);
    assert!(epochs() == before, "a lease has run out");
    gateway.stop().await;
}

#[tokio::test]
async fn a_slow_store_costs_nothing_but_time() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let (_way, url) = far(&redis, Duration::from_millis(200)).await;
    let mut config = config(
        StoreKind::Redis { url },
        vec![tenant_of_one_partition(&upstream)],
    );
    // An operation takes 400 ms, one whose script is not there yet three times that in three steps.
    config.store.operation_timeout = Duration::from_secs(1);
    let gateway = Gateway::start(config).await.ready().await;
    let trouble = async { tokio::time::sleep(Duration::from_secs(3)).await };
    let books = Books::of(&gateway, &upstream, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    assert_eq!(
        gateway
            .metrics
            .sum("imgate_events_append_retries_total", ""),
        0.0
    );
    gateway.stop().await;
}
