//! One partition: how its lease is claimed and renewed, and what that means for what is held under it.

use std::time::Duration;

use metrics::counter;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::LEASES_LOST;
use crate::runtime::handle::Gateway;
use crate::store::{BatchId, Claim, Lease, Renewal, Store, StoreError};
use crate::types::{Epoch, PartitionId, ReplicaId};

/// The lease of one partition, and what is known of how it stands with the partition.
#[derive(Debug)]
pub struct Keeper {
    /// Where the partition's writer looks for the lease.
    pub(super) lease: watch::Sender<Option<Lease>>,
    /// The last batch that the store has answered to the writer.
    written: watch::Receiver<BatchId>,
    /// The batch up to which the store need not have what was written: since then the partition was taken, or all has
    /// been written again.
    settled: BatchId,
    /// The last batch that was written before the partition was taken.
    began: BatchId,
    /// Whether another was seen to have the partition.
    other: Other,
}

/// Whether another replica was seen to have a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// It was not.
    Unseen,
    /// It was.
    Seen,
    /// It was, and since then the store knows nothing of the partition any more.
    Forgotten(Instant),
}

/// How things stand with a partition after it was seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Held or not, the store said so, or has not been asked for anything new.
    Settled,
    /// A new claim was not answered.
    Unsure,
    /// The store did not answer.
    Away,
    /// It was lost to another.
    Lost,
}

impl Seen {
    /// What an answer that is an error tells of the store.
    const fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Away,
            StoreError::Full(_) | StoreError::Fenced { .. } | StoreError::Corrupt { .. } => {
                Self::Settled
            }
        }
    }
}

/// Who sees to partitions.
#[derive(Debug)]
pub(super) struct Hand<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) replica: &'a ReplicaId,
    pub(super) ttl: Duration,
    pub(super) gateway: &'a Gateway,
    /// How long the owner of a partition has to come back after the store was away or lost its data.
    pub(super) patience: Duration,
    /// Whether nothing is to be claimed that is not held, for the store was away.
    pub(super) is_patient: bool,
    /// Places to read what a partition holds: the answers may be large.
    pub(super) readers: &'a Semaphore,
}

impl Keeper {
    /// Shows the partition's writer the lease by `lease`. `written`: what the store has answered to the writer, as
    /// [`LogWriter::written`](crate::events::log::LogWriter::written) tells.
    pub const fn new(
        lease: watch::Sender<Option<Lease>>,
        written: watch::Receiver<BatchId>,
    ) -> Self {
        let none = BatchId {
            writer: 0,
            number: 0,
        };
        Self {
            lease,
            written,
            settled: none,
            began: none,
            other: Other::Unseen,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.lease.borrow().is_some()
    }

    /// Whether somebody else has written since the partition was taken, `last` being what was written last. A store
    /// that has lost its newest batches goes back, at the most behind where it was then.
    fn is_overwritten(&self, last: BatchId) -> bool {
        let own = self.written.borrow().writer;
        let earlier = last.writer == self.began.writer && last.number <= self.began.number;
        last.writer != 0 && last.writer != own && !earlier
    }
}

impl Hand<'_> {
    /// Claims or renews one partition.
    pub(super) async fn see_to(
        &self,
        partition: &PartitionId,
        keeper: &mut Keeper,
        unsure: bool,
    ) -> Seen {
        let held = keeper.lease.borrow().clone();
        let Some(lease) = held else {
            if self.is_patient {
                return Seen::Settled;
            }
            return self.claim(partition, keeper, None).await;
        };
        if unsure {
            return self.claim(partition, keeper, Some(lease)).await;
        }
        match self.store.renew(&lease, self.ttl).await {
            Ok(Renewal::Renewed) => self.look_for_losses(partition, keeper).await,
            Ok(Renewal::Missing) => {
                warn!(%partition, "the store has forgotten the lease; claiming it again");
                self.claim(partition, keeper, Some(lease)).await
            }
            Ok(Renewal::Lost) => {
                self.lose(partition, keeper).await;
                Seen::Lost
            }
            Err(error) => {
                warn!(%partition, %error, "the lease is not renewed; trying again");
                Seen::of(&error)
            }
        }
    }

    /// A store that was replaced by one that lags behind it may know the lease, and not what was written last.
    async fn look_for_losses(&self, partition: &PartitionId, keeper: &mut Keeper) -> Seen {
        // As it is before the store is asked: what is written meanwhile is not missing.
        let written = *keeper.written.borrow();
        if written.number == 0 || written == keeper.settled {
            return Seen::Settled;
        }
        match self.last_batch(partition).await {
            Ok(last) if last.writer == written.writer && last.number >= written.number => {}
            Ok(_) => {
                warn!(%partition, "the store has lost what was written last; writing it again");
                if self.gateway.save_all(partition) {
                    keeper.settled = written;
                }
            }
            Err(error) => {
                warn!(%partition, %error, "it is not known whether the store has lost anything");
                return Seen::of(&error);
            }
        }
        Seen::Settled
    }

    async fn claim(
        &self,
        partition: &PartitionId,
        keeper: &mut Keeper,
        before: Option<Lease>,
    ) -> Seen {
        let floor = match &before {
            Some(lease) => Some(lease.epoch),
            None => (!self.waits_for_owner(keeper)).then_some(Epoch::default()),
        };
        match self
            .store
            .claim(partition, self.replica, self.ttl, floor)
            .await
        {
            Ok(Claim::Granted(lease)) if before.is_some() => {
                self.hold_again(partition, keeper, lease).await
            }
            Ok(Claim::Granted(lease)) => self.take(partition, keeper, lease).await,
            Ok(Claim::Held { owner, remaining }) => {
                if before.is_some() {
                    self.lose(partition, keeper).await;
                    return Seen::Lost;
                }
                info!(%partition, %owner, ?remaining, "the partition is another's; waiting");
                keeper.other = Other::Seen;
                Seen::Settled
            }
            Ok(Claim::Unknown) => {
                if keeper.other == Other::Seen {
                    warn!(%partition, "the store has forgotten whose the partition is; its owner may claim it first");
                    keeper.other = Other::Forgotten(Instant::now());
                }
                Seen::Settled
            }
            Err(error) => {
                warn!(%partition, %error, "the partition is not claimed; trying again");
                // Without a lease before, another claim finds out; with one, it may be refused from now on.
                match (before, Seen::of(&error)) {
                    (Some(_), Seen::Away) => Seen::Unsure,
                    (_, seen) => seen,
                }
            }
        }
    }

    /// Whether a store that knows nothing of a partition has another's to expect, who was seen to have it.
    fn waits_for_owner(&self, keeper: &Keeper) -> bool {
        match keeper.other {
            Other::Unseen => false,
            Other::Seen => true,
            Other::Forgotten(since) => since.elapsed() < self.patience,
        }
    }

    /// Goes on with what is held here, unless another replica had the partition meanwhile and has changed what is
    /// stored: then that counts.
    async fn hold_again(&self, partition: &PartitionId, keeper: &mut Keeper, lease: Lease) -> Seen {
        let last = match self.last_batch(partition).await {
            Ok(last) => last,
            Err(error) => {
                warn!(%partition, %error, "the partition is not claimed again; trying again");
                return Seen::Unsure;
            }
        };
        if keeper.is_overwritten(last) {
            self.lose(partition, keeper).await;
            keeper.other = Other::Unseen;
            if let Err(error) = self.store.release(&lease).await {
                warn!(%partition, %error, "the lease is not given back; it is claimed all the same");
            }
            return Seen::Settled;
        }
        info!(%partition, epoch = %lease.epoch, "the partition is held again");
        keeper.lease.send_replace(Some(lease));
        let written = *keeper.written.borrow();
        if self.gateway.save_all(partition) {
            keeper.settled = written;
        }
        Seen::Settled
    }

    async fn take(&self, partition: &PartitionId, keeper: &mut Keeper, lease: Lease) -> Seen {
        // Never closed.
        let place = self.readers.acquire().await;
        let stored = self.store.sessions(partition).await;
        let sends = self.store.sends(partition).await;
        drop(place);
        let last = self.last_batch(partition).await;
        match stored.and_then(|stored| Ok((stored, sends?, last?))) {
            Ok((stored, sends, last)) => {
                info!(%partition, epoch = %lease.epoch, sessions = stored.len(), "partition held");
                keeper.settled = *keeper.written.borrow();
                keeper.began = last;
                keeper.other = Other::Unseen;
                keeper.lease.send_replace(Some(lease));
                self.gateway.adopt(partition, stored, sends);
                Seen::Settled
            }
            Err(error) => {
                let seen = Seen::of(&error);
                match seen {
                    Seen::Away => {
                        warn!(%partition, %error, "the partition is not read; trying again")
                    }
                    Seen::Settled | Seen::Unsure | Seen::Lost => {
                        error!(%partition, %error, "the partition cannot be read; trying again");
                    }
                }
                seen
            }
        }
    }

    /// The batch that was written last; as if there was none if that cannot be read, which is no reason to give up what
    /// is held.
    async fn last_batch(&self, partition: &PartitionId) -> Result<BatchId, StoreError> {
        match self.store.last_batch(partition).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                error!(%partition, %error, "what was written last cannot be read; going on");
                Ok(BatchId::default())
            }
            last => last,
        }
    }

    async fn lose(&self, partition: &PartitionId, keeper: &mut Keeper) {
        if !partition.tenant.is_reserved() {
            counter!(LEASES_LOST).increment(1);
        }
        error!(%partition, "the partition is another replica's now; closing its sessions");
        keeper.other = Other::Seen;
        keeper.lease.send_replace(None);
        self.gateway.lose(partition).await;
    }
}
