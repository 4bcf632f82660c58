//! A store that is slow, and one that is away, while much is pushed.

use super::*;

/// Pushes that come at once.
const CROWD: u32 = 60;
/// The text of each. The pipe to the session holds eight, and the session takes eight together.
const TEXT: usize = 8 * 1024;

/// How many of the crowd the session takes within five seconds.
async fn taken(world: &World) -> u32 {
    let text = "x".repeat(TEXT);
    for random in 1..=CROWD {
        world.push_text(random, &text);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.upstream.pushed.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_holds_the_upstream_back() {
    let mut world = World::new().await;
    world.log_in().await;
    let (before, pages) = (world.events().await, &world.upstream.pages);
    let fetched = pages.load(Ordering::SeqCst);
    world.store.set_hanging(true);
    let taken = taken(&world).await;
    assert!(taken < CROWD * 2 / 3, "{taken}");
    world.store.set_hanging(false);
    for _ in 0..CROWD {
        world.acks.recv().await.expect(ALL);
    }
    assert_eq!(world.events().await, before + CROWD as usize);
    // Nothing was left out, or it would be fetched.
    assert_eq!(pages.load(Ordering::SeqCst), fetched);
    assert_eq!(world.session().state(), v1::SessionState::Online);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_does_not() {
    let world = World::new().await;
    world.log_in().await;
    world.store.set_available(false);
    assert_eq!(taken(&world).await, CROWD);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_behind_the_crowd_is_found_in_time() {
    let world = World::new().await;
    world.log_in().await;
    world.store.set_hanging(true);
    assert!(taken(&world).await < CROWD);
    let key = World::key();
    let asking = world.gateway.invoke(&key, "any.thing".into(), "{}".into());
    assert!(asking.await.is_ok());
    assert_eq!(world.upstream.dials.load(Ordering::SeqCst), 1);
}
