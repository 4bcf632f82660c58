//! What is special to Redis of what the fleet shares: a clock that jumps, a server that starts again, broken keys, and
//! keys that go by themselves.

use std::time::Duration;

use imgate::store::{KEPT_DAYS, StoreError};
use imgate::types::{AccountId, AppId, Day, TenantId};
use redis::Commands as _;

use crate::fixture::*;
use crate::redis_server::{Data, RedisServer};

const SECOND: Duration = Duration::from_secs(1);
const PACE: &str = "imgate:pace:app";
const ACTIVE: &str = "imgate:active:t:100";

fn app() -> AppId {
    AppId::new("app")
}

async fn active(store: &Shared, accounts: &[AccountId]) -> Result<u64, StoreError> {
    let tenant = TenantId::new("t");
    store.note_active(&tenant, Day(100), accounts).await
}

fn micros(server: &RedisServer) -> u64 {
    let time: (u64, u64) = redis::cmd("TIME").query(&mut server.client()).unwrap();
    time.0 * 1_000_000 + time.1
}

#[tokio::test]
async fn a_clock_that_went_back_holds_nobody_up_for_longer_than_the_look_ahead() {
    let (store, server) = redis().await;
    let later = micros(&server) + 3_600_000_000;
    let () = server.client().set(PACE, later).unwrap();
    let turns = store.take_turns(&app(), 10, 5).await.unwrap();
    // What was promised by the old clock is over by then.
    assert_eq!((turns.count, turns.begin_in), (1, SECOND));
    let next: u64 = server.client().get(PACE).unwrap();
    assert!(next < later);
    let turns = store.take_turns(&app(), 10, 5).await.unwrap();
    assert!(turns.begin_in <= SECOND, "{turns:?}");
}

#[tokio::test]
async fn a_server_that_starts_again_goes_on_giving_out_turns() {
    let (store, mut server) = redis().await;
    let first = store.take_turns(&app(), 10, 5).await.unwrap();
    assert_eq!((first.count, first.begin_in), (5, Duration::ZERO));
    for data in [Data::Kept, Data::Lost] {
        server.restart(data);
        let turns = eventually("turns are given out", || async {
            let turns = store.take_turns(&app(), 10, 1).await.ok();
            turns.filter(|turns| turns.count == 1)
        })
        .await;
        assert!(turns.begin_in <= SECOND, "{turns:?}");
    }
}

#[tokio::test]
async fn keys_that_hold_something_else_are_named() {
    let (store, server) = redis().await;
    let () = server.client().set(PACE, "soon").unwrap();
    let () = server.client().set(ACTIVE, "everybody").unwrap();
    let refused = store.take_turns(&app(), 10, 1).await.unwrap_err();
    assert!(refused.to_string().contains(PACE), "{refused}");
    let refused = active(&store, &[AccountId::new("a")]).await.unwrap_err();
    assert!(refused.to_string().contains(ACTIVE), "{refused}");
    let () = server.client().del(PACE).unwrap();
    let () = server.client().rpush(PACE, "soon").unwrap();
    let refused = store.take_turns(&app(), 10, 1).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Corrupt { place, .. } if place == PACE),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_not_needed_any_more_goes_by_itself() {
    let (store, server) = redis().await;
    store.take_turns(&app(), 10, 1).await.unwrap();
    active(&store, &[AccountId::new("a")]).await.unwrap();
    let left = |key: &str| -> i64 { server.client().ttl(key).unwrap() };
    assert!((1..=60).contains(&left(PACE)), "{}", left(PACE));
    let week = i64::from(KEPT_DAYS) * 24 * 3600;
    assert!(left(ACTIVE) > week && left(ACTIVE) < week * 2);
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = RedisServer::start_with(&["--maxmemory", "1"]);
    let store = connect(&server).await;
    let refused = store.take_turns(&app(), 10, 1).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    let refused = active(&store, &[AccountId::new("a")]).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
}
