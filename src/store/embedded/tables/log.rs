//! The log: its bounds, reads, appends and trims.

use redb::{ReadTransaction, ReadableTable};

use super::{EXTENTS, LOG, PARTITIONS, Place, Row, Sequence, Step, Tables, place, row, written};
use crate::store::{
    Batch, Lease, LogBounds, LogEntry, LogId, LogRead, Position, Retention, StoreError,
    TRIM_ENTRIES, Trimmed,
};
use crate::types::{PartitionId, UnixMillis};

/// One row of [`EXTENTS`].
#[derive(Clone, Copy)]
struct Extent {
    first_sequence: u64,
    entries: u64,
    bytes: u64,
}

impl Tables<'_> {
    /// Appends a batch's events, and notes in `row` where the log ends then.
    pub(super) fn append(
        &mut self,
        partition: &PartitionId,
        row: &mut Row,
        batch: &Batch,
    ) -> Step<()> {
        if batch.events.is_empty() {
            return Ok(());
        }
        let mut extent = extent(&self.extents, &self.log, partition, row)?;
        let end = batch.begins_after(Position {
            log: row.log,
            sequence: row.last_sequence,
        });
        (row.log, row.last_sequence) = (end.log, end.sequence);
        if row.log == LogId::default() {
            row.log = LogId::random();
        }
        let (tenant, number) = place(partition);
        for payload in &batch.events {
            row.last_sequence = row.last_sequence.saturating_add(1);
            let key = (tenant, number, row.last_sequence);
            self.log.insert(key, (batch.now.0, payload.as_slice()))?;
            extent.entries += 1;
            extent.bytes += bytes(payload);
        }
        self.set_extent(partition, extent)?;
        self.set_row(partition, *row)
    }

    /// [`crate::store::Store::trim`].
    pub(in super::super) fn trim(
        &mut self,
        lease: &Lease,
        retention: &Retention,
    ) -> Step<Result<Trimmed, StoreError>> {
        let partition = &lease.partition;
        let row = row(&self.partitions, partition)?;
        if let Err(refusal) = row.check_fence(lease) {
            return Ok(Err(refusal));
        }
        let mut extent = extent(&self.extents, &self.log, partition, &row)?;
        let mut trimmed = Trimmed::default();
        let mut kept = row.last_sequence.saturating_add(1);
        for entry in self.log.range(all(partition))? {
            let (key, value) = entry?;
            let (appended_at, payload) = value.value();
            let exceeded =
                retention.exceeded(UnixMillis(appended_at), extent.entries, extent.bytes);
            trimmed.more = exceeded.is_some() && trimmed.dropped() == TRIM_ENTRIES;
            let Some(bound) = exceeded.filter(|_| !trimmed.more) else {
                kept = key.value().2;
                break;
            };
            trimmed.count(bound);
            extent.entries = extent.entries.saturating_sub(1);
            extent.bytes = extent.bytes.saturating_sub(bytes(payload));
        }
        if trimmed.dropped() > 0 {
            let (tenant, number) = place(partition);
            let dropped = (tenant, number, 0)..(tenant, number, kept);
            self.log.retain_in(dropped, |_, _| false)?;
            extent.first_sequence = kept;
            self.set_extent(partition, extent)?;
        }
        Ok(Ok(trimmed))
    }

    fn set_extent(&mut self, partition: &PartitionId, extent: Extent) -> Step<()> {
        let value = (extent.first_sequence, extent.entries, extent.bytes);
        self.extents.insert(place(partition), value)?;
        Ok(())
    }
}

/// [`crate::store::Store::log_bounds`].
pub(in super::super) fn bounds(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<LogBounds> {
    let row = match written(transaction.open_table(PARTITIONS))? {
        Some(partitions) => row(&partitions, partition)?,
        None => Row::default(),
    };
    let known = match written(transaction.open_table(EXTENTS))? {
        Some(extents) => stored_extent(&extents, partition)?,
        None => None,
    };
    let first_sequence = match (known, written(transaction.open_table(LOG))?) {
        (Some(extent), _) => extent.first_sequence,
        (None, Some(log)) => first_entry(&log, partition, &row)?,
        (None, None) => row.last_sequence.saturating_add(1),
    };
    Ok(LogBounds {
        log: row.log,
        first_sequence,
        last_sequence: row.last_sequence,
    })
}

/// [`crate::store::Store::read`].
pub(in super::super) fn read(
    transaction: &ReadTransaction,
    partition: &PartitionId,
    after: u64,
    limit: usize,
) -> Step<LogRead> {
    let mut read = LogRead {
        entries: Vec::new(),
        bounds: bounds(transaction, partition)?,
    };
    let (Some(log), Some(first)) = (written(transaction.open_table(LOG))?, after.checked_add(1))
    else {
        return Ok(read);
    };
    let (tenant, number) = place(partition);
    let range = log.range((tenant, number, first)..=(tenant, number, u64::MAX))?;
    for entry in range.take(limit) {
        let (key, value) = entry?;
        let (appended_at, payload) = value.value();
        read.entries.push(LogEntry {
            sequence: key.value().2,
            appended_at: UnixMillis(appended_at),
            payload: payload.to_vec(),
        });
    }
    Ok(read)
}

/// What the log holds; counted when the file does not say.
fn extent(
    extents: &impl ReadableTable<Place<'static>, (u64, u64, u64)>,
    log: &impl ReadableTable<Sequence<'static>, (u64, &'static [u8])>,
    partition: &PartitionId,
    row: &Row,
) -> Step<Extent> {
    if let Some(extent) = stored_extent(extents, partition)? {
        return Ok(extent);
    }
    let mut extent = Extent {
        first_sequence: first_entry(log, partition, row)?,
        entries: 0,
        bytes: 0,
    };
    for entry in log.range(all(partition))? {
        let (_, value) = entry?;
        extent.entries += 1;
        extent.bytes += bytes(value.value().1);
    }
    Ok(extent)
}

fn stored_extent(
    extents: &impl ReadableTable<Place<'static>, (u64, u64, u64)>,
    partition: &PartitionId,
) -> Step<Option<Extent>> {
    let found = extents.get(place(partition))?;
    Ok(found.map(|extent| {
        let (first_sequence, entries, bytes) = extent.value();
        Extent {
            first_sequence,
            entries,
            bytes,
        }
    }))
}

/// The sequence of the first entry there is; the next one when there is none.
fn first_entry(
    log: &impl ReadableTable<Sequence<'static>, (u64, &'static [u8])>,
    partition: &PartitionId,
    row: &Row,
) -> Step<u64> {
    match log.range(all(partition))?.next() {
        Some(entry) => Ok(entry?.0.value().2),
        None => Ok(row.last_sequence.saturating_add(1)),
    }
}

fn all(partition: &PartitionId) -> std::ops::RangeInclusive<Sequence<'_>> {
    let (tenant, number) = place(partition);
    (tenant, number, 0)..=(tenant, number, u64::MAX)
}

fn bytes(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}
