//! What an owner writes at once, and the records and sends among it.

use redb::{ReadTransaction, ReadableTable as _};

use super::{ADDITIONS, BATCHES, SENDS, SESSIONS, Step, Tables, place, row, written};
use crate::store::{
    Arrival, Batch, BatchId, Committed, Lease, StoreError, StoredSend, StoredSession,
};
use crate::types::{AccountId, PartitionId};

impl Tables<'_> {
    /// [`crate::store::Store::commit`].
    pub(in super::super) fn commit(
        &mut self,
        lease: &Lease,
        batch: &Batch,
    ) -> Step<Result<Committed, StoreError>> {
        let partition = &lease.partition;
        let mut row = row(&self.partitions, partition)?;
        if let Err(refusal) = row.check_fence(lease) {
            return Ok(Err(refusal));
        }
        let place = place(partition);
        let last = self.batches.get(place)?.map(|id| id.value());
        let (writer, number) = last.unwrap_or_default();
        match batch.id.after(BatchId { writer, number }) {
            Arrival::New => {
                self.append(partition, &mut row, batch)?;
                self.save(partition, batch)?;
                let id = (batch.id.writer, batch.id.number);
                self.batches.insert(place, id)?;
            }
            Arrival::Again => {}
            Arrival::Late => return Ok(Err(StoreError::fenced(lease, Some(lease.epoch)))),
        }
        Ok(Ok(Committed {
            log: row.log,
            last_sequence: row.last_sequence,
        }))
    }

    fn save(&mut self, partition: &PartitionId, batch: &Batch) -> Step<()> {
        let (tenant, number) = place(partition);
        for session in &batch.records {
            let key = (tenant, number, session.account.as_str());
            self.sessions.insert(key, session.record.as_slice())?;
            self.additions.remove(key)?;
        }
        for added in &batch.additions {
            let key = (tenant, number, added.account.as_str());
            self.additions.insert(key, added.record.as_slice())?;
        }
        for send in &batch.sends {
            let (account, id) = (send.account.as_str(), send.client_message_id.as_str());
            let key = (tenant, number, account, id);
            if send.record.is_empty() {
                self.sends.remove(key)?;
            } else {
                self.sends.insert(key, send.record.as_slice())?;
            }
        }
        Ok(())
    }
}

/// [`crate::store::Store::last_batch`].
pub(in super::super) fn last_batch(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<BatchId> {
    let Some(batches) = written(transaction.open_table(BATCHES))? else {
        return Ok(BatchId::default());
    };
    let found = batches.get(place(partition))?;
    let (writer, number) = found.map_or((0, 0), |id| id.value());
    Ok(BatchId { writer, number })
}

/// [`crate::store::Store::session`].
pub(in super::super) fn session(
    transaction: &ReadTransaction,
    partition: &PartitionId,
    account: &AccountId,
) -> Step<Option<Vec<u8>>> {
    let Some(sessions) = written(transaction.open_table(SESSIONS))? else {
        return Ok(None);
    };
    let (tenant, number) = place(partition);
    let key = (tenant, number, account.as_str());
    let Some(record) = sessions.get(key)? else {
        return Ok(None);
    };
    let mut record = record.value().to_vec();
    if let Some(additions) = written(transaction.open_table(ADDITIONS))?
        && let Some(addition) = additions.get(key)?
    {
        record.extend_from_slice(addition.value());
    }
    Ok(Some(record))
}

/// [`crate::store::Store::sessions`].
pub(in super::super) fn sessions(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<Vec<StoredSession>> {
    let Some(sessions) = written(transaction.open_table(SESSIONS))? else {
        return Ok(Vec::new());
    };
    let additions = written(transaction.open_table(ADDITIONS))?;
    let (tenant, number) = place(partition);
    let mut found = Vec::new();
    for entry in sessions.range((tenant, number, "")..)? {
        let (key, record) = entry?;
        let (of_tenant, of_number, account) = key.value();
        if (of_tenant, of_number) != (tenant, number) {
            break;
        }
        let mut record = record.value().to_vec();
        if let Some(additions) = &additions
            && let Some(addition) = additions.get(key.value())?
        {
            record.extend_from_slice(addition.value());
        }
        found.push(StoredSession {
            account: AccountId::new(account),
            record,
        });
    }
    Ok(found)
}

/// [`crate::store::Store::sends`].
pub(in super::super) fn sends(
    transaction: &ReadTransaction,
    partition: &PartitionId,
) -> Step<Vec<StoredSend>> {
    let Some(sends) = written(transaction.open_table(SENDS))? else {
        return Ok(Vec::new());
    };
    let (tenant, number) = place(partition);
    let mut found = Vec::new();
    for entry in sends.range((tenant, number, "", "")..)? {
        let (key, record) = entry?;
        let (of_tenant, of_number, account, id) = key.value();
        if (of_tenant, of_number) != (tenant, number) {
            break;
        }
        found.push(StoredSend {
            account: AccountId::new(account),
            client_message_id: id.to_owned(),
            record: record.value().to_vec(),
        });
    }
    Ok(found)
}
