//! The contract's part on what is written: records, the log, and the walls between partitions.

use futures_util::future::join_all;
use imgate::store::{Batch, LogId, StoredSession};
use imgate::types::{AccountId, UnixMillis};

use crate::fixture::*;

pub(crate) async fn a_commit_is_whole_and_sequences_are_dense(store: Shared) {
    let lease = owned(&store, &here()).await;
    let mut batch = events(["a", "b"]);
    batch.records = vec![session("bot", "first"), session("cat", "only")];
    let first = store.commit(&lease, &batch).await.unwrap();
    assert_eq!(first.last_sequence, 2);
    assert_ne!(first.log, LogId(0));

    let mut batch = events(["c"]);
    batch.now = UnixMillis(42);
    batch.records = vec![session("bot", "second"), session("bot", "third")];
    let second = store.commit(&lease, &batch).await.unwrap();
    assert_eq!((second.log, second.last_sequence), (first.log, 3));

    let entries = store.read(&here(), 0, 10).await.unwrap().entries;
    let times: Vec<u64> = entries.iter().map(|entry| entry.appended_at.0).collect();
    assert_eq!(times, [1_700_000_000_123, 1_700_000_000_123, 42]);
    let expected = [(1, "a"), (2, "b"), (3, "c")].map(|(n, text)| (n, text.to_owned()));
    assert_eq!(texts(entries), expected);
    assert_eq!(
        store.sessions(&here()).await.unwrap(),
        [session("bot", "third"), session("cat", "only")]
    );
}

pub(crate) async fn what_is_added_to_a_record_is_read_behind_it(store: Shared) {
    let lease = owned(&store, &here()).await;
    let changed = async |records: &[StoredSession], additions: &[StoredSession]| {
        let batch = Batch {
            records: records.to_vec(),
            additions: additions.to_vec(),
            ..Batch::default()
        };
        store.commit(&lease, &batch).await.unwrap();
        let sessions = store.sessions(&here()).await.unwrap();
        for stored in &sessions {
            let record = store.session(&here(), &stored.account).await.unwrap();
            assert_eq!(record.as_ref(), Some(&stored.record));
        }
        sessions
    };
    let first = [session("bot", "first"), session("cat", "only")];
    assert_eq!(
        changed(&first, &[session("cat", "+1")]).await[1],
        session("cat", "only+1")
    );
    let twice = [
        session("cat", "+2"),
        session("cat", "+3"),
        session("nobody", "+4"),
    ];
    let sessions = changed(&[], &twice).await;
    assert_eq!(
        sessions,
        [session("bot", "first"), session("cat", "only+3")]
    );
    // A record takes away what was added to the one before, and what is added in the same batch is added to it.
    let second = [session("bot", "second"), session("cat", "second")];
    let sessions = changed(&second, &[session("bot", "+5")]).await;
    assert_eq!(
        sessions,
        [session("bot", "second+5"), session("cat", "second")]
    );
    assert_eq!(
        changed(&[session("bot", "third")], &[]).await[0],
        session("bot", "third")
    );
}

pub(crate) async fn sessions_come_in_the_order_of_accounts(store: Shared) {
    assert!(store.sessions(&here()).await.unwrap().is_empty());
    let lease = owned(&store, &here()).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let sorted = vec![
        session("Bot", ""),
        session("a", every_byte),
        session("a:b", "\u{0}"),
        session("bot 1", "x"),
        session("bot1", "x"),
        session("bot10", "x"),
        session("bot2", "x"),
        session("é", "x"),
        session("用户-1@x", "日本語"),
        session("😀", vec![0xff, 0xfe, 0x00]),
    ];
    let mut shuffled = sorted.clone();
    shuffled.reverse();
    shuffled.swap(1, 6);
    store.commit(&lease, &records(shuffled)).await.unwrap();
    assert_eq!(store.sessions(&here()).await.unwrap(), sorted);
    for stored in sorted {
        let record = store.session(&here(), &stored.account).await.unwrap();
        assert_eq!(record, Some(stored.record));
    }
    let nobody = AccountId::new("nobody");
    assert_eq!(store.session(&here(), &nobody).await.unwrap(), None);
}

pub(crate) async fn big_records_and_events_come_back(store: Shared) {
    let lease = owned(&store, &here()).await;
    let big = |seed: u8| -> Vec<u8> {
        let bytes = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed);
        bytes.collect()
    };
    let batch = Batch {
        now: UnixMillis(1),
        records: vec![session("bot", big(1))],
        events: vec![big(2), Vec::new(), big(3)],
        ..Batch::default()
    };
    store.commit(&lease, &batch).await.unwrap();
    let account = AccountId::new("bot");
    assert!(store.session(&here(), &account).await.unwrap() == Some(big(1)));
    let entries = store.read(&here(), 0, 9).await.unwrap().entries;
    let payloads: Vec<Vec<u8>> = entries.into_iter().map(|entry| entry.payload).collect();
    assert!(payloads == batch.events);
}

pub(crate) async fn large_batches_are_whole(store: Shared) {
    let lease = owned(&store, &here()).await;
    let accounts: Vec<String> = (0..9_000).map(|n| format!("bot{n:05}")).collect();
    let batch = Batch {
        now: UnixMillis(1),
        records: accounts.iter().map(|name| session(name, "r")).collect(),
        events: accounts
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect(),
        ..Batch::default()
    };
    let committed = store.commit(&lease, &batch).await.unwrap();
    assert_eq!(committed.last_sequence, 9_000);
    assert!(store.sessions(&here()).await.unwrap() == batch.records);
    let entries = store.read(&here(), 8_999, 10).await.unwrap().entries;
    assert_eq!(texts(entries), [(9_000, "bot08999".to_owned())]);
}

pub(crate) async fn concurrent_commits_do_not_mix(store: Shared) {
    let lease = owned(&store, &here()).await;
    let (store, lease) = (&store, &lease);
    let commits = (0..60).map(|n| async move {
        let text = |part| format!("{n}.{part}").into_bytes();
        let batch = Batch {
            events: (0..3).map(text).collect(),
            records: vec![session(&format!("bot{}", n % 7), format!("{n}"))],
            ..Batch::default()
        };
        let committed = store.commit(lease, &batch).await.unwrap();
        (committed.last_sequence, n)
    });
    let mut order = join_all(commits).await;
    order.sort_unstable();
    let expected: Vec<(u64, String)> = order
        .iter()
        .flat_map(|(last, n)| (0..3).map(move |part| (last - 2 + part, format!("{n}.{part}"))))
        .collect();
    assert_eq!(expected.len(), 180);
    assert_eq!(log(store, &here()).await, expected);
    // Of each account, the record of the commit that came last in the log is the one that stays.
    for stored in store.sessions(&here()).await.unwrap() {
        let last = order.iter().rev().map(|(_, n)| n);
        let mut mine = last.filter(|n| stored.account.as_str() == format!("bot{}", *n % 7));
        let latest = mine.next().unwrap().to_string();
        assert_eq!(stored.record, latest.as_bytes(), "{}", stored.account);
    }
}

pub(crate) async fn partitions_and_tenants_are_apart(store: Shared) {
    let names = [
        "", "a", "A", "a:1", "a:1:1", "a}", "{a}", "a%3A1", "a:", ":a", "a b", "a\u{0}", "租户",
    ];
    let mut places = Vec::new();
    for name in names {
        for number in [0, 1, 11, u16::MAX] {
            places.push(partition(name, number));
        }
    }
    for place in &places {
        let lease = owned(&store, place).await;
        let own = format!("{place:?}");
        let batch = Batch {
            records: vec![session("bot", own.clone())],
            ..events([&own])
        };
        store.commit(&lease, &batch).await.unwrap();
    }
    let mut logs = std::collections::HashSet::new();
    for place in &places {
        let own = format!("{place:?}");
        let only = vec![session("bot", own.clone())];
        assert_eq!(store.sessions(place).await.unwrap(), only);
        assert_eq!(log(&store, place).await, [(1, own)]);
        assert!(logs.insert(store.log_bounds(place).await.unwrap().log));
    }
    let never = partition("a", 2);
    assert!(store.sessions(&never).await.unwrap().is_empty());
    assert!(log(&store, &never).await.is_empty());
}

pub(crate) async fn sends_are_remembered_and_forgotten(store: Shared) {
    assert!(store.sends(&here()).await.unwrap().is_empty());
    let lease = owned(&store, &here()).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    // Of these a joined name could be read in two ways.
    let mut sorted = vec![
        send("", "a", "1"),
        send("1", ":a", "2"),
        send("1:", "a", "3"),
        send("a", "", "4"),
        send("a", "1:b", every_byte),
        send("a", "b", "5"),
        send("a", "é \u{0}\n", "6"),
        send("a1", ":b", "7"),
        send("用户", "b", "8"),
    ];
    let mut batch = Batch {
        sends: sorted.clone(),
        ..Batch::default()
    };
    batch.sends.reverse();
    batch.sends.swap(2, 5);
    batch.sends.insert(0, send("a", "b", "an earlier one"));
    store.commit(&lease, &batch).await.unwrap();
    assert_eq!(store.sends(&here()).await.unwrap(), sorted);
    assert!(
        store
            .sends(&partition("tenant", 4))
            .await
            .unwrap()
            .is_empty()
    );

    let batch = Batch {
        sends: vec![
            send("a", "", ""),
            send("a1", ":b", "gone"),
            send("a1", ":b", ""),
            send("nobody", "x", ""),
            send("", "a", ""),
            send("", "a", "there again"),
        ],
        ..events(["x"])
    };
    store.commit(&lease, &batch).await.unwrap();
    sorted.retain(|one| !["4", "7"].map(str::as_bytes).contains(&&one.record[..]));
    sorted[0].record = b"there again".to_vec();
    assert_eq!(store.sends(&here()).await.unwrap(), sorted);

    let stale = lease.clone();
    owned(&store, &here()).await;
    fenced(store.commit(&stale, &batch).await, &stale);
    assert_eq!(store.sends(&here()).await.unwrap(), sorted);
}
