//! Thousands of messages that waited for a session while it was away.

use std::time::Duration;

use imgate::proto::v1::subscribe_request::Start;
use tokio::time::timeout;

use crate::fixture::*;
use crate::serve::{Peak, Serve};
use crate::subscriber::{Books, Connection, Traffic};

/// As many as the simulator keeps for an account.
const WAITING: usize = 10_000;
const TRAFFIC: Traffic = Traffic {
    bots: 1,
    bytes: 2560,
};

/// How long all of it may take; a few seconds are enough where there is nothing else to do.
const LONG: Duration = Duration::from_secs(240);
/// The most that the memory may grow by meanwhile. All the messages at once are 24 MiB of text and 50 MiB of events.
const MOST_GROWTH_MIB: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_that_waited_come_once_in_order_and_with_bounded_memory() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let upstream = Upstream::start().await;
    let mut serve = Serve::start(&upstream).await;
    let client = Client::connect(serve.grpc, "acme").await;
    TRAFFIC.online(&client).await;
    let mut subscriber = Connection::open(serve.grpc)
        .await
        .subscribe_to_latest()
        .await;
    let mut books = Books::from(TRAFFIC, 0);
    TRAFFIC.push(&upstream, 0..1);
    books.read(&mut subscriber, 1).await;
    until("it is not acknowledged", || {
        upstream.user("bot0").acked == 1
    })
    .await;

    serve.stop().await;
    TRAFFIC.push(&upstream, 1..1 + WAITING);
    serve.start_again().await;
    let connection = Connection::open(serve.grpc).await;
    let cursor = Start::Cursor(subscriber.cursor);
    let mut subscriber = connection.subscribe(cursor, 0).await.unwrap();
    let (began, mut peak) = (serve.resident_mib(), Peak::default());
    let reading = async {
        while books.count < 1 + WAITING {
            let came = subscriber.batch().await;
            assert_eq!(came.gaps, []);
            assert!(came.messages.iter().all(|message| message.backfilled));
            books.enter(&came.messages);
            peak.look(&serve);
        }
    };
    timeout(LONG, reading).await.expect("too late");
    println!("{began} MiB when it started, {} MiB at the most", peak.0);
    let growth = peak.0.saturating_sub(began);
    assert!(growth <= MOST_GROWTH_MIB, "{growth} MiB more");

    // One more shows that there is nothing left of the others, and none of them twice.
    TRAFFIC.push(&upstream, 1 + WAITING..2 + WAITING);
    books.read(&mut subscriber, 2 + WAITING).await;
    let user = upstream.user("bot0");
    assert_eq!((user.logins, user.resumes), (1, 1));
}
