//! Mass logins: two gateways on one Redis keep to one rate, and to their shares of it without Redis.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::config::{Config, StoreKind};
use imgate::store::Store as _;
use imgate::types::{Epoch, PartitionId, ReplicaId, TenantId};
use tokio::time::Instant;

use crate::fixture::*;
use crate::redis_server::RedisServer;
use crate::store::raw_store;

const PER_SECOND: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(20);
/// Of each gateway.
const SESSIONS: usize = 200;

/// A gateway of both tenants, which have one upstream app.
fn replica(name: &str, redis: &RedisServer, upstream: &Upstream) -> Config {
    let url = secret(&redis.url());
    let tenants = ["one", "two"].map(|id| issuing_tenant(id, upstream.url()));
    let mut config = config(StoreKind::Redis { url }, tenants.into());
    config.replica_id = ReplicaId::new(name);
    config.pacing.connects_per_second = PER_SECOND;
    // Nobody takes anything over here, and a Redis that is there is waited for: it is to be away, not slow.
    config.store.operation_timeout = PATIENCE;
    config.store.lease_ttl = PATIENCE * 3;
    config
}

/// Notes when each of so many is there, as `count` tells them.
async fn arrivals(count: impl Fn() -> u64) -> Vec<Instant> {
    let mut times = Vec::new();
    until("not all come", || {
        let count = usize::try_from(count()).unwrap();
        times.resize(count.max(times.len()), Instant::now());
        count == SESSIONS * 2
    })
    .await;
    times
}

/// No arrival comes before its turn, whatever the machine does. Two that begin at once may each have a first one.
fn assert_paced(begin: Instant, times: &[Instant]) {
    assert_eq!(times.len(), SESSIONS * 2);
    for (number, time) in (0..).zip(times) {
        let earliest = INTERVAL * u32::saturating_sub(number, 1);
        let came = *time - begin;
        assert!(came >= earliest, "{number} came after {came:?}");
    }
}

#[tokio::test]
async fn two_gateways_log_in_at_one_rate_and_without_redis_at_their_shares_of_it() {
    let mut redis = RedisServer::start();
    let upstream = Upstream::start().await;
    // Each has the partitions of one tenant, which are claimed for it before it starts.
    let store = raw_store(&redis).await;
    for (tenant, owner) in [("one", "first"), ("two", "second")] {
        for number in 0..2 {
            let partition = PartitionId {
                tenant: TenantId::new(tenant),
                number,
            };
            let (owner, floor) = (ReplicaId::new(owner), Some(Epoch(0)));
            let claim = store.claim(&partition, &owner, PATIENCE * 3, floor).await;
            claim.unwrap();
        }
    }
    let first = Gateway::start(replica("first", &redis, &upstream)).await;
    let second = Gateway::start(replica("second", &redis, &upstream)).await;
    let clients = [first.client_of("one").await, second.client_of("two").await];
    for client in &clients {
        let held = poll(async || client.list(0, "").await.ok()).await;
        held.expect("the partitions are not held");
    }
    let turns = |source: &str| {
        let name = "imgate_session_connect_turns_total";
        first.metrics.sum(name, &format!("source=\"{source}\""))
    };

    let begin = Instant::now();
    let names = ["a", "b"].map(|prefix| numbered(prefix, SESSIONS));
    let logins = clients.iter().zip(&names).flat_map(|(client, names)| {
        names.iter().map(move |name| async move {
            let answer = client.login(name, "").await.unwrap();
            assert_eq!(answer.code, 0, "{}", answer.desc);
        })
    });
    let arriving = arrivals(|| upstream.sim.stats().logins);
    let (times, _) = tokio::join!(arriving, join_all(logins));
    assert_paced(begin, &times);
    assert_eq!((turns("fleet"), turns("own_share")), (400.0, 0.0));

    redis.kill();
    let begin = Instant::now();
    assert_eq!(upstream.sim.drop_connections(None).unwrap(), 400);
    let times = arrivals(|| upstream.sim.stats().resumes).await;
    assert_paced(begin, &times);
    assert_eq!((turns("fleet"), turns("own_share")), (400.0, 400.0));
    assert_eq!(upstream.sim.stats().online, 400);
}
