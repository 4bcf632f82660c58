//! What is kept of a log, and how what is not kept goes.

use super::*;
use crate::events::testing::append;

const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_log_keeps_to_its_bytes() {
    let large = "x".repeat(1000);
    let options = LogOptions {
        retain_bytes: 2_500,
        trim_every_events: 1,
        ..LogOptions::default()
    };
    let world = world(options).await;
    for _ in 0..5 {
        world.append(&large).await;
    }
    tokio::time::sleep(MOMENT).await;
    assert_eq!(world.sequences().await, [4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_log_keeps_nothing_that_is_too_old() {
    let store = Arc::new(MemoryStore::new());
    // Appended in 1970.
    append(&store, &partition(0), &[message("bot1", "old")]).await;
    let options = LogOptions {
        retain_age: Duration::from_secs(3600),
        ..LogOptions::default()
    };
    let trim_every = options.trim_every;
    let world = world_on(store, options).await;
    world.append("new").await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(world.texts().await, ["old", "new"], "not due yet");
    tokio::time::sleep(trim_every).await;
    assert_eq!(world.texts().await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_trim_goes_on_in_steps_to_its_end() {
    let store = Arc::new(MemoryStore::new());
    // More than any store drops in one call.
    let backlog = vec![message("bot1", "old"); 5_000];
    append(&store, &partition(0), &backlog).await;
    let options = LogOptions {
        retain_events: 2,
        trim_every_events: 2,
        ..LogOptions::default()
    };
    let world = world_on(store, options).await;
    world.append("1").await;
    world.append("2").await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(world.texts().await, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_trim_that_hangs_delays_no_append() {
    let options = LogOptions {
        retain_events: 1,
        trim_every_events: 1,
        ..LogOptions::default()
    };
    let world = world(options).await;
    world.store.set_trims_hanging(true);
    let began = Instant::now();
    for n in 1..=9 {
        world.append(&n.to_string()).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(world.sequences().await.len(), 9);
    world.store.set_trims_hanging(false);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(world.sequences().await, [9]);
    world.store.set_trims_hanging(true);
    world.append("10").await;
    tokio::time::sleep(MOMENT).await;
    world.tasks.stop();
    world.tasks.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_trim_is_asked_again_later() {
    let options = LogOptions {
        retain_events: 1,
        ..LogOptions::default()
    };
    let trim_every = options.trim_every;
    let world = world(options).await;
    world.append("1").await;
    world.append("2").await;
    world.store.set_available(false);
    tokio::time::sleep(trim_every + MOMENT).await;
    world.store.set_available(true);
    assert_eq!(world.sequences().await, [1, 2]);
    tokio::time::sleep(trim_every + MOMENT).await;
    assert_eq!(world.sequences().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_trimmed_without_the_lease() {
    let options = LogOptions {
        retain_events: 1,
        ..LogOptions::default()
    };
    let trim_every = options.trim_every;
    let world = world(options).await;
    world.append("1").await;
    world.append("2").await;
    let held = world.lease.send_replace(None);
    tokio::time::sleep(2 * trim_every).await;
    assert_eq!(world.sequences().await, [1, 2]);
    world.lease.send_replace(held);
    tokio::time::sleep(2 * trim_every).await;
    assert_eq!(world.sequences().await, [2]);
}
