//! Writers and subscribers that find each other.

use futures_util::FutureExt as _;
use prost::Message as _;

use super::*;
use crate::events::testing::message;
use crate::store::LogId;

fn partition(tenant: &str, number: u16) -> PartitionId {
    PartitionId {
        tenant: TenantId::new(tenant),
        number,
    }
}

fn end(sequence: u64) -> Position {
    Position {
        log: LogId(7),
        sequence,
    }
}

fn events(count: usize) -> Vec<Vec<u8>> {
    vec![message("bot", "hello").encode_to_vec(); count]
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_woken_once_for_all_that_is_new() {
    let hub = Hub::new();
    let _followed = [0, 3].map(|number| hub.follow(&partition("a", number)));
    let mut news = hub.watch(&TenantId::new("a"));
    assert!(news.changed().now_or_never().is_none());
    hub.publish(&partition("a", 0), end(1));
    hub.appended(&partition("a", 3), end(5), events(2));
    news.changed().now_or_never().unwrap();
    assert_eq!(news.look(<[u64]>::to_vec), [1, 0, 0, 1]);
    assert!(news.changed().now_or_never().is_none());
    hub.look_again();
    news.changed().now_or_never().unwrap();
    assert_eq!(news.look(<[u64]>::to_vec), [2, 0, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn tenants_do_not_wake_each_other() {
    let hub = Hub::new();
    let _followed = ["a", "b"].map(|tenant| hub.follow(&partition(tenant, 0)));
    let mut news = hub.watch(&TenantId::new("a"));
    hub.publish(&partition("b", 0), end(1));
    hub.appended(&partition("b", 0), end(2), events(1));
    assert!(news.changed().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_is_not_kept() {
    let hub = Hub::new();
    let mut news = hub.watch(&TenantId::new("a"));
    hub.appended(&partition("a", 0), end(5), events(5));
    hub.publish(&partition("a", 1), end(5));
    assert!(news.changed().now_or_never().is_none());
    assert_eq!(hub.held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tail_lives_as_long_as_somebody_follows() {
    let hub = Hub::new();
    let one = hub.follow(&partition("a", 0));
    hub.appended(&partition("a", 0), end(5), events(2));
    assert_eq!(one.tail.held(), [4, 5]);
    let other = hub.follow(&partition("a", 0));
    drop(one);
    assert_eq!(other.tail.held(), [4, 5]);
    assert!(hub.held().1 > 0);
    drop(other);
    assert_eq!(hub.held(), (0, 0));
    // The next begins with nothing.
    let anew = hub.follow(&partition("a", 0));
    assert_eq!(anew.tail.held(), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn logs_that_are_followed_and_written_elsewhere_are_counted() {
    let hub = Hub::new();
    let foreign = hub.foreign();
    let counted = || *foreign.borrow();
    let here = hub.write(&partition("a", 0));
    let own = [0, 0].map(|number| hub.follow(&partition("a", number)));
    assert_eq!(counted(), 0);
    let others = [1, 1, 2].map(|number| hub.follow(&partition("a", number)));
    assert_eq!(counted(), 2);
    let gained = hub.write(&partition("a", 1));
    assert_eq!(counted(), 1);
    drop(here);
    assert_eq!(counted(), 2);
    drop(own);
    assert_eq!(counted(), 1);
    drop(gained);
    drop(others);
    assert_eq!(counted(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_a_log_looks_at_it_once_when_its_writer_comes() {
    let hub = Hub::new();
    let _followed = hub.follow(&partition("a", 0));
    let mut news = hub.watch(&TenantId::new("a"));
    let _written = hub.write(&partition("a", 0));
    news.changed().now_or_never().unwrap();
}
