//! A crowd that connects.

use futures_util::stream::FuturesUnordered;

use super::*;
use crate::runtime::tenant::CONNECTING;

/// An upstream's address that takes connections, of which none is ever made.
#[derive(Clone, Debug, Default)]
struct Swallows(Arc<AtomicU32>);

#[async_trait]
impl Dial for Swallows {
    async fn dial(&self, _path: &str) -> Result<Connection, DialError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_crowd_so_many_connect_at_a_time_and_the_next_one_dials_where_the_upstream_is_then() {
    let world = World::new().await;
    let shared: Arc<dyn Store> = world.store.clone();
    let swallows = Swallows::default();
    let nowhere = Settings {
        dialer: Arc::new(swallows.clone()),
        ..settings(&world.upstream, &shared)
    };
    let sealer = Arc::clone(&world.sealer);
    let tenant = Tenant::new(TenantId::new("crowded"), 1, 1, sealer, nowhere);

    let (first, crowd) = (
        tenant.connect("/"),
        (1..CONNECTING).map(|_| tenant.connect("/")),
    );
    let mut crowd: FuturesUnordered<_> = crowd.collect();
    let mut first = Box::pin(first);
    // As long as the pace allows, and longer.
    let minute = tokio::time::sleep(Duration::from_secs(60));
    tokio::select! {
        _ = &mut first => panic!("it swallows"),
        _ = crowd.next() => panic!("it swallows"),
        () = minute => {}
    }
    let dialled = || swallows.0.load(Ordering::SeqCst) as usize;
    assert_eq!(dialled(), CONNECTING);
    let mut next = Box::pin(tenant.connect("/"));
    assert!(next.as_mut().now_or_never().is_none());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(next.as_mut().now_or_never().is_none());

    tenant.set(settings(&world.upstream, &shared));
    assert!(next.as_mut().now_or_never().is_none());
    assert_eq!(world.upstream.dials.load(Ordering::SeqCst), 0);
    drop(first);
    assert!(next.await.is_ok());
    assert_eq!(world.upstream.dials.load(Ordering::SeqCst), 1);
    assert_eq!(dialled(), CONNECTING);
}
