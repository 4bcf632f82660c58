//! The store in a file of one process, for one replica without Redis. Every write is on the disk before it is
//! answered; the writes of many callers share one transaction.

mod file;
mod tables;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use redb::{ReadTransaction, ReadableDatabase as _};
use tokio::time::Instant;

use self::file::DatabaseFile;
use self::tables::{Step, active, log, records, subscriptions, tenants};
use self::writer::{Held, Leases, Writer, locked};
use super::shares::Shares;
use super::turns::LocalTurns;
use super::{
    Batch, BatchId, Claim, Committed, Lease, LogBounds, LogRead, Position, Renewal, Retention,
    Store, StoreError, StoredSend, StoredSession, StoredSubscription, TenantLayout, Trimmed, Turns,
};
use crate::types::{
    AccountId, AppId, Day, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis,
};

/// A redb file. Dropping it waits for the last writes and closes the file.
#[derive(Debug)]
pub struct EmbeddedStore {
    // Dropped in this order: the writer ends first.
    writer: Writer,
    file: Arc<DatabaseFile>,
    leases: Leases,
    shares: Mutex<Shares>,
    turns: Mutex<LocalTurns>,
}

impl EmbeddedStore {
    /// Opens the file at `path`; makes it (for its owner only) and its folder when they are not there. Blocks: the
    /// whole file is read and checked.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when another process has the file open or it cannot be opened,
    /// [`StoreError::Full`] when the disk is, [`StoreError::Corrupt`] when it is no store or a broken one. The text
    /// names the file and the remedy.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let file = Arc::new(DatabaseFile::open(path.as_ref())?);
        let leases = Leases::default();
        let writer = Writer::start(file.clone(), leases.clone())
            .map_err(|error| StoreError::Unavailable(format!("no thread to write: {error}")))?;
        Ok(Self {
            writer,
            file,
            leases,
            shares: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// Reads on a thread that may block.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Step<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        let task =
            tokio::task::spawn_blocking(move || file.run(|database| read(&database.begin_read()?)));
        match task.await {
            Ok(result) => Ok(result?),
            Err(ended) => Err(StoreError::Unavailable(ended.to_string())),
        }
    }

    fn shared<T>(&self, work: impl FnOnce(&mut Shares) -> T) -> T {
        // Nothing panics while it is held.
        work(&mut self.shares.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Option<Epoch>,
    ) -> Result<Claim, StoreError> {
        let (partition, owner) = (partition.clone(), owner.clone());
        let now = Instant::now();
        let claiming = move |group: &mut writer::Group<'_>| {
            if let Some(held) = group.held(&partition, now)
                && held.lease.owner != owner
            {
                return Ok(Ok(Claim::Held {
                    owner: held.lease.owner,
                    remaining: held.until - now,
                }));
            }
            let Some(epoch) = group.tables.next_epoch(&partition, floor)? else {
                return Ok(Ok(Claim::Unknown));
            };
            let lease = Lease {
                partition: partition.clone(),
                owner: owner.clone(),
                epoch,
            };
            group.grant(Held {
                lease: lease.clone(),
                until: now + ttl,
            });
            Ok(Ok(Claim::Granted(lease)))
        };
        self.writer.write(claiming).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError> {
        let now = Instant::now();
        let mut leases = locked(&self.leases);
        // Whoever was given a later epoch stays in the map, also after the lease ran out or was given back.
        let Some(held) = leases.get_mut(&lease.partition) else {
            return Ok(Renewal::Missing);
        };
        Ok(if held.lease != *lease {
            Renewal::Lost
        } else if held.until > now {
            held.until = now + ttl;
            Renewal::Renewed
        } else {
            Renewal::Missing
        })
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        if let Some(held) = locked(&self.leases).get_mut(&lease.partition)
            && held.lease == *lease
        {
            held.until = Instant::now();
        }
        Ok(())
    }

    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError> {
        let (lease, batch) = (lease.clone(), batch.clone());
        self.writer
            .write(move |group| group.tables.commit(&lease, &batch))
            .await
    }

    async fn last_batch(&self, partition: &PartitionId) -> Result<BatchId, StoreError> {
        let partition = partition.clone();
        self.reading(move |transaction| records::last_batch(transaction, &partition))
            .await
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (partition, account) = (partition.clone(), account.clone());
        self.reading(move |transaction| records::session(transaction, &partition, &account))
            .await
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        let partition = partition.clone();
        self.reading(move |transaction| records::sessions(transaction, &partition))
            .await
    }

    async fn sends(&self, partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError> {
        let partition = partition.clone();
        self.reading(move |transaction| records::sends(transaction, &partition))
            .await
    }

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        let partition = partition.clone();
        self.reading(move |transaction| log::bounds(transaction, &partition))
            .await
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<LogRead, StoreError> {
        let partition = partition.clone();
        self.reading(move |transaction| log::read(transaction, &partition, after, limit))
            .await
    }

    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError> {
        let (lease, retention) = (lease.clone(), *retention);
        self.writer
            .write(move |group| group.tables.trim(&lease, &retention))
            .await
    }

    async fn growth(&self) -> Result<BoxStream<'static, (PartitionId, Position)>, StoreError> {
        // One process writes it and knows what it has written.
        Ok(stream::pending().boxed())
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        let (partition, name) = (partition.clone(), name.to_owned());
        self.reading(move |transaction| subscriptions::position(transaction, &partition, &name))
            .await
    }

    async fn subscriptions(
        &self,
        partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        let partition = partition.clone();
        self.reading(move |transaction| subscriptions::all(transaction, &partition))
            .await
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> Result<bool, StoreError> {
        let (partition, name, position) = (partition.clone(), name.to_owned(), *position);
        let advancing = move |group: &mut writer::Group<'_>| {
            let tables = &mut group.tables;
            Ok(Ok(tables.advance(
                &partition,
                &name,
                &position,
                now,
                only_if_there,
            )?))
        };
        self.writer.write(advancing).await
    }

    async fn remove_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        let (place, owned_name) = (partition.clone(), name.to_owned());
        let removing = move |group: &mut writer::Group<'_>| {
            let removed = group
                .tables
                .remove_subscription(&place, &owned_name, unused_since)?;
            Ok(Ok(removed))
        };
        let removed = self.writer.write(removing).await?;
        if removed {
            self.shared(|shares| shares.forget(partition, name));
        }
        Ok(removed)
    }

    async fn attend(
        &self,
        tenant: &TenantId,
        subscription: &str,
        member: &MemberId,
        ttl: Option<Duration>,
    ) -> Result<Vec<MemberId>, StoreError> {
        Ok(self.shared(|shares| shares.attend(tenant, subscription, member, ttl)))
    }

    async fn members(
        &self,
        tenant: &TenantId,
        subscription: &str,
    ) -> Result<Vec<MemberId>, StoreError> {
        Ok(self.shared(|shares| shares.members(tenant, subscription)))
    }

    async fn claim_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        Ok(self.shared(|shares| shares.claim(partition, subscription, member, ttl)))
    }

    async fn release_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
    ) -> Result<(), StoreError> {
        self.shared(|shares| shares.release(partition, subscription, member));
        Ok(())
    }

    async fn take_turns(
        &self,
        app: &AppId,
        per_second: u32,
        most: u32,
    ) -> Result<Turns, StoreError> {
        // One process takes them, and nothing panics while it does.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(turns.take(app, per_second, most))
    }

    async fn note_active(
        &self,
        tenant: &TenantId,
        day: Day,
        accounts: &[AccountId],
    ) -> Result<u64, StoreError> {
        let tenant = tenant.clone();
        if accounts.is_empty() {
            let count = move |transaction: &_| active::count(transaction, &tenant, day);
            return self.reading(count).await;
        }
        let accounts = accounts.to_vec();
        let noting = move |group: &mut writer::Group<'_>| {
            Ok(Ok(group.tables.note_active(&tenant, day, &accounts)?))
        };
        self.writer.write(noting).await
    }

    async fn enrol(
        &self,
        tenant: &TenantId,
        layout: TenantLayout,
    ) -> Result<TenantLayout, StoreError> {
        let tenant = tenant.clone();
        let enrolling =
            move |group: &mut writer::Group<'_>| Ok(Ok(group.tables.enrol(&tenant, layout)?));
        self.writer.write(enrolling).await
    }

    async fn enrolled(&self) -> Result<Vec<(TenantId, TenantLayout)>, StoreError> {
        self.reading(tenants::enrolled).await
    }

    async fn strike(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        let striking = move |group: &mut writer::Group<'_>| Ok(Ok(group.tables.strike(&tenant)?));
        self.writer.write(striking).await
    }

    async fn purge(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.writer
            .write(move |group| group.tables.purge(&lease))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reading(|_| Ok(())).await
    }
}
