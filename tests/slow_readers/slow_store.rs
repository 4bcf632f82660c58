//! A flood of large messages while the store takes its time.

use std::time::Duration;

use tokio::time::timeout;

use crate::fixture::*;
use crate::serve::Serve;
use crate::subscriber::{Books, Connection, Traffic};

const TRAFFIC: Traffic = Traffic {
    bots: 20,
    bytes: 40 * 1024,
};
/// They are 31 MiB of text and 62 MiB of events, for an event holds its text twice.
const MESSAGES: usize = 800;
/// How long the store does nothing; less than its time-out.
const PAUSE: Duration = Duration::from_secs(4);
/// How long all of it may take; a few seconds are enough where there is nothing else to do.
const LONG: Duration = Duration::from_secs(120);
/// The most that the memory may grow by meanwhile. Each of the two partitions has a queue of 2 MiB and a commit of 1 MiB
/// on its way; each session a frame that is being read, and a message that waits for room in the queue.
const MOST_GROWTH_MIB: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_that_the_store_does_not_keep_up_with_waits_in_the_sockets() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let upstream = Upstream::start().await;
    let serve = Serve::start(&upstream).await;
    let client = Client::connect(serve.grpc, "acme").await;
    TRAFFIC.online(&client).await;
    let mut subscriber = Connection::open(serve.grpc)
        .await
        .subscribe_to_latest()
        .await;
    let mut books = Books::from(TRAFFIC, 0);
    TRAFFIC.push(&upstream, 0..TRAFFIC.bots);
    books.read(&mut subscriber, TRAFFIC.bots).await;

    let began = serve.resident_mib();
    serve.redis.pause();
    TRAFFIC.push(&upstream, TRAFFIC.bots..MESSAGES);
    tokio::time::sleep(PAUSE).await;
    let growth = serve.resident_mib().saturating_sub(began);
    serve.redis.resume();
    println!("{began} MiB when it started, {growth} MiB more while the store did nothing");
    assert!(growth <= MOST_GROWTH_MIB, "{growth} MiB more");
    timeout(LONG, books.read(&mut subscriber, MESSAGES))
        .await
        .expect("too late");
    assert_eq!(
        serve.metric("imgate_events_append_retries_total").await,
        0.0
    );
    let users = TRAFFIC.accounts().map(|account| upstream.user(&account));
    assert!(
        users
            .into_iter()
            .all(|user| (user.logins, user.resumes) == (1, 0))
    );
}
