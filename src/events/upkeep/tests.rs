//! The upkeep on paused time.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::*;
use crate::events::testing::{append, lease, message, partition};
use crate::store::LogId;
use crate::store::memory::MemoryStore;

const EXPIRY: Duration = Duration::from_secs(3600);

/// Three partitions, of which the last is another's.
struct World {
    store: Arc<MemoryStore>,
    leases: Vec<watch::Sender<Option<Lease>>>,
    ends: Vec<Position>,
    tasks: Tasks,
}

async fn world() -> World {
    let store = Arc::new(MemoryStore::new());
    let (mut leases, mut kept, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..3 {
        let events = vec![message("bot", "text"); 10];
        ends.push(append(&store, &partition(number), &events).await);
        let lease = lease(&store, &partition(number)).await;
        let (keeper, seen) = watch::channel((number < 2).then_some(lease));
        leases.push(keeper);
        kept.push(Kept {
            partition: partition(number),
            lease: seen,
            expiry: EXPIRY,
        });
    }
    let tasks = Tasks::new();
    start(store.clone(), watch::channel(kept).1, &tasks);
    World {
        store,
        leases,
        ends,
        tasks,
    }
}

impl World {
    /// Moves a subscription in all partitions so that it is `behind` the ends; it was used `ago`.
    async fn put(&self, name: &str, behind: u64, ago: Duration) {
        let ago = u64::try_from(ago.as_millis()).unwrap();
        let used_at = UnixMillis(WallClock.now().0 - ago);
        for (number, end) in (0..).zip(&self.ends) {
            let position = Position {
                sequence: end.sequence - behind,
                ..*end
            };
            let partition = partition(number);
            let put = self
                .store
                .advance_subscription(&partition, name, &position, used_at, false);
            put.await.unwrap();
        }
    }

    /// In which partitions a subscription is.
    async fn parts(&self, name: &str) -> Vec<u16> {
        let mut parts = Vec::new();
        for number in 0..3 {
            let stored = self.store.subscription(&partition(number), name).await;
            if stored.unwrap().is_some() {
                parts.push(number);
            }
        }
        parts
    }

    async fn turn(&self) {
        tokio::time::sleep(EVERY + Duration::from_millis(1)).await;
    }
}

fn shown(recorder: &PrometheusRecorder) -> Vec<String> {
    let text = recorder.handle().render();
    let lines = text.lines();
    lines
        .filter(|line| line.starts_with("imgate_events_subscription"))
        .map(|line| line.replace("imgate_events_subscription", ""))
        .collect()
}

fn line(name: &str, lag: u64) -> String {
    let tenant = if name == OTHER { OTHER } else { "t" };
    format!("_lag_events{{tenant=\"{tenant}\",subscription=\"{name}\"}} {lag}")
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_summed_over_the_partitions_that_are_held() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recording = metrics::set_default_local_recorder(&recorder);
    let world = world().await;
    world.put("a", 3, Duration::ZERO).await;
    world.put("b", 0, Duration::ZERO).await;
    world.turn().await;
    for line in [line("a", 6), line("b", 0), line(OTHER, 0)] {
        assert!(shown(&recorder).contains(&line), "{:?}", shown(&recorder));
    }

    // One more partition, one more event, and one subscription less.
    let third = lease(&world.store, &partition(2)).await;
    world.leases[2].send_replace(Some(third));
    append(&world.store, &partition(0), &[message("bot", "more")]).await;
    for number in 0..3 {
        let partition = partition(number);
        let removed = world.store.remove_subscription(&partition, "b", None);
        assert!(removed.await.unwrap());
    }
    world.turn().await;
    for line in [line("a", 10), line("b", 0)] {
        assert!(shown(&recorder).contains(&line), "{:?}", shown(&recorder));
    }

    // What the store does not tell now stays as it was.
    world.store.set_available(false);
    world.turn().await;
    assert!(shown(&recorder).contains(&line("a", 10)));
    world.store.set_available(true);
    world
        .leases
        .iter()
        .for_each(|lease| drop(lease.send_replace(None)));
    world.turn().await;
    assert!(shown(&recorder).contains(&line("a", 0)));
    drop(recording);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_forgotten_by_each_owner() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recording = metrics::set_default_local_recorder(&recorder);
    let world = world().await;
    let soon = EXPIRY.checked_sub(Duration::from_secs(600)).unwrap();
    let late = EXPIRY + Duration::from_secs(60);
    world.put("old", 1, late).await;
    world.put("used", 1, soon).await;
    world.turn().await;
    assert_eq!(world.parts("old").await, [2], "another replica's part");
    assert_eq!(world.parts("used").await, [0, 1, 2]);
    let counted = |times: u32| format!("s_expired_total {times}");
    assert!(shown(&recorder).contains(&counted(1)));

    let third = lease(&world.store, &partition(2)).await;
    world.leases[2].send_replace(Some(third));
    world.turn().await;
    assert!(world.parts("old").await.is_empty());
    assert!(shown(&recorder).contains(&counted(1)), "counted once");
    drop(recording);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_holds_up_nothing_else() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recording = metrics::set_default_local_recorder(&recorder);
    let world = world().await;
    world.put("a", 3, Duration::ZERO).await;
    world.turn().await;
    assert!(shown(&recorder).contains(&line("a", 6)));

    world.store.corrupt_subscriptions(Some(partition(0)));
    let late = EXPIRY + Duration::from_secs(60);
    world.put("old", 1, late).await;
    append(&world.store, &partition(1), &[message("bot", "more")]).await;
    world.turn().await;
    // The next partition is seen to, and half a figure is not shown.
    assert_eq!(world.parts("old").await, [0, 2]);
    assert!(shown(&recorder).contains(&line("a", 6)));

    world.store.corrupt_subscriptions(None);
    world.turn().await;
    assert_eq!(world.parts("old").await, [2]);
    assert!(shown(&recorder).contains(&line("a", 7)));
    drop(recording);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_told_to() {
    let world = world().await;
    world.turn().await;
    world.tasks.stop();
    world.tasks.ended().await;
}

#[test]
fn series_are_bounded_and_the_rest_share_one() {
    let name = |number: usize| (TenantId::new("t"), format!("s{number:03}"));
    let lags = |numbers: std::ops::Range<usize>| Found {
        lags: numbers
            .map(|number| (name(number), u64::try_from(number).unwrap()))
            .collect(),
        ..Found::default()
    };
    let mut series = Series::default();
    let shown: BTreeMap<_, _> = series.assign(&lags(0..99)).into_iter().collect();
    assert_eq!(shown.len(), 100);
    assert_eq!((shown[&Some(name(98))], shown[&None]), (98, 0));
    // In the order of names; those beyond share the greatest lag.
    let shown: BTreeMap<_, _> = series.assign(&lags(50..120)).into_iter().collect();
    assert_eq!(shown.len(), 101);
    assert_eq!(shown[&Some(name(0))], 0, "it is gone");
    assert_eq!(shown[&Some(name(99))], 99);
    assert!(!shown.contains_key(&Some(name(100))));
    assert_eq!(shown[&None], 119);
    // No series is made for a new name, though others are gone.
    let shown = series.assign(&lags(500..501));
    assert_eq!(shown.len(), 101);
    assert_eq!(shown.last(), Some(&(None, 500)));
}

#[test]
fn the_lag_counts_what_is_retained() {
    let log = LogId(7);
    let at = |log, sequence| Position { log, sequence };
    let bounds = |first_sequence, last_sequence| LogBounds {
        log,
        first_sequence,
        last_sequence,
    };
    for (position, bounds, expected) in [
        (at(log, 3), bounds(1, 10), 7),
        (at(log, 10), bounds(1, 10), 0),
        // Trimmed beyond it.
        (at(log, 3), bounds(6, 10), 5),
        (at(log, 3), bounds(11, 10), 0),
        // Another log: all of it.
        (at(LogId(8), 99), bounds(6, 10), 5),
        // The log has lost its end.
        (at(log, 12), bounds(1, 10), 0),
        (at(LogId(0), 0), bounds(1, 0), 0),
    ] {
        assert_eq!(lag(position, bounds), expected, "{position:?} {bounds:?}");
    }
}
