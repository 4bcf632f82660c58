//! The canary on paused time.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::mpsc;

use super::*;
use crate::events::hub::Hub;
use crate::events::testing::{self, lease};
use crate::store::memory::MemoryStore;
use crate::store::{Claim, Store as _};

const EVERY: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(30);

struct World {
    store: Arc<MemoryStore>,
    lease: watch::Sender<Option<Lease>>,
    fenced: mpsc::Receiver<PartitionId>,
    tasks: Tasks,
    canary: CanaryHandle,
}

fn here() -> PartitionId {
    partition(&ReplicaId::new("r1"))
}

async fn world() -> World {
    let store = Arc::new(MemoryStore::new());
    let lease = lease(&store, &here()).await;
    let hub = Hub::new();
    start(store, Some(lease), &hub, &hub)
}

/// A canary whose writer tells one hub, and whose subscription listens to one.
fn start(store: Arc<MemoryStore>, lease: Option<Lease>, told: &Hub, watched: &Hub) -> World {
    let (lease, seen) = watch::channel(lease);
    let (refused, fenced) = mpsc::channel(4);
    let tasks = Tasks::new();
    let writer = LogWriter::start(
        here(),
        store.clone(),
        seen.clone(),
        told.clone(),
        refused,
        log_options(),
        &tasks,
    );
    let canary = Canary {
        partition: here(),
        lease: seen,
        writer,
        events: testing::events(store.clone(), watched, &tasks),
        every: EVERY,
    };
    World {
        store,
        lease,
        fenced,
        canary: canary.start(&tasks),
        tasks,
    }
}

impl World {
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn complaint(&mut self) -> String {
        self.canary.complaint(GRACE).unwrap_or_default()
    }

    /// Waits until one comes through that is sent from now on; answers how long that took.
    async fn comes_through(&mut self) -> Duration {
        let began = Instant::now();
        while self.canary.age() > began.elapsed() || !self.complaint().is_empty() {
            let changed = tokio::time::timeout(GRACE, self.canary.changed());
            changed.await.expect("nothing comes through");
        }
        began.elapsed()
    }

    /// Gets another lease, as who keeps the leases does.
    async fn claim_again(&mut self) {
        assert_eq!(self.fenced.recv().await, Some(here()));
        let held = self.lease.borrow().clone().unwrap();
        let here = here();
        let claim = self
            .store
            .claim(&here, &held.owner, GRACE, Some(held.epoch));
        let Ok(Claim::Granted(newer)) = claim.await else {
            panic!("no lease")
        };
        self.lease.send_replace(Some(newer));
    }
}

#[tokio::test(start_paused = true)]
async fn it_comes_through_again_and_again() {
    let mut world = world().await;
    let complaint = world.complaint();
    assert!(
        complaint.starts_with("no event has come through since the start 0 s ago"),
        "{complaint}"
    );
    assert_eq!(world.comes_through().await, Duration::ZERO);
    for _ in 0..100 {
        world.pass(1).await;
        assert!(world.canary.age() <= EVERY);
    }
    let bounds = world.store.log_bounds(&here()).await.unwrap();
    assert!(
        (50..=51).contains(&bounds.last_sequence),
        "no more than its turns"
    );
    world.pass(60).await;
    let kept = world.store.read(&here(), 0, 999).await.unwrap().entries;
    assert!(kept.len() < 60, "its log is trimmed");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_makes_it_old_until_it_is_answered() {
    let mut world = world().await;
    world.comes_through().await;
    world.store.set_hanging(true);
    world.pass(GRACE.as_secs()).await;
    assert_eq!(world.complaint(), "", "within the grace");
    world.pass(5).await;
    let complaint = world.complaint();
    assert!(complaint.contains("was sent 35 s ago"), "{complaint}");
    assert!(complaint.ends_with("waits to be stored"), "{complaint}");
    world.store.set_hanging(false);
    assert!(world.comes_through().await <= EVERY);
}

#[tokio::test(start_paused = true)]
async fn a_way_that_ends_behind_the_store_is_noticed() {
    let store = Arc::new(MemoryStore::new());
    let lease = lease(&store, &here()).await;
    // Nobody tells the subscription that the log has grown.
    let mut world = start(store, Some(lease), &Hub::new(), &Hub::new());
    // In less time than until the subscription looks at the log unasked.
    world.pass(250).await;
    let complaint = world.complaint();
    assert!(
        complaint.ends_with("s ago; the canary waits to be delivered"),
        "{complaint}"
    );
    assert!(world.canary.age() > Duration::from_secs(200));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_full_or_corrupt_is_no_end() {
    let mut world = world().await;
    world.comes_through().await;
    world.store.set_available(false);
    world.pass(60).await;
    assert!(world.complaint().ends_with("waits to be stored"));
    world.store.set_available(true);
    assert!(world.comes_through().await <= 2 * EVERY);

    world.store.set_full(true);
    world.pass(60).await;
    assert!(world.complaint().ends_with("waits to be stored"));
    world.store.set_full(false);
    assert!(world.comes_through().await <= 2 * EVERY);

    world.store.set_corrupt(true);
    world.pass(60).await;
    let complaint = world.complaint();
    assert!(complaint.ends_with("is corrupt"), "{complaint}");
    world.store.set_corrupt(false);
    assert!(world.comes_through().await <= 2 * EVERY);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_lost_is_no_end() {
    let mut world = world().await;
    world.comes_through().await;
    world.store.lose_data();
    world.claim_again().await;
    assert!(world.comes_through().await <= 2 * EVERY);
    world.pass(20).await;
    world.store.lose_newest(&here(), 3);
    world.pass(1).await;
    assert!(world.comes_through().await <= 2 * EVERY);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_without_the_lease() {
    let mut world = world().await;
    world.comes_through().await;
    let held = world.lease.send_replace(None);
    let end = world.store.log_bounds(&here()).await.unwrap();
    world.pass(60).await;
    let complaint = world.complaint();
    assert!(
        complaint.ends_with("waits for the lease of its partition"),
        "{complaint}"
    );
    assert_eq!(world.store.log_bounds(&here()).await.unwrap(), end);
    world.lease.send_replace(held);
    assert!(world.comes_through().await <= EVERY);
}

#[tokio::test(start_paused = true)]
async fn at_no_time_is_its_log_one_that_the_store_has_to_tell_of() {
    let hub = Hub::new();
    let store = Arc::new(MemoryStore::new());
    let mut world = start(store.clone(), None, &hub, &hub);
    let foreign = hub.foreign();
    world.pass(60).await;
    let held = lease(&store, &here()).await;
    world.lease.send_replace(Some(held));
    world.comes_through().await;
    world.pass(60).await;
    assert!(!foreign.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_sent_does_not_count() {
    let mut world = world().await;
    world.comes_through().await;
    let (store, lease) = (world.store.clone(), world.lease.borrow().clone());
    // One is on its way into the store when the process ends.
    store.set_hanging(true);
    world.pass(3).await;
    let hub = Hub::new();
    let mut next = start(store.clone(), None, &hub, &hub);
    store.set_hanging(false);
    next.pass(3).await;
    hub.publish(&here(), {
        let bounds = store.log_bounds(&here()).await.unwrap();
        crate::store::Position {
            log: bounds.log,
            sequence: bounds.last_sequence,
        }
    });
    next.pass(3).await;
    let complaint = next.complaint();
    assert!(
        complaint.starts_with("no event has come through since the start"),
        "{complaint}"
    );
    next.lease.send_replace(lease);
    assert!(next.comes_through().await <= EVERY);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_it() {
    let mut world = world().await;
    world.comes_through().await;
    world.store.set_hanging(true);
    world.pass(3).await;
    let began = Instant::now();
    world.tasks.stop();
    world.tasks.ended().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Its age alone goes on.
    assert_eq!(world.complaint(), "");
    let changed = tokio::time::timeout(GRACE, world.canary.changed()).await;
    assert!(changed.is_err());
    assert!(!world.complaint().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_is_no_traffic() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recording = metrics::set_default_local_recorder(&recorder);
    names::describe_metrics();
    let mut world = world().await;
    world.comes_through().await;
    world.store.lose_newest(&here(), 1);
    world.pass(20).await;
    world.store.set_available(false);
    world.pass(20).await;
    let text = recorder.handle().render();
    for line in [
        "imgate_events_appended_total 0",
        "imgate_events_delivered_total 0",
        "imgate_events_subscribers 0",
        "imgate_events_append_retries_total{reason=\"unavailable\"} 0",
        "imgate_events_append_failures_total{reason=\"fenced\"} 0",
        "imgate_events_gaps_total{reason=\"log_reset\"} 0",
    ] {
        assert!(
            text.lines().any(|said| said == line),
            "no {line} in\n{text}"
        );
    }
    assert!(!text.contains("imgate_events_append_batch_size"), "{text}");
    let delays = "imgate_events_canary_delay_seconds";
    assert!(text.contains(delays), "{text}");
    drop(recording);
}
