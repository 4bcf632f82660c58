//! Very many subscribers of one tenant.

use futures_util::future::join_all;

use crate::fixture::*;
use crate::subscriber::{Books, Connection, Traffic};

#[tokio::test]
async fn five_hundred_subscribers_of_one_tenant_all_get_everything_in_order() {
    const SUBSCRIBERS: usize = 500;
    // A gateway serves 1024 calls on one connection; a client that has not heard that yet begins with 100.
    const ON_ONE_CONNECTION: usize = 250;
    const COUNT: usize = 200;
    const LOT: usize = 20;
    let traffic = Traffic {
        bots: 5,
        bytes: 200,
    };
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    traffic.online(&gateway.client().await).await;
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS / ON_ONE_CONNECTION {
        let connection = Connection::open(gateway.grpc_address()).await;
        for _ in 0..ON_ONE_CONNECTION {
            let subscriber = connection.subscribe_to_latest().await;
            subscribers.push((subscriber, Books::from(traffic, 0)));
        }
    }
    let gauge = "imgate_events_subscribers";
    assert_eq!(gateway.metrics.sum(gauge, ""), SUBSCRIBERS as f64);

    for first in (0..COUNT).step_by(LOT) {
        traffic.push(&upstream, first..first + LOT);
        let reading = subscribers
            .iter_mut()
            .map(|(subscriber, books)| books.read(subscriber, first + LOT));
        join_all(reading).await;
    }
    drop(subscribers);
    until("a subscription stays", || {
        gateway.metrics.sum(gauge, "") == 0.0
    })
    .await;
}
