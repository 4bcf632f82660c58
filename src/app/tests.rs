//! The gateway as a whole, on a store that can be told what to do.

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::config::{StoreKind, Tenant};
use crate::events::canary;
use crate::store::memory::MemoryStore;
use crate::store::{Claim, Position};
use crate::types::{Epoch, PartitionId, ReplicaId, TenantId, UnixMillis, WallClock};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(lease_ttl: Duration) -> Config {
    // Nobody listens on port 1.
    let upstream = "ws://127.0.0.1:1".to_owned();
    let tenant = Tenant::new(TenantId::new("acme"), 1_400_000_001, upstream);
    let mut config = Config::new(StoreKind::Memory, vec![tenant]);
    config.replica_id = ReplicaId::new("r1");
    config.grpc.listen = ([127, 0, 0, 1], 0).into();
    config.ops.listen = ([127, 0, 0, 1], 0).into();
    config.store.lease_ttl = lease_ttl;
    config
}

async fn start(store: &Arc<MemoryStore>, config: Config) -> App {
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let store: Arc<dyn Store> = store.clone();
    let opened = async move { Ok(store) };
    App::start_on(config, None, metrics, opened).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: imgate\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks `/ready` until the answer is as expected; answers it.
async fn ready_says(app: &App, expected: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = get(app.ops_address(), "/ready").await;
        if expected(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("it takes too long")
}

fn unmet(app: &App) -> Vec<Condition> {
    let unmet = app.readiness.unmet_now();
    unmet.into_iter().map(|unmet| unmet.condition).collect()
}

#[tokio::test]
async fn a_delivery_that_hangs_is_not_ready_and_alive() {
    let store = Arc::new(MemoryStore::new());
    let app = start(&store, config(Duration::from_secs(3))).await;
    ready_says(&app, |answer| answer.starts_with("HTTP/1.1 200")).await;
    // The store answers every ping.
    store.set_hanging(true);
    let answer = ready_says(&app, |answer| answer.starts_with("HTTP/1.1 503")).await;
    assert!(answer.contains(r#""condition":"delivery""#), "{answer}");
    assert!(!answer.contains(r#""condition":"store""#), "{answer}");
    assert!(answer.contains("the canary waits to be stored"), "{answer}");
    let live = get(app.ops_address(), "/live").await;
    assert!(live.starts_with("HTTP/1.1 200"), "{live}");
    store.set_hanging(false);
    ready_says(&app, |answer| answer.starts_with("HTTP/1.1 200")).await;
    assert!(app.stop().await);
}

// In what follows no byte goes over a socket, so that time can be paused.

#[tokio::test(start_paused = true)]
async fn ready_needs_an_event_that_came_through() {
    let store = Arc::new(MemoryStore::new());
    store.set_hanging(true);
    let app = start(&store, config(Duration::from_secs(30))).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(unmet(&app), [Condition::Delivery]);
    store.set_hanging(false);
    within(app.ready()).await;

    // Within the grace nothing happens; behind it, it does.
    store.set_hanging(true);
    tokio::time::sleep(Duration::from_secs(26)).await;
    assert!(app.readiness.is_ready());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(unmet(&app), [Condition::Delivery]);
    store.set_hanging(false);
    within(app.ready()).await;

    store.set_available(false);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(unmet(&app), [Condition::Store, Condition::Delivery]);
    store.set_available(true);
    within(app.ready()).await;
    assert!(app.stop().await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_after_a_kill_is_ready_at_once() {
    let store = Arc::new(MemoryStore::new());
    let lease_ttl = Duration::from_secs(3600);
    // It is not stopped, and gives nothing back.
    let killed = start(&store, config(lease_ttl)).await;
    killed.ready().await;
    let began = Instant::now();
    let app = start(&store, config(lease_ttl)).await;
    within(app.ready()).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(app.stop().await);
}

#[tokio::test(start_paused = true)]
async fn the_canary_of_another_is_no_hindrance() {
    let store = Arc::new(MemoryStore::new());
    let here = canary::partition(&ReplicaId::new("r1"));
    let other = ReplicaId::new("other");
    let ttl = Duration::from_secs(60);
    let taken = store
        .claim(&here, &other, ttl, Some(Epoch(0)))
        .await
        .unwrap();
    assert!(matches!(taken, Claim::Granted(_)));
    let app = start(&store, config(Duration::from_secs(30))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The sessions are all here, and that is what the condition of them says.
    let unmet = app.readiness.unmet_now();
    let [delivery] = &unmet[..] else {
        panic!("{unmet:?}")
    };
    assert_eq!(delivery.condition, Condition::Delivery);
    let lease = "waits for the lease of its partition";
    assert!(delivery.reason.ends_with(lease), "{}", delivery.reason);
    tokio::time::sleep(ttl).await;
    within(app.ready()).await;
    assert!(app.stop().await);
}

#[tokio::test(start_paused = true)]
async fn a_log_writer_that_panics_is_the_end() {
    let store = Arc::new(MemoryStore::new());
    let app = start(&store, config(Duration::from_secs(30))).await;
    app.ready().await;
    store.panic_on_commit();
    within(app.failed()).await;
    assert!(app.stop().await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_canary_first_and_gives_all_leases_back() {
    let store = Arc::new(MemoryStore::new());
    let app = start(&store, config(Duration::from_secs(30))).await;
    app.ready().await;
    // One is on its way into the store and will not come there.
    store.set_hanging(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    assert!(app.stop().await);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "nobody waits for it"
    );
    store.set_hanging(false);
    let commits = store.commits().len();
    let other = ReplicaId::new("other");
    let tenant = (0..8).map(|number| PartitionId {
        tenant: TenantId::new("acme"),
        number,
    });
    for partition in tenant.chain([canary::partition(&ReplicaId::new("r1"))]) {
        let claim = store
            .claim(&partition, &other, PATIENCE, Some(Epoch(0)))
            .await;
        assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.commits().len(), commits, "something still writes");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_nobody_uses_is_forgotten() {
    let store = Arc::new(MemoryStore::new());
    let partition = PartitionId {
        tenant: TenantId::new("acme"),
        number: 0,
    };
    let now = WallClock.now();
    let month = 30 * 24 * 3600 * 1000;
    for (name, used_at) in [
        ("old", UnixMillis(now.0 - month - 60_000)),
        ("used", UnixMillis(now.0 - month + 60_000)),
    ] {
        let place = Position::default();
        let put = store.advance_subscription(&partition, name, &place, used_at, false);
        put.await.unwrap();
    }
    let app = start(&store, config(Duration::from_secs(30))).await;
    app.ready().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let left = store.subscriptions(&partition).await.unwrap();
    let left: Vec<String> = left.into_iter().map(|left| left.name).collect();
    assert_eq!(left, ["used"]);
    assert!(app.stop().await);
}
