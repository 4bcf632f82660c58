//! A subscriber that does not stay.

use std::time::Duration;

use imgate::proto::v1::subscribe_request::Start;
use tokio::time::{Instant, timeout_at};

use crate::fixture::*;
use crate::subscriber::{Books, Connection, Subscriber, Traffic, latest};

/// How often it comes back: for four seconds.
const VISITS: usize = 40;
const VISIT: Duration = Duration::from_millis(100);

/// Reads for as long as a visit lasts.
async fn visit(subscriber: &mut Subscriber, books: &mut Books) {
    let end = Instant::now() + VISIT;
    while let Ok(came) = timeout_at(end, subscriber.batch()).await {
        assert_eq!(came.gaps, []);
        books.enter(&came.messages);
    }
}

#[tokio::test]
async fn one_who_comes_back_every_100_ms_misses_nothing_and_leaves_nothing_behind() {
    let traffic = Traffic {
        bots: 3,
        bytes: 100,
    };
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    traffic.online(&gateway.client().await).await;
    let subscribers = || gateway.metrics.sum("imgate_events_subscribers", "");
    let kept = Connection::open(gateway.grpc_address()).await;

    let mut books = Books::from(traffic, 0);
    let mut subscriber = kept.subscribe(latest(), 7).await.unwrap();
    let visiting = async {
        for number in 1..=VISITS {
            visit(&mut subscriber, &mut books).await;
            // In turn by a stream that is reset and by a connection that is cut, in the middle of what comes.
            let cursor = Start::Cursor(subscriber.cursor.clone());
            let connection = if number % 2 == 0 {
                kept.clone()
            } else {
                Connection::open(gateway.grpc_address()).await
            };
            subscriber = connection.subscribe(cursor, 7).await.unwrap();
        }
    };
    let mut pushed = 0;
    let pushing = async {
        let mut beat = tokio::time::interval(Duration::from_millis(5));
        loop {
            beat.tick().await;
            traffic.push(&upstream, pushed..pushed + 2);
            pushed += 2;
        }
    };
    tokio::select! {
        () = visiting => {}
        () = pushing => {}
    }
    assert!(pushed > VISITS, "{pushed} messages are no traffic");
    // Each once: what comes after a cursor did not come before it.
    books.read(&mut subscriber, pushed).await;
    drop(subscriber);
    until("a subscription stays", || subscribers() == 0.0).await;
}
