//! What the parts of the contract share: names, short verbs, and waiting for a condition.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use imgate::store::embedded::EmbeddedStore;
use imgate::store::memory::MemoryStore;
use imgate::store::metrics::{Backend, Measured};
use imgate::store::redis::{RedisOptions, RedisStore};
use imgate::store::{
    Batch, BatchId, Claim, Committed, Lease, LogEntry, LogId, Position, Retention, Store,
    StoreError, StoredSend, StoredSession,
};
use imgate::types::{AccountId, Epoch, PartitionId, ReplicaId, TenantId, UnixMillis};

use crate::redis_server::RedisServer;

/// Longer than any test runs.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type Shared = Arc<dyn Store>;

pub(crate) fn partition(tenant: &str, number: u16) -> PartitionId {
    PartitionId {
        tenant: TenantId::new(tenant),
        number,
    }
}

pub(crate) fn here() -> PartitionId {
    partition("tenant", 3)
}

pub(crate) fn replica(name: &str) -> ReplicaId {
    ReplicaId::new(name)
}

pub(crate) async fn claim(store: &Shared, owner: &str, ttl: Duration) -> Claim {
    store
        .claim(&here(), &replica(owner), ttl, Some(Epoch(0)))
        .await
        .unwrap()
}

pub(crate) fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted(lease) => lease,
        Claim::Held { owner, remaining } => panic!("held by {owner} for {remaining:?}"),
        Claim::Unknown => panic!("unknown in spite of a floor"),
    }
}

/// A store behind the measuring one, to see that this hands everything on.
pub(crate) fn measured() -> Shared {
    Arc::new(Measured::new(MemoryStore::new(), Backend::Memory))
}

/// A store in a file of its own, and the folder, which goes when it is dropped.
pub(crate) fn embedded() -> (Shared, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("imgate.redb")).unwrap();
    (Arc::new(store), folder)
}

/// A store in a server of its own, which goes when it is dropped.
pub(crate) async fn redis() -> (Shared, RedisServer) {
    let server = RedisServer::start();
    (connect(&server).await, server)
}

pub(crate) async fn connect(server: &RedisServer) -> Shared {
    let options = RedisOptions::new(server.url());
    Arc::new(RedisStore::connect(&options).await.unwrap())
}

/// A store that gives up early, so that time-outs do not take long.
pub(crate) async fn impatient(server: &RedisServer) -> Shared {
    let options = RedisOptions {
        connect_timeout: Duration::from_millis(300),
        response_timeout: Duration::from_millis(300),
        ..RedisOptions::new(server.url())
    };
    Arc::new(RedisStore::connect(&options).await.unwrap())
}

/// A lease of `place` that lasts for the whole test.
pub(crate) async fn owned(store: &Shared, place: &PartitionId) -> Lease {
    let claim = store
        .claim(place, &replica("owner"), LONG, Some(Epoch(0)))
        .await;
    granted(claim.unwrap())
}

pub(crate) fn session(account: &str, record: impl Into<Vec<u8>>) -> StoredSession {
    StoredSession {
        account: AccountId::new(account),
        record: record.into(),
    }
}

/// What is remembered of a send; nothing forgets it.
pub(crate) fn send(account: &str, id: &str, record: impl Into<Vec<u8>>) -> StoredSend {
    StoredSend {
        account: AccountId::new(account),
        client_message_id: id.into(),
        record: record.into(),
    }
}

pub(crate) fn at(log: LogId, sequence: u64) -> Position {
    Position { log, sequence }
}

/// Keeps everything. Tests lower one of its bounds.
pub(crate) const ALL: Retention = Retention {
    events: u64::MAX,
    bytes: u64::MAX,
    since: UnixMillis(0),
};

/// Keeps at most so many of the newest entries.
pub(crate) fn newest(events: u64) -> Retention {
    Retention { events, ..ALL }
}

/// Trims in one step, and says how many entries that dropped.
pub(crate) async fn trim(store: &Shared, lease: &Lease, retention: Retention) -> u64 {
    let trimmed = store.trim(lease, &retention).await.unwrap();
    assert!(!trimmed.more, "not done after {trimmed:?}");
    trimmed.dropped()
}

/// The batch of this number of one writer.
pub(crate) fn batch_id(number: u64) -> BatchId {
    BatchId {
        // A neighbour of others that a floating point number cannot tell apart.
        writer: u64::MAX - 1,
        number,
    }
}

pub(crate) fn events<const N: usize>(payloads: [&str; N]) -> Batch {
    Batch {
        now: UnixMillis(1_700_000_000_123),
        events: payloads.map(|payload| payload.as_bytes().to_vec()).into(),
        ..Batch::default()
    }
}

pub(crate) fn records(records: impl Into<Vec<StoredSession>>) -> Batch {
    Batch {
        now: UnixMillis(7),
        records: records.into(),
        ..Batch::default()
    }
}

pub(crate) async fn append<const N: usize>(
    store: &Shared,
    lease: &Lease,
    payloads: [&str; N],
) -> Committed {
    store.commit(lease, &events(payloads)).await.unwrap()
}

/// The whole log as `(sequence, text)`.
pub(crate) async fn log(store: &Shared, place: &PartitionId) -> Vec<(u64, String)> {
    texts(store.read(place, 0, 1000).await.unwrap().entries)
}

pub(crate) fn texts(entries: Vec<LogEntry>) -> Vec<(u64, String)> {
    let text = |entry: LogEntry| (entry.sequence, String::from_utf8(entry.payload).unwrap());
    entries.into_iter().map(text).collect()
}

/// The latest epoch that a refusal names.
pub(crate) fn fenced<T: std::fmt::Debug>(
    result: Result<T, StoreError>,
    lease: &Lease,
) -> Option<Epoch> {
    match result.unwrap_err() {
        StoreError::Fenced { held, current } => {
            assert_eq!(held, lease.epoch);
            current
        }
        other @ (StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Corrupt { .. }) => {
            panic!("not fenced: {other}")
        }
    }
}

/// Asks again and again until there is an answer; fails when it takes too long.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("it did not come true in {DEADLINE:?}: {what}"),
    }
}
