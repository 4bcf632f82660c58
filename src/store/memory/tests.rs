//! What only this store does: the paused clock, and failing when told to.

use std::slice;

use super::*;
use crate::store::BatchId;
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
        .claim(&partition(), &ReplicaId::new(owner), TTL, Some(Epoch(0)))
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

#[tokio::test]
async fn lost_entries_are_the_newest_and_trimmed_ones_stay_trimmed() {
    let store = MemoryStore::new();
    let Claim::Granted(lease) = claim(&store, "a").await else {
        panic!("refused");
    };
    let append = async |seen, count| {
        let batch = Batch {
            id: BatchId {
                writer: 7,
                number: 1,
            },
            seen,
            events: vec![b"event".to_vec(); count],
            ..Batch::default()
        };
        let done = store.commit(&lease, &batch).await.unwrap();
        Position {
            log: done.log,
            sequence: done.last_sequence,
        }
    };
    let bounds = async || {
        let bounds = store.log_bounds(&partition()).await.unwrap();
        (bounds.first_sequence, bounds.last_sequence)
    };
    let end = append(Position::default(), 5).await;
    // The same batch is known, unless what was known of it is lost as well.
    assert_eq!(append(end, 5).await, end);
    store.lose_newest(&partition(), 2);
    assert_eq!(bounds().await, (1, 3));
    assert_eq!(append(end, 2).await.sequence, 7);
    let sequences = async || {
        let read = store.read(&partition(), 0, 9).await.unwrap();
        let entries = read.entries.into_iter();
        entries.map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    assert_eq!(sequences().await, [1, 2, 3, 6, 7]);
    // What the log ended with before the hole.
    store.lose_newest(&partition(), 2);
    assert_eq!(bounds().await, (1, 3));

    let retention = Retention {
        events: u64::MAX,
        bytes: 9,
        since: UnixMillis(0),
    };
    let trimmed = store.trim(&lease, &retention).await.unwrap();
    assert_eq!((trimmed.dropped(), bounds().await), (2, (3, 3)));
    store.lose_newest(&partition(), 9);
    assert_eq!(bounds().await, (3, 2));
    assert_eq!(append(end, 1).await.sequence, 6);
    assert_eq!((sequences().await, bounds().await), (vec![6], (3, 6)));
}

#[tokio::test(start_paused = true)]
async fn members_and_shares_run_out_on_the_paused_clock() {
    let store = MemoryStore::new();
    let tenant = TenantId::new("t");
    let [a, b] = ["a", "b"].map(MemberId::new);
    let moment = Duration::from_millis(1);
    let there = async || store.members(&tenant, "main").await.unwrap();
    let attend = async |member| {
        let attended = store.attend(&tenant, "main", member, Some(TTL)).await;
        attended.unwrap()
    };
    let claim = async |member| {
        let claimed = store.claim_share(&partition(), "main", member, TTL).await;
        claimed.unwrap()
    };
    attend(&a).await;
    assert!(claim(&a).await);
    tokio::time::advance(TTL - moment).await;
    assert_eq!(attend(&b).await, [a.clone(), b.clone()]);
    assert!(!claim(&b).await);
    tokio::time::advance(moment).await;
    assert_eq!(there().await, slice::from_ref(&b));
    assert!(claim(&b).await);
    assert!(!claim(&a).await);

    tokio::time::advance(TTL - 2 * moment).await;
    assert_eq!(attend(&b).await, slice::from_ref(&b));
    assert!(claim(&b).await);
    tokio::time::advance(2 * moment).await;
    assert_eq!(there().await, slice::from_ref(&b));
    assert!(!claim(&a).await);
    tokio::time::advance(TTL).await;
    assert!(there().await.is_empty());
    assert!(claim(&a).await);

    // They are lost with the rest.
    store.lose_data();
    assert!(claim(&MemberId::new("c")).await);
}
