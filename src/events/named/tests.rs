//! Named subscriptions over a store in memory.

use super::*;
use crate::error::{Classified as _, ErrorKind};
use crate::events::hub::Hub;
use crate::events::service::{Events, Start, SubscribeOptions, SubscriptionStatus};
use crate::events::subscription::Subscription;
use crate::events::testing::{self, append, gist, lease, message, partition, tenant};
use crate::store::Batch;
use crate::store::Retention;
use crate::store::memory::MemoryStore;
use crate::types::MemberId;

const LIMIT: usize = 3;

struct World {
    store: Arc<MemoryStore>,
    events: Events,
}

fn world() -> World {
    let store = Arc::new(MemoryStore::new());
    World {
        events: testing::events(store.clone(), &Hub::new(), &Tasks::new()),
        store,
    }
}

fn logs() -> TenantLogs {
    TenantLogs {
        tenant: tenant(),
        partitions: 2,
        max_subscriptions: LIMIT,
    }
}

fn at(log: LogId, sequence: u64) -> Position {
    Position { log, sequence }
}

impl World {
    async fn open(&self, name: &str) -> Result<Subscription, EventsError> {
        let options = SubscribeOptions {
            start: Start::Named(name.into()),
            accounts: std::collections::HashSet::new(),
            kinds: Vec::new(),
            max_batch: 100,
            heartbeat: Duration::from_secs(15),
        };
        self.events.subscribe(&logs(), options).await
    }

    async fn add(&self, number: u16, count: usize) -> Position {
        let events = vec![message("bot", "x"); count];
        append(&self.store, &partition(number), &events).await
    }

    async fn add_at(&self, number: u16, now: u64) -> Position {
        let lease = lease(&self.store, &partition(number)).await;
        let batch = Batch {
            now: UnixMillis(now),
            events: vec![b"x".to_vec()],
            ..Batch::default()
        };
        let done = self.store.commit(&lease, &batch).await.unwrap();
        at(done.log, done.last_sequence)
    }

    async fn keep_newest(&self, number: u16, events: u64) {
        let lease = lease(&self.store, &partition(number)).await;
        let retention = Retention {
            events,
            bytes: u64::MAX,
            since: UnixMillis(0),
        };
        self.store.trim(&lease, &retention).await.unwrap();
    }

    /// Puts a subscription somewhere as if it had been used last at `used_at`.
    async fn put(&self, number: u16, name: &str, position: Position, used_at: u64) {
        let (partition, used_at) = (partition(number), UnixMillis(used_at));
        let put = self
            .store
            .advance_subscription(&partition, name, &position, used_at, false);
        put.await.unwrap();
    }

    /// Forgets a subscription in one partition alone.
    async fn forget(&self, number: u16, name: &str) {
        let partition = partition(number);
        let forgotten = self.store.remove_subscription(&partition, name, None);
        assert!(forgotten.await.unwrap());
    }

    async fn stored(&self, number: u16, name: &str) -> Option<Position> {
        self.store
            .subscription(&partition(number), name)
            .await
            .unwrap()
    }

    async fn list(&self) -> Vec<SubscriptionStatus> {
        self.events.subscriptions(&logs()).await.unwrap()
    }

    /// The lag of the only subscription, and when its oldest event was appended.
    async fn lag(&self) -> (u64, Option<u64>) {
        let list = self.list().await;
        let [only] = list.as_slice() else {
            panic!("{list:?}")
        };
        (only.lag_events, only.oldest_pending_at.map(|at| at.0))
    }

    async fn delete(&self, name: &str) -> Result<(), EventsError> {
        self.events.delete_subscription(&logs(), name).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_is_in_order_and_adds_up_all_partitions() {
    let world = world();
    assert_eq!(world.list().await, []);
    let first = world.add_at(0, 10).await;
    world.add_at(0, 11).await;
    let other = world.add_at(1, 5).await;
    world.add_at(1, 12).await;
    world.put(0, "b", first, 300).await;
    world.put(1, "b", other, 200).await;
    world.put(1, "a", at(other.log, 2), 100).await;
    let dead = MemberId::new("m");
    let ttl = Some(Duration::from_secs(10));
    world
        .store
        .attend(&tenant(), "b", &dead, ttl)
        .await
        .unwrap();
    let expected = |name: &str, lag_events, oldest, used_at, members| SubscriptionStatus {
        name: name.into(),
        lag_events,
        oldest_pending_at: oldest,
        last_used_at: UnixMillis(used_at),
        members,
    };
    let list = [
        expected("a", 0, None, 100, 0),
        expected("b", 2, Some(UnixMillis(11)), 300, 1),
    ];
    assert_eq!(world.list().await, list);
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_what_a_reader_would_get() {
    // Nothing was ever written: nothing lags.
    let world = world();
    world.put(0, "s", Position::default(), 1).await;
    assert_eq!(world.lag().await, (0, None));
    // A position before the first log reads it from its beginning.
    for now in 1..=10 {
        world.add_at(0, now).await;
    }
    assert_eq!(world.lag().await, (10, Some(1)));
    // What was trimmed is not pending any more.
    world.keep_newest(0, 4).await;
    assert_eq!(world.lag().await, (4, Some(7)));
    let end = world.add_at(0, 11).await;
    world.put(0, "s", at(end.log, 9), 1).await;
    assert_eq!(world.lag().await, (2, Some(10)));
    world.put(0, "s", end, 1).await;
    assert_eq!(world.lag().await, (0, None));
    world.keep_newest(0, 0).await;
    assert_eq!(world.lag().await, (0, None));
    // The log lost its newest entries: there is nothing behind a position that is ahead of it.
    world.add_at(0, 12).await;
    world.add_at(0, 13).await;
    world.put(0, "s", at(end.log, 13), 1).await;
    world.store.lose_newest(&partition(0), 2);
    assert_eq!(world.lag().await, (0, None));
}

#[tokio::test(start_paused = true)]
async fn another_log_lags_as_a_whole() {
    let world = world();
    let lost = world.add(0, 7).await;
    world.store.lose_data();
    world.add_at(0, 3).await;
    world.add_at(0, 4).await;
    // Of the old log: the store does not take it unless there is none.
    world.put(0, "s", lost, 1).await;
    assert_eq!(world.stored(0, "s").await, Some(lost));
    assert_eq!(world.lag().await, (2, Some(3)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_deleted_everywhere_and_begins_anew_at_latest() {
    let world = world();
    let unknown = world.delete("s").await.unwrap_err();
    assert_eq!(
        (unknown.reason(), unknown.kind()),
        ("UNKNOWN_SUBSCRIPTION", ErrorKind::NotFound)
    );
    drop(world.open("s").await.unwrap());
    world.open("t").await.unwrap();
    world.add(0, 3).await;
    world.delete("s").await.unwrap();
    assert_eq!(
        (world.stored(0, "s").await, world.stored(1, "s").await),
        (None, None)
    );
    assert!(world.stored(0, "t").await.is_some());
    assert_eq!(
        world.delete("s").await.unwrap_err().reason(),
        "UNKNOWN_SUBSCRIPTION"
    );
    world.open("s").await.unwrap();
    assert_eq!(world.list().await[0].lag_events, 0);
    // One that is left in one partition only, as after a deletion that was broken off, is there to be deleted.
    world.forget(0, "s").await;
    world.delete("s").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_whose_making_was_broken_off_is_completed() {
    let world = world();
    world.add(0, 2).await;
    let end = world.add(1, 2).await;
    world.put(1, "s", at(end.log, 1), 1).await;
    let mut stream = world.open("s").await.unwrap();
    assert_eq!(world.stored(0, "s").await.unwrap().sequence, 2);
    assert_eq!(world.stored(1, "s").await.unwrap().sequence, 1);
    assert_eq!(stream.next().await.unwrap().events, []);
    let batch = stream.next().await.unwrap().events;
    assert_eq!(batch.iter().map(gist).collect::<Vec<_>>(), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_does_not_bring_back_what_is_being_deleted() {
    let world = world();
    let mut stream = world.open("s").await.unwrap();
    world.add(0, 1).await;
    world.add(1, 1).await;
    let mut cursor = String::new();
    for _ in 0..3 {
        cursor = stream.next().await.unwrap().cursor;
    }
    // The deletion has come to one of the two partitions.
    world.forget(0, "s").await;
    let acknowledge = async || world.events.acknowledge(&logs(), "s", &cursor).await;
    acknowledge().await.unwrap();
    assert_eq!(world.stored(0, "s").await, None);
    assert_eq!(world.stored(1, "s").await.unwrap().sequence, 1);
    world.forget(1, "s").await;
    let refused = acknowledge().await.unwrap_err();
    assert_eq!(refused.reason(), "UNKNOWN_SUBSCRIPTION");
    assert_eq!(world.stored(1, "s").await, None);
}

#[tokio::test(start_paused = true)]
async fn one_more_than_the_limit_is_refused_and_says_what_to_do() {
    let world = world();
    for name in ["a", "b", "c"] {
        world.open(name).await.unwrap();
    }
    let refused = world.open("d").await.unwrap_err();
    assert_eq!(
        (refused.reason(), refused.kind()),
        ("SUBSCRIPTIONS", ErrorKind::Exhausted)
    );
    let text = refused.public_text();
    for word in ["limit of 3", "DeleteSubscription", "limits.subscriptions"] {
        assert!(text.contains(word), "{text}");
    }
    // Those that there are can be read, and one in a single partition counts as one.
    world.open("a").await.unwrap();
    world.delete("a").await.unwrap();
    world.put(1, "half", Position::default(), 1).await;
    assert_eq!(world.open("d").await.unwrap_err().reason(), "SUBSCRIPTIONS");
    world.open("half").await.unwrap();
    world.delete("half").await.unwrap();
    world.open("d").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_its_subscription_in_use_and_moves_nothing() {
    let world = world();
    let end = world.add(0, 3).await;
    let stood = at(end.log, 1);
    let used = async || world.list().await[0].last_used_at;
    world.put(0, "s", stood, 1).await;
    world.put(1, "s", Position::default(), 1).await;
    let stream = world.open("s").await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(NOTE_USE_EVERY + Duration::from_secs(1)).await;
        assert!(used().await > UnixMillis(1));
        assert_eq!(world.stored(0, "s").await, Some(stood));
        // As if it had not been used since.
        world.forget(0, "s").await;
        world.forget(1, "s").await;
        world.put(0, "s", stood, 1).await;
        world.put(1, "s", Position::default(), 1).await;
        assert_eq!(used().await, UnixMillis(1));
    }
    // An acknowledgement meanwhile is not undone.
    world.put(0, "s", end, 1).await;
    tokio::time::sleep(NOTE_USE_EVERY + Duration::from_secs(1)).await;
    assert_eq!(world.stored(0, "s").await, Some(end));
    drop(stream);
    world.delete("s").await.unwrap();
    world.put(0, "s", stood, 1).await;
    tokio::time::sleep(3 * NOTE_USE_EVERY).await;
    assert_eq!(used().await, UnixMillis(1));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_comes_back_under_its_stream_when_the_store_lost_it_and_not_when_it_was_deleted()
 {
    let world = world();
    let lost = world.add(0, 3).await;
    let _stream = world.open("s").await.unwrap();
    world.delete("s").await.unwrap();
    tokio::time::sleep(3 * NOTE_USE_EVERY).await;
    // Neither does the first log of a partition look like a loss.
    world.add(1, 1).await;
    tokio::time::sleep(3 * NOTE_USE_EVERY).await;
    assert_eq!(world.list().await, []);

    let _stream = world.open("t").await.unwrap();
    world.store.lose_data();
    world.add(0, 2).await;
    tokio::time::sleep(NOTE_USE_EVERY).await;
    assert_eq!(world.stored(0, "t").await, Some(lost));
    // Who comes later is told of the loss and gets what came since.
    let mut late = world.open("t").await.unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        let batch = late.next().await.unwrap().events;
        got.extend(batch.iter().map(gist));
    }
    assert_eq!(got, ["gap LOG_RESET 4-0 0", "x", "x"]);
    // What was deleted before the loss stays so.
    assert_eq!(world.list().await.len(), 1);
}
