//! What the tests of this room share: a store that can be slow and corrupt, and events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message as _;
use tokio::sync::watch;

use crate::proto::v1;
use crate::store::memory::MemoryStore;
use crate::store::{
    Batch, Claim, Committed, Lease, LogBounds, LogEntry, Position, Renewal, Store, StoreError,
    StoredSession,
};
use crate::types::{AccountId, Epoch, PartitionId, ReplicaId, TenantId};

/// A memory store whose commits are counted, whose calls can hang, and which can be corrupt.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) inner: MemoryStore,
    /// Events of each commit that succeeded.
    commits: Mutex<Vec<usize>>,
    corrupt: AtomicBool,
    hanging: watch::Sender<bool>,
}

impl TestStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            commits: Mutex::default(),
            corrupt: AtomicBool::new(false),
            hanging: watch::Sender::new(false),
        })
    }

    pub(crate) fn set_corrupt(&self, corrupt: bool) {
        self.corrupt.store(corrupt, Ordering::SeqCst);
    }

    /// While true, commits and reads do not answer.
    pub(crate) fn set_hanging(&self, hanging: bool) {
        self.hanging.send_replace(hanging);
    }

    pub(crate) fn commits(&self) -> Vec<usize> {
        let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.clone()
    }

    pub(crate) async fn lease(&self, partition: &PartitionId) -> Lease {
        let ttl = Duration::from_secs(3600);
        let owner = ReplicaId::new("r1");
        match self.inner.claim(partition, &owner, ttl, Epoch(0)).await {
            Ok(Claim::Granted(lease)) => lease,
            other => panic!("no lease: {other:?}"),
        }
    }

    /// Appends events as another writer would, and answers where the log ends.
    pub(crate) async fn append(&self, partition: &PartitionId, events: &[v1::Event]) -> Position {
        let lease = self.lease(partition).await;
        let batch = Batch {
            events: events.iter().map(v1::Event::encode_to_vec).collect(),
            ..Batch::default()
        };
        let done = self.inner.commit(&lease, &batch).await.unwrap();
        Position {
            log: done.log,
            sequence: done.last_sequence,
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let mut hanging = self.hanging.subscribe();
        let _released = hanging.wait_for(|hanging| !hanging).await;
        if self.corrupt.load(Ordering::SeqCst) {
            return Err(StoreError::Corrupt {
                place: "test".into(),
                detail: "told to be corrupt".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for TestStore {
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Epoch,
    ) -> Result<Claim, StoreError> {
        self.inner.claim(partition, owner, ttl, floor).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError> {
        self.inner.renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.release(lease).await
    }

    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError> {
        self.ready().await?;
        let committed = self.inner.commit(lease, batch).await?;
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.push(batch.events.len());
        Ok(committed)
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.session(partition, account).await
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        self.inner.sessions(partition).await
    }

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        self.inner.log_bounds(partition).await
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.ready().await?;
        self.inner.read(partition, after, limit).await
    }

    async fn trim(&self, lease: &Lease, first_kept: u64) -> Result<(), StoreError> {
        self.inner.trim(lease, first_kept).await
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        self.inner.subscription(partition, name).await
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
    ) -> Result<(), StoreError> {
        self.inner
            .advance_subscription(partition, name, position)
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("t")
}

pub(crate) fn partition(number: u16) -> PartitionId {
    PartitionId {
        tenant: tenant(),
        number,
    }
}

/// A text message to an account.
pub(crate) fn message(account: &str, text: &str) -> v1::Event {
    let text = v1::TextElement { text: text.into() };
    let element = v1::Element {
        kind: Some(v1::element::Kind::Text(text)),
    };
    v1::Event {
        account: account.into(),
        kind: Some(v1::event::Kind::Message(v1::Message {
            elements: vec![element],
            ..v1::Message::default()
        })),
        ..v1::Event::default()
    }
}

/// What an event says in the tests: a message's text, or another kind's name.
pub(crate) fn gist(event: &v1::Event) -> String {
    match event.kind.as_ref() {
        Some(v1::event::Kind::Message(message)) => message
            .elements
            .iter()
            .map(|element| match element.kind.as_ref() {
                Some(v1::element::Kind::Text(text)) => text.text.clone(),
                Some(v1::element::Kind::Custom(_) | v1::element::Kind::Raw(_)) | None => "?".into(),
            })
            .collect(),
        Some(v1::event::Kind::Gap(gap)) => format!(
            "gap {} {}-{} {}",
            gap.reason().as_str_name().trim_start_matches("GAP_REASON_"),
            gap.from_sequence,
            gap.to_sequence,
            gap.count
        ),
        Some(v1::event::Kind::SessionChanged(_)) => "session".into(),
        Some(v1::event::Kind::SignatureExpired(_)) => "expired".into(),
        Some(v1::event::Kind::KickedOffline(_)) => "kicked".into(),
        Some(v1::event::Kind::UpstreamNotice(_)) => "notice".into(),
        None => "nothing".into(),
    }
}
