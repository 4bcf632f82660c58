//! What is special to the Redis store: a server that is away, stopped, restarted, emptied or full.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use imgate::store::redis::{RedisOptions, RedisStore};
use imgate::store::{Batch, LogId, Renewal, Retention, Store as _, StoreError};
use imgate::types::{AccountId, Epoch, MemberId, TenantId, UnixMillis};
use tokio::time::Instant;

use crate::fixture::*;
use crate::redis_server::{Data, RedisServer};

fn is_away<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

async fn answers_again(store: &Shared) {
    eventually("Redis answers again", || async { store.ping().await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_at_the_start_may_come_later() {
    let mut server = RedisServer::stopped(&[]);
    let store = connect(&server).await;
    let asked = Instant::now();
    is_away(
        store
            .claim(&here(), &replica("a"), LONG, Some(Epoch::default()))
            .await,
    );
    is_away(store.read(&here(), 0, 1).await);
    is_away(store.ping().await);
    assert!(asked.elapsed() < Duration::from_secs(2), "{asked:?}");

    server.restart(Data::Lost);
    // No call is lost to the memory of an earlier failure.
    store.ping().await.unwrap();
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["x"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_and_goes_on_loses_nothing() {
    let server = RedisServer::start();
    let store = impatient(&server).await;
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["before"]).await;

    server.pause();
    let asked = Instant::now();
    is_away(store.ping().await);
    is_away(store.session(&here(), &AccountId::new("bot")).await);
    assert!(asked.elapsed() < Duration::from_secs(3));
    // A write without an answer may or may not have been done: it is tried again.
    let during = Batch {
        id: batch_id(7),
        ..events(["during"])
    };
    is_away(store.commit(&lease, &during).await);
    server.resume();

    answers_again(&store).await;
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Renewed);
    store.commit(&lease, &during).await.unwrap();
    append(&store, &lease, ["after"]).await;
    let texts: Vec<String> = log(&store, &here())
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(texts, ["before", "during", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_large_batches_only_some_are_sent_and_none_after_one_that_is_not_answered() {
    let server = RedisServer::start();
    let store = impatient(&server).await;
    let [one, other] = [partition("acme", 1), partition("acme", 2)];
    let leases = [owned(&store, &one).await, owned(&store, &other).await];
    // The two are more than what may be on its way.
    let batch = events([&"x".repeat(3 << 20)]);
    server.pause();
    let [first, second] = leases.each_ref().map(|lease| store.commit(lease, &batch));
    let (first, second) = tokio::join!(first, second);
    is_away(first);
    let error = second.unwrap_err();
    assert!(error.to_string().contains("those before"), "{error}");
    server.resume();

    answers_again(&store).await;
    assert_eq!(log(&store, &other).await, []);
    eventually("it is stored", || async {
        store.commit(&leases[1], &batch).await.ok()
    })
    .await;
    assert_eq!(log(&store, &other).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_with_its_data_goes_on() {
    let mut server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    let before = append(&store, &lease, ["x"]).await;
    server.kill();
    is_away(store.commit(&lease, &events(["lost"])).await);
    is_away(store.commit(&lease, &events(["lost"])).await);

    server.restart(Data::Kept);
    // The scripts are unknown to the new process, too.
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Renewed);
    let after = append(&store, &lease, ["y"]).await;
    assert_eq!((after.log, after.last_sequence), (before.log, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_empty_is_noticed() {
    let mut server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    let before = append(&store, &lease, ["x"]).await;

    server.restart(Data::Lost);
    answers_again(&store).await;
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Missing);
    assert_eq!(
        fenced(store.commit(&lease, &events(["y"])).await, &lease),
        None
    );
    assert_eq!(fenced(store.trim(&lease, &newest(0)).await, &lease), None);
    assert_eq!(store.log_bounds(&here()).await.unwrap().log, LogId(0));

    // Also for an owner that knows nothing of before.
    let again = owned(&store, &here()).await;
    assert!(again.epoch > lease.epoch);
    let batch = Batch {
        seen: at(before.log, before.last_sequence + 1),
        ..events(["y"])
    };
    let after = store.commit(&again, &batch).await.unwrap();
    assert_eq!((after.log, after.last_sequence), (before.log, 3));
    assert_eq!(log(&store, &here()).await, [(3, "y".to_owned())]);
    let other = partition("tenant", 4);
    let other = owned(&store, &other).await;
    assert_ne!(append(&store, &other, ["z"]).await.log, before.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_grow_over_a_loss_of_data() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let mut client = server.client();
    let mut latest = Epoch(0);
    for round in 0..5 {
        // Several of a moment, too.
        for _ in 0..=round {
            let epoch = owned(&store, &here()).await.epoch;
            assert!(epoch > latest, "{epoch} after {latest}");
            latest = epoch;
        }
        let _: () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
        // The clock goes by whole milliseconds.
        let epoch = latest;
        eventually("the server's clock is past the epoch", || {
            let time: (u64, u64) = redis::cmd("TIME").query(&mut client).unwrap();
            std::future::ready((time.0 * 1000 + time.1 / 1000 > epoch.0).then_some(()))
        })
        .await;
    }
    // An owner knows of greater ones, and a server that goes by an older clock holds to those it gave out.
    let far = Epoch(latest.0 + (1 << 50));
    let claim = store
        .claim(&here(), &replica("owner"), LONG, Some(far))
        .await;
    assert_eq!(granted(claim.unwrap()).epoch, Epoch(far.0 + 1));
    assert_eq!(owned(&store, &here()).await.epoch, Epoch(far.0 + 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_loaded_again() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["x"]).await;
    let _: () = redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query(&mut server.client())
        .unwrap();
    assert_eq!(append(&store, &lease, ["y"]).await.last_sequence, 2);
}

/// How many pings the server has answered.
fn pings(server: &RedisServer) -> u64 {
    let statistics: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.client())
        .unwrap();
    let calls = statistics.split_once("cmdstat_ping:calls=").unwrap().1;
    calls.split_once(',').unwrap().0.parse().unwrap()
}

// On one thread no answer comes before all have asked.
#[tokio::test]
async fn many_that_ask_at_once_whether_it_answers_ask_once_and_later_ones_anew() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    store.ping().await.unwrap();
    let before = pings(&server);
    for answer in join_all((0..100).map(|_| store.ping())).await {
        answer.unwrap();
    }
    assert_eq!(pings(&server), before + 1);
    store.ping().await.unwrap();
    assert_eq!(pings(&server), before + 2);

    // What was asked for those who do not wait any more is no answer for others.
    {
        let mut given_up = std::pin::pin!(store.ping());
        assert!(given_up.as_mut().now_or_never().is_none());
        let is_asked = async || (pings(&server) > before + 2).then_some(());
        eventually("the server is asked", is_asked).await;
    }
    server.pause();
    let asked = tokio::time::timeout(Duration::from_millis(200), store.ping()).await;
    server.resume();
    assert!(asked.is_err(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_says_so_and_writes_nothing() {
    let server = RedisServer::start_with(&["--maxmemory", "6mb"]);
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    let batch = Batch {
        records: vec![session("bot", "first")],
        events: vec![vec![7; 100_000]],
        ..Batch::default()
    };
    let mut last = 0;
    let full = loop {
        match store.commit(&lease, &batch).await {
            Ok(committed) => last = committed.last_sequence,
            Err(error) => break error,
        }
        assert!(last < 1000, "it never becomes full");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    assert!(last > 0);
    let second = Batch {
        records: vec![session("bot", "second")],
        ..batch.clone()
    };
    let again = store.commit(&lease, &second).await.unwrap_err();
    assert!(matches!(again, StoreError::Full(_)), "{again}");
    assert_eq!(store.sessions(&here()).await.unwrap(), batch.records);
    assert_eq!(store.log_bounds(&here()).await.unwrap().last_sequence, last);
    // What needs no space goes on, so that an owner stays one and can make space.
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Renewed);
    for retention in [
        newest(last - 1),
        Retention {
            bytes: 100_000 * (last - 2),
            ..ALL
        },
    ] {
        assert_eq!(trim(&store, &lease, retention).await, 1);
    }
    let old = Retention {
        since: UnixMillis(1),
        ..ALL
    };
    while store.trim(&lease, &old).await.unwrap().more {}
    let after = store.commit(&lease, &second).await.unwrap();
    assert_eq!(
        store.log_bounds(&here()).await.unwrap().last_sequence,
        after.last_sequence
    );
    assert_eq!(store.sessions(&here()).await.unwrap(), second.records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_are_trimmed_a_few_at_a_time() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    let batch = Batch {
        events: vec![vec![7; 1 << 20]; 10],
        ..Batch::default()
    };
    store.commit(&lease, &batch).await.unwrap();
    // Nobody else is served meanwhile, so a call does not go through all of it.
    let mut steps = Vec::new();
    loop {
        let trimmed = store.trim(&lease, &newest(1)).await.unwrap();
        steps.push(trimmed.dropped());
        if !trimmed.more {
            break;
        }
    }
    assert_eq!(steps, [4, 4, 1]);
    let keep = |bytes| Retention { bytes, ..ALL };
    assert_eq!(trim(&store, &lease, keep(1 << 20)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_lets_members_share_on() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    let batch = Batch {
        id: batch_id(7),
        ..events(["x"])
    };
    let written = store.commit(&lease, &batch).await.unwrap();
    let position = at(written.log, written.last_sequence);
    let place = here();
    let moved = store.advance_subscription(&place, "main", &position, UnixMillis(5), false);
    moved.await.unwrap();
    let (tenant, [a, b]) = (TenantId::new("tenant"), ["a", "b"].map(MemberId::new));
    let claim = |member| store.claim_share(&place, "main", member, LONG);
    assert!(claim(&a).await.unwrap());
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1mb"])
        .query(&mut server.client())
        .unwrap();

    let full = store.commit(&lease, &events(["y"])).await.unwrap_err();
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    // What was written before it was full is known to be.
    assert_eq!(store.commit(&lease, &batch).await.unwrap(), written);
    for member in [&a, &b] {
        let there = store.attend(&tenant, "main", member, Some(LONG)).await;
        assert!(there.unwrap().contains(member));
    }
    assert!(claim(&a).await.unwrap());
    assert!(!claim(&b).await.unwrap());
    store.release_share(&place, "main", &a).await.unwrap();
    assert!(claim(&b).await.unwrap());
    let left = store.attend(&tenant, "main", &a, None).await.unwrap();
    assert_eq!(left, [b]);
    // It was used at that moment already.
    let again = store.advance_subscription(&place, "main", &position, UnixMillis(5), false);
    again.await.unwrap();
    let moved = store.advance_subscription(&place, "main", &position, UnixMillis(6), false);
    let full = moved.await.unwrap_err();
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    let removed = store.remove_subscription(&place, "main", None).await;
    assert!(removed.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_us_is_away_and_secrets_stay_unsaid() {
    let server = RedisServer::start();
    let mut client = server.client();
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "right"])
        .query(&mut client)
        .unwrap();
    let url = format!("redis://:hush-hush@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(&RedisOptions::new(url)).await.unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(!format!("{error} {error:?} {store:?}").contains("hush"));

    for url in [
        "hush-hush",
        "http://u:hush-hush@h",
        "redis://u:hush-hush@h:x/",
        "rediss://u:hush-hush@h",
    ] {
        let error = RedisStore::connect(&RedisOptions::new(url))
            .await
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        assert!(error.to_string().contains("redis://"), "{error}");
    }
}
