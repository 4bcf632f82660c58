//! Tenants that are noted, and the end of their data.

use imgate::store::{LogId, StoreError, StoredSession, TenantLayout};
use imgate::types::{TenantId, UnixMillis};

use crate::fixture::*;

const LAYOUT: TenantLayout = TenantLayout {
    partitions: 256,
    sdk_app_id: u32::MAX,
};

pub(crate) async fn the_first_layout_of_a_tenant_is_kept(store: Shared) {
    let (first, second) = (TenantId::new("a b"), TenantId::new("用户"));
    assert_eq!(store.enrolled().await.unwrap(), []);
    assert_eq!(store.enrol(&second, LAYOUT).await.unwrap(), LAYOUT);
    let other = TenantLayout {
        partitions: 8,
        ..LAYOUT
    };
    assert_eq!(store.enrol(&second, other).await.unwrap(), LAYOUT);
    assert_eq!(store.enrol(&first, other).await.unwrap(), other);
    let all = [(first.clone(), other), (second.clone(), LAYOUT)];
    assert_eq!(store.enrolled().await.unwrap(), all);
    store.strike(&second).await.unwrap();
    store.strike(&second).await.unwrap();
    assert_eq!(store.enrolled().await.unwrap(), [(first, other)]);
    assert_eq!(store.enrol(&second, other).await.unwrap(), other);
}

pub(crate) async fn a_purge_leaves_nothing_of_a_partition_and_all_of_others(store: Shared) {
    let places = [here(), partition("t", 1), partition("other", 0)];
    let mut leases = Vec::new();
    for place in &places {
        let lease = owned(&store, place).await;
        let mut batch = events(["one", "two"]);
        batch.records = vec![session("bot", "record")];
        batch.additions = vec![session("bot", "+")];
        batch.sends = vec![send("bot", "id", "send")];
        let committed = store.commit(&lease, &batch).await.unwrap();
        let position = at(committed.log, 1);
        store
            .advance_subscription(place, "name", &position, UnixMillis(1), false)
            .await
            .unwrap();
        leases.push(lease);
    }
    let old = owned(&store, &places[0]).await;
    let refused = store.purge(&leases[0]).await;
    assert!(
        matches!(refused, Err(StoreError::Fenced { .. })),
        "{refused:?}"
    );
    store.purge(&old).await.unwrap();
    for (place, kept) in places.iter().zip([false, true, true]) {
        let sessions: Vec<StoredSession> = store.sessions(place).await.unwrap();
        assert_eq!(sessions.len(), usize::from(kept), "{place}");
        assert_eq!(store.sends(place).await.unwrap().len(), usize::from(kept));
        let subscriptions = store.subscriptions(place).await.unwrap();
        assert_eq!(subscriptions.len(), usize::from(kept));
        assert_eq!(log(&store, place).await.len(), if kept { 2 } else { 0 });
        let bounds = store.log_bounds(place).await.unwrap();
        assert_eq!(bounds.log != LogId::default(), kept);
    }
    // The lease stays, and epochs go on growing.
    append(&store, &old, ["anew"]).await;
    let next = owned(&store, &places[0]).await;
    assert!(next.epoch > old.epoch);
}
