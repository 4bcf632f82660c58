//! What is measured of a store: how long each operation takes and what goes wrong.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use tokio::time::Instant;

use super::{
    Batch, BatchId, Claim, Committed, Lease, LogBounds, LogRead, Position, Renewal, Retention,
    Store, StoreError, StoredSend, StoredSession, StoredSubscription, TenantLayout, Trimmed, Turns,
};
use crate::types::{
    AccountId, AppId, Day, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis,
};

/// How long operations take in seconds, by `operation` and `backend`; failed ones count, too.
pub const OPERATION_DURATION_SECONDS: &str = "imgate_store_operation_duration_seconds";
/// Operations that failed, by `operation` and `kind`.
pub const ERRORS_TOTAL: &str = "imgate_store_errors_total";

/// Tells the recorder what the store's metrics mean.
pub fn describe_metrics() {
    describe_histogram!(
        OPERATION_DURATION_SECONDS,
        Unit::Seconds,
        "Time that an operation of the store took"
    );
    describe_counter!(
        ERRORS_TOTAL,
        Unit::Count,
        "Operations of the store that failed, by what went wrong"
    );
}

/// Which implementation a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// [`super::redis`].
    Redis,
    /// [`super::embedded`].
    Embedded,
    /// [`super::memory`].
    Memory,
}

impl Backend {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Embedded => "embedded",
            Self::Memory => "memory",
        }
    }
}

/// A store that measures another.
#[derive(Debug)]
pub struct Measured<S> {
    store: S,
    claim: Operation,
    renew: Operation,
    release: Operation,
    commit: Operation,
    last_batch: Operation,
    session: Operation,
    sessions: Operation,
    sends: Operation,
    log_bounds: Operation,
    read: Operation,
    trim: Operation,
    growth: Operation,
    subscription: Operation,
    subscriptions: Operation,
    advance_subscription: Operation,
    remove_subscription: Operation,
    attend: Operation,
    members: Operation,
    claim_share: Operation,
    release_share: Operation,
    take_turns: Operation,
    note_active: Operation,
    enrol: Operation,
    enrolled: Operation,
    strike: Operation,
    purge: Operation,
    ping: Operation,
}

/// The instruments of one operation, looked up once. Every error counter exists from the start.
#[derive(Debug)]
struct Operation {
    duration: Histogram,
    unavailable: Counter,
    fenced: Counter,
    full: Counter,
    corrupt: Counter,
}

impl<S: Store> Measured<S> {
    /// Measures `store` with the recorder that is installed now: install it first.
    pub fn new(store: S, backend: Backend) -> Self {
        let operation = |name| Operation::new(name, backend);
        Self {
            store,
            claim: operation("claim"),
            renew: operation("renew"),
            release: operation("release"),
            commit: operation("commit"),
            last_batch: operation("last_batch"),
            session: operation("session"),
            sessions: operation("sessions"),
            sends: operation("sends"),
            log_bounds: operation("log_bounds"),
            read: operation("read"),
            trim: operation("trim"),
            growth: operation("growth"),
            subscription: operation("subscription"),
            subscriptions: operation("subscriptions"),
            advance_subscription: operation("advance_subscription"),
            remove_subscription: operation("remove_subscription"),
            attend: operation("attend"),
            members: operation("members"),
            claim_share: operation("claim_share"),
            release_share: operation("release_share"),
            take_turns: operation("take_turns"),
            note_active: operation("note_active"),
            enrol: operation("enrol"),
            enrolled: operation("enrolled"),
            strike: operation("strike"),
            purge: operation("purge"),
            ping: operation("ping"),
        }
    }
}

impl Operation {
    fn new(name: &'static str, backend: Backend) -> Self {
        let errors = |kind: &'static str| {
            let errors = counter!(ERRORS_TOTAL, "operation" => name, "kind" => kind);
            errors.increment(0);
            errors
        };
        Self {
            duration: histogram!(
                OPERATION_DURATION_SECONDS,
                "operation" => name,
                "backend" => backend.label()
            ),
            unavailable: errors("unavailable"),
            fenced: errors("fenced"),
            full: errors("full"),
            corrupt: errors("corrupt"),
        }
    }

    async fn measure<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let result = work.await;
        self.duration.record(begun.elapsed());
        if let Err(error) = &result {
            let errors = match error {
                StoreError::Unavailable(_) => &self.unavailable,
                StoreError::Fenced { .. } => &self.fenced,
                StoreError::Full(_) => &self.full,
                StoreError::Corrupt { .. } => &self.corrupt,
            };
            errors.increment(1);
        }
        result
    }
}

#[async_trait]
impl<S: Store> Store for Measured<S> {
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Option<Epoch>,
    ) -> Result<Claim, StoreError> {
        let work = self.store.claim(partition, owner, ttl, floor);
        self.claim.measure(work).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError> {
        self.renew.measure(self.store.renew(lease, ttl)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.release.measure(self.store.release(lease)).await
    }

    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError> {
        self.commit.measure(self.store.commit(lease, batch)).await
    }

    async fn last_batch(&self, partition: &PartitionId) -> Result<BatchId, StoreError> {
        let work = self.store.last_batch(partition);
        self.last_batch.measure(work).await
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let work = self.store.session(partition, account);
        self.session.measure(work).await
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        self.sessions.measure(self.store.sessions(partition)).await
    }

    async fn sends(&self, partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError> {
        self.sends.measure(self.store.sends(partition)).await
    }

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        let work = self.store.log_bounds(partition);
        self.log_bounds.measure(work).await
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<LogRead, StoreError> {
        let work = self.store.read(partition, after, limit);
        self.read.measure(work).await
    }

    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError> {
        self.trim.measure(self.store.trim(lease, retention)).await
    }

    async fn growth(&self) -> Result<BoxStream<'static, (PartitionId, Position)>, StoreError> {
        self.growth.measure(self.store.growth()).await
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        let work = self.store.subscription(partition, name);
        self.subscription.measure(work).await
    }

    async fn subscriptions(
        &self,
        partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        let work = self.store.subscriptions(partition);
        self.subscriptions.measure(work).await
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> Result<bool, StoreError> {
        let work = self
            .store
            .advance_subscription(partition, name, position, now, only_if_there);
        self.advance_subscription.measure(work).await
    }

    async fn remove_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        let work = self
            .store
            .remove_subscription(partition, name, unused_since);
        self.remove_subscription.measure(work).await
    }

    async fn attend(
        &self,
        tenant: &TenantId,
        subscription: &str,
        member: &MemberId,
        ttl: Option<Duration>,
    ) -> Result<Vec<MemberId>, StoreError> {
        let work = self.store.attend(tenant, subscription, member, ttl);
        self.attend.measure(work).await
    }

    async fn members(
        &self,
        tenant: &TenantId,
        subscription: &str,
    ) -> Result<Vec<MemberId>, StoreError> {
        let work = self.store.members(tenant, subscription);
        self.members.measure(work).await
    }

    async fn claim_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let work = self.store.claim_share(partition, subscription, member, ttl);
        self.claim_share.measure(work).await
    }

    async fn release_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
    ) -> Result<(), StoreError> {
        let work = self.store.release_share(partition, subscription, member);
        self.release_share.measure(work).await
    }

    async fn take_turns(
        &self,
        app: &AppId,
        per_second: u32,
        most: u32,
    ) -> Result<Turns, StoreError> {
        let work = self.store.take_turns(app, per_second, most);
        self.take_turns.measure(work).await
    }

    async fn note_active(
        &self,
        tenant: &TenantId,
        day: Day,
        accounts: &[AccountId],
    ) -> Result<u64, StoreError> {
        let work = self.store.note_active(tenant, day, accounts);
        self.note_active.measure(work).await
    }

    async fn enrol(
        &self,
        tenant: &TenantId,
        layout: TenantLayout,
    ) -> Result<TenantLayout, StoreError> {
        self.enrol.measure(self.store.enrol(tenant, layout)).await
    }

    async fn enrolled(&self) -> Result<Vec<(TenantId, TenantLayout)>, StoreError> {
        self.enrolled.measure(self.store.enrolled()).await
    }

    async fn strike(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.strike.measure(self.store.strike(tenant)).await
    }

    async fn purge(&self, lease: &Lease) -> Result<(), StoreError> {
        self.purge.measure(self.store.purge(lease)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ping.measure(self.store.ping()).await
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::types::TenantId;

    #[tokio::test]
    async fn operations_and_errors_are_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let store = metrics::with_local_recorder(&recorder, || {
            describe_metrics();
            Measured::new(MemoryStore::new(), Backend::Memory)
        });
        let place = PartitionId {
            tenant: TenantId::new("t"),
            number: 0,
        };
        let lease = Lease {
            partition: place.clone(),
            owner: ReplicaId::new("a"),
            epoch: Epoch(1),
        };
        store.ping().await.unwrap();
        store.commit(&lease, &Batch::default()).await.unwrap_err();
        store.store.set_available(false);
        store.read(&place, 0, 1).await.unwrap_err();
        store.read(&place, 0, 1).await.unwrap_err();

        let text = recorder.handle().render();
        for line in [
            r#"imgate_store_operation_duration_seconds_count{operation="ping",backend="memory"} 1"#,
            r#"imgate_store_operation_duration_seconds_count{operation="read",backend="memory"} 2"#,
            r#"imgate_store_errors_total{operation="commit",kind="fenced"} 1"#,
            r#"imgate_store_errors_total{operation="read",kind="unavailable"} 2"#,
            r#"imgate_store_errors_total{operation="renew",kind="full"} 0"#,
            r#"imgate_store_errors_total{operation="session",kind="corrupt"} 0"#,
            "# HELP imgate_store_errors_total ",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
