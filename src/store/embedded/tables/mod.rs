//! The tables of the file. What each operation does to them within one transaction is in the modules.

pub(super) mod active;
pub(super) mod log;
pub(super) mod records;
pub(super) mod subscriptions;
pub(super) mod tenants;

use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use crate::store::{Lease, LogId, StoreError};
use crate::types::{Epoch, PartitionId};

/// What a step within a transaction gives; its error means that the transaction is of no use any more.
pub(super) type Step<T> = Result<T, redb::Error>;

/// A partition, as it begins every key.
type Place<'a> = (&'a str, u16);
type Named<'a> = (&'a str, u16, &'a str);
type Sent<'a> = (&'a str, u16, &'a str, &'a str);
type Sequence<'a> = (&'a str, u16, u64);

/// Partition to the latest epoch, the log's identity and its last sequence.
const PARTITIONS: TableDefinition<'_, Place<'static>, (u64, u64, u64)> =
    TableDefinition::new("partitions");
/// Partition to where the last trim left the log beginning, how many entries it has and their bytes of payload.
/// A file of a version that trimmed by sequences only does not have it until the next write.
const EXTENTS: TableDefinition<'_, Place<'static>, (u64, u64, u64)> =
    TableDefinition::new("extents");
/// Partition to writer and number of the last batch.
const BATCHES: TableDefinition<'_, Place<'static>, (u64, u64)> = TableDefinition::new("batches");
/// Partition and account to the record.
const SESSIONS: TableDefinition<'_, Named<'static>, &[u8]> = TableDefinition::new("sessions");
/// Partition and account to what was added to the record.
const ADDITIONS: TableDefinition<'_, Named<'static>, &[u8]> = TableDefinition::new("additions");
/// Partition, account and client's message ID to what is remembered of the send.
const SENDS: TableDefinition<'_, Sent<'static>, &[u8]> = TableDefinition::new("sends");
/// Partition and sequence to the owner's time and the payload.
const LOG: TableDefinition<'_, Sequence<'static>, (u64, &[u8])> = TableDefinition::new("log");
/// Partition and name to log and sequence.
const SUBSCRIPTIONS: TableDefinition<'_, Named<'static>, (u64, u64)> =
    TableDefinition::new("subscriptions");
/// Partition and name to when the subscription was last used. One that an earlier version made has none until its
/// next use.
const USES: TableDefinition<'_, Named<'static>, u64> = TableDefinition::new("uses");
/// Tenant, day and account that was active then.
const ACTIVE: TableDefinition<'_, (&'static str, u32, &'static str), ()> =
    TableDefinition::new("active");
/// Tenant and day to how many rows of [`ACTIVE`] they have.
const ACTIVE_COUNTS: TableDefinition<'_, (&'static str, u32), u64> =
    TableDefinition::new("active_counts");

/// One row of [`PARTITIONS`].
#[derive(Clone, Copy, Default)]
struct Row {
    epoch: Epoch,
    log: LogId,
    last_sequence: u64,
}

/// All tables, open for writing in one transaction.
pub(super) struct Tables<'txn> {
    partitions: Table<'txn, Place<'static>, (u64, u64, u64)>,
    extents: Table<'txn, Place<'static>, (u64, u64, u64)>,
    batches: Table<'txn, Place<'static>, (u64, u64)>,
    sessions: Table<'txn, Named<'static>, &'static [u8]>,
    additions: Table<'txn, Named<'static>, &'static [u8]>,
    sends: Table<'txn, Sent<'static>, &'static [u8]>,
    log: Table<'txn, Sequence<'static>, (u64, &'static [u8])>,
    subscriptions: Table<'txn, Named<'static>, (u64, u64)>,
    uses: Table<'txn, Named<'static>, u64>,
    active: Table<'txn, (&'static str, u32, &'static str), ()>,
    active_counts: Table<'txn, (&'static str, u32), u64>,
    tenants: Table<'txn, &'static str, (u16, u32)>,
}

impl<'txn> Tables<'txn> {
    /// Opens them, making those that are not there yet.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Step<Self> {
        Ok(Self {
            partitions: transaction.open_table(PARTITIONS)?,
            extents: transaction.open_table(EXTENTS)?,
            batches: transaction.open_table(BATCHES)?,
            sessions: transaction.open_table(SESSIONS)?,
            additions: transaction.open_table(ADDITIONS)?,
            sends: transaction.open_table(SENDS)?,
            log: transaction.open_table(LOG)?,
            subscriptions: transaction.open_table(SUBSCRIPTIONS)?,
            uses: transaction.open_table(USES)?,
            active: transaction.open_table(ACTIVE)?,
            active_counts: transaction.open_table(ACTIVE_COUNTS)?,
            tenants: transaction.open_table(tenants::TENANTS)?,
        })
    }

    /// Gives out an epoch above the latest and above `floor`, if there is either.
    pub(super) fn next_epoch(
        &mut self,
        partition: &PartitionId,
        floor: Option<Epoch>,
    ) -> Step<Option<Epoch>> {
        let row = row(&self.partitions, partition)?;
        let latest = (row.epoch != Epoch::default()).then_some(row.epoch);
        let Some(known) = latest.max(floor) else {
            return Ok(None);
        };
        let epoch = Epoch(known.0.saturating_add(1));
        self.set_row(partition, Row { epoch, ..row })?;
        Ok(Some(epoch))
    }

    fn set_row(&mut self, partition: &PartitionId, row: Row) -> Step<()> {
        let value = (row.epoch.0, row.log.0, row.last_sequence);
        self.partitions.insert(place(partition), value)?;
        Ok(())
    }
}

impl Row {
    fn check_fence(self, lease: &Lease) -> Result<(), StoreError> {
        if self.epoch == lease.epoch {
            return Ok(());
        }
        let current = (self.epoch != Epoch::default()).then_some(self.epoch);
        Err(StoreError::fenced(lease, current))
    }
}

/// A table, or none in a file that was never written to.
fn written<T>(opened: Result<T, TableError>) -> Step<Option<T>> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn row(
    partitions: &impl ReadableTable<Place<'static>, (u64, u64, u64)>,
    partition: &PartitionId,
) -> Step<Row> {
    let found = partitions.get(place(partition))?;
    Ok(found.map_or_else(Row::default, |row| {
        let (epoch, log, last_sequence) = row.value();
        Row {
            epoch: Epoch(epoch),
            log: LogId(log),
            last_sequence,
        }
    }))
}

fn place(partition: &PartitionId) -> Place<'_> {
    (partition.tenant.as_str(), partition.number)
}
