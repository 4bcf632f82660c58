//! The contract's part on named subscriptions, and on answering at all.

use imgate::store::{LogId, Position};
use imgate::types::{MemberId, UnixMillis};

use crate::fixture::*;

/// Where the subscription stands after it was told to go to `position`.
async fn moved(store: &Shared, position: Position) -> Option<Position> {
    let place = here();
    let told = store
        .advance_subscription(&place, "main", &position, UnixMillis(1), false)
        .await;
    told.unwrap();
    store.subscription(&place, "main").await.unwrap()
}

pub(crate) async fn a_subscription_only_moves_forward(store: Shared) {
    let lease = owned(&store, &here()).await;
    let log = append(&store, &lease, ["x", "y", "z"]).await.log;
    let move_to = |position| {
        let store = store.clone();
        async move { moved(&store, position).await }
    };
    assert_eq!(store.subscription(&here(), "main").await.unwrap(), None);
    assert_eq!(move_to(at(log, 2)).await, Some(at(log, 2)));
    assert_eq!(move_to(at(log, 1)).await, Some(at(log, 2)));
    assert_eq!(move_to(at(log, 2)).await, Some(at(log, 2)));
    assert_eq!(move_to(at(log, 10)).await, Some(at(log, 10)));
    assert_eq!(move_to(at(log, 9)).await, Some(at(log, 10)));
    let far = u64::MAX - 1;
    assert_eq!(move_to(at(log, far)).await, Some(at(log, far)));
    assert_eq!(move_to(at(log, far - 1)).await, Some(at(log, far)));
    assert_eq!(move_to(at(log, u64::MAX)).await, Some(at(log, u64::MAX)));
}

pub(crate) async fn a_subscription_follows_the_present_log_only(store: Shared) {
    let lost = LogId(77);
    let first = at(lost, 1000);
    let advance = |position| {
        let store = store.clone();
        async move { moved(&store, position).await }
    };
    assert_eq!(advance(first).await, Some(first));
    let lease = owned(&store, &here()).await;
    let present = append(&store, &lease, ["x", "y"]).await.log;
    assert_eq!(advance(at(LogId(78), 2000)).await, Some(first));
    assert_eq!(advance(at(present, 1)).await, Some(at(present, 1)));
    assert_eq!(advance(at(lost, 1001)).await, Some(at(present, 1)));
    assert_eq!(advance(at(present, 2)).await, Some(at(present, 2)));
}

pub(crate) async fn subscriptions_are_apart(store: Shared) {
    let places = [("a", 0), ("a", 1), ("a:1", 0), ("b", 0)];
    let names = ["x", "x:y", "", "é 名", "X"];
    let mut expected = Vec::new();
    for (tenant, number) in places {
        for name in names {
            let place = partition(tenant, number);
            let position = at(LogId(5), expected.len() as u64 + 1);
            let moved = store
                .advance_subscription(&place, name, &position, UnixMillis(1), false)
                .await;
            moved.unwrap();
            expected.push((place, name, position));
        }
    }
    for (place, name, position) in expected {
        let stored = store.subscription(&place, name).await.unwrap();
        assert_eq!(stored, Some(position), "{place} {name}");
    }
}

async fn used(store: &Shared, name: &str, position: Position, now: u64) {
    let used = store
        .advance_subscription(&here(), name, &position, UnixMillis(now), false)
        .await;
    used.unwrap();
}

/// All subscriptions as `(name, sequence, used_at)`.
async fn listed(store: &Shared) -> Vec<(String, u64, u64)> {
    let all = store.subscriptions(&here()).await.unwrap();
    all.into_iter()
        .map(|one| (one.name, one.position.sequence, one.used_at.0))
        .collect()
}

pub(crate) async fn subscriptions_are_listed(store: Shared) {
    assert!(store.subscriptions(&here()).await.unwrap().is_empty());
    let log = LogId(u64::MAX);
    let sorted = ["", "X", "a", "a b", "a:b", "b", "é 名"];
    for (index, name) in sorted.iter().enumerate().rev() {
        let sequence = index as u64;
        used(&store, name, at(log, sequence), 100 + sequence).await;
    }
    let other = partition("tenant", 4);
    let elsewhere = store
        .advance_subscription(&other, "other", &at(log, 9), UnixMillis(1), false)
        .await;
    elsewhere.unwrap();
    let all = store.subscriptions(&here()).await.unwrap();
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, sorted);
    for (index, one) in (0..).zip(all) {
        assert_eq!(one.position, at(log, index));
        assert_eq!(one.used_at, UnixMillis(100 + index));
    }
}

pub(crate) async fn use_is_noted_also_where_nothing_moves(store: Shared) {
    let log = LogId(5);
    let expect = |sequence, used_at| [("main".to_owned(), sequence, used_at)];
    used(&store, "main", at(log, 7), 100).await;
    assert_eq!(listed(&store).await, expect(7, 100));
    used(&store, "main", at(log, 7), 200).await;
    assert_eq!(listed(&store).await, expect(7, 200));
    used(&store, "main", at(log, 3), 300).await;
    assert_eq!(listed(&store).await, expect(7, 300));
    // A clock that is behind does not make it older.
    used(&store, "main", at(log, 8), 99).await;
    assert_eq!(listed(&store).await, expect(8, 300));
    used(&store, "main", at(LogId(6), 1000), 1000).await;
    assert_eq!(listed(&store).await, expect(8, 1000));
    // Neighbours that a floating point number cannot tell apart.
    used(&store, "main", at(log, 8), u64::MAX - 1).await;
    used(&store, "main", at(log, 8), u64::MAX).await;
    assert_eq!(listed(&store).await, expect(8, u64::MAX));
}

pub(crate) async fn a_subscription_is_removed(store: Shared) {
    let remove = |name: &'static str| {
        let store = store.clone();
        async move {
            let removed = store.remove_subscription(&here(), name, None).await;
            removed.unwrap()
        }
    };
    assert!(!remove("main").await);
    let log = LogId(5);
    used(&store, "main", at(log, 7), 100).await;
    used(&store, "other", at(log, 9), 100).await;
    let elsewhere = partition("tenant", 4);
    let moved = store
        .advance_subscription(&elsewhere, "main", &at(log, 8), UnixMillis(1), false)
        .await;
    moved.unwrap();

    assert!(remove("main").await);
    assert!(!remove("main").await);
    assert_eq!(store.subscription(&here(), "main").await.unwrap(), None);
    assert_eq!(listed(&store).await, [("other".to_owned(), 9, 100)]);
    let kept = store.subscription(&elsewhere, "main").await.unwrap();
    assert_eq!(kept, Some(at(log, 8)));
    // It begins anew: nothing is left of where it stood and when it was used.
    used(&store, "main", at(log, 1), 1).await;
    assert_eq!(listed(&store).await[0], ("main".to_owned(), 1, 1));
}

pub(crate) async fn one_that_is_to_move_only_if_it_is_there_is_not_made(store: Shared) {
    let log = LogId(5);
    let advance = |name: &'static str, sequence| {
        let store = store.clone();
        async move {
            let (place, position, now) = (here(), at(log, sequence), UnixMillis(200));
            let moved = store.advance_subscription(&place, name, &position, now, true);
            moved.await.unwrap()
        }
    };
    used(&store, "other", at(log, 1), 100).await;
    assert!(!advance("main", 7).await);
    assert_eq!(store.subscription(&here(), "main").await.unwrap(), None);
    assert_eq!(listed(&store).await, [("other".to_owned(), 1, 100)]);

    used(&store, "main", at(log, 3), 100).await;
    assert!(advance("main", 7).await);
    assert_eq!(listed(&store).await[0], ("main".to_owned(), 7, 200));
    // There it is, also where it does not move.
    assert!(advance("main", 6).await);
    assert_eq!(listed(&store).await[0], ("main".to_owned(), 7, 200));
}

pub(crate) async fn only_what_is_not_used_expires(store: Shared) {
    let expire = |since| {
        let store = store.clone();
        async move {
            let since = Some(UnixMillis(since));
            let removed = store.remove_subscription(&here(), "main", since).await;
            removed.unwrap()
        }
    };
    assert!(!expire(u64::MAX).await);
    used(&store, "main", at(LogId(5), 7), 1000).await;
    for since in [0, 999, 1000] {
        assert!(!expire(since).await, "{since}");
    }
    used(&store, "main", at(LogId(5), 7), 1_000_000).await;
    for since in [1001, 999_999, 1_000_000] {
        assert!(!expire(since).await, "{since}");
    }
    let stands = store.subscription(&here(), "main").await.unwrap();
    assert_eq!(stands, Some(at(LogId(5), 7)));
    assert!(expire(1_000_001).await);
    assert!(listed(&store).await.is_empty());
}

pub(crate) async fn nobody_has_a_share_of_what_was_removed(store: Shared) {
    let claim = |place, name: &'static str| {
        let (store, member) = (store.clone(), MemberId::new(name));
        async move {
            let claimed = store.claim_share(&place, "main", &member, LONG).await;
            claimed.unwrap()
        }
    };
    let elsewhere = partition("tenant", 4);
    used(&store, "main", at(LogId(5), 7), 1000).await;
    assert!(claim(here(), "a").await);
    assert!(claim(elsewhere.clone(), "a").await);
    // It does not expire, so everything stays.
    let kept = store
        .remove_subscription(&here(), "main", Some(UnixMillis(1000)))
        .await;
    assert!(!kept.unwrap());
    assert!(!claim(here(), "b").await);

    let removed = store.remove_subscription(&here(), "main", None).await;
    assert!(removed.unwrap());
    assert!(claim(here(), "b").await);
    assert!(!claim(elsewhere, "b").await);
}

pub(crate) async fn it_answers(store: Shared) {
    store.ping().await.unwrap();
}
