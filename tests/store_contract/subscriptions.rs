//! The contract's part on named subscriptions, and on answering at all.

use imgate::store::{LogId, Position};

use crate::fixture::*;

fn at(log: LogId, sequence: u64) -> Position {
    Position { log, sequence }
}

/// Where the subscription stands after it was told to go to `position`.
async fn moved(store: &Shared, position: Position) -> Option<Position> {
    let place = here();
    let told = store.advance_subscription(&place, "main", &position, UnixMillis(1));
    told.await.unwrap();
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
            let moved = store.advance_subscription(&place, name, &position, UnixMillis(1));
            moved.await.unwrap();
            expected.push((place, name, position));
        }
    }
    for (place, name, position) in expected {
        let stored = store.subscription(&place, name).await.unwrap();
        assert_eq!(stored, Some(position), "{place} {name}");
    }
}

pub(crate) async fn it_answers(store: Shared) {
    store.ping().await.unwrap();
}
