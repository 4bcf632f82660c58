//! The one writer of a partition: it saves session records and appends events, in groups.
//!
//! While one commit is under way the next group gathers, so that a busy partition commits seldom and a quiet
//! one at once; no timer adds delay. While the store is away the group in hand is kept and tried again for
//! ever, and the queue fills up: from then on callers are told at once, and must not acknowledge upstream what
//! was not appended (guarantee G9). A retry after a lost answer writes nothing twice: the store knows the batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, info_span};

use meter::Meter;

use super::hub::Hub;
use crate::error::{Classified, ErrorKind};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::seal::Sealer;
use crate::store::{BatchId, Lease, Store, StoreError};
use crate::types::{AccountId, PartitionId};

mod meter;
mod queue;
mod trimmer;
mod writer;

/// What is to be stored of a session's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A record, in the place of the one before.
    Whole(Vec<u8>),
    /// What is to be read behind the last whole record, in the place of what was added before.
    Addition(Vec<u8>),
}

/// What is to be written for one account, as a whole or not at all.
#[derive(Debug)]
pub struct Append {
    /// Whose.
    pub account: AccountId,
    /// The session's record, if it is to be saved.
    pub record: Option<Record>,
    /// Sends to remember or, with an empty record, to forget: the caller's ID and an encoded `SendRecord`.
    pub sends: Vec<(String, Vec<u8>)>,
    /// Encoded `imgate.v1.Event`s without a sequence, in order; may be none.
    pub events: Vec<Vec<u8>>,
    /// Told when all of it is in the store, or why it will never be. Dropped without a word only where the
    /// caller was told otherwise or the program ends.
    pub done: oneshot::Sender<Result<(), AppendError>>,
}

impl Append {
    fn bytes(&self) -> usize {
        let record = match &self.record {
            Some(Record::Whole(bytes) | Record::Addition(bytes)) => bytes.len(),
            None => 0,
        };
        let sends = self.sends.iter();
        let sends = sends.map(|(id, record)| id.len() + record.len());
        record + sends.sum::<usize>() + self.events.iter().map(Vec::len).sum::<usize>()
    }

    fn fail(self, meter: Meter, error: AppendError) {
        meter.failed(error);
        // Nobody waits any more: the caller has given up, which is its right.
        let _gone = self.done.send(Err(error));
    }
}

/// Why something was not appended. Nothing of it is in the log unless another attempt succeeds, but for a
/// commit whose answer was lost when the writer gave it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full, for the store is away or slow. Do not acknowledge upstream.
    #[error("too much waits to be stored for this partition")]
    Full,
    /// This replica does not own the partition any more.
    #[error("this replica does not own the partition any more")]
    Fenced,
    /// The store holds something that it cannot read.
    #[error("the store could not take it: what is stored there is corrupt")]
    Corrupt,
    /// An event is to be sealed and cannot be.
    #[error("an event could not be sealed")]
    Unsealed,
    /// The writer is stopping, or has ended.
    #[error("this replica is stopping")]
    Stopping,
}

impl AppendError {
    const fn label(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::Fenced => "fenced",
            Self::Corrupt => "corrupt",
            Self::Unsealed => "unsealed",
            Self::Stopping => "stopping",
        }
    }
}

impl Classified for AppendError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full => ErrorKind::Exhausted,
            Self::Fenced | Self::Stopping => ErrorKind::Unavailable,
            Self::Corrupt | Self::Unsealed => ErrorKind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full | Self::Stopping => Some(Duration::from_secs(1)),
            Self::Fenced => Some(Duration::from_secs(5)),
            Self::Corrupt | Self::Unsealed => None,
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Full => "the gateway's store is away or slow; try again".into(),
            Self::Fenced => "another replica owns this account now; try again".into(),
            Self::Corrupt => "what is stored cannot be read; ask the operator".into(),
            Self::Unsealed => "the gateway cannot seal; ask the operator".into(),
            Self::Stopping => "this replica is stopping; try again".into(),
        }
    }
}

/// An append that was not taken, and why.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: AppendError,
    /// What was to be appended.
    pub append: Box<Append>,
}

/// How a writer works.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// How many appends may wait. Full: [`LogWriter::try_append`] refuses at once. Default 1024.
    pub queue: usize,
    /// How many bytes the appends that wait may have; one that is larger waits alone. Full as above. Default 2 MiB, which
    /// is the next two commits.
    pub queue_bytes: usize,
    /// How many appends one commit takes at the most. Default 512.
    pub flush_appends: usize,
    /// When a commit has this many bytes no further append joins it. Default 1 MiB.
    pub flush_bytes: usize,
    /// The longest first pause after a commit that the store did not take. Default 50 ms.
    pub retry_min: Duration,
    /// The longest pause. Default 2 s.
    pub retry_max: Duration,
    /// How many events a trim leaves in the log at the most. Default 100,000.
    pub retain_events: u64,
    /// How many bytes of events a trim leaves in the log at the most. Default 64 MiB.
    pub retain_bytes: u64,
    /// How old an event may be that a trim leaves in the log. Default 7 days.
    pub retain_age: Duration,
    /// A trim follows when so many events were appended since the last one. Default 1,000.
    pub trim_every_events: u64,
    /// A trim follows after this time at the latest. Default 1 min.
    pub trim_every: Duration,
    /// Seals events on their way to the store. Default none: they are stored as they are.
    pub sealer: Option<Arc<Sealer>>,
    /// How long the queue is still written after the writer is told to stop; the rest fails. Default 5 s.
    pub stop_within: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            queue: 1024,
            queue_bytes: 2 * 1024 * 1024,
            flush_appends: 512,
            flush_bytes: 1024 * 1024,
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(2),
            retain_events: 100_000,
            retain_bytes: 64 * 1024 * 1024,
            retain_age: Duration::from_secs(7 * 24 * 3600),
            trim_every_events: 1_000,
            trim_every: Duration::from_secs(60),
            sealer: None,
            stop_within: Duration::from_secs(5),
        }
    }
}

/// The handle of a partition's writer. Cheap to clone; the writer ends when it is told to stop or when the last
/// handle is gone.
#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: queue::Sender,
    options: watch::Sender<LogOptions>,
    stuck: watch::Receiver<Option<Stuck>>,
    lease: watch::Receiver<Option<Lease>>,
    written: watch::Receiver<BatchId>,
    meter: Meter,
}

/// Why the writer tries the same group again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// The store does not answer.
    Away,
    /// The store takes no more.
    Full,
}

impl LogWriter {
    /// Starts the writer of `partition`. It writes under the lease that `lease` shows, and fails what
    /// it is given while that shows none. `fenced` is told, once per epoch, when the store refuses the lease.
    ///
    /// Should it panic, `tasks` stop: its sessions would have nowhere to store what they have.
    pub fn start(
        partition: PartitionId,
        store: Arc<dyn Store>,
        lease: watch::Receiver<Option<Lease>>,
        hub: Hub,
        fenced: mpsc::Sender<PartitionId>,
        options: LogOptions,
        tasks: &Tasks,
    ) -> Self {
        let (queue, appends) = queue::bounded(&options);
        let (is_stuck, stuck) = watch::channel(None);
        let (is_written, written) = watch::channel(BatchId {
            writer: rand::random_range(1..=u64::MAX),
            number: 0,
        });
        let (appended, to_trim) = watch::channel(0);
        let (set_options, options) = watch::channel(options);
        let span = info_span!("log", %partition);
        let meter = Meter::of(&partition);
        let held = lease.clone();
        let trimmer = trimmer::Trimmer {
            store: Arc::clone(&store),
            lease: lease.clone(),
            options: options.clone(),
            appended: to_trim,
            meter,
        };
        let writer = writer::Writer::new(
            partition, store, lease, hub, fenced, options, appends, is_stuck, is_written, appended,
        );
        let trimming = trimmer.run(tasks.clone()).instrument(span.clone());
        let writing = writer.run(tasks.clone()).instrument(span);
        tasks.spawn("log trimmer", TaskKind::Vital, trimming);
        tasks.spawn("log writer", TaskKind::Vital, writing);
        Self {
            queue,
            options: set_options,
            stuck,
            lease: held,
            written,
            meter,
        }
    }

    /// The lease that it writes under now, if there is one.
    pub fn lease(&self) -> Option<Lease> {
        self.lease.borrow().clone()
    }

    /// How old an event of the log becomes at the most.
    pub fn retain_age(&self) -> Duration {
        self.options.borrow().retain_age
    }

    /// Sets other options from now on: the bounds of the queue alone stay. What is in the log is trimmed by them with the
    /// next trim.
    pub fn set(&self, options: LogOptions) {
        self.options.send_replace(options);
    }

    /// The last batch of this writer that the store has answered as written; number 0 before the first.
    pub fn written(&self) -> watch::Receiver<BatchId> {
        self.written.clone()
    }

    /// Whether what is handed over now is written soon: an error while the writer waits for the store.
    pub fn accepts(&self) -> Result<(), StoreError> {
        let kept = "what came before is still waiting to be written".to_owned();
        match *self.stuck.borrow() {
            None => Ok(()),
            Some(Stuck::Away) => Err(StoreError::Unavailable(kept)),
            Some(Stuck::Full) => Err(StoreError::Full(kept)),
        }
    }

    /// Hands something over without waiting. On an error the append comes back.
    pub fn try_append(&self, append: Append) -> Result<(), Refused> {
        self.queue.try_send(append).map_err(|(error, append)| {
            self.meter.failed(error);
            Refused {
                error,
                append: Box::new(append),
            }
        })
    }

    /// Hands something over, and waits for room in the queue. The outcome comes by `done`.
    pub async fn append(&self, append: Append) {
        if let Err(refused) = self.queue.send(append).await {
            refused.fail(self.meter, AppendError::Stopping);
        }
    }
}

#[cfg(test)]
mod tests;
