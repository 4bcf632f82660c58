//! Leases on paused time, over a store in memory.

use std::slice::from_ref;

use super::*;
use crate::runtime::supervisor::TaskKind;
use crate::store::memory::MemoryStore;
use crate::store::{Batch, BatchId, Claim, Lease};
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
    let claim = store.claim(&partition, &replica, TTL, Some(Epoch(0))).await;
    let Ok(Claim::Granted(lease)) = claim else {
        panic!("{claim:?}")
    };
    let again = store
        .claim(&partition, &replica, TTL, Some(lease.epoch))
        .await;
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
        changes: mpsc::channel(1).1,
        complete: watch::channel(false).0,
        reach: Reach::default(),
    };
    (ownership, partition)
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_made_again() {
    let (mut ownership, partition) = world().await;
    ownership.note(partition.clone(), Seen::Unsure);
    ownership.see_to(from_ref(&partition)).await;
    let held = ownership.partitions[&partition].lease.borrow().clone();
    assert_eq!(held.map(|lease| lease.epoch), Some(Epoch(3)));
    assert!(ownership.unsure.is_empty());
    assert_eq!(ownership.replica.as_str(), "r");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_lost_its_lease_to_its_own_name_waits_until_it_is_free() {
    let (mut ownership, partition) = world().await;
    ownership.see_to(from_ref(&partition)).await;
    assert!(ownership.replica.as_str().starts_with("r~"));
    ownership.see_to(from_ref(&partition)).await;
    assert!(!ownership.partitions[&partition].is_held(), "taken back");
    tokio::time::sleep(TTL).await;
    ownership.see_to(from_ref(&partition)).await;
    assert!(ownership.partitions[&partition].is_held());
}

/// What another replica does that holds the partition for a while: it writes `batches`.
async fn held_by_another(ownership: &Ownership, batches: u64) {
    tokio::time::sleep(TTL).await;
    let (store, other) = (&ownership.store, ReplicaId::new("other"));
    let claim = store.claim(&here(), &other, TTL, None).await;
    let Ok(Claim::Granted(lease)) = claim else {
        panic!("{claim:?}")
    };
    for number in 1..=batches {
        let batch = Batch {
            id: BatchId { writer: 7, number },
            ..Batch::default()
        };
        store.commit(&lease, &batch).await.unwrap();
    }
    store.release(&lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_another_wrote_while_a_claim_was_not_answered_counts() {
    let (mut ownership, partition) = world().await;
    ownership.note(partition.clone(), Seen::Unsure);
    held_by_another(&ownership, 1).await;
    ownership.reach = Reach::There;
    ownership.see_to(from_ref(&partition)).await;
    assert!(!ownership.partitions[&partition].is_held(), "held again");
    assert_eq!(ownership.replica.as_str(), "r");
    // It is read anew, and at once.
    ownership.see_to(from_ref(&partition)).await;
    assert!(ownership.partitions[&partition].is_held());
    // From then on it is this one's, and what it found is no other's doing.
    ownership.note(partition.clone(), Seen::Unsure);
    ownership.see_to(from_ref(&partition)).await;
    assert!(ownership.partitions[&partition].is_held());
}

#[tokio::test(start_paused = true)]
async fn where_another_wrote_nothing_all_goes_on() {
    let (mut ownership, partition) = world().await;
    ownership.note(partition.clone(), Seen::Unsure);
    held_by_another(&ownership, 0).await;
    ownership.see_to(from_ref(&partition)).await;
    assert!(ownership.partitions[&partition].is_held());
    assert!(ownership.unsure.is_empty());
}

/// A replica that is to hold the partition.
struct Replica {
    held: watch::Receiver<Option<Lease>>,
    tasks: Tasks,
}

fn here() -> PartitionId {
    PartitionId {
        tenant: TenantId::new("t"),
        number: 0,
    }
}

fn replica(store: &Arc<MemoryStore>, name: &str) -> Replica {
    let (lease, held) = watch::channel(None);
    let keeper = Keeper::new(lease, watch::channel(BatchId::default()).1);
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    let tasks = Tasks::new();
    let mut ownership = Ownership {
        gateway: Gateway::new(Vec::new(), Arc::clone(&store), &Tasks::new()),
        store,
        replica: ReplicaId::new(name),
        ttl: TTL,
        partitions: HashMap::from([(here(), keeper)]),
        unsure: HashSet::new(),
        fenced: mpsc::channel(1).1,
        changes: mpsc::channel(1).1,
        complete: watch::channel(false).0,
        reach: Reach::default(),
    };
    let stop = tasks.clone();
    tasks.spawn("ownership", TaskKind::Work, async move {
        ownership.run(&stop).await;
    });
    Replica { held, tasks }
}

impl Replica {
    fn holds(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// It is gone, and gives nothing back.
    async fn die(&self) {
        self.tasks.stop();
        self.tasks.ended().await;
    }

    /// How long it takes until it holds the partition.
    async fn takes(&self) -> Duration {
        let began = Instant::now();
        while !self.holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < 10 * TTL, "it never does");
        }
        began.elapsed()
    }
}

/// An owner and another that waits, whose turns come `apart` from each other.
async fn two(apart: Duration) -> (Arc<MemoryStore>, Replica, Replica) {
    let store = Arc::new(MemoryStore::new());
    let owner = replica(&store, "owner");
    assert!(owner.takes().await < CLAIM_EVERY, "a first start is slow");
    tokio::time::sleep(apart).await;
    let other = replica(&store, "other");
    tokio::time::sleep(5 * CLAIM_EVERY).await;
    assert!(!other.holds());
    (store, owner, other)
}

/// Nothing that the owner has is taken from it.
async fn stays(owner: &Replica, other: &Replica) {
    for _ in 0..1000 {
        assert!(owner.holds() && !other.holds());
        tokio::time::sleep(Duration::from_millis(97)).await;
    }
}

const APART: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(900),
];
/// The longest that who waits for a partition leaves its owner to come back.
const PATIENCE: Duration = Duration::from_secs(12);

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_is_claimed_by_its_owners_first() {
    for apart in APART {
        let (store, owner, other) = two(apart).await;
        store.lose_data();
        stays(&owner, &other).await;
        // One that is dead does not come back.
        owner.die().await;
        store.lose_data();
        let took = other.takes().await;
        assert!(
            took > PATIENCE && took < PATIENCE + 3 * CLAIM_EVERY,
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_owners_claim_first() {
    for apart in APART {
        let (store, owner, other) = two(apart).await;
        store.set_available(false);
        tokio::time::sleep(3 * TTL).await;
        store.set_available(true);
        stays(&owner, &other).await;

        store.set_available(false);
        owner.die().await;
        tokio::time::sleep(3 * TTL).await;
        store.set_available(true);
        let took = other.takes().await;
        assert!(took < PATIENCE + 3 * CLAIM_EVERY, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_starts_in_an_outage_waits_for_the_owner_too() {
    let (store, owner, other) = two(APART[0]).await;
    other.die().await;
    store.set_available(false);
    tokio::time::sleep(3 * TTL).await;
    let late = replica(&store, "late");
    tokio::time::sleep(TTL).await;
    store.set_available(true);
    stays(&owner, &late).await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_out_while_the_store_answers_is_taken_at_once() {
    let (_store, owner, other) = two(APART[0]).await;
    owner.die().await;
    assert!(other.takes().await < TTL + 2 * CLAIM_EVERY);
}
