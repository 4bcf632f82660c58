//! The contract's part on what the fleet shares: turns at an app, and who was active on a day.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::store::KEPT_DAYS;
use imgate::store::turns::LOOK_AHEAD;
use imgate::types::{AccountId, AppId, Day, TenantId};
use tokio::time::Instant;

use crate::fixture::*;

/// So few that a busy machine does not get through them faster than it is asked to look.
const PER_SECOND: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(50);

fn app(name: &str) -> AppId {
    AppId::new(name)
}

/// Takes turns, and answers when each is at the latest.
async fn take(store: &Shared, name: &str, most: u32) -> Vec<Instant> {
    let turns = store.take_turns(&app(name), PER_SECOND, most).await;
    let turns = turns.unwrap();
    let begin = Instant::now() + turns.begin_in;
    assert!(turns.count <= most);
    assert_eq!(turns.interval, INTERVAL);
    (0..turns.count)
        .map(|n| begin + turns.interval * n)
        .collect()
}

pub(crate) async fn two_callers_together_get_the_rate_and_not_twice_the_rate(store: Shared) {
    let start = Instant::now();
    let caller = || async {
        let mut turns = Vec::new();
        while turns.len() < 30 {
            let got = take(&store, "shared", 4).await;
            if let Some(last) = got.last() {
                tokio::time::sleep_until(*last).await;
            } else {
                tokio::time::sleep(INTERVAL).await;
            }
            turns.extend(got);
        }
        turns
    };
    let (one, other) = tokio::join!(caller(), caller());
    let mut all = [one, other].concat();
    all.sort_unstable();
    for (number, turn) in (0..).zip(all) {
        let earliest = start + INTERVAL * number;
        assert!(turn >= earliest, "turn {number} comes too early");
    }
}

pub(crate) async fn many_at_once_get_different_turns(store: Shared) {
    let start = Instant::now();
    let takes = (0..12).map(|_| take(&store, "crowd", 1));
    let mut all = join_all(takes).await.concat();
    all.sort_unstable();
    assert_eq!(all.len(), 12);
    for (number, turn) in (0..).zip(all) {
        assert!(turn >= start + INTERVAL * number, "turn {number}");
    }
}

pub(crate) async fn no_more_than_a_seconds_turns_are_promised(store: Shared) {
    let start = Instant::now();
    let all = take(&store, "greedy", 10_000).await;
    let waiting = loop {
        let turns = store.take_turns(&app("greedy"), PER_SECOND, 10_000).await;
        let turns = turns.unwrap();
        if turns.count == 0 {
            break turns.begin_in;
        }
        // The clock has gone on since.
        assert!(start.elapsed() < DEADLINE);
    };
    assert_eq!(all.len() as u32, PER_SECOND + 1);
    let last = *all.last().unwrap();
    assert!(last <= Instant::now() + LOOK_AHEAD + INTERVAL);
    assert!(waiting <= INTERVAL);
    tokio::time::sleep(waiting + Duration::from_millis(1)).await;
    assert!(!take(&store, "greedy", 1).await.is_empty());
}

pub(crate) async fn turns_are_not_saved_up_and_apps_are_apart(store: Shared) {
    for name in ["a", "a:1", "", "é 1\n", "A"] {
        assert_eq!(take(&store, name, 5).await.len(), 5, "{name:?}");
    }
    // Longer than those five last.
    tokio::time::sleep(INTERVAL * 8).await;
    let asked = Instant::now();
    let turns = take(&store, "a", 3).await;
    for (number, turn) in (0..).zip(turns) {
        assert!(turn >= asked + INTERVAL * number, "saved up: {number}");
    }
}

fn accounts(range: std::ops::Range<usize>) -> Vec<AccountId> {
    range.map(|n| AccountId::new(format!("用户 {n}"))).collect()
}

async fn note(store: &Shared, tenant: &str, day: u32, accounts: &[AccountId]) -> u64 {
    let tenant = TenantId::new(tenant);
    let noted = store.note_active(&tenant, Day(day), accounts);
    noted.await.unwrap()
}

/// Whether an estimate is as good as it has to be.
fn about(estimate: u64, exact: u64) -> bool {
    estimate.abs_diff(exact) * 33 <= exact
}

pub(crate) async fn an_active_account_counts_once(store: Shared) {
    assert_eq!(note(&store, "t", 100, &[]).await, 0);
    assert_eq!(note(&store, "t", 100, &accounts(0..3)).await, 3);
    assert_eq!(note(&store, "t", 100, &accounts(1..4)).await, 4);
    assert_eq!(note(&store, "t", 100, &accounts(0..4)).await, 4);
    assert_eq!(note(&store, "t", 100, &[]).await, 4);
}

pub(crate) async fn many_active_accounts_are_about_counted(store: Shared) {
    let lots = accounts(0..5000);
    let notes = lots.chunks(1700).map(|lot| note(&store, "t", 100, lot));
    join_all(notes).await;
    let count = note(&store, "t", 100, &lots).await;
    assert!(about(count, 5000), "{count}");
}

pub(crate) async fn active_days_and_tenants_are_apart(store: Shared) {
    for (n, tenant) in (1..).zip(["", "a", "a:1", "租户"]) {
        for day in [100, 101] {
            let count = n + (day - 100);
            let own = accounts(0..count as usize);
            assert_eq!(note(&store, tenant, day, &own).await, u64::from(count));
        }
    }
    assert_eq!(note(&store, "a", 100, &[]).await, 2);
    assert_eq!(note(&store, "a", 101, &[]).await, 3);
    assert_eq!(note(&store, "b", 100, &[]).await, 0);
    // A day that comes late is noted as that day, and the one of a week ago is still known.
    note(&store, "a", 100 + KEPT_DAYS, &accounts(0..1)).await;
    assert_eq!(note(&store, "a", 100, &accounts(2..3)).await, 3);
    assert_eq!(note(&store, "a", 101, &[]).await, 3);
}
