//! A whole life of a gateway, with everything in it that has a secret, and then a search for each of these secrets in
//! all that can be read from outside: the store, the logs, the answers, the metrics, and what a panic prints.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers outside of test functions; a test ends at the first thing that is not as it should be"
)]

#[path = "support/control.rs"]
mod control;
#[path = "secrets/issuer.rs"]
mod issuer;
#[path = "secrets/life.rs"]
mod life;
#[path = "secrets/needles.rs"]
mod needles;
#[path = "secrets/panics.rs"]
mod panics;
#[path = "secrets/places.rs"]
mod places;
#[path = "support/program.rs"]
mod program;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "secrets/world.rs"]
mod world;

use needles::Needles;
use places::Place;
use world::{StoreChoice, World};

/// Lives, ends, and is searched.
async fn search(store: StoreChoice) {
    let mut world = World::start(store).await;
    world.start_gateway().await;
    life::first_half(&mut world).await;
    world.stop_gateway().await;
    // The second process comes back by what the first one has stored.
    world.start_gateway().await;
    life::second_half(&mut world).await;
    world.stop_gateway().await;

    let places = world.places().await;
    let needles = Needles::of(&world.secrets().await);
    for place in &places {
        let found = needles.find(&place.bytes);
        assert!(found.is_empty(), "{}: {found:?}", place.name);
    }
    check_the_search(&places, &needles);
}

/// The search finds every secret in every form in every place: with one planted, it fails.
fn check_the_search(places: &[Place], needles: &Needles) {
    assert!(needles.len() > 100, "{}", needles.len());
    for place in places {
        assert!(!place.bytes.is_empty(), "{} is empty", place.name);
    }
    for (number, (name, form)) in needles.all().enumerate() {
        let place = &places[number % places.len()];
        let near = &place.bytes[..place.bytes.len().min(2000)];
        let middle = near.len() / 2;
        let planted = [&near[..middle], form, &near[middle..]].concat();
        let found = needles.find(&planted);
        assert!(
            found.contains(&name),
            "{name} is not found in {}",
            place.name
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_to_be_seen_with_the_embedded_store() {
    search(StoreChoice::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_to_be_seen_with_redis() {
    search(StoreChoice::Redis).await;
}
