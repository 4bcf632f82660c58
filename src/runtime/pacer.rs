//! Spreads the connections to one upstream app over time, so that a restart or a dropped network is no storm upstream:
//! those of all its tenants, on all replicas.
//!
//! Turns are the store's to give out, a few at a time, so that one call serves many sessions that wait. While the store is
//! away or slow, this replica takes its share of the rate: as much of it as it holds of the app's partitions. Where it is
//! away for some replicas only, the others have the whole rate beside that.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::runtime::metrics as names;
use crate::store::Store;
use crate::store::turns::{LOOK_AHEAD, Turns};
use crate::types::{AppId, TenantId};

/// How long a store that did not is left alone.
const STORE_REST: Duration = Duration::from_secs(1);
/// One call takes at most the turns of this part of a second, or replicas would get them in long rows.
const CALLS_PER_SECOND: u32 = 20;
/// A turn that nobody came for within this time is given up, or many would come at once later.
const STALE: Duration = Duration::from_secs(1);

/// Gives out moments to connect at, first come, first served, at a steady rate.
#[derive(Debug)]
pub struct Pacer {
    app: AppId,
    store: Arc<dyn Store>,
    patience: Duration,
    per_second: AtomicU32,
    /// Of each tenant of the app, how many partitions are held here, and of how many.
    held: Mutex<HashMap<TenantId, (u16, u16)>>,
    /// How many have no turn yet.
    waiting: AtomicU32,
    /// Whoever has it, of those that wait in order, takes a turn or gets more of them.
    line: tokio::sync::Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    turns: VecDeque<Instant>,
    /// The store is not asked before.
    rest_until: Option<Instant>,
    /// The next turn of this replica's own.
    own_next: Option<Instant>,
}

impl Pacer {
    /// A pacer of so many connections a second to the app over the fleet; 0 counts as 1. The store is waited for with
    /// this `patience`.
    pub fn new(app: AppId, store: Arc<dyn Store>, patience: Duration, per_second: u32) -> Self {
        Self {
            app,
            store,
            patience,
            per_second: AtomicU32::new(per_second),
            held: Mutex::default(),
            waiting: AtomicU32::new(0),
            line: tokio::sync::Mutex::default(),
        }
    }

    /// Replaces the rate. Turns that were given out stay.
    pub fn set_rate(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Notes how many of a tenant's partitions are held here.
    pub fn set_held(&self, tenant: &TenantId, held: u16, of: u16) {
        self.held().insert(tenant.clone(), (held, of));
    }

    /// The tenant is not one of the app's any more.
    pub fn forget(&self, tenant: &TenantId) {
        self.held().remove(tenant);
    }

    /// Waits for the caller's turn. A caller that gives up has used its turn.
    pub async fn turn(&self) {
        let waiting = Waiting::begin(&self.waiting);
        let mut line = self.line.lock().await;
        let at = loop {
            if let Some(at) = line.turns.pop_front() {
                if at + STALE >= Instant::now() {
                    break at;
                }
            } else {
                self.get_turns(&mut line).await;
            }
        };
        drop((line, waiting));
        tokio::time::sleep_until(at).await;
    }

    /// Gets one turn or more, or waits a while.
    async fn get_turns(&self, line: &mut Line) {
        let per_second = self.per_second.load(Ordering::Relaxed).max(1);
        if line.rest_until.is_none_or(|until| until <= Instant::now()) {
            let waiting = self.waiting.load(Ordering::Relaxed);
            let most = waiting.clamp(1, (per_second / CALLS_PER_SECOND).max(1));
            let asking = self.store.take_turns(&self.app, per_second, most);
            let refused = match tokio::time::timeout(self.patience, asking).await {
                Ok(Ok(turns)) => return self.take(line, &turns).await,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", self.patience),
            };
            if line.rest_until.is_none() {
                warn!(app = %self.app, reason = refused, "connections are paced by this replica's share of the rate");
            }
            line.rest_until = Some(Instant::now() + STORE_REST);
        }
        let now = Instant::now();
        let at = line.own_next.map_or(now, |next| next.max(now));
        if at > now + LOOK_AHEAD {
            // The store may be back until then.
            return tokio::time::sleep_until(at - LOOK_AHEAD).await;
        }
        counter!(names::CONNECT_TURNS, "source" => "own_share").increment(1);
        line.own_next = Some(at + self.own_interval(per_second));
        line.turns.push_back(at);
    }

    async fn take(&self, line: &mut Line, turns: &Turns) {
        if line.rest_until.take().is_some() {
            info!(app = %self.app, "connections are paced over the fleet again");
        }
        if turns.count == 0 {
            return tokio::time::sleep(turns.begin_in.min(LOOK_AHEAD)).await;
        }
        counter!(names::CONNECT_TURNS, "source" => "fleet").increment(turns.count.into());
        let first = Instant::now() + turns.begin_in;
        let all = (0..turns.count).map(|number| first + turns.interval * number);
        line.turns.extend(all);
    }

    /// The time between two turns at this replica's share of the rate.
    fn own_interval(&self, per_second: u32) -> Duration {
        let held = self.held();
        let sum =
            |part: fn(&(u16, u16)) -> u16| held.values().map(part).map(u32::from).sum::<u32>();
        let of = sum(|(_, of)| *of).max(1);
        let own = sum(|(held, _)| *held).clamp(1, of);
        Duration::from_secs(1) * of / own / per_second
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TenantId, (u16, u16)>> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits for a turn.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::store::memory::MemoryStore;

    const PATIENCE: Duration = Duration::from_millis(250);

    fn pacer(store: &Arc<MemoryStore>, per_second: u32) -> Pacer {
        let store: Arc<dyn Store> = store.clone();
        Pacer::new(AppId::new("app"), store, PATIENCE, per_second)
    }

    /// When each of so many that come at once has its turn, in milliseconds from now.
    async fn turns(pacers: &[&Pacer], each: usize) -> Vec<u128> {
        let start = Instant::now();
        let all = pacers
            .iter()
            .flat_map(|pacer| (0..each).map(move |_| pacer));
        let mut turns = join_all(all.map(|pacer| async move {
            pacer.turn().await;
            start.elapsed().as_millis()
        }))
        .await;
        turns.sort_unstable();
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_and_are_not_saved_up() {
        let pacer = pacer(&Arc::default(), 10);
        let start = Instant::now();
        for _ in 0..11 {
            pacer.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1000);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            pacer.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn two_replicas_share_the_rate() {
        let store = Arc::default();
        let (one, other) = (pacer(&store, 100), pacer(&store, 100));
        let all = turns(&[&one, &other], 200).await;
        for (number, at) in (0..).zip(all) {
            // A sleep ends with the millisecond.
            assert!(
                (number * 10..=number * 10 + 2).contains(&at),
                "{number}: {at}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_store_each_replica_has_its_share_and_with_it_again_the_fleet_has_the_rate()
    {
        let store: Arc<MemoryStore> = Arc::default();
        let (one, other) = (pacer(&store, 100), pacer(&store, 100));
        let (acme, globex) = (TenantId::new("acme"), TenantId::new("globex"));
        // A quarter of the app's partitions, and three quarters.
        one.set_held(&acme, 2, 8);
        one.set_held(&globex, 2, 8);
        other.set_held(&acme, 6, 8);
        other.set_held(&globex, 6, 8);
        store.set_available(false);
        let (alone, alone_too) = ([&one], [&other]);
        let (few, many) = tokio::join!(turns(&alone, 51), turns(&alone_too, 151));
        assert!((2000..2010).contains(&few[50]), "{few:?}");
        assert!((1995..2010).contains(&many[150]), "{many:?}");

        store.set_available(true);
        tokio::time::sleep(STORE_REST).await;
        let all = turns(&[&one, &other], 100).await;
        assert!((1990..=1995).contains(&all[199]), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_holds_nobody_up_for_long() {
        let store: Arc<MemoryStore> = Arc::default();
        let pacer = pacer(&store, 10);
        store.set_hanging(true);
        let all = turns(&[&pacer], 50).await;
        assert_eq!(all[0], PATIENCE.as_millis());
        // After that the store's silence falls within the look-ahead.
        let expected = PATIENCE.as_millis() + 4900;
        assert!(all[49] <= expected + 10, "{all:?}");
        store.set_hanging(false);
        tokio::time::sleep(STORE_REST).await;
        assert_eq!(turns(&[&pacer], 1).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_holds_nobody_up_and_leaves_no_turns_for_later() {
        let store = Arc::default();
        let pacer = pacer(&store, 100);
        let alone = [&pacer];
        let crowd = turns(&alone, 50);
        let given_up = tokio::time::timeout(Duration::from_millis(20), crowd).await;
        assert!(given_up.is_err());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let all = turns(&[&pacer], 20).await;
        for (number, at) in (0..).zip(all) {
            assert!(at >= number * 10, "{number}: {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_from_the_next_call_on() {
        let pacer = pacer(&Arc::default(), 1);
        pacer.turn().await;
        pacer.set_rate(100);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let all = turns(&[&pacer], 101).await;
        assert!((1000..=1002).contains(&all[100]), "{all:?}");
    }
}
