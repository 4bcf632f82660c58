//! What is special to the Redis store: a server that is away, stopped, restarted, emptied, full, or holds what it
//! should not.

use std::sync::Arc;
use std::time::Duration;

use imgate::store::redis::{RedisOptions, RedisStore};
use imgate::store::{Batch, LogId, Renewal, Store as _, StoreError};
use imgate::types::{AccountId, UnixMillis};
use tokio::time::Instant;

use crate::fixture::*;
use crate::redis_server::{Data, RedisServer};

/// A store that gives up early, so that time-outs do not take long.
async fn impatient(server: &RedisServer) -> Shared {
    let options = RedisOptions {
        connect_timeout: Duration::from_millis(300),
        response_timeout: Duration::from_millis(300),
        ..RedisOptions::new(server.url())
    };
    Arc::new(RedisStore::connect(&options).await.unwrap())
}

fn is_away<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

/// The key that an error names, and what it says of it.
fn corrupt(error: StoreError) -> (String, String) {
    match error {
        StoreError::Corrupt { place, detail } => (place, detail),
        other @ (StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Fenced { .. }) => {
            panic!("not seen as broken: {other}")
        }
    }
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
            .claim(&here(), &replica("a"), LONG, Default::default())
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
    // A write without an answer may or may not have been done.
    is_away(store.commit(&lease, &events(["during"])).await);
    server.resume();

    answers_again(&store).await;
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Renewed);
    append(&store, &lease, ["after"]).await;
    let texts: Vec<String> = log(&store, &here())
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(texts.first().unwrap(), "before");
    assert_eq!(texts.last().unwrap(), "after");
    assert!(texts.len() <= 3, "{texts:?}");
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

    let again = store
        .claim(&here(), &replica("owner"), LONG, lease.epoch)
        .await;
    let again = granted(again.unwrap());
    assert!(again.epoch > lease.epoch);
    let after = append(&store, &again, ["y"]).await;
    assert_eq!(after.last_sequence, 1);
    assert_ne!(after.log, before.log);
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
    assert_eq!(trim(&store, &lease, newest(1)).await, last - 1);
    let after = store.commit(&lease, &second).await.unwrap();
    assert_eq!(after.last_sequence, last + 1);
    assert_eq!(store.sessions(&here()).await.unwrap(), second.records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_wrong_type_is_named_and_nothing_is_written() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["x"]).await;
    let mut client = server.client();
    let mut run = |words: &[&str]| {
        let _: redis::Value = redis::cmd(words[0])
            .arg(&words[1..])
            .query(&mut client)
            .unwrap();
    };
    let mut batch = events(["y"]);
    batch.records = vec![session("bot", "record")];
    let position = at(LogId(1), 1);
    run(&["HSET", "imgate:{tenant:3}:sessions", "other", "record"]);
    run(&["HSET", "imgate:{tenant:3}:subs", "other", "1 1"]);
    for name in ["sessions", "log", "meta", "subs", "lease", "epoch"] {
        let key = format!("imgate:{{tenant:3}}:{name}");
        run(&["RENAME", &key, "aside"]);
        run(&["RPUSH", &key, "a list"]);
        let error = match name {
            "subs" => {
                let place = here();
                let moved = store.advance_subscription(&place, "main", &position, UnixMillis(1));
                moved.await.unwrap_err()
            }
            "lease" => store.renew(&lease, LONG).await.unwrap_err(),
            _ => store.commit(&lease, &batch).await.unwrap_err(),
        };
        let (place, detail) = corrupt(error);
        assert_eq!(place, key);
        assert!(detail.contains("is a list"), "{detail}");
        run(&["RENAME", "aside", &key]);

        let only = [session("other", "record")];
        assert_eq!(store.sessions(&here()).await.unwrap(), only, "{name}");
        assert_eq!(log(&store, &here()).await, [(1, "x".to_owned())], "{name}");
    }
    assert_eq!(store.commit(&lease, &batch).await.unwrap().last_sequence, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_named() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["x"]).await;
    let mut client = server.client();
    let key = |name| format!("imgate:{{tenant:3}}:{name}");
    let mut run = |command: &str, words: &[&[u8]]| {
        let mut command = redis::cmd(command);
        for word in words {
            command.arg(*word);
        }
        let _: redis::Value = command.query(&mut client).unwrap();
    };
    let place = |error| corrupt(error).0;

    run(
        "HSET",
        &[key("sessions").as_bytes(), b"\xff\xfe", b"record"],
    );
    let error = store.sessions(&here()).await.unwrap_err();
    assert_eq!(place(error), key("sessions"));

    run("XADD", &[key("log").as_bytes(), b"2-0", b"other", b"field"]);
    let error = store.read(&here(), 0, 10).await.unwrap_err();
    assert_eq!(place(error), key("log"));
    // The counter is behind the log, so the next append cannot be made, and nothing of it is.
    let mut batch = events(["y"]);
    batch.records = vec![session("bot", "record")];
    let error = store.commit(&lease, &batch).await.unwrap_err();
    assert_eq!(place(error), key("meta"));
    let account = AccountId::new("bot");
    assert_eq!(store.session(&here(), &account).await.unwrap(), None);

    run("HSET", &[key("meta").as_bytes(), b"last", b"many"]);
    let error = store.log_bounds(&here()).await.unwrap_err();
    assert_eq!(place(error), key("meta"));
    let error = store.commit(&lease, &batch).await.unwrap_err();
    assert_eq!(place(error), key("meta"));
    let error = store.trim(&lease, &newest(0)).await.unwrap_err();
    assert_eq!(place(error), key("meta"));

    run("HSET", &[key("subs").as_bytes(), b"main", b"here"]);
    let error = store.subscription(&here(), "main").await.unwrap_err();
    assert_eq!(place(error), key("subs"));

    run("SET", &[key("lease").as_bytes(), b"nonsense"]);
    let error = store.claim(&here(), &replica("a"), LONG, lease.epoch).await;
    assert_eq!(place(error.unwrap_err()), key("lease"));
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
