//! Leases on paused time, over a store in memory.

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{BatchId, Claim};
use crate::types::{Epoch, TenantId};

const TTL: Duration = Duration::from_secs(30);

/// One partition, held, and then claimed once more under the same name without this process hearing of it.
async fn world() -> (Ownership, PartitionId) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let partition = PartitionId {
        tenant: TenantId::new("t"),
        number: 0,
    };
    let replica = ReplicaId::new("r");
    let claim = store.claim(&partition, &replica, TTL, Epoch(0)).await;
    let Ok(Claim::Granted(lease)) = claim else {
        panic!("{claim:?}")
    };
    let again = store.claim(&partition, &replica, TTL, lease.epoch).await;
    assert!(matches!(again, Ok(Claim::Granted(_))), "{again:?}");
    let written = watch::channel(BatchId::default()).1;
    let keeper = Keeper::new(watch::channel(Some(lease)).0, written);
    let ownership = Ownership {
        gateway: Gateway::new(Vec::new(), Arc::clone(&store), &Tasks::new()),
        store,
        replica,
        ttl: TTL,
        partitions: HashMap::from([(partition.clone(), keeper)]),
        unsure: HashSet::new(),
        fenced: mpsc::channel(1).1,
        complete: watch::channel(false).0,
    };
    (ownership, partition)
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_made_again() {
    let (mut ownership, partition) = world().await;
    ownership.note(partition.clone(), Seen::Unsure);
    let seen = ownership.see_to(&partition).await;
    ownership.note(partition.clone(), seen);
    let held = ownership.partitions[&partition].lease.borrow().clone();
    assert_eq!(held.map(|lease| lease.epoch), Some(Epoch(3)));
    assert!(ownership.unsure.is_empty());
    assert_eq!(ownership.replica.as_str(), "r");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_lost_its_lease_to_its_own_name_waits_until_it_is_free() {
    let (mut ownership, partition) = world().await;
    let seen = ownership.see_to(&partition).await;
    ownership.note(partition.clone(), seen);
    assert!(ownership.replica.as_str().starts_with("r~"));
    let seen = ownership.see_to(&partition).await;
    ownership.note(partition.clone(), seen);
    assert!(
        !ownership.partitions[&partition].is_held(),
        "taken back"
    );
    tokio::time::sleep(TTL).await;
    let seen = ownership.see_to(&partition).await;
    ownership.note(partition.clone(), seen);
    assert!(ownership.partitions[&partition].is_held());
}
