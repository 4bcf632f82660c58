//! What only this store does: the paused clock, and failing when told to.

use super::*;
use crate::types::TenantId;

const TTL: Duration = Duration::from_secs(10);

fn partition() -> PartitionId {
    PartitionId {
        tenant: TenantId::new("t"),
        number: 0,
    }
}

async fn claim(store: &MemoryStore, owner: &str) -> Claim {
    store
        .claim(&partition(), &ReplicaId::new(owner), TTL, Epoch(0))
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_on_the_paused_clock() {
    let store = MemoryStore::new();
    let Claim::Granted(lease) = claim(&store, "a").await else {
        panic!("refused");
    };
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    let owner = ReplicaId::new("a");
    let remaining = Duration::from_secs(1);
    assert_eq!(claim(&store, "b").await, Claim::Held { owner, remaining });

    assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Renewed);
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    assert!(matches!(claim(&store, "b").await, Claim::Held { .. }));

    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Missing);
    assert!(matches!(claim(&store, "b").await, Claim::Granted(_)));
    assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Lost);
}

#[tokio::test]
async fn it_can_be_away_and_be_full() {
    let store = MemoryStore::new();
    let Claim::Granted(lease) = claim(&store, "a").await else {
        panic!("refused");
    };
    let batch = Batch {
        events: vec![b"one".to_vec()],
        ..Batch::default()
    };
    store.set_available(false);
    let away = store.commit(&lease, &batch).await.unwrap_err();
    assert!(matches!(away, StoreError::Unavailable(_)));
    assert!(store.ping().await.is_err());

    store.set_available(true);
    store.set_full(true);
    let full = store.commit(&lease, &batch).await.unwrap_err();
    assert!(matches!(full, StoreError::Full(_)));
    assert_eq!(store.read(&partition(), 0, 9).await.unwrap().entries, []);

    store.set_full(false);
    assert_eq!(store.commit(&lease, &batch).await.unwrap().last_sequence, 1);
}

#[tokio::test]
async fn lost_data_fences_the_owner_and_begins_another_log() {
    let store = MemoryStore::new();
    let batch = Batch {
        events: vec![b"one".to_vec()],
        ..Batch::default()
    };
    let Claim::Granted(lease) = claim(&store, "a").await else {
        panic!("refused");
    };
    let before = store.commit(&lease, &batch).await.unwrap();
    store.lose_data();
    assert_eq!(store.renew(&lease, TTL).await.unwrap(), Renewal::Missing);
    assert!(matches!(
        store.commit(&lease, &batch).await.unwrap_err(),
        StoreError::Fenced { current: None, .. }
    ));
    let Claim::Granted(lease) = claim(&store, "a").await else {
        panic!("refused");
    };
    let after = store.commit(&lease, &batch).await.unwrap();
    assert_eq!(after.last_sequence, 1);
    assert_ne!(after.log, before.log);
}
