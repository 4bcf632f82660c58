//! Named subscriptions: listed, deleted, limited, shared.

use std::collections::BTreeSet;

use imgate::proto::v1;
use imgate::proto::v1::subscribe_request::Start;
use imgate::types::{UnixMillis, WallClock};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::events::{Stream, ids, ids_of, message};
use crate::fixture::{Clients, MAX_SUBSCRIPTIONS, PATIENCE, Served, refusal, served};

/// Two accounts of different partitions.
const ACCOUNTS: [&str; 2] = ["bot1", "bot4"];

fn reading(name: &str, shared: bool) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        start: Some(Start::Subscription(name.into())),
        shared,
        ..v1::SubscribeRequest::default()
    }
}

/// A stream that has said where it begins.
async fn open(clients: &mut Clients, request: v1::SubscribeRequest) -> Stream {
    open_made(clients, request).await.0
}

/// The same, and whether it said that the subscription had to be made.
async fn open_made(clients: &mut Clients, request: v1::SubscribeRequest) -> (Stream, bool) {
    let mut stream = clients
        .events
        .subscribe(request)
        .await
        .unwrap()
        .into_inner();
    let first = message(&mut stream).await;
    assert_eq!(first.events, []);
    (stream, first.subscription_made)
}

async fn list(clients: &mut Clients) -> Vec<v1::Subscription> {
    let request = v1::ListSubscriptionsRequest {};
    let answer = clients.events.list_subscriptions(request).await.unwrap();
    answer.into_inner().subscriptions
}

async fn delete(clients: &mut Clients, name: &str) -> Option<(Code, String, String)> {
    let subscription = name.into();
    let request = v1::DeleteSubscriptionRequest { subscription };
    let answer = clients.events.delete_subscription(request).await;
    answer.is_err().then(|| refusal(answer))
}

async fn acknowledge(clients: &mut Clients, name: &str, cursor: String) {
    let subscription = name.into();
    let request = v1::AcknowledgeRequest {
        subscription,
        cursor,
    };
    clients.events.acknowledge(request).await.unwrap();
}

#[tokio::test]
async fn who_subscribes_is_told_that_the_subscription_had_to_be_made() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    for shared in [false, true] {
        let request = reading("s", shared);
        let (mut stream, made) = open_made(&mut acme, request.clone()).await;
        assert!(made);
        served.append(ACCOUNTS[0], "a").await;
        assert!(
            !message(&mut stream).await.subscription_made,
            "only at first"
        );
        assert!(!open_made(&mut acme, request.clone()).await.1);
        assert_eq!(delete(&mut acme, "s").await, None);
        assert!(open_made(&mut acme, request).await.1);
        assert_eq!(delete(&mut acme, "s").await, None);
    }
    let latest = v1::SubscribeRequest::default();
    assert!(!open_made(&mut acme, latest).await.1);
}

#[tokio::test]
async fn subscriptions_are_listed_with_their_lag_and_deleted() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    assert_eq!(list(&mut acme).await, []);
    let mut late = open(&mut acme, reading("late", false)).await;
    let _first = open(&mut acme, reading("early", false)).await;
    served.append(ACCOUNTS[0], "a").await;
    let first = message(&mut late).await;
    acknowledge(&mut acme, "late", first.cursor).await;
    served.append(ACCOUNTS[1], "b").await;

    let listed = list(&mut acme).await;
    let shown: Vec<_> = listed
        .iter()
        .map(|it| (it.name.as_str(), it.lag_events, it.members))
        .collect();
    assert_eq!(shown, [("early", 2, 0), ("late", 1, 0)]);
    for subscription in &listed {
        let now = UnixMillis::from_secs(WallClock.now().as_secs());
        for at in [subscription.oldest_pending_at, subscription.last_used_at] {
            let seconds = u64::try_from(at.unwrap().seconds).unwrap();
            let age = now.since(UnixMillis::from_secs(seconds));
            assert!(age < 2 * PATIENCE, "{age:?}");
        }
    }
    let second = message(&mut late).await;
    acknowledge(&mut acme, "late", second.cursor).await;
    let listed = list(&mut acme).await;
    assert_eq!(
        (listed[1].lag_events, listed[1].oldest_pending_at),
        (0, None)
    );

    assert_eq!(delete(&mut acme, "early").await, None);
    assert_eq!(list(&mut acme).await.len(), 1);
    let again = delete(&mut acme, "early").await.unwrap();
    assert_eq!(
        (again.0, &*again.1),
        (Code::NotFound, "UNKNOWN_SUBSCRIPTION")
    );
}

#[tokio::test]
async fn subscriptions_are_their_tenants_and_need_the_scope() {
    let served = served().await;
    let mut acme = served.connect("acme-events").await;
    let _stream = open(&mut acme, reading("main", true)).await;
    let mut other = served.connect("other-key").await;
    assert_eq!(list(&mut other).await, []);
    let refused = delete(&mut other, "main").await.unwrap();
    assert_eq!(
        (refused.0, &*refused.1),
        (Code::NotFound, "UNKNOWN_SUBSCRIPTION")
    );
    assert_eq!(list(&mut acme).await.len(), 1);
    let mut sender = served.connect("acme-messages").await;
    let request = v1::ListSubscriptionsRequest {};
    let refused = refusal(sender.events.list_subscriptions(request).await);
    assert_eq!(
        (refused.0, &*refused.1),
        (Code::PermissionDenied, "SCOPE_MISSING")
    );
}

#[tokio::test]
async fn one_subscription_more_than_the_limit_is_refused() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    for n in 0..MAX_SUBSCRIPTIONS {
        open(&mut acme, reading(&format!("s{n}"), n == 0)).await;
    }
    for shared in [false, true] {
        let status = acme
            .events
            .subscribe(reading("more", shared))
            .await
            .unwrap_err();
        assert!(status.message().contains("limit of 3 subscriptions"));
        let refused = refusal(Err::<tonic::Response<()>, _>(status));
        assert_eq!(
            (refused.0, &*refused.1),
            (Code::ResourceExhausted, "SUBSCRIPTIONS")
        );
    }
    assert_eq!(delete(&mut acme, "s1").await, None);
    open(&mut acme, reading("more", false)).await;
}

#[tokio::test]
async fn only_a_named_subscription_is_shared() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    for start in [None, Some(Start::At(v1::StartAt::Earliest.into()))] {
        let request = v1::SubscribeRequest {
            start,
            shared: true,
            ..v1::SubscribeRequest::default()
        };
        let refused = refusal(acme.events.subscribe(request).await);
        assert_eq!((refused.0, &*refused.2), (Code::InvalidArgument, "shared"));
    }
}

/// The next response of two streams, and whose it is.
async fn next_of(streams: &mut [Stream; 2]) -> (usize, v1::SubscribeResponse) {
    let [first, second] = streams;
    tokio::select! {
        response = message(first) => (0, response),
        response = message(second) => (1, response),
    }
}

/// Appends one message to each of the two accounts, and answers their IDs.
async fn append_both(served: &Served, round: usize) -> [String; 2] {
    let texts = ACCOUNTS.map(|account| format!("{account}-{round}"));
    for (account, text) in ACCOUNTS.iter().zip(&texts) {
        served.append(account, text).await;
    }
    texts
}

#[tokio::test]
async fn two_streams_share_a_subscription_and_one_inherits_from_the_other() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let mut streams = [
        open(&mut acme, reading("workers", true)).await,
        open(&mut acme, reading("workers", true)).await,
    ];
    let (mut got, mut readers, mut round) = (Vec::new(), BTreeSet::new(), 0);
    let began = Instant::now();
    // Until each of them has a partition.
    while readers.len() < 2 {
        assert!(
            began.elapsed() < PATIENCE,
            "one has nothing after {round} rounds"
        );
        round += 1;
        let mut missing = BTreeSet::from(append_both(&served, round).await);
        readers.clear();
        while !missing.is_empty() {
            let (whose, response) = timeout(PATIENCE, next_of(&mut streams)).await.unwrap();
            for id in ids_of(response.events) {
                missing.remove(&id);
                readers.insert(whose);
                got.push(id);
            }
            acknowledge(&mut acme, "workers", response.cursor).await;
        }
    }
    assert_eq!(list(&mut acme).await[0].members, 2);
    for account in ACCOUNTS {
        let of_account = got.iter().filter(|id| id.starts_with(account));
        let expected: Vec<String> = (1..=round).map(|n| format!("{account}-{n}")).collect();
        assert!(of_account.eq(&expected), "{got:?}");
    }
    // One gets its next message, does not acknowledge it, and is gone.
    let last = append_both(&served, round + 1).await;
    let [mut gone, mut left] = streams;
    let (lost, kept) = (ids(&mut gone, 1).await.0, ids(&mut left, 1).await.0);
    assert_eq!(BTreeSet::from([&lost[0], &kept[0]]), last.iter().collect());
    drop(gone);
    assert_eq!(ids(&mut left, 1).await.0, lost);
}
