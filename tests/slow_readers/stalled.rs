//! Subscribers that never read, next to many that do.

use std::ops::Range;

use futures_util::future::join_all;

use crate::fixture::*;
use crate::serve::{Peak, Serve};
use crate::subscriber::{Books, Connection, Subscriber, Traffic, WINDOW};

const LIVE: usize = 50;
const STALLED: usize = 4;
const TRAFFIC: Traffic = Traffic {
    bots: 4,
    bytes: 3 * 1024,
};
/// An event holds its text twice, once within the upstream's own JSON.
const EVENT_BYTES: usize = 2 * TRAFFIC.bytes;
/// How many messages there are before the stalled ones come.
const BEFORE: usize = 3200;
/// How many come after that. They are more than 46 MiB of events.
const AFTER: usize = 8000;
/// So many are pushed at a time.
const LOT: usize = 160;

/// The most that the memory may grow by. A queue for each subscriber that takes what is not read would hold 46 MiB for
/// each of the stalled ones in the end, and one that they share 46 MiB. What they may hold is below 3 MiB, see
/// [`MOST_TAKEN`]; the rest is for the allocator, whose reserves differ from one run to the next, by 11 MiB on a machine
/// that is busy with other things.
const MOST_GROWTH_MIB: u64 = 24;

/// The most events that may have been read from the log for one who does not read: what fills the HTTP/2 window, a batch
/// that was cut off by its end, and one that waits behind that. A batch is up to 256 KiB, and joined by small ones
/// before it, up to 32 KiB.
const MOST_TAKEN: usize = (WINDOW as usize + 2 * (256 + 32) * 1024) / EVENT_BYTES;

type Reader = (Subscriber, Books);

/// Pushes messages, lot by lot, each when all who read have the one before. Answers the most memory, in MiB, that the
/// gateway had meanwhile.
async fn flow(
    upstream: &Upstream,
    serve: &Serve,
    live: &mut [Reader],
    numbers: Range<usize>,
) -> u64 {
    let mut peak = Peak::default();
    for first in numbers.step_by(LOT) {
        TRAFFIC.push(upstream, first..first + LOT);
        let reading = live
            .iter_mut()
            .map(|(subscriber, books)| books.read(subscriber, first + LOT));
        join_all(reading).await;
        peak.look(serve);
    }
    peak.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_subscribers_cost_no_memory_and_delay_nobody() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let upstream = Upstream::start().await;
    let serve = Serve::start(&upstream).await;
    let client = Client::connect(serve.grpc, "acme").await;
    TRAFFIC.online(&client).await;
    let mut live = Vec::new();
    for _ in 0..LIVE {
        let connection = Connection::open(serve.grpc).await;
        let subscriber = connection.subscribe_to_latest().await;
        live.push((subscriber, Books::from(TRAFFIC, 0)));
    }
    // Whatever is bounded comes to its bound first: buffers, reserves, what is kept of the log's end.
    let before = flow(&upstream, &serve, &mut live, 0..BEFORE).await;

    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let connection = Connection::narrow(serve.grpc).await;
        let subscriber = connection.subscribe_to_latest().await;
        stalled.push((subscriber, Books::from(TRAFFIC, BEFORE)));
    }
    let delivered = "imgate_events_delivered_total";
    let delivered_before = serve.metric(delivered).await as usize;
    // Nothing would go on here if one who reads had to wait for one who does not.
    let after = flow(&upstream, &serve, &mut live, BEFORE..BEFORE + AFTER).await;
    let delivered_after = serve.metric(delivered).await as usize;

    let taken = delivered_after - delivered_before - LIVE * AFTER;
    println!(
        "at the most {before} MiB, and {after} MiB with {STALLED} stalled; {taken} events were taken for those"
    );
    assert!(taken <= STALLED * MOST_TAKEN, "{taken} events were taken");
    let growth = after.saturating_sub(before);
    assert!(growth <= MOST_GROWTH_MIB, "{growth} MiB more");

    // They have not lost their place.
    for (subscriber, books) in &mut stalled {
        books.read(subscriber, AFTER).await;
    }
}
