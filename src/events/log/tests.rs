//! The writer on paused time.

use std::pin::pin;

use futures_util::FutureExt as _;
use prost::Message as _;
use tokio::time::Instant;

use super::*;
use crate::events::listeners::News;
use crate::events::testing::{self, lease, message, partition};
use crate::proto::v1;
use crate::store::memory::MemoryStore;
use crate::store::{Claim, LogEntry};

mod losses;
mod retention;
mod sealing;

struct World {
    store: Arc<MemoryStore>,
    lease: watch::Sender<Option<Lease>>,
    hub: Hub,
    fenced: mpsc::Receiver<PartitionId>,
    tasks: Tasks,
    writer: LogWriter,
}

async fn world(options: LogOptions) -> World {
    world_on(Arc::new(MemoryStore::new()), options).await
}

async fn world_on(store: Arc<MemoryStore>, options: LogOptions) -> World {
    let (lease, seen) = watch::channel(Some(lease(&store, &partition(0)).await));
    let (fenced, told) = mpsc::channel(4);
    let (hub, tasks) = (Hub::new(), Tasks::new());
    let writer = LogWriter::start(
        partition(0),
        store.clone(),
        seen,
        hub.clone(),
        fenced,
        options,
        &tasks,
    );
    World {
        store,
        lease,
        hub,
        fenced: told,
        tasks,
        writer,
    }
}

impl World {
    fn push(&self, text: &str) -> oneshot::Receiver<Result<(), AppendError>> {
        let (append, done) = one(text);
        self.writer.try_append(append).unwrap();
        done
    }

    /// Appends, and waits until that is stored.
    async fn append(&self, text: &str) {
        self.push(text).await.unwrap().unwrap();
    }

    async fn entries(&self) -> Vec<LogEntry> {
        let read = self.store.read(&partition(0), 0, 9999).await.unwrap();
        read.entries
    }

    async fn sequences(&self) -> Vec<u64> {
        let entries = self.entries().await;
        entries.iter().map(|entry| entry.sequence).collect()
    }

    /// Gets another lease where the store has forgotten the one there was, as who keeps the leases does.
    async fn claim_again(&self) {
        let held = self.lease.borrow().clone().unwrap();
        let ttl = Duration::from_secs(3600);
        let claim = self
            .store
            .claim(&partition(0), &held.owner, ttl, Some(held.epoch))
            .await;
        let Ok(Claim::Granted(newer)) = claim else {
            panic!("no lease: {claim:?}")
        };
        self.lease.send_replace(Some(newer));
    }

    async fn record(&self) -> Vec<u8> {
        let account = AccountId::new("bot1");
        let record = self.store.session(&partition(0), &account).await;
        record.unwrap().unwrap()
    }

    async fn texts(&self) -> Vec<String> {
        let entries = self.entries().await;
        let events = entries
            .iter()
            .map(|entry| v1::Event::decode(entry.payload.as_slice()).unwrap());
        events
            .map(|event| testing::gist(&testing::encoded(&event)))
            .collect()
    }
}

fn one(text: &str) -> (Append, oneshot::Receiver<Result<(), AppendError>>) {
    let (done, outcome) = oneshot::channel();
    let append = Append {
        account: AccountId::new("bot1"),
        record: Some(Record::Whole(text.as_bytes().to_vec())),
        sends: Vec::new(),
        events: vec![message("bot1", text).encode_to_vec()],
        done,
    };
    (append, outcome)
}

#[tokio::test(start_paused = true)]
async fn what_arrives_during_a_commit_is_the_next_group() {
    let world = world(LogOptions::default()).await;
    let news = News::default();
    let followed = world.hub.follow(&partition(0), [].into(), &news);
    world.store.set_hanging(true);
    let first = world.push("0");
    tokio::task::yield_now().await;
    let rest: Vec<_> = (1..=5).map(|n| world.push(&n.to_string())).collect();
    world.store.set_hanging(false);
    let began = Instant::now();
    first.await.unwrap().unwrap();
    for done in rest {
        done.await.unwrap().unwrap();
    }
    assert_eq!(world.store.commits(), [1, 5]);
    assert_eq!(began.elapsed(), Duration::ZERO, "no timer adds delay");
    assert_eq!(world.texts().await, ["0", "1", "2", "3", "4", "5"]);
    news.changed().await;
    assert_eq!(followed.tail.held(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(world.record().await, b"5");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_bounded_in_count_and_bytes() {
    let bounds = |flush_appends, flush_bytes| LogOptions {
        flush_appends,
        flush_bytes,
        ..LogOptions::default()
    };
    for (options, groups) in [
        (bounds(2, usize::MAX), vec![1, 2, 2, 1]),
        (bounds(100, 1), vec![1, 1, 1, 1, 1, 1]),
    ] {
        let world = world(options).await;
        world.store.set_hanging(true);
        let mut waiting = vec![world.push("0")];
        tokio::task::yield_now().await;
        waiting.extend((1..=5).map(|n| world.push(&n.to_string())));
        world.store.set_hanging(false);
        for done in waiting {
            done.await.unwrap().unwrap();
        }
        assert_eq!(world.store.commits(), groups);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_or_full_is_waited_for() {
    let world = world(LogOptions::default()).await;
    world.store.set_available(false);
    let mut done = world.push("a");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!((&mut done).now_or_never().is_none());
    world.store.set_available(true);
    world.store.set_full(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((&mut done).now_or_never().is_none());
    world.store.set_full(false);
    let back = Instant::now();
    done.await.unwrap().unwrap();
    assert!(
        back.elapsed() <= Duration::from_secs(2),
        "the pause is capped"
    );
    assert_eq!(world.texts().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_serves_what_it_took() {
    let options = LogOptions {
        queue: 2,
        ..LogOptions::default()
    };
    let world = world(options).await;
    world.store.set_available(false);
    let mut waiting = vec![world.push("0")];
    // Let the writer take the first; then the queue holds two more.
    tokio::task::yield_now().await;
    waiting.extend([world.push("1"), world.push("2")]);
    let (append, done) = one("3");
    let refused = world.writer.try_append(append).unwrap_err();
    assert_eq!(refused.error, AppendError::Full);
    drop(refused);
    assert!(done.await.is_err());
    world.store.set_available(true);
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    assert_eq!(world.texts().await, ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_full_of_few_large_appends_as_well() {
    let options = LogOptions {
        queue_bytes: 100,
        ..LogOptions::default()
    };
    let world = world(options).await;
    world.store.set_available(false);
    let large = |letter: &str| letter.repeat(1000);
    // The writer takes it out of the queue, which it fills alone.
    let mut waiting = vec![world.push(&large("0"))];
    tokio::task::yield_now().await;
    waiting.extend([world.push("1"), world.push("2")]);
    let (append, done) = one(&large("3"));
    let refused = world.writer.try_append(append).unwrap_err();
    assert_eq!(refused.error, AppendError::Full);
    waiting.push(done);
    let writer = world.writer.clone();
    let mut handing_over = pin!(writer.append(*refused.append));
    assert!(handing_over.as_mut().now_or_never().is_none());
    // It is not overtaken.
    let (append, _done) = one("4");
    let refused = world.writer.try_append(append).unwrap_err();
    assert_eq!(refused.error, AppendError::Full);
    world.store.set_available(true);
    handing_over.await;
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    let expected = [large("0"), "1".into(), "2".into(), large("3")];
    assert_eq!(world.texts().await, expected);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_of_the_stop() {
    let options = LogOptions {
        queue_bytes: 100,
        ..LogOptions::default()
    };
    let world = world(options).await;
    world.store.set_available(false);
    let first = world.push(&"0".repeat(1000));
    tokio::task::yield_now().await;
    let queued = world.push(&"1".repeat(1000));
    let (append, waits) = one("2");
    let mut handing_over = pin!(world.writer.append(append));
    assert!(handing_over.as_mut().now_or_never().is_none());
    world.tasks.stop();
    handing_over.await;
    for done in [first, queued, waits] {
        assert_eq!(done.await.unwrap(), Err(AppendError::Stopping));
    }
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_hold_that_has_ended_is_not_written_in_the_next() {
    let world = world(LogOptions::default()).await;
    world.store.set_available(false);
    let waiting = [world.push("a"), world.push("b")];
    tokio::time::sleep(Duration::from_secs(60)).await;
    let lease = world.lease.send_replace(None);
    for done in waiting {
        assert_eq!(done.await.unwrap(), Err(AppendError::Fenced));
    }
    world.store.set_available(true);
    world.lease.send_replace(lease);
    world.push("c").await.unwrap().unwrap();
    assert_eq!(world.texts().await, ["c"]);
    assert!(world.writer.accepts().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refused_lease_fails_its_appends_and_is_reported_once() {
    let mut world = world(LogOptions::default()).await;
    let newer = lease(&world.store, &partition(0)).await;
    let refused = world.push("a");
    assert_eq!(world.fenced.recv().await, Some(partition(0)));
    // Whoever keeps the lease finds that it is lost.
    world.lease.send_replace(None);
    assert_eq!(refused.await.unwrap(), Err(AppendError::Fenced));
    assert!(world.fenced.try_recv().is_err());
    assert!(world.texts().await.is_empty());
    // A later lease sets it going again.
    world.lease.send_replace(Some(newer));
    world.push("c").await.unwrap().unwrap();
    assert_eq!(world.texts().await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_store_forgot_is_written_under_a_new_lease() {
    let mut world = world(LogOptions::default()).await;
    world.push("a").await.unwrap().unwrap();
    world.store.lose_data();
    let waiting = world.push("b");
    assert_eq!(world.fenced.recv().await, Some(partition(0)));
    // Whoever keeps the lease gets another, and nothing is lost.
    world.claim_again().await;
    waiting.await.unwrap().unwrap();
    assert_eq!(world.texts().await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_store_fails_the_group_and_no_other() {
    let world = world(LogOptions::default()).await;
    world.store.set_corrupt(true);
    assert_eq!(world.push("a").await.unwrap(), Err(AppendError::Corrupt));
    world.store.set_corrupt(false);
    world.push("b").await.unwrap().unwrap();
    assert_eq!(world.texts().await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_writes_what_is_queued() {
    let world = world(LogOptions::default()).await;
    world.store.set_hanging(true);
    let waiting: Vec<_> = (0..3).map(|n| world.push(&n.to_string())).collect();
    world.tasks.stop();
    tokio::task::yield_now().await;
    world.store.set_hanging(false);
    world.tasks.ended().await;
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    let (append, _done) = one("late");
    let refused = world.writer.try_append(append).unwrap_err();
    assert_eq!(refused.error, AppendError::Stopping);
    let (append, done) = one("later");
    world.writer.append(append).await;
    assert_eq!(done.await.unwrap(), Err(AppendError::Stopping));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let world = world(LogOptions::default()).await;
    world.store.set_available(false);
    let mut waiting = vec![world.push("0")];
    tokio::task::yield_now().await;
    waiting.push(world.push("1"));
    let began = Instant::now();
    world.tasks.stop();
    world.tasks.ended().await;
    assert_eq!(began.elapsed(), LogOptions::default().stop_within);
    for done in waiting {
        assert_eq!(done.await.unwrap(), Err(AppendError::Stopping));
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_is_trimmed_to_what_is_retained() {
    let options = LogOptions {
        retain_events: 10,
        trim_every_events: 5,
        ..LogOptions::default()
    };
    let world = world(options).await;
    for n in 1..=20 {
        world.push(&n.to_string()).await.unwrap().unwrap();
    }
    // On paused time a moment passes when there is nothing left to do.
    let moment = Duration::from_millis(1);
    let first = async |after| {
        tokio::time::sleep(after).await;
        let bounds = world.store.log_bounds(&partition(0)).await.unwrap();
        bounds.first_sequence
    };
    assert_eq!(first(moment).await, 11);
    // What is not trimmed by count is trimmed by time.
    for n in 21..=23 {
        world.push(&n.to_string()).await.unwrap().unwrap();
    }
    assert_eq!(first(moment).await, 11);
    assert_eq!(first(Duration::from_secs(60)).await, 14);
}

#[tokio::test(start_paused = true)]
async fn a_record_alone_can_be_saved() {
    let world = world(LogOptions::default()).await;
    let (mut append, done) = one("record");
    append.events.clear();
    world.writer.append(append).await;
    done.await.unwrap().unwrap();
    assert!(world.texts().await.is_empty());
    assert_eq!(world.record().await, b"record");
}

#[tokio::test(start_paused = true)]
async fn the_writer_ends_with_its_last_handle_or_lease_keeper() {
    let world = world(LogOptions::default()).await;
    let done = world.push("a");
    drop(world.writer);
    world.tasks.ended().await;
    done.await.unwrap().unwrap();

    let world = self::world(LogOptions::default()).await;
    world.lease.send_replace(None);
    let done = world.push("a");
    drop(world.lease);
    assert_eq!(done.await.unwrap(), Err(AppendError::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_and_begins_between_two_tries_is_noticed() {
    let world = world(LogOptions::default()).await;
    for away in [true, false] {
        // The store is away, or does not answer.
        world.store.set_available(!away);
        world.store.set_hanging(!away);
        let done = world.push("stale");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let held = world.lease.send_replace(None);
        tokio::task::yield_now().await;
        world.lease.send_replace(held);
        world.store.set_available(true);
        world.store.set_hanging(false);
        assert_eq!(done.await.unwrap(), Err(AppendError::Fenced));
        world.append("new").await;
    }
    assert_eq!(world.texts().await, ["new", "new"]);
}
