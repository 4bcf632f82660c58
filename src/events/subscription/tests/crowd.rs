//! Many subscribers of one tenant: what they share, and what they do not take from each other.

use futures_util::future::join_all;

use super::*;
use crate::events::place::MAX_BATCH_BYTES;

/// Subscriptions that have found the ends of their logs.
async fn crowd(world: &World, count: usize) -> Vec<Subscription> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        crowd.push(world.open(Start::Latest).await);
    }
    quiet(&mut crowd).await;
    crowd
}

/// Each of them has dealt with all there is, and waits.
async fn quiet(crowd: &mut [Subscription]) {
    for live in crowd {
        // A task that has done much is made to pause, which is not what is waited for here.
        tokio::task::yield_now().await;
        assert!(live.next().now_or_never().is_none());
    }
}

/// What each of them gets next, all waiting at once.
async fn each(crowd: &mut [Subscription]) -> Vec<Vec<String>> {
    join_all(crowd.iter_mut().map(texts)).await
}

fn all_got(got: &[Vec<String>], expected: &[&str]) {
    assert!(got.iter().all(|texts| texts == expected), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn fifty_subscribers_of_one_writer_do_not_read_the_store() {
    let world = world(4);
    let mut crowd = crowd(&world, 50).await;
    // The first entry of a log is its beginning, which each finds for itself.
    for number in 0..4 {
        world.add(number, &["first"]).await;
        all_got(&each(&mut crowd).await, &["first"]);
    }
    let before = world.store.reads();
    for round in 0..100 {
        let text = round.to_string();
        world.add(round % 4, &[&text]).await;
        all_got(&each(&mut crowd).await, &[&text]);
    }
    assert_eq!(world.store.reads(), before);
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_writes_is_read_once_for_all() {
    let world = world(1);
    world.add_elsewhere(0, &["before"]).await;
    let mut crowd = crowd(&world, 50).await;
    for (reads, texts) in [(1, &["a"][..]), (2, &["b", "c"])] {
        let before = world.store.reads() + 1 - reads;
        world.add_elsewhere(0, texts).await;
        all_got(&each(&mut crowd).await, texts);
        assert_eq!(world.store.reads() - before, reads);
    }
    // Told late, when it is known already: nobody reads.
    let before = world.store.reads();
    let end = world.ends.lock().unwrap()[&0];
    world.hub.publish(&partition(0), end);
    world
        .hub
        .publish(&partition(0), Position { sequence: 2, ..end });
    quiet(&mut crowd).await;
    assert_eq!(world.store.reads(), before);
}

#[tokio::test(start_paused = true)]
async fn a_look_for_growth_that_nobody_told_of_is_one_for_all() {
    let world = world(2);
    let mut crowd = crowd(&world, 50).await;
    let before = world.store.reads();
    all_got(&each(&mut crowd).await, &[]);
    world.add_unheard(1, &["a"]).await;
    all_got(&each(&mut crowd).await, &["a"]);
    // One each; the log of the other had never been written to, so each looks for its beginning.
    let looks = world.store.reads() - before;
    assert!(looks <= 2 + 2 * 50, "{looks}");

    let before = world.store.reads();
    all_got(&each(&mut crowd).await, &[]);
    world.add_unheard(1, &["b"]).await;
    all_got(&each(&mut crowd).await, &["b"]);
    assert_eq!(world.store.reads() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn all_look_once_when_the_store_may_have_been_silent() {
    let world = world(2);
    world.add(0, &["before"]).await;
    world.add(1, &["before"]).await;
    let mut crowd = crowd(&world, 50).await;
    let before = world.store.reads();
    world.add_unheard(0, &["a"]).await;
    quiet(&mut crowd).await;
    world.hub.look_again();
    all_got(&each(&mut crowd).await, &["a"]);
    quiet(&mut crowd).await;
    assert_eq!(world.store.reads() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_stalls_holds_one_batch_and_delays_nobody() {
    let world = world(1);
    let mut crowd = crowd(&world, 10).await;
    let mut stalled = world.open(Start::Latest).await;
    world.add(0, &["0"]).await;
    let held = stalled.next().await.unwrap();
    assert_eq!(held.events.len(), 1);
    all_got(&each(&mut crowd).await, &["0"]);

    let (reads, text) = (world.store.reads(), "x".repeat(1000));
    let mut most = 0;
    for _ in 0..6000 {
        world.add(0, &[&text]).await;
        all_got(&each(&mut crowd).await, &[&text]);
        most = most.max(world.hub.held().1);
    }
    assert_eq!(world.store.reads(), reads, "the others read the tail");
    assert!(most < 5 * 1024 * 1024, "the tail has {most} bytes");

    // It goes on where it was: by itself, and then with the others.
    let mut missed = 0;
    while missed < 6000 {
        let batch = stalled.next().await.unwrap().events;
        let bytes: usize = batch
            .iter()
            .map(|event| event.clone().into_bytes().len())
            .sum();
        assert!((1..=100).contains(&batch.len()) && bytes <= MAX_BATCH_BYTES);
        missed += batch.len();
        let last = batch.last().unwrap().decode().unwrap().sequence;
        assert_eq!(last, missed as u64 + 1);
    }
    assert!(world.store.reads() > reads);
    let reads = world.store.reads();
    crowd.push(stalled);
    world.add(0, &["end"]).await;
    all_got(&each(&mut crowd).await, &["end"]);
    assert_eq!(world.store.reads(), reads);
}

#[tokio::test(start_paused = true)]
async fn one_that_stalls_while_it_reads_for_all_delays_nobody() {
    let world = world(1);
    world.add_elsewhere(0, &["before"]).await;
    let mut crowd = crowd(&world, 2).await;
    let mut stalled = crowd.remove(0);
    world.store.set_hanging(true);
    world.add_elsewhere_later(0, &["a"]).await;
    // The first begins to read for both; its subscriber takes a heartbeat and no more.
    assert_eq!(texts(&mut stalled).await, Vec::<String>::new());
    let mut other = crowd.remove(0);
    assert!(other.next().now_or_never().is_none());
    let reads = world.store.reads();
    world.store.set_hanging(false);
    assert_eq!(texts(&mut other).await, ["a"]);
    assert_eq!(world.store.reads() - reads, 1);
    assert_eq!(texts(&mut stalled).await, ["a"]);
    assert_eq!(world.store.reads() - reads, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_for_all_may_go() {
    let world = world(1);
    world.add_elsewhere(0, &["before"]).await;
    let mut crowd = crowd(&world, 3).await;
    world.store.set_hanging(true);
    world.add_elsewhere_later(0, &["a"]).await;
    for live in &mut crowd {
        assert!(live.next().now_or_never().is_none());
    }
    drop(crowd.remove(0));
    world.store.set_hanging(false);
    all_got(&each(&mut crowd).await, &["a"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_far_behind_catches_up_while_the_others_stay_live() {
    let world = world(1);
    let text = "x".repeat(1000);
    for _ in 0..100 {
        world.add(0, &[text.as_str(); 80]).await;
    }
    let mut crowd = crowd(&world, 20).await;
    let mut late = world.open(Start::Earliest).await;
    let (mut rounds, mut caught_up) = (0, 0);
    while caught_up < 8000 + rounds {
        rounds += 1;
        let reads = world.store.reads();
        world.add(0, &["live"]).await;
        all_got(&each(&mut crowd).await, &["live"]);
        assert_eq!(world.store.reads(), reads, "the live ones do not read");
        let batch = late.next().await.unwrap().events;
        caught_up += batch.len();
        let last = batch.last().unwrap().decode().unwrap().sequence;
        assert_eq!(last, caught_up as u64);
    }
    let reads = world.store.reads();
    for _ in 0..10 {
        world.add(0, &["live"]).await;
        assert_eq!(texts(&mut late).await, ["live"]);
        all_got(&each(&mut crowd).await, &["live"]);
    }
    assert_eq!(world.store.reads(), reads, "it has joined the others");
}

#[tokio::test(start_paused = true)]
async fn without_room_in_memory_everybody_reads_the_store() {
    let world = world_with(2, Hub::with_budget(3 * 1024));
    world.add(0, &["before"]).await;
    let mut crowd = crowd(&world, 5).await;
    for round in 0..20 {
        let text = round.to_string();
        world.add(round % 2, &[&text, "more", "and more"]).await;
        // One may come with what was read, and the rest with the next.
        for live in &mut crowd {
            let mut got = Vec::new();
            while got.len() < 3 {
                got.extend(texts(live).await);
            }
            assert_eq!(got, [&*text, "more", "and more"]);
        }
        assert!(world.hub.held().1 <= 3 * 1024);
    }
}

#[tokio::test(start_paused = true)]
async fn subscribers_that_come_and_go_leave_nothing_behind() {
    let world = world(3);
    for round in 0..200 {
        let mut crowd = crowd(&world, 5).await;
        world.add(round % 3, &["a"]).await;
        all_got(&each(&mut crowd).await, &["a"]);
        assert_eq!(world.hub.held().0, 3);
        let mut left = crowd.pop().unwrap();
        drop(crowd);
        world.store.set_hanging(true);
        world.add_elsewhere_later(round % 3, &["b"]).await;
        assert!(left.next().now_or_never().is_none());
        drop(left);
        world.store.set_hanging(false);
        assert_eq!(world.hub.held(), (0, 0));
    }
    assert_eq!(Arc::strong_count(&world.store), 2);
}

#[tokio::test(start_paused = true)]
async fn partitions_can_be_followed_and_left_under_way() {
    let world = world(3);
    for number in 0..3 {
        world.add(number, &["before"]).await;
    }
    let mut live = world.open(Start::Latest).await;
    live.places.unfollow(1);
    live.places.unfollow(1);
    world.add(1, &["a"]).await;
    world.add(2, &["b"]).await;
    assert_eq!(all(&mut live).await, ["b"]);
    // It goes on from where it is told to, and the cursor keeps what was left.
    let (_, cursor) = next(&mut live).await;
    assert_eq!(world.decode(&cursor).marks[&1].position.sequence, 1);
    let end = world.decode(&cursor).marks[&1].position;
    live.places.follow(1, end.into());
    assert_eq!(all(&mut live).await, ["a"]);
    live.places
        .follow(1, Position { sequence: 0, ..end }.into());
    assert_eq!(all(&mut live).await, ["before", "a"]);
    // What is being read when a partition is left is not delivered.
    world.store.set_hanging(true);
    live.places
        .follow(2, Position { sequence: 0, ..end }.into());
    assert!(live.next().now_or_never().is_none());
    live.places.unfollow(2);
    world.store.set_hanging(false);
    assert_eq!(all(&mut live).await, Vec::<String>::new());
    for number in 0..3 {
        live.places.unfollow(number);
    }
    assert_eq!(all(&mut live).await, Vec::<String>::new());
    assert_eq!(world.hub.held(), (0, 0));
}
