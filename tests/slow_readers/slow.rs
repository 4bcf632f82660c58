//! Subscribers that read less than there is.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::config::StoreKind;
use imgate::proto::v1;
use tokio::time::{MissedTickBehavior, interval};

use crate::fixture::*;
use crate::subscriber::{Books, Connection, Traffic, latest};

#[tokio::test]
async fn one_who_reads_ten_events_a_second_gets_all_in_order_and_delays_nobody() {
    const COUNT: usize = 60;
    // Large enough to fill the small window of the slow one many times.
    let traffic = Traffic {
        bots: 2,
        bytes: 8 * 1024,
    };
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    traffic.online(&gateway.client().await).await;
    let connection = Connection::narrow(gateway.grpc_address()).await;
    let mut slow = connection.subscribe(latest(), 1).await.unwrap();
    let mut live = Vec::new();
    for _ in 0..5 {
        let connection = Connection::open(gateway.grpc_address()).await;
        live.push(connection.subscribe_to_latest().await);
    }

    traffic.push(&upstream, 0..COUNT);
    let reading_live = join_all(live.iter_mut().map(async |subscriber| {
        Books::from(traffic, 0).read(subscriber, COUNT).await;
    }));
    tokio::pin!(reading_live);
    let mut pace = interval(Duration::from_millis(100));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut books = Books::from(traffic, 0);
    let mut live_done_at = None;
    while books.count < COUNT {
        tokio::select! {
            _ = &mut reading_live, if live_done_at.is_none() => live_done_at = Some(books.count),
            _ = pace.tick() => {
                let came = slow.batch().await;
                assert_eq!((came.events, came.gaps.len()), (1, 0));
                books.enter(&came.messages);
            }
        }
    }
    // The slow one has seconds to go when the others have all.
    let of_slow = live_done_at.expect("the others are not done before the slow one");
    assert!(of_slow < COUNT, "{of_slow}");
}

#[tokio::test]
async fn one_who_reads_after_its_place_was_trimmed_is_told_what_is_missing() {
    const COUNT: usize = 5000;
    const RETAINED: u32 = 500;
    let traffic = Traffic {
        bots: 1,
        bytes: 1024,
    };
    let upstream = Upstream::start().await;
    let mut tenant = tenant("acme", upstream.url());
    tenant.partitions = 1;
    tenant.log.retain_events = RETAINED;
    let config = config(StoreKind::Memory, vec![tenant]);
    let gateway = Gateway::start(config).await.ready().await;
    traffic.online(&gateway.client().await).await;
    let connection = Connection::narrow(gateway.grpc_address()).await;
    let mut stalled = connection.subscribe_to_latest().await;
    let connection = Connection::open(gateway.grpc_address()).await;
    let (mut live, mut books) = (
        connection.subscribe_to_latest().await,
        Books::from(traffic, 0),
    );
    for first in (0..COUNT).step_by(100) {
        traffic.push(&upstream, first..first + 100);
        books.read(&mut live, first + 100).await;
    }

    let (mut before, mut gaps, mut missing) = (Books::from(traffic, 0), Vec::new(), 0);
    while before.count + missing < COUNT && gaps.is_empty() {
        let came = stalled.batch().await;
        gaps.extend(came.gaps);
        let of_gaps = gaps.iter().map(|gap| gap.count as usize).sum();
        if missing == 0 && of_gaps > 0 {
            // What came in the batch of the gap is behind it.
            missing = of_gaps;
            let mut behind = Books::from(traffic, before.count + missing);
            behind.enter(&came.messages);
            behind
                .read(&mut stalled, COUNT - before.count - missing)
                .await;
        } else {
            before.enter(&came.messages);
        }
    }
    let [gap] = gaps.as_slice() else {
        panic!("one gap is expected: {gaps:?}");
    };
    assert_eq!(gap.reason(), v1::GapReason::Retention);
    assert_eq!(gap.to_sequence - gap.from_sequence + 1, gap.count);
    // A window and two batches of it had been read before, and at least what is retained comes after.
    assert!((1..COUNT - RETAINED as usize).contains(&missing), "{gap:?}");
}
