//! Durable state: leases, session records, the event log and subscription positions of partitions.
//!
//! Three implementations keep one contract, `tests/store_contract.rs`: [`redis`] for production, [`embedded`]
//! for one replica without Redis, [`memory`] for tests and simulation. Every write names the lease it is made
//! under, and the store refuses it when a later epoch has been given out (guarantee G8).

mod active;
pub mod embedded;
pub mod memory;
pub mod metrics;
pub mod redis;
pub mod redis_url;
mod retention;
pub mod seal;
mod shares;
pub mod turns;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use self::active::KEPT_DAYS;
pub use self::retention::{Retention, Trimmed};
pub use self::turns::Turns;
use crate::error::{Classified, ErrorKind};

use crate::types::{
    AccountId, AppId, Day, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis,
};

/// The most entries that one call of [`Store::trim`] drops: whoever else writes waits meanwhile.
const TRIM_ENTRIES: u64 = 1000;

/// The durable state of all partitions.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Takes the lease of a partition for `ttl` if it is free, has run out, or is `owner`'s already (a restart).
    /// The new epoch is greater than every epoch given out before and than `floor`, which an owner passes whose
    /// store has lost its data. With `None` nothing is taken of a store that knows of no epoch: it may have lost it,
    /// and its owner live.
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Option<Epoch>,
    ) -> Result<Claim, StoreError>;

    /// Makes a lease last `ttl` from now.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError>;

    /// Gives a lease back. A lease that is no longer the caller's is left as it is.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Writes a batch as a whole or not at all: records and sends are saved and events appended, or nothing is.
    /// Refused with [`StoreError::Fenced`] unless `lease.epoch` is the latest given out for the partition. A batch
    /// with the ID of the last one that was written is not written again: it answers as that one did. One that comes
    /// after a later one of its writer is refused as well: a first try that was held up on its way, and whose retry
    /// was written, would undo what came since.
    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError>;

    /// Which batch was written last to a partition; the default if there was none, or the store has lost it.
    async fn last_batch(&self, partition: &PartitionId) -> Result<BatchId, StoreError>;

    /// One session's record, with what was added to it behind it.
    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// All records of a partition, each with what was added to it behind it, in the order of their accounts.
    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError>;

    /// What is remembered of the sends of a partition's accounts, in the order of accounts and IDs.
    async fn sends(&self, partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError>;

    /// The log's identity and what it retains.
    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError>;

    /// At most `limit` entries with a sequence greater than `after`, in order, and the bounds of the log that they
    /// are of, both at one moment.
    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<LogRead, StoreError>;

    /// Drops the oldest entries, one after the other, until the log keeps to `retention`. Does a bounded part of a
    /// long work in one call, and says whether there is more. Fenced like a commit.
    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError>;

    /// The logs that grow from now on, by whichever process, each with its new end. It tells no less than what
    /// other processes append: what this one appends may be left out. Ends when the store can tell no more, and
    /// what grew until it is called again is not told.
    async fn growth(&self) -> Result<BoxStream<'static, (PartitionId, Position)>, StoreError>;

    /// Where a named subscription stands in a partition.
    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError>;

    /// The named subscriptions of a partition, in the order of their names.
    async fn subscriptions(
        &self,
        partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError>;

    /// Moves a named subscription forward, making it if there is none unless it is to move `only_if_there`, and notes
    /// that it was used at `now`: a position of the same log that is not greater than the stored one does not move it,
    /// and a position of another log replaces the stored one only if that log is the present one. True if it is there
    /// then.
    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> Result<bool, StoreError>;

    /// Forgets a named subscription in a partition, and who has this share of it; with `unused_since` only if it was
    /// not used since. True if it was there and is forgotten.
    async fn remove_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError>;

    /// Enters a member among those that share a subscription, or keeps it there, for `ttl`; with `None` it leaves.
    /// Answers who is there then, in order.
    async fn attend(
        &self,
        tenant: &TenantId,
        subscription: &str,
        member: &MemberId,
        ttl: Option<Duration>,
    ) -> Result<Vec<MemberId>, StoreError>;

    /// Who shares a subscription now, in order.
    async fn members(
        &self,
        tenant: &TenantId,
        subscription: &str,
    ) -> Result<Vec<MemberId>, StoreError>;

    /// Takes a partition of a shared subscription for `ttl`, or keeps it, unless another member has it. True if it
    /// is the caller's then.
    async fn claim_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
        ttl: Duration,
    ) -> Result<bool, StoreError>;

    /// Gives a partition of a shared subscription back. One that is not the caller's is left as it is.
    async fn release_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
    ) -> Result<(), StoreError>;

    /// Gives out at most `most` turns of an app, of which there are `per_second` for all who ask, whichever process
    /// they are of. Turns are not saved up, and none is further away than [`turns::LOOK_AHEAD`]; see [`Turns`].
    async fn take_turns(
        &self,
        app: &AppId,
        per_second: u32,
        most: u32,
    ) -> Result<Turns, StoreError>;

    /// Notes that these accounts of a tenant were active on a day, which may be none, and answers about how many were
    /// in all. Of a day it is known for [`KEPT_DAYS`] at least. The number may be off by some 1 %.
    async fn note_active(
        &self,
        tenant: &TenantId,
        day: Day,
        accounts: &[AccountId],
    ) -> Result<u64, StoreError>;

    /// Notes by what a tenant's data is laid out, unless something is noted already. Answers what is noted then.
    async fn enrol(
        &self,
        tenant: &TenantId,
        layout: TenantLayout,
    ) -> Result<TenantLayout, StoreError>;

    /// Every tenant that is noted, in order, with the layout of its data.
    async fn enrolled(&self) -> Result<Vec<(TenantId, TenantLayout)>, StoreError>;

    /// Takes back that a tenant is noted. Which accounts were active goes with it; where only their number is kept, that
    /// runs out by itself.
    async fn strike(&self, tenant: &TenantId) -> Result<(), StoreError>;

    /// Removes all that a partition has, but for its epoch, which only grows, and the lease. Fenced like a commit.
    async fn purge(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Answers when the store can serve.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// By what a tenant's data is laid out. It stays as long as there is data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLayout {
    /// Over how many partitions its accounts are spread.
    pub partitions: u16,
    /// The upstream app that its tickets and reading positions are of.
    pub sdk_app_id: u32,
}

/// A replica's ownership of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is owned.
    pub partition: PartitionId,
    /// By whom.
    pub owner: ReplicaId,
    /// The fencing token.
    pub epoch: Epoch,
}

/// The outcome of [`Store::claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's.
    Granted(Lease),
    /// It is another's for at most `remaining`.
    Held {
        /// Whose it is.
        owner: ReplicaId,
        /// Until it runs out, unless renewed.
        remaining: Duration,
    },
    /// The store knows of no epoch, and the claim had no floor.
    Unknown,
}

/// The outcome of [`Store::renew`]. A transport error is none of these: the lease may still be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lasts again.
    Renewed,
    /// A later epoch was given out, or another holds it: stop at once.
    Lost,
    /// The store knows no such lease (it ran out, or the store lost data): claim again.
    Missing,
}

/// What one commit writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Which of its writer's batches it is. A retry of the same batch keeps it: whatever became of the first try, it is
    /// written once.
    pub id: BatchId,
    /// The owner's clock, kept with each event.
    pub now: UnixMillis,
    /// Where the owner has seen the log end; the default if it does not know. A store that has lost the log, or its
    /// newest entries, goes on after it, so that no number is given out twice: the missing ones are seen to be missing.
    /// It is passed over if the log is another one that has entries.
    pub seen: Position,
    /// Records to save, by account; a later one of the same account wins. What was added to the one before goes.
    pub records: Vec<StoredSession>,
    /// What is to be read behind an account's record, which is in the store already or in this batch. It takes the place
    /// of what was added before; a later one of the same account wins.
    pub additions: Vec<StoredSession>,
    /// Sends to remember or, with an empty record, to forget; a later one of the same ID wins.
    pub sends: Vec<StoredSend>,
    /// Event payloads to append, in order.
    pub events: Vec<Vec<u8>>,
}

impl Batch {
    /// How many bytes are to be stored, but for the names of accounts.
    fn bytes(&self) -> usize {
        let sessions = self.records.iter().chain(&self.additions);
        let records = sessions.map(|session| session.record.len());
        let sends = self.sends.iter();
        let sends = sends.map(|send| send.client_message_id.len() + send.record.len());
        let events = self.events.iter().map(Vec::len);
        records.chain(sends).chain(events).sum()
    }
}

/// Which batch of which writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchId {
    /// A random number of the writer; 0 for a batch without an ID, which is written whenever it comes.
    pub writer: u64,
    /// Grows with each batch of the writer.
    pub number: u64,
}

impl BatchId {
    /// What a batch of this ID is after the `last` that was written.
    fn after(self, last: Self) -> Arrival {
        if self.writer == 0 || self.writer != last.writer || self.number > last.number {
            Arrival::New
        } else if self.number == last.number {
            Arrival::Again
        } else {
            Arrival::Late
        }
    }
}

/// How a batch comes to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// It is to be written.
    New,
    /// It is the last one that was written.
    Again,
    /// Its writer has had a later one written since.
    Late,
}

/// One session's record as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Whose.
    pub account: AccountId,
    /// An encoded `SessionRecord`.
    pub record: Vec<u8>,
}

/// What is remembered of one send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSend {
    /// Who sent.
    pub account: AccountId,
    /// The caller's ID of the message.
    pub client_message_id: String,
    /// An encoded `SendRecord`.
    pub record: Vec<u8>,
}

/// The outcome of [`Store::commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The identity of the log written to.
    pub log: LogId,
    /// The sequence of the last entry in the log; the batch's events are the last of it. 0 for an empty log.
    pub last_sequence: u64,
}

/// The identity of a log: a random number made when the log is. A log that was lost and began anew has another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u64);

impl LogId {
    /// An identity for a new log; never 0, which stands for no log.
    fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX))
    }
}

/// A place in a partition's log: after the entry with this sequence. The default is the beginning of a log that
/// nobody has written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Of which log.
    pub log: LogId,
    /// After which entry; 0 is the beginning.
    pub sequence: u64,
}

impl Batch {
    /// After which entry of a log that ends at `end` the events go, and in which log.
    fn begins_after(&self, end: Position) -> Position {
        if end.log == LogId::default() && self.seen.log != LogId::default() {
            return self.seen;
        }
        let sequence = if end.log == self.seen.log {
            end.sequence.max(self.seen.sequence)
        } else {
            end.sequence
        };
        Position { sequence, ..end }
    }
}

impl Position {
    /// Whether a subscription at `stored` goes to this position, `present` being the log there is.
    fn moves(&self, stored: Option<&Self>, present: LogId) -> bool {
        match stored {
            None => true,
            Some(stored) if stored.log == self.log => self.sequence > stored.sequence,
            Some(_) => self.log == present,
        }
    }
}

/// What a log retains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The log's identity; 0 for a log that was never written to.
    pub log: LogId,
    /// Where the last [`Store::trim`] that dropped something left the log beginning: at the oldest entry then, or after
    /// the last if none was left; 1 if there was no such trim. What is missing before was not to be kept; what is
    /// missing from here on is lost.
    pub first_sequence: u64,
    /// The sequence of the newest entry ever appended; 0 for none.
    pub last_sequence: u64,
}

/// The outcome of [`Store::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// The entries.
    pub entries: Vec<LogEntry>,
    /// The log that they are of.
    pub bounds: LogBounds,
}

/// A named subscription's place in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub position: Position,
    /// When it was last used.
    pub used_at: UnixMillis,
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place: the first is 1, each next one greater by one, or by more where entries were lost.
    pub sequence: u64,
    /// When it was appended, by the clock of the owner.
    pub appended_at: UnixMillis,
    /// An encoded event.
    pub payload: Vec<u8>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer, or not in time. What was asked may or may not have been done.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A later epoch was given out (`current`), or none is known any more (`None`: the store lost its data).
    #[error("fenced: epoch {held} is not the latest ({current:?})")]
    Fenced {
        /// The epoch that the caller holds.
        held: Epoch,
        /// The latest that the store knows.
        current: Option<Epoch>,
    },
    /// The store cannot take more (disk full, `maxmemory` reached). Nothing was written.
    #[error("the store is full: {0}")]
    Full(String),
    /// What is stored cannot be understood.
    #[error("the store holds something that cannot be read at {place}: {detail}")]
    Corrupt {
        /// The key or table.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl StoreError {
    /// The refusal of a write under `lease` when the latest epoch is `current`.
    fn fenced(lease: &Lease, current: Option<Epoch>) -> Self {
        Self::Fenced {
            held: lease.epoch,
            current,
        }
    }
}

impl Classified for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) | Self::Fenced { .. } | Self::Full(_) => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(_) | Self::Full(_) => Some(Duration::from_secs(1)),
            Self::Fenced { .. } => Some(Duration::from_secs(5)),
            Self::Corrupt { .. } => None,
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Unavailable(_) => "the gateway's store is away; try again".into(),
            Self::Fenced { .. } => "another replica owns this account now; try again".into(),
            Self::Full(_) => "the gateway's store is full; try again later".into(),
            Self::Corrupt { .. } => "the stored record cannot be read; ask the operator".into(),
        }
    }
}
