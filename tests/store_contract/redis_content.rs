//! What is special to the Redis store: a server that holds what it should not, or what an earlier version wrote.

use imgate::store::{Batch, Lease, LogId, Retention, StoreError};
use imgate::types::{AccountId, MemberId, TenantId, UnixMillis};

use crate::fixture::*;
use crate::redis_server::RedisServer;

/// A store whose partition has the entry "x", its lease, and the server to change by hand.
async fn store_with_an_entry() -> (Shared, Lease, ByHand) {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["x"]).await;
    (store, lease, ByHand(server))
}

struct ByHand(RedisServer);

impl ByHand {
    /// Runs a command on one of the partition's keys, or on another one by its full name.
    fn run(&self, command: &str, name: &str, words: &[&[u8]]) {
        let mut command = redis::cmd(command);
        command.arg(key(name)).arg(words);
        let _: redis::Value = command.query(&mut self.0.client()).unwrap();
    }
}

fn key(name: &str) -> String {
    if name.contains(':') {
        name.to_owned()
    } else {
        format!("imgate:{{tenant:3}}:{name}")
    }
}

/// The key that an error names, and what it says of it.
#[track_caller]
fn corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (String, String) {
    match result.unwrap_err() {
        StoreError::Corrupt { place, detail } => (place, detail),
        other @ (StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Fenced { .. }) => {
            panic!("not seen as broken: {other}")
        }
    }
}

#[track_caller]
fn names<T: std::fmt::Debug>(name: &str, result: Result<T, StoreError>) {
    assert_eq!(corrupt(result).0, key(name));
}

/// What every operation says that uses the key.
async fn errors_of(store: &Shared, lease: &Lease, name: &str) -> Vec<(String, String)> {
    let place = here();
    let member = MemberId::new("member");
    let position = at(LogId(1), 1);
    let batch = Batch {
        records: vec![session("bot", "record")],
        sends: vec![send("bot", "id", "record")],
        ..events(["y"])
    };
    let mut errors = Vec::new();
    if ["sessions", "additions", "sends", "log", "meta", "epoch"].contains(&name) {
        errors.push(corrupt(store.commit(lease, &batch).await));
    }
    if ["log", "meta", "epoch"].contains(&name) {
        errors.push(corrupt(store.trim(lease, &newest(0)).await));
    }
    if ["log", "meta"].contains(&name) {
        errors.push(corrupt(store.read(&place, 0, 1).await));
    }
    if ["subs", "shares"].contains(&name) {
        let removed = store.remove_subscription(&place, "main", None).await;
        errors.push(corrupt(removed));
    }
    match name {
        "sessions" | "additions" => errors.push(corrupt(store.sessions(&place).await)),
        "sends" => errors.push(corrupt(store.sends(&place).await)),
        "meta" => {
            errors.push(corrupt(store.log_bounds(&place).await));
            errors.push(corrupt(store.last_batch(&place).await));
        }
        "lease" => errors.push(corrupt(store.renew(lease, LONG).await)),
        "subs" => {
            let moved = store.advance_subscription(&place, "main", &position, UnixMillis(2), false);
            errors.push(corrupt(moved.await));
            errors.push(corrupt(store.subscription(&place, "main").await));
            errors.push(corrupt(store.subscriptions(&place).await));
        }
        "shares" => {
            let claimed = store.claim_share(&place, "main", &member, LONG).await;
            errors.push(corrupt(claimed));
            let released = store.release_share(&place, "main", &member).await;
            errors.push(corrupt(released));
        }
        _ => {}
    }
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_wrong_type_is_named_and_nothing_is_written() {
    let (store, lease, hand) = store_with_an_entry().await;
    hand.run("HSET", "sessions", &[b"other", b"record"]);
    hand.run("HSET", "additions", &[b"other", b"+"]);
    hand.run("HSET", "sends", &[b"5:otherid", b"record"]);
    hand.run("HSET", "subs", &[b"main", b"1 1 1"]);
    hand.run("HSET", "shares", &[b"main", b"99999999999999 other"]);
    let place = here();
    for name in [
        "sessions",
        "additions",
        "sends",
        "log",
        "meta",
        "subs",
        "shares",
        "lease",
        "epoch",
    ] {
        hand.run("RENAME", name, &[b"imgate:aside"]);
        hand.run("RPUSH", name, &[b"a list"]);
        let errors = errors_of(&store, &lease, name).await;
        assert!(!errors.is_empty());
        for (place, detail) in errors {
            assert_eq!(place, key(name));
            assert!(detail.contains("is a list"), "{detail}");
        }
        hand.run("RENAME", "imgate:aside", &[key(name).as_bytes()]);

        let only = [session("other", "record+")];
        assert_eq!(store.sessions(&place).await.unwrap(), only, "{name}");
        let only = [send("other", "id", "record")];
        assert_eq!(store.sends(&place).await.unwrap(), only, "{name}");
        assert_eq!(log(&store, &place).await, [(1, "x".to_owned())], "{name}");
        let stands = store.subscription(&place, "main").await.unwrap();
        assert_eq!(stands, Some(at(LogId(1), 1)), "{name}");
        let member = MemberId::new("member");
        let claimed = store.claim_share(&place, "main", &member, LONG).await;
        assert!(!claimed.unwrap(), "{name}");
    }
    assert_eq!(append(&store, &lease, ["y"]).await.last_sequence, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_all_members_of_a_tenant_is_named() {
    let (store, _lease, hand) = store_with_an_entry().await;
    let members = "imgate:{tenant:0}:members";
    hand.run("ZADD", members, &[b"99999999999999", b"4:main\xff"]);
    let tenant = TenantId::new("tenant");
    names(members, store.members(&tenant, "main").await);
    let others = store.members(&tenant, "other").await.unwrap();
    assert!(others.is_empty());

    hand.run("DEL", members, &[]);
    hand.run("RPUSH", members, &[b"a list"]);
    let member = MemberId::new("member");
    for ttl in [Some(LONG), None] {
        let attended = store.attend(&tenant, "main", &member, ttl).await;
        names(members, attended);
    }
    names(members, store.members(&tenant, "main").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_owner_wrote_and_cannot_be_read_is_named() {
    let (store, lease, hand) = store_with_an_entry().await;
    hand.run("HSET", "sessions", &[b"\xff\xfe", b"record"]);
    names("sessions", store.sessions(&here()).await);
    hand.run("HSET", "sends", &[b"9:bot", b"record"]);
    names("sends", store.sends(&here()).await);

    hand.run("XADD", "log", &[b"2-0", b"other", b"field"]);
    names("log", store.read(&here(), 0, 10).await);
    hand.run("DEL", "log", &[]);
    // It says that it ends before it begins.
    let two: [&[u8]; 7] = [b"1-0", b"t", b"1", b"p", b"x", b"p", b"y"];
    hand.run("XADD", "log", &two);
    names("log", store.read(&here(), 0, 10).await);
    hand.run("XADD", "log", &[b"3-0", b"other", b"field"]);
    // The counter is behind the log, so the next append cannot be made, and nothing of it is.
    let batch = Batch {
        records: vec![session("bot", "record")],
        ..events(["y"])
    };
    names("meta", store.commit(&lease, &batch).await);
    let account = AccountId::new("bot");
    assert_eq!(store.session(&here(), &account).await.unwrap(), None);

    hand.run("HSET", "meta", &[b"last", b"many"]);
    names("meta", store.log_bounds(&here()).await);
    names("meta", store.read(&here(), 2, 1).await);
    names("meta", store.commit(&lease, &batch).await);
    names("meta", store.trim(&lease, &newest(0)).await);
    hand.run("HSET", "meta", &[b"last", b"3", b"bytes", b"many"]);
    names("meta", store.commit(&lease, &batch).await);
    names("meta", store.trim(&lease, &newest(0)).await);
    hand.run("HSET", "meta", &[b"bytes", b"1", b"count", b"many"]);
    names("meta", store.commit(&lease, &batch).await);
    names("meta", store.trim(&lease, &newest(0)).await);

    hand.run("SET", "lease", &[b"nonsense"]);
    let claimed = store
        .claim(&here(), &replica("a"), LONG, Some(lease.epoch))
        .await;
    names("lease", claimed);
    hand.run("DEL", "lease", &[]);
    hand.run("SET", "epoch", &[b"nonsense"]);
    let claimed = store
        .claim(&here(), &replica("a"), LONG, Some(lease.epoch))
        .await;
    names("epoch", claimed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_cannot_be_read_is_named() {
    let (store, _lease, hand) = store_with_an_entry().await;
    let place = here();
    let position = at(LogId(1), 1);
    for value in [&b"here"[..], b"1", b"1 -1", b"1 2 x", b"1 2 3 4", b"\xff"] {
        hand.run("HSET", "subs", &[b"main", value]);
        names("subs", store.subscription(&place, "main").await);
        names("subs", store.subscriptions(&place).await);
        let moved = store.advance_subscription(&place, "main", &position, UnixMillis(2), false);
        names("subs", moved.await);
        let since = Some(UnixMillis(u64::MAX));
        let removed = store.remove_subscription(&place, "main", since).await;
        names("subs", removed);
    }
    // Whatever it is, it can be removed.
    let removed = store.remove_subscription(&place, "main", None).await;
    assert!(removed.unwrap());

    let member = MemberId::new("member");
    for value in [&b"x"[..], b"7", b" member"] {
        hand.run("HSET", "shares", &[b"main", value]);
        let claimed = store.claim_share(&place, "main", &member, LONG).await;
        names("shares", claimed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_nobody_can_read_go_with_the_oldest() {
    let (store, lease, hand) = store_with_an_entry().await;
    append(&store, &lease, ["2"]).await;
    hand.run("XADD", "log", &[b"3-0", b"other", b"field"]);
    let entry: [&[u8]; 7] = [b"4-0", b"t", b"soon", b"p", b"4", b"q", b"more"];
    hand.run("XADD", "log", &entry);
    hand.run("HSET", "meta", &[b"last", b"4"]);
    append(&store, &lease, ["5"]).await;
    let since = Retention {
        since: UnixMillis(1),
        ..ALL
    };
    assert_eq!(trim(&store, &lease, since).await, 0);
    // They do not count.
    assert_eq!(trim(&store, &lease, newest(3)).await, 0);
    assert_eq!(trim(&store, &lease, newest(1)).await, 2);
    // Nobody knows how old they are.
    assert_eq!(trim(&store, &lease, since).await, 2);
    assert_eq!(log(&store, &here()).await, [(5, "5".to_owned())]);
    let bytes = |bytes| Retention { bytes, ..ALL };
    assert_eq!(trim(&store, &lease, bytes(1)).await, 0);
    assert_eq!(trim(&store, &lease, bytes(0)).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_wrote_is_read() {
    let (store, lease, hand) = store_with_an_entry().await;
    // No bytes, no batch, and a subscription that does not say when it was used.
    hand.run("DEL", "log", &[]);
    hand.run("DEL", "meta", &[]);
    for sequence in ["5-0", "6-0", "7-0"] {
        let entry: [&[u8]; 5] = [sequence.as_bytes(), b"t", b"100", b"p", b"text"];
        hand.run("XADD", "log", &entry);
    }
    let meta: [&[u8]; 6] = [b"log", b"77", b"last", b"7", b"first", b"5"];
    hand.run("HSET", "meta", &meta);
    hand.run("HSET", "subs", &[b"main", b"77 6"]);

    let read = store.read(&here(), 0, 10).await.unwrap();
    assert_eq!((read.entries.len(), read.bounds.first_sequence), (3, 5));
    let batch = Batch {
        id: batch_id(1),
        ..events(["next"])
    };
    let committed = store.commit(&lease, &batch).await.unwrap();
    assert_eq!((committed.log, committed.last_sequence), (LogId(77), 8));
    assert_eq!(store.commit(&lease, &batch).await.unwrap(), committed);
    assert_eq!(trim(&store, &lease, newest(2)).await, 2);
    assert_eq!(store.log_bounds(&here()).await.unwrap().first_sequence, 7);

    // It may be in use, so it does not expire before it was seen to be used.
    let since = Some(UnixMillis(u64::MAX));
    let removed = store.remove_subscription(&here(), "main", since).await;
    assert!(!removed.unwrap());
    let position = at(LogId(77), 6);
    let listed = async || {
        let all = store.subscriptions(&here()).await.unwrap();
        (all[0].position, all[0].used_at.0)
    };
    assert_eq!(listed().await, (position, 0));
    let used =
        store.advance_subscription(&lease.partition, "main", &position, UnixMillis(9), false);
    used.await.unwrap();
    assert_eq!(listed().await, (position, 9));
    let removed = store.remove_subscription(&here(), "main", since).await;
    assert!(removed.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_were_appended_together_share_entries() {
    let (store, lease, hand) = store_with_an_entry().await;
    append(&store, &lease, ["event"; 40]).await;
    let mut entries = redis::cmd("XLEN");
    entries.arg(key("log"));
    let entries: u64 = entries.query(&mut hand.0.client()).unwrap();
    assert_eq!(entries, 1 + 3);
    for (after, limit, expected) in [
        (0, 3, 1..=3),
        (5, 100, 6..=41),
        (16, 16, 17..=32),
        (40, 9, 41..=41),
    ] {
        let read = store.read(&here(), after, limit).await.unwrap();
        let read: Vec<_> = read.entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!(read, expected.collect::<Vec<_>>(), "{after} {limit}");
    }
    // What was dropped out of the middle of an entry is not read again.
    assert_eq!(trim(&store, &lease, newest(30)).await, 11);
    let read = store.read(&here(), 0, 10).await.unwrap();
    let sequences: Vec<_> = read.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (12..=21).collect::<Vec<_>>());
    assert_eq!(read.bounds.first_sequence, 12);
    assert_eq!(trim(&store, &lease, newest(29)).await, 1);
    assert_eq!(store.read(&here(), 0, 100).await.unwrap().entries.len(), 29);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_has_not_many_more_bytes_than_its_bound() {
    let (store, lease, hand) = store_with_an_entry().await;
    let large = "x".repeat(40_000);
    append(&store, &lease, [large.as_str(); 5]).await;
    let mut entries = redis::cmd("XLEN");
    entries.arg(key("log"));
    let entries: u64 = entries.query(&mut hand.0.client()).unwrap();
    assert_eq!(entries, 1 + 3);
    let read = store.read(&here(), 0, 100).await.unwrap();
    assert_eq!(read.entries.len(), 6);
    assert_eq!(trim(&store, &lease, newest(2)).await, 4);
    assert_eq!(store.read(&here(), 0, 100).await.unwrap().entries.len(), 2);
}
