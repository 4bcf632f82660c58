//! A tail between a writer, a store and its subscribers.

use futures_util::FutureExt as _;

use super::*;
use crate::events::listeners::News;
use crate::events::source::RETRY_MAX;
use crate::events::testing::{append, append_after, entry, message, partition, sealer};
use crate::store::memory::MemoryStore;
use crate::store::{LogId, Store as _};

struct World {
    store: Arc<MemoryStore>,
    source: Source,
    listener: Arc<Listener>,
    tail: Arc<Tail>,
}

fn world() -> World {
    let store = Arc::new(MemoryStore::new());
    let tail = Arc::new(Tail::new(partition(3), Arc::default()));
    let listener = Arc::new(Listener::new([].into(), News::default()));
    tail.join(&listener);
    World {
        source: Source {
            store: store.clone(),
            sealer: Arc::new(sealer(1)),
        },
        store,
        listener,
        tail,
    }
}

impl World {
    /// Appends events whose texts are their numbers, and answers where the log ends.
    async fn append(&self, count: usize) -> Position {
        let bounds = self.store.log_bounds(&partition(3)).await.unwrap();
        let numbers = (bounds.last_sequence + 1..).take(count);
        let events: Vec<_> = numbers
            .map(|number| message("bot", &number.to_string()))
            .collect();
        append(&self.store, &partition(3), &events).await
    }

    /// Lets the tail know where the log ends, and answers that.
    async fn anchor(&self, count: usize) -> Position {
        let end = self.append(count).await;
        let stamp = self.tail.stamp();
        let print = entry(end.sequence, &end.sequence.to_string()).print;
        let mark = Mark {
            position: end,
            print: Some(print),
        };
        self.tail.ends(mark, stamp);
        end
    }

    /// What a subscriber gets that has read on in the present generation.
    fn next(&self, after: Position) -> String {
        self.ask(after, Some(self.tail.stamp().generation), None)
    }

    fn ask(&self, after: Position, certain: Option<u64>, look: Option<Instant>) -> String {
        let ask = Ask {
            after,
            certain,
            level: false,
            look,
            limit: 100,
        };
        // What others are told is not taken from them.
        let other = Listener::new([].into(), News::default());
        let next = self.tail.next(&other, ask, |entries, _| {
            let numbers = entries.map(|entry| entry.sequence.to_string());
            numbers.collect::<Vec<_>>().join(" ")
        });
        match next {
            Next::Entries { taken, .. } => taken,
            Next::Nothing => "nothing".into(),
            Next::Fetch => "fetch".into(),
            Next::Later(_) => "later".into(),
            Next::Behind => "behind".into(),
        }
    }

    fn stirred(&self) -> bool {
        self.listener.ask() != Told::default()
    }
}

fn back(position: Position, count: u64) -> Position {
    Position {
        sequence: position.sequence - count,
        ..position
    }
}

fn entries(sequences: std::ops::RangeInclusive<u64>) -> Vec<Arc<Entry>> {
    sequences
        .map(|sequence| entry(sequence, &sequence.to_string()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn it_begins_where_a_subscriber_found_the_end() {
    let world = world();
    let end = world.append(5).await;
    assert_eq!(world.next(end), "behind");
    let stamp = world.tail.stamp();
    world.tail.ends(end.into(), stamp);
    assert_eq!(world.next(end), "nothing");
    assert_eq!(world.next(back(end, 1)), "behind");
    let other = LogId(end.log.0 ^ 1);
    assert_eq!(world.next(Position { log: other, ..end }), "behind");
    // Who has not compared its place with the store does so first.
    assert_eq!(world.ask(end, None, None), "behind");
    // Another who was slower changes nothing.
    world.tail.ends(back(end, 2).into(), stamp);
    assert_eq!(world.next(end), "nothing");
}

#[tokio::test(start_paused = true)]
async fn what_the_writer_commits_is_there_without_a_read() {
    let world = world();
    let end = world.anchor(5).await;
    assert!(!world.stirred());
    let log = |sequence| Position { sequence, ..end };
    world.tail.appended(log(7), entries(6..=7));
    assert!(world.stirred());
    assert_eq!(world.next(end), "6 7");
    assert_eq!(world.next(log(6)), "7");
    assert_eq!(world.next(log(7)), "nothing");
    assert_eq!(world.store.reads(), 0);

    // After a hole all subscribers look for themselves.
    let generation = world.tail.stamp().generation;
    world.tail.appended(log(10), entries(9..=10));
    assert_eq!(world.ask(log(7), Some(generation), None), "behind");
    assert_eq!(world.ask(log(9), Some(generation), None), "behind");
    assert_eq!(world.next(log(9)), "10");
    assert_eq!(world.next(log(7)), "behind");
    // The same in another log.
    let other = LogId(end.log.0 ^ 1);
    let new = Position {
        log: other,
        sequence: 11,
    };
    world.tail.appended(new, entries(11..=11));
    assert_eq!(world.next(log(10)), "behind");
    assert_eq!(world.next(new), "nothing");
    // And where numbers are given out again.
    let generation = world.tail.stamp().generation;
    world.tail.appended(new, vec![entry(11, "11'")]);
    assert_ne!(world.tail.stamp().generation, generation);
}

#[tokio::test(start_paused = true)]
async fn what_others_write_is_fetched_once() {
    let world = world();
    let end = world.anchor(2).await;
    let grown = world.append(3).await;
    assert_eq!(world.next(end), "nothing");
    world.tail.grown(grown);
    assert!(world.stirred());
    assert_eq!(world.next(end), "fetch");
    let (one, other) = (
        world.tail.fetch(&world.source),
        world.tail.fetch(&world.source),
    );
    one.await;
    other.await;
    assert_eq!(world.store.reads(), 1);
    assert!(world.stirred());
    assert_eq!(world.next(end), "3 4 5");
    assert_eq!(world.next(grown), "nothing");
    // Old news.
    world.tail.grown(end);
    world.tail.grown(grown);
    assert!(!world.stirred());
    assert_eq!(world.next(grown), "nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_during_a_fetch_is_fetched_after_it() {
    let world = world();
    let end = world.anchor(1).await;
    world.tail.grown(world.append(1).await);
    world.store.set_hanging(true);
    let fetch = world.tail.fetch(&world.source);
    assert!(fetch.clone().now_or_never().is_none());
    world.tail.grown(Position { sequence: 3, ..end });
    world.store.set_hanging(false);
    fetch.await;
    assert_eq!(world.next(end), "2");
    assert_eq!(world.next(Position { sequence: 2, ..end }), "fetch");
    world.tail.fetch(&world.source).await;
    assert_eq!(world.next(Position { sequence: 2, ..end }), "nothing");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_nobody_waits_for_ends() {
    let world = world();
    let end = world.anchor(1).await;
    world.tail.grown(world.append(1).await);
    world.store.set_hanging(true);
    let fetch = world.tail.fetch(&world.source);
    assert!(fetch.clone().now_or_never().is_none());
    drop(fetch);
    assert_eq!(Arc::strong_count(&world.tail), 1);
    world.store.set_hanging(false);
    assert_eq!(world.next(end), "fetch");
    world.tail.fetch(&world.source).await;
    assert_eq!(world.next(end), "2");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_overtaken_by_the_writer_changes_nothing() {
    let world = world();
    let end = world.anchor(1).await;
    let grown = world.append(1).await;
    world.tail.grown(grown);
    let fetch = world.tail.fetch(&world.source);
    world.store.set_hanging(true);
    assert!(fetch.clone().now_or_never().is_none());
    let generation = world.tail.stamp().generation;
    world.tail.appended(grown, entries(2..=2));
    world.append_later(1).await;
    fetch.await;
    assert_eq!(world.tail.stamp().generation, generation);
    assert_eq!(world.next(end), "2");
    assert_eq!(world.next(grown), "nothing");
}

impl World {
    async fn append_later(&self, count: usize) {
        self.store.set_hanging(false);
        self.append(count).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_left_alone_for_a_while() {
    let world = world();
    let end = world.anchor(1).await;
    world.tail.grown(world.append(1).await);
    world.store.set_available(false);
    for _ in 0..10 {
        world.tail.fetch(&world.source).await;
        assert_eq!(world.next(end), "later");
        tokio::time::advance(RETRY_MAX).await;
        assert_eq!(world.next(end), "fetch");
    }
    world.store.set_available(true);
    world.tail.fetch(&world.source).await;
    assert_eq!(world.next(end), "2");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_does_not_go_on_empties_it() {
    // Its end was lost, and is another one; the log is another one; there is a hole.
    for trouble in 0..4 {
        let world = world();
        let end = world.anchor(5).await;
        match trouble {
            0 => world.store.lose_newest(&partition(3), 2),
            1 => {
                world.store.lose_newest(&partition(3), 1);
                append(&world.store, &partition(3), &[message("bot", "5'")]).await;
            }
            2 => {
                world.store.lose_data();
                world.append(6).await;
            }
            _ => {
                let seen = Position { sequence: 7, ..end };
                append_after(&world.store, &partition(3), seen, &[vec![]]).await;
            }
        }
        world.tail.may_have_grown();
        assert_eq!(world.next(end), "fetch");
        let generation = world.tail.stamp().generation;
        world.tail.fetch(&world.source).await;
        assert_ne!(world.tail.stamp().generation, generation, "{trouble}");
        assert_eq!(world.next(end), "behind");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_serves_for_a_while() {
    let world = world();
    let end = world.anchor(1).await;
    let look = |after| {
        let generation = world.tail.stamp().generation;
        world.ask(after, Some(generation), Some(Instant::now()))
    };
    assert_eq!(look(end), "nothing");
    tokio::time::advance(LOOK_EVERY).await;
    assert_eq!(look(end), "fetch");
    world.tail.fetch(&world.source).await;
    assert_eq!(look(end), "nothing");
    // What the writer says is as good.
    tokio::time::advance(LOOK_EVERY).await;
    let grown = world.append(1).await;
    world.tail.appended(grown, entries(2..=2));
    assert_eq!(look(grown), "nothing");
    // Whoever is beyond its end has the tail look first, and then looks for itself.
    tokio::time::advance(LOOK_EVERY).await;
    let beyond = Position { sequence: 9, ..end };
    assert_eq!(look(beyond), "fetch");
    world.tail.fetch(&world.source).await;
    assert_eq!(look(beyond), "behind");
}

#[tokio::test(start_paused = true)]
async fn a_long_way_is_fetched_in_parts() {
    let world = world();
    let mut end = world.anchor(1).await;
    let grown = world.append(1000).await;
    world.tail.grown(grown);
    while end != grown {
        assert_eq!(world.next(end), "fetch");
        world.tail.fetch(&world.source).await;
        let ask = Ask {
            after: end,
            certain: Some(0),
            level: false,
            look: None,
            limit: u64::MAX,
        };
        let next = world
            .tail
            .next(&world.listener, ask, |entries, _| entries.count());
        let Next::Entries { taken: entries, .. } = next else {
            panic!("{next:?}");
        };
        assert!(entries <= MAX_FETCH);
        end.sequence += entries as u64;
    }
    assert_eq!(world.next(end), "nothing");
}
