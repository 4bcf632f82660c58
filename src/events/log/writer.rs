//! The task behind a [`LogWriter`](super::LogWriter).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::meter::{Commits, Meter};
use super::{Append, AppendError, LogOptions, Record, Stuck, queue};
use crate::events::hub::{Hub, Written};
use crate::events::payload;
use crate::runtime::supervisor::Tasks;
use crate::store::seal::SealError;
use crate::store::{
    Batch, BatchId, Committed, Lease, Position, Store, StoreError, StoredSend, StoredSession,
};
use crate::types::{AccountId, Epoch, PartitionId, WallClock};

/// Owns a partition's log while its replica owns the partition.
pub(super) struct Writer {
    partition: PartitionId,
    store: Arc<dyn Store>,
    lease: watch::Receiver<Option<Lease>>,
    hub: Hub,
    fenced: mpsc::Sender<PartitionId>,
    options: watch::Receiver<LogOptions>,
    appends: queue::Receiver,
    stuck: watch::Sender<Option<Stuck>>,
    /// The last batch that the store has answered as written.
    written: watch::Sender<BatchId>,
    /// How many events were appended, for the trimmer.
    appended: watch::Sender<u64>,
    meter: Meter,
    commits: Commits,
    /// The last batch.
    batch: BatchId,
    /// While there is a lease that the store does not refuse.
    written_here: Option<(Epoch, Written)>,
    /// The epoch that the store refused: nothing is written under it again.
    refused: Option<Epoch>,
    /// Where this writer has seen the log end in the present hold of the partition.
    seen: Position,
    /// Whether the last commit found the store corrupt.
    corrupt: bool,
}

/// What became of a group.
enum Flushed {
    /// It is in the store, and with it these events, as they are before they are sealed.
    Done(Committed, Vec<Vec<u8>>),
    Failed(AppendError),
}

/// What a group changes of one account's record.
#[derive(Default)]
struct Changed {
    whole: Option<Vec<u8>>,
    addition: Option<Vec<u8>>,
}

impl Changed {
    /// A later change comes after this one.
    fn then(&mut self, record: Record) {
        match record {
            // What was added to the one before is in it.
            Record::Whole(whole) => {
                *self = Self {
                    whole: Some(whole),
                    addition: None,
                };
            }
            Record::Addition(addition) => self.addition = Some(addition),
        }
    }
}

/// A batch's events as they are, where the store gets them sealed.
type Plain = Option<Vec<Vec<u8>>>;

/// Resolves when the time to stop is over.
type StopBy<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "the parts of one private struct")]
    pub(super) fn new(
        partition: PartitionId,
        store: Arc<dyn Store>,
        lease: watch::Receiver<Option<Lease>>,
        hub: Hub,
        fenced: mpsc::Sender<PartitionId>,
        options: watch::Receiver<LogOptions>,
        appends: queue::Receiver,
        stuck: watch::Sender<Option<Stuck>>,
        written: watch::Sender<BatchId>,
        appended: watch::Sender<u64>,
    ) -> Self {
        let batch = *written.borrow();
        Self {
            meter: Meter::of(&partition),
            commits: Commits::of(&partition),
            partition,
            store,
            lease,
            hub,
            fenced,
            options,
            appends,
            stuck,
            batch,
            written,
            appended,
            written_here: None,
            refused: None,
            seen: Position::default(),
            corrupt: false,
        }
    }

    /// Writes until told to stop or until nobody can append any more.
    pub(super) async fn run(mut self, tasks: Tasks) {
        let stop_within = self.options.borrow().stop_within;
        let stopping = tasks.clone();
        let stop_by = async move {
            stopping.stopping().await;
            tokio::time::sleep(stop_within).await;
        };
        let mut stop_by = std::pin::pin!(stop_by);
        let _lease = self.present_lease();
        while let Some(mut group) = self.gather(&tasks).await {
            match self.flush(&mut group, stop_by.as_mut()).await {
                Some(Flushed::Done(committed, events)) => self.complete(group, committed, events),
                Some(Flushed::Failed(error)) => self.fail(group, error),
                None => {
                    self.fail(group, AppendError::Stopping);
                    break;
                }
            }
        }
        self.end();
    }

    /// The next group: all that waits, within the bounds. `None` when nothing will come any more.
    async fn gather(&mut self, tasks: &Tasks) -> Option<Vec<Append>> {
        let mut kept = true;
        let first = loop {
            let closed = self.appends.is_closed();
            tokio::select! {
                biased;
                first = self.appends.recv() => break first?,
                () = tasks.stopping(), if !closed => self.appends.close(),
                changed = self.lease.changed(), if kept => {
                    kept = changed.is_ok();
                    let _lease = self.present_lease();
                }
            }
        };
        let mut bytes = first.bytes();
        let mut group = vec![first];
        let options = self.options.borrow();
        while group.len() < options.flush_appends && bytes < options.flush_bytes {
            let Some(next) = self.appends.try_recv() else {
                break;
            };
            bytes += next.bytes();
            group.push(next);
        }
        Some(group)
    }

    /// Gets what a group holds into the store, however long that takes. `None` when the time to stop is over.
    async fn flush(&mut self, group: &mut [Append], stop_by: StopBy<'_>) -> Option<Flushed> {
        let (batch, plain) = match self.batch(group) {
            Ok(batch) => batch,
            Err(error) => {
                error!(%error, "events cannot be sealed, and are not stored as they are");
                return Some(Flushed::Failed(AppendError::Unsealed));
            }
        };
        let records = batch.records.len() + batch.additions.len();
        self.commits.began(records + batch.events.len());

        let began = Instant::now();
        let ended = hold_ended(self.lease.clone());
        tokio::select! {
            biased;
            flushed = self.commit(batch, plain) => {
                self.commits.ended(began.elapsed());
                return Some(flushed);
            }
            () = ended => {}
            () = stop_by => return None,
        }
        // The partition may be held again before the store answers: then this is not to be written any more.
        let _lease = self.present_lease();
        self.stuck.send_replace(None);
        Some(Flushed::Failed(AppendError::Fenced))
    }

    /// What a group writes, taken out of it. Only the store gets sealed events: who reads with this replica gets them as
    /// they are.
    fn batch(&mut self, group: &mut [Append]) -> Result<(Batch, Plain), SealError> {
        self.batch.number += 1;
        let mut batch = Batch {
            id: self.batch,
            ..Batch::default()
        };
        let mut changed: BTreeMap<AccountId, Changed> = BTreeMap::new();
        for append in group {
            if let Some(record) = append.record.take() {
                let changed = changed.entry(append.account.clone()).or_default();
                changed.then(record);
            }
            let sends = std::mem::take(&mut append.sends).into_iter();
            batch.sends.extend(sends.map(|(id, record)| StoredSend {
                account: append.account.clone(),
                client_message_id: id,
                record,
            }));
            batch.events.append(&mut append.events);
        }
        for (account, Changed { whole, addition }) in changed {
            batch.records.extend(whole.map(|record| StoredSession {
                account: account.clone(),
                record,
            }));
            batch
                .additions
                .extend(addition.map(|record| StoredSession { account, record }));
        }
        let Some(sealer) = self.options.borrow().sealer.clone() else {
            return Ok((batch, None));
        };
        let seal = |event: &Vec<u8>| payload::wrap(&sealer, &self.partition.tenant, event);
        let sealed = batch.events.iter().map(seal).collect::<Result<_, _>>()?;
        let plain = std::mem::replace(&mut batch.events, sealed);
        Ok((batch, Some(plain)))
    }

    async fn commit(&mut self, mut batch: Batch, plain: Plain) -> Flushed {
        let mut attempt = 0;
        loop {
            let Some(lease) = self.held_lease().await else {
                self.stuck.send_replace(None);
                return Flushed::Failed(AppendError::Fenced);
            };
            batch.now = WallClock.now();
            batch.seen = self.seen;
            let refusal = match self.store.commit(&lease, &batch).await {
                Ok(committed) => {
                    if attempt > 0 || std::mem::take(&mut self.corrupt) {
                        self.stuck.send_replace(None);
                        info!(attempt, "the store takes appends again");
                    }
                    return Flushed::Done(committed, plain.unwrap_or(batch.events));
                }
                Err(refusal) => refusal,
            };
            let (stuck, reason) = match &refusal {
                StoreError::Unavailable(_) => (Stuck::Away, "unavailable"),
                StoreError::Full(_) => (Stuck::Full, "full"),
                // A store that lost its data gives a new lease; another replica's lease comes back as none.
                StoreError::Fenced { .. } => {
                    self.report_fenced(&lease, &refusal).await;
                    continue;
                }
                // Waiting would hold up the tenant's other partitions. Nothing here is acknowledged upstream.
                StoreError::Corrupt { .. } => {
                    self.stuck.send_replace(None);
                    if !std::mem::replace(&mut self.corrupt, true) {
                        error!(error = %refusal, "appends fail until what is stored there is repaired");
                    }
                    return Flushed::Failed(AppendError::Corrupt);
                }
            };
            if attempt == 0 {
                warn!(error = %refusal, "the store does not take appends; trying again");
            }
            self.stuck.send_replace(Some(stuck));
            self.meter.retry(reason);
            attempt += 1;
            tokio::time::sleep(self.pause(attempt)).await;
        }
    }

    /// The lease, if it has not been refused; waits for another one if it has. `None` when there is none: what was
    /// to be written belongs to a hold of the partition that has ended, and must not be written in the next.
    async fn held_lease(&mut self) -> Option<Lease> {
        loop {
            match self.present_lease() {
                Some(lease) if self.refused != Some(lease.epoch) => return Some(lease),
                None => return None,
                Some(_) => {
                    if self.lease.changed().await.is_err() {
                        // Whoever kept the lease is gone, and no other will come.
                        return None;
                    }
                }
            }
        }
    }

    /// The lease as it is now. Without one the hold of the partition has ended: another may write the log, and where
    /// that ends is not known any more.
    fn present_lease(&mut self) -> Option<Lease> {
        let lease = self.lease.borrow_and_update().clone();
        if lease.is_none() {
            self.refused = None;
            self.seen = Position::default();
        }
        let epoch = lease.as_ref().map(|lease| lease.epoch);
        let epoch = epoch.filter(|&epoch| self.refused != Some(epoch));
        if epoch != self.written_here.as_ref().map(|(epoch, _)| *epoch) {
            // Between two holds another may have written.
            self.written_here = None;
            self.written_here = epoch.map(|epoch| (epoch, self.hub.write(&self.partition)));
        }
        lease
    }

    async fn report_fenced(&mut self, lease: &Lease, refusal: &StoreError) {
        warn!(error = %refusal, "the lease is refused; appends fail until there is a new one");
        self.refused = Some(lease.epoch);
        if self.fenced.send(self.partition.clone()).await.is_err() {
            info!("nobody listens for a refused lease");
        }
    }

    /// Full jitter: anything up to a bound that doubles, but never nothing at all.
    fn pause(&self, attempt: u32) -> Duration {
        let options = self.options.borrow();
        let bound = options
            .retry_min
            .saturating_mul(1 << attempt.saturating_sub(1).min(10))
            .min(options.retry_max);
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn complete(&mut self, group: Vec<Append>, committed: Committed, appended: Vec<Vec<u8>>) {
        let events = u64::try_from(appended.len()).unwrap_or(u64::MAX);
        self.written.send_replace(self.batch);
        self.commits.appended(events);
        self.appended
            .send_modify(|appended| *appended = appended.saturating_add(events));
        // A commit of records alone may show a log that has lost its end, and is to go on where it was.
        if events > 0 || self.seen == Position::default() {
            self.seen = Position {
                log: committed.log,
                sequence: committed.last_sequence,
            };
        }
        if events > 0 {
            self.hub.appended(&self.partition, self.seen, appended);
        }
        for append in group {
            // Nobody waits any more: it is in the store all the same.
            let _gone = append.done.send(Ok(()));
        }
    }

    /// Tells everybody who still waits that it is over.
    fn end(&mut self) {
        self.appends.close();
        while let Some(append) = self.appends.try_recv() {
            append.fail(self.meter, AppendError::Stopping);
        }
    }

    fn fail(&self, group: Vec<Append>, error: AppendError) {
        for append in group {
            append.fail(self.meter, error);
        }
    }
}

/// Waits until there is no lease.
async fn hold_ended(mut lease: watch::Receiver<Option<Lease>>) {
    if lease.wait_for(Option::is_none).await.is_err() {
        // Whoever kept the lease is gone, and does not take it back.
        std::future::pending().await
    }
}
