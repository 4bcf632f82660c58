//! The tables of the file, and what each operation does to them within one transaction.

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use crate::store::{
    Batch, Committed, Lease, LogBounds, LogEntry, LogId, Position, StoreError, StoredSession,
};
use crate::types::{AccountId, Epoch, PartitionId, UnixMillis};

/// What a step within a transaction gives; its error means that the transaction is of no use any more.
pub(super) type Step<T> = Result<T, redb::Error>;

type Place<'a> = (&'a str, u16);

/// Partition to the latest epoch, the log's identity and its last sequence.
const PARTITIONS: TableDefinition<'_, Place<'static>, (u64, u64, u64)> =
    TableDefinition::new("partitions");
/// Partition and account to the record.
const SESSIONS: TableDefinition<'_, (&str, u16, &str), &[u8]> = TableDefinition::new("sessions");
/// Partition and sequence to the owner's time and the payload.
const LOG: TableDefinition<'_, (&str, u16, u64), (u64, &[u8])> = TableDefinition::new("log");
/// Partition and name to log and sequence.
const SUBSCRIPTIONS: TableDefinition<'_, (&str, u16, &str), (u64, u64)> =
    TableDefinition::new("subscriptions");

/// One row of [`PARTITIONS`].
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    epoch: Epoch,
    log: LogId,
    last_sequence: u64,
}

/// All tables, open for writing in one transaction.
pub(super) struct Tables<'txn> {
    partitions: Table<'txn, Place<'static>, (u64, u64, u64)>,
    sessions: Table<'txn, (&'static str, u16, &'static str), &'static [u8]>,
    log: Table<'txn, (&'static str, u16, u64), (u64, &'static [u8])>,
    subscriptions: Table<'txn, (&'static str, u16, &'static str), (u64, u64)>,
}

impl<'txn> Tables<'txn> {
    /// Opens them, making those that are not there yet.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Step<Self> {
        Ok(Self {
            partitions: transaction.open_table(PARTITIONS)?,
            sessions: transaction.open_table(SESSIONS)?,
            log: transaction.open_table(LOG)?,
            subscriptions: transaction.open_table(SUBSCRIPTIONS)?,
        })
    }

    /// Gives out an epoch above the latest and above `floor`.
    pub(super) fn next_epoch(&mut self, partition: &PartitionId, floor: Epoch) -> Step<Epoch> {
        let row = row(&self.partitions, partition)?;
        let epoch = Epoch(row.epoch.max(floor).0.saturating_add(1));
        self.set_row(partition, Row { epoch, ..row })?;
        Ok(epoch)
    }

    /// [`crate::store::Store::commit`].
    pub(super) fn commit(
        &mut self,
        lease: &Lease,
        batch: &Batch,
    ) -> Step<Result<Committed, StoreError>> {
        let mut row = row(&self.partitions, &lease.partition)?;
        if let Err(refusal) = row.check_fence(lease) {
            return Ok(Err(refusal));
        }
        let (tenant, number) = place(&lease.partition);
        for session in &batch.records {
            let key = (tenant, number, session.account.as_str());
            self.sessions.insert(key, session.record.as_slice())?;
        }
        if !batch.events.is_empty() {
            if row.log == LogId::default() {
                row.log = LogId::random();
            }
            for payload in &batch.events {
                row.last_sequence = row.last_sequence.saturating_add(1);
                let key = (tenant, number, row.last_sequence);
                self.log.insert(key, (batch.now.0, payload.as_slice()))?;
            }
            self.set_row(&lease.partition, row)?;
        }
        Ok(Ok(Committed {
            log: row.log,
            last_sequence: row.last_sequence,
        }))
    }

    /// [`crate::store::Store::trim`].
    pub(super) fn trim(&mut self, lease: &Lease, first_kept: u64) -> Step<Result<(), StoreError>> {
        if let Err(refusal) = row(&self.partitions, &lease.partition)?.check_fence(lease) {
            return Ok(Err(refusal));
        }
        let (tenant, number) = place(&lease.partition);
        let dropped = (tenant, number, 0)..(tenant, number, first_kept);
        self.log.retain_in(dropped, |_, _| false)?;
        Ok(Ok(()))
    }

    /// [`crate::store::Store::advance_subscription`].
    pub(super) fn advance(
        &mut self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
    ) -> Step<()> {
        let (tenant, number) = place(partition);
        let key = (tenant, number, name);
        let stored = self
            .subscriptions
            .get(key)?
            .map(|at| at_position(at.value()));
        let present = row(&self.partitions, partition)?.log;
        if position.moves(stored.as_ref(), present) {
            let value = (position.log.0, position.sequence);
            self.subscriptions.insert(key, value)?;
        }
        Ok(())
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

/// [`crate::store::Store::session`].
pub(super) fn session(
    transaction: &ReadTransaction,
    partition: &PartitionId,
    account: &AccountId,
) -> Step<Option<Vec<u8>>> {
    let Some(sessions) = written(transaction.open_table(SESSIONS))? else {
        return Ok(None);
    };
    let (tenant, number) = place(partition);
    let found = sessions.get((tenant, number, account.as_str()))?;
    Ok(found.map(|record| record.value().to_vec()))
}

/// [`crate::store::Store::sessions`].
pub(super) fn sessions(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<Vec<StoredSession>> {
    let Some(sessions) = written(transaction.open_table(SESSIONS))? else {
        return Ok(Vec::new());
    };
    let (tenant, number) = place(partition);
    let mut found = Vec::new();
    for entry in sessions.range((tenant, number, "")..)? {
        let (key, record) = entry?;
        let (of_tenant, of_number, account) = key.value();
        if (of_tenant, of_number) != (tenant, number) {
            break;
        }
        found.push(StoredSession {
            account: AccountId::new(account),
            record: record.value().to_vec(),
        });
    }
    Ok(found)
}

/// [`crate::store::Store::log_bounds`].
pub(super) fn log_bounds(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<LogBounds> {
    let row = match written(transaction.open_table(PARTITIONS))? {
        Some(partitions) => row(&partitions, partition)?,
        None => Row::default(),
    };
    let first = read(transaction, partition, 0, 1)?;
    let next = row.last_sequence.saturating_add(1);
    Ok(LogBounds {
        log: row.log,
        first_sequence: first.first().map_or(next, |entry| entry.sequence),
        last_sequence: row.last_sequence,
    })
}

/// [`crate::store::Store::read`].
pub(super) fn read(
    transaction: &ReadTransaction,
    partition: &PartitionId,
    after: u64,
    limit: usize,
) -> Step<Vec<LogEntry>> {
    let (Some(log), Some(first)) = (written(transaction.open_table(LOG))?, after.checked_add(1))
    else {
        return Ok(Vec::new());
    };
    let (tenant, number) = place(partition);
    let range = log.range((tenant, number, first)..=(tenant, number, u64::MAX))?;
    let mut entries = Vec::new();
    for entry in range.take(limit) {
        let (key, value) = entry?;
        let (appended_at, payload) = value.value();
        entries.push(LogEntry {
            sequence: key.value().2,
            appended_at: UnixMillis(appended_at),
            payload: payload.to_vec(),
        });
    }
    Ok(entries)
}

/// [`crate::store::Store::subscription`].
pub(super) fn subscription(
    transaction: &ReadTransaction,
    partition: &PartitionId,
    name: &str,
) -> Step<Option<Position>> {
    let Some(subscriptions) = written(transaction.open_table(SUBSCRIPTIONS))? else {
        return Ok(None);
    };
    let (tenant, number) = place(partition);
    let found = subscriptions.get((tenant, number, name))?;
    Ok(found.map(|at| at_position(at.value())))
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

fn at_position((log, sequence): (u64, u64)) -> Position {
    Position {
        log: LogId(log),
        sequence,
    }
}
