//! What a subscriber is told when the store has lost something, or cannot give it.

use super::*;

async fn numbered(world: &World, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        world.add(0, &[&number.to_string()]).await;
    }
}

/// The cursor behind the entry with this number.
async fn cursor_at(world: &World, number: usize) -> String {
    let mut reader = world
        .open_with(SubscribeOptions {
            max_batch: number,
            ..options(Start::Earliest)
        })
        .await;
    let (got, cursor) = next(&mut reader).await;
    assert_eq!(got.len(), number);
    cursor
}

#[tokio::test(start_paused = true)]
async fn what_the_store_lost_is_a_gap_for_those_who_had_not_seen_it() {
    let world = world(1);
    numbered(&world, 1..=10).await;
    let (at_3, at_8) = (cursor_at(&world, 3).await, cursor_at(&world, 8).await);
    let mut live = world.open(Start::Cursor(cursor_at(&world, 10).await)).await;
    assert!(live.next().now_or_never().is_none());
    world.store.lose_newest(&partition(0), 4);
    let mut ahead = world.resume(&at_8).await;
    let mut behind = world.resume(&at_3).await;
    assert_eq!(texts(&mut behind).await, ["4", "5", "6"]);
    // Whoever is ahead of the log waits, and so does who looks again.
    for live in [&mut live, &mut ahead, &mut behind] {
        assert_eq!(all(live).await, Vec::<String>::new());
        assert!(live.next().now_or_never().is_none());
    }
    // The owner lives, and leaves the numbers out.
    world.add(0, &["11"]).await;
    assert_eq!(all(&mut live).await, ["11"]);
    assert_eq!(all(&mut ahead).await, ["gap LOG_RESET 9-10 2", "11"]);
    assert_eq!(all(&mut behind).await, ["gap LOG_RESET 7-10 4", "11"]);
    let mut resumed = world.resume(&at_3).await;
    let expected = ["4", "5", "6", "gap LOG_RESET 7-10 4", "11"];
    assert_eq!(all(&mut resumed).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_ahead_of_the_log_can_be_acknowledged_and_resumed() {
    let world = world(1);
    numbered(&world, 1..=5).await;
    let at_5 = cursor_at(&world, 5).await;
    world.open(Start::Named("s".into())).await;
    world.store.lose_newest(&partition(0), 2);
    world.acknowledge("s", &at_5).await.unwrap();
    let mut resumed = world.resume(&at_5).await;
    let mut named = world.open(Start::Named("s".into())).await;
    world.add(0, &["6"]).await;
    assert_eq!(all(&mut resumed).await, ["6"]);
    assert_eq!(all(&mut named).await, ["6"]);
}

#[tokio::test(start_paused = true)]
async fn numbers_that_were_given_out_again_are_a_gap() {
    let world = world(1);
    numbered(&world, 1..=10).await;
    let at_10 = cursor_at(&world, 10).await;
    let mut live = world.resume(&at_10).await;
    assert!(live.next().now_or_never().is_none());
    // The owner is gone together with the newest entries.
    world.store.lose_newest(&partition(0), 4);
    world.change_owners();
    world.add(0, &["7'"]).await;
    assert!(live.next().now_or_never().is_none());
    world.add(0, &["8'"]).await;
    assert_eq!(all(&mut live).await, ["gap LOG_RESET 0-7 0", "8'"]);
    for text in ["9'", "10'", "11'"] {
        world.add(0, &[text]).await;
    }
    // All at once, past the place where the reader stood.
    let mut resumed = world.resume(&at_10).await;
    assert_eq!(all(&mut resumed).await, ["gap LOG_RESET 0-10 0", "11'"]);
    assert_eq!(all(&mut live).await, ["9'", "10'", "11'"]);
    // The cursor behind it is good again.
    let (_, cursor) = next(&mut resumed).await;
    world.add(0, &["12'"]).await;
    assert_eq!(all(&mut world.resume(&cursor).await).await, ["12'"]);
}

#[tokio::test(start_paused = true)]
async fn numbers_that_were_given_out_again_elsewhere_are_found_at_a_heartbeat() {
    let world = world(1);
    numbered(&world, 1..=10).await;
    let mut live = world.resume(&cursor_at(&world, 10).await).await;
    assert!(live.next().now_or_never().is_none());
    world.store.lose_newest(&partition(0), 4);
    world.change_owners();
    // Numbers that are known already look like old news.
    world.add_elsewhere(0, &["7'", "8'"]).await;
    for _ in 0..2 {
        assert_eq!(all(&mut live).await, Vec::<String>::new());
    }
    world.add_elsewhere(0, &["9'"]).await;
    assert_eq!(all(&mut live).await, ["gap LOG_RESET 0-8 0", "9'"]);
    world.add_elsewhere(0, &["10'"]).await;
    assert_eq!(all(&mut live).await, ["10'"]);
}

#[tokio::test(start_paused = true)]
async fn numbers_that_were_given_out_again_at_once_are_a_gap_for_live_ones() {
    let world = world(1);
    numbered(&world, 1..=10).await;
    let mut live = world.resume(&cursor_at(&world, 10).await).await;
    assert!(live.next().now_or_never().is_none());
    world.store.lose_newest(&partition(0), 4);
    world.change_owners();
    world.add(0, &["7'", "8'", "9'", "10'"]).await;
    assert_eq!(all(&mut live).await, ["gap LOG_RESET 0-10 0"]);
    world.add(0, &["11'"]).await;
    assert_eq!(all(&mut live).await, ["11'"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_lost_whole_goes_on_for_who_had_seen_it() {
    let world = world(1);
    numbered(&world, 1..=5).await;
    let (at_3, at_5) = (cursor_at(&world, 3).await, cursor_at(&world, 5).await);
    let mut live = world.resume(&at_5).await;
    assert!(live.next().now_or_never().is_none());
    world.store.lose_data();
    assert_eq!(all(&mut live).await, Vec::<String>::new());
    let mut resumed = world.resume(&at_5).await;
    assert_eq!(all(&mut resumed).await, Vec::<String>::new());
    world.add(0, &["6"]).await;
    assert_eq!(all(&mut live).await, ["6"]);
    assert_eq!(all(&mut resumed).await, ["6"]);
    // Who had not seen it is told; who begins with what there is does not ask for it.
    let mut behind = world.resume(&at_3).await;
    assert_eq!(all(&mut behind).await, ["gap LOG_RESET 4-5 2", "6"]);
    let mut earliest = world.open(Start::Earliest).await;
    assert_eq!(all(&mut earliest).await, ["6"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_sealed_is_opened_and_what_does_not_open_is_a_gap() {
    let world = world(1);
    let encoded = |text| message("bot1", text).encode_to_vec();
    let sealed = |seed, text| payload::wrap(&sealer(seed), &tenant(), &encoded(text)).unwrap();
    let payloads = [encoded("a"), sealed(1, "b"), sealed(2, "c"), sealed(1, "d")];
    world.append(0, &payloads).await;
    let expected = ["a", "b", "gap CORRUPT 3-3 1", "d"];
    let mut own = world.open(Start::Earliest).await;
    assert_eq!(all(&mut own).await, expected);
    // By the tail as well.
    let end = world.append(0, &payloads).await;
    world.hub.publish(&partition(0), end);
    let expected = ["a", "b", "gap CORRUPT 7-7 1", "d"];
    assert_eq!(all(&mut own).await, expected);
    // The writer's own events are not sealed on their way here.
    let end = world.append(0, &[sealed(1, "e")]).await;
    world.hub.appended(&partition(0), end, vec![encoded("e")]);
    let reads = world.store.reads();
    assert_eq!(texts(&mut own).await, ["e"]);
    assert_eq!(world.store.reads(), reads);
}
