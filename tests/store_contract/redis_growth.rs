//! What a Redis store tells of the logs' growth.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use imgate::store::{Batch, Committed, Position, StoreError};
use imgate::types::PartitionId;

use crate::fixture::*;
use crate::redis_server::{Data, RedisServer};

type Growth = Pin<Box<dyn Stream<Item = (PartitionId, Position)> + Send>>;

/// The next that is told, or `None` for the end.
async fn next(growth: &mut Growth) -> Option<(PartitionId, Position)> {
    match tokio::time::timeout(DEADLINE, growth.next()).await {
        Ok(told) => told,
        Err(_) => panic!("nothing was told in {DEADLINE:?}"),
    }
}

fn end(committed: Committed) -> Position {
    at(committed.log, committed.last_sequence)
}

fn publish(server: &RedisServer, text: &[u8]) -> u64 {
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("imgate:grown").arg(text);
    publish.query(&mut server.client()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_appends_is_told() {
    let server = RedisServer::start();
    let (here, there) = (connect(&server).await, connect(&server).await);
    let mut growth = here.growth().await.unwrap();
    for tenant in ["tenant", "", "a b", " ", "租户 1:2\n", "a"] {
        for number in [0, 7, u16::MAX] {
            let place = partition(tenant, number);
            let lease = owned(&there, &place).await;
            for _ in 0..2 {
                let committed = append(&there, &lease, ["x", "y"]).await;
                let told = next(&mut growth).await;
                assert_eq!(told, Some((place.clone(), end(committed))));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_growth_is_told() {
    let server = RedisServer::start();
    let (listening, store) = (connect(&server).await, connect(&server).await);
    let stale = owned(&store, &here()).await;
    let lease = owned(&store, &here()).await;
    let first = Batch {
        id: batch_id(1),
        ..events(["before"])
    };
    store.commit(&lease, &first).await.unwrap();
    let mut growth = listening.growth().await.unwrap();

    store.commit(&lease, &first).await.unwrap();
    fenced(store.commit(&stale, &events(["x"])).await, &stale);
    let quiet = records([session("bot", "r")]);
    store.commit(&lease, &quiet).await.unwrap();
    trim(&store, &lease, newest(0)).await;
    let committed = append(&store, &lease, ["after"]).await;
    assert_eq!(next(&mut growth).await, Some((here(), end(committed))));
    assert_eq!(growth.next().now_or_never(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_listener_is_told_the_last_and_nothing_twice() {
    let server = RedisServer::start();
    let (listening, store) = (connect(&server).await, connect(&server).await);
    let mut growth = listening.growth().await.unwrap();
    let mut last = HashMap::new();
    let leases = [
        owned(&store, &partition("a", 0)).await,
        owned(&store, &partition("a", 1)).await,
        owned(&store, &partition("b", 0)).await,
    ];
    for _ in 0..100 {
        for lease in &leases {
            let committed = append(&store, lease, ["x"]).await;
            last.insert(lease.partition.clone(), end(committed));
        }
    }
    let mut told: HashMap<PartitionId, Position> = HashMap::new();
    while told != last {
        let (place, position) = next(&mut growth).await.unwrap();
        assert_eq!(position.log, last[&place].log);
        let before = told.insert(place, position);
        assert!(before.is_none_or(|before| before.sequence < position.sequence));
    }
    assert_eq!(growth.next().now_or_never(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_cannot_be_read_are_passed_over() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let mut growth = store.growth().await.unwrap();
    for text in [
        &b""[..],
        b"x",
        b"1 2",
        b"1 2 3",
        b"1  2 3 t",
        b"-1 2 3 t",
        b"1 2 65536 t",
        b"1 18446744073709551616 3 t",
        b"1 2 3 \xff\xfe",
    ] {
        assert_eq!(publish(&server, text), 1);
    }
    let greatest = "18446744073709551615 18446744073709551615 65535 a tenant";
    publish(&server, greatest.as_bytes());
    let place = partition("a tenant", u16::MAX);
    let position = at(imgate::store::LogId(u64::MAX), u64::MAX);
    assert_eq!(next(&mut growth).await, Some((place, position)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_it_and_it_can_begin_anew() {
    let mut server = RedisServer::start();
    let (listening, store) = (connect(&server).await, connect(&server).await);
    let lease = owned(&store, &here()).await;
    let mut growth = listening.growth().await.unwrap();
    // What was heard before the end is told before the end.
    let before = append(&store, &lease, ["x"]).await;
    let killed: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .query(&mut server.client())
        .unwrap();
    assert_eq!(killed, 1);
    assert_eq!(next(&mut growth).await, Some((here(), end(before))));
    assert_eq!(next(&mut growth).await, None);

    // What grew meanwhile is not told.
    append(&store, &lease, ["y"]).await;
    let mut growth = listening.growth().await.unwrap();
    let after = append(&store, &lease, ["z"]).await;
    assert_eq!(next(&mut growth).await, Some((here(), end(after))));

    server.kill();
    assert_eq!(next(&mut growth).await, None);
    let away = listening.growth().await.err().unwrap();
    assert!(matches!(away, StoreError::Unavailable(_)), "{away}");

    server.restart(Data::Kept);
    let mut growth = listening.growth().await.unwrap();
    let again = eventually("the server answers again", || async {
        store.commit(&lease, &events(["on"])).await.ok()
    })
    .await;
    assert_eq!(next(&mut growth).await, Some((here(), end(again))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_died_without_a_word_ends_it() {
    let server = RedisServer::start();
    let store = impatient(&server).await;
    let mut growth = store.growth().await.unwrap();
    // As long as the server answers, silence is no reason to end.
    let silence = tokio::time::timeout(Duration::from_secs(1), growth.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    server.pause();
    assert_eq!(next(&mut growth).await, None);
    let away = store.growth().await.err().unwrap();
    assert!(matches!(away, StoreError::Unavailable(_)), "{away}");
    server.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_listening_closes_the_connection() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let growth = store.growth().await.unwrap();
    assert_eq!(publish(&server, b"x"), 1);
    drop(growth);
    eventually("nobody listens", || async {
        (publish(&server, b"x") == 0).then_some(())
    })
    .await;
}
