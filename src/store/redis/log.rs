//! What an owner writes and everybody reads: records, sends and the log.

use redis::Value;

use super::keys::{self, Part};
use super::scripts::{SCRIPTS, invocation};
use super::{RedisStore, reply};
use crate::store::{
    Batch, BatchId, Committed, Lease, LogBounds, LogEntry, LogId, LogRead, Retention, StoreError,
    StoredSend, StoredSession, TRIM_ENTRIES, Trimmed,
};
use crate::types::{AccountId, PartitionId};

/// The most bytes of payload that one trim drops, give or take an entry: the server does nothing else meanwhile.
const TRIM_BYTES: usize = 4 << 20;

/// [`crate::store::Store::commit`].
pub(super) async fn commit(
    redis: &RedisStore,
    lease: &Lease,
    batch: &Batch,
) -> Result<Committed, StoreError> {
    let place = &lease.partition;
    let parts = [
        Part::Epoch,
        Part::Meta,
        Part::Log,
        Part::Sessions,
        Part::Sends,
        Part::Additions,
    ];
    let mut call = invocation(&SCRIPTS.commit, place, parts);
    call.arg(lease.epoch.0)
        .arg(batch.id.writer)
        .arg(batch.id.number)
        .arg(batch.now.0)
        .arg(LogId::random().0)
        .arg(batch.seen.log.0)
        .arg(batch.seen.sequence)
        .arg(keys::GROWN)
        .arg(format!("{} {}", place.number, place.tenant))
        .arg(batch.records.len())
        .arg(batch.additions.len())
        .arg(batch.sends.len());
    for session in batch.records.iter().chain(&batch.additions) {
        call.arg(session.account.as_str())
            .arg(session.record.as_slice());
    }
    for send in &batch.sends {
        call.arg(keys::joined(send.account.as_str(), &send.client_message_id))
            .arg(send.record.as_slice());
    }
    for payload in &batch.events {
        call.arg(payload.as_slice());
    }
    let answer = redis.run_fenced(&SCRIPTS.commit, &call, lease).await?;
    let mut numbers = answer.into_iter().map(reply::number);
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(log), Some(last_sequence)) => Ok(Committed {
            log: LogId(log),
            last_sequence,
        }),
        _ => Err(unreadable_meta(place)),
    }
}

/// [`crate::store::Store::last_batch`].
pub(super) async fn last_batch(
    redis: &RedisStore,
    partition: &PartitionId,
) -> Result<BatchId, StoreError> {
    let mut command = redis::cmd("HGET");
    command.arg(Part::Meta.of(partition)).arg("batch");
    let answer = redis.send(&command, partition).await?;
    if answer == Value::Nil {
        return Ok(BatchId::default());
    }
    let batch = |text: String| {
        let (writer, number) = text.split_once(' ')?;
        Some(BatchId {
            writer: writer.parse().ok()?,
            number: number.parse().ok()?,
        })
    };
    reply::text(answer)
        .and_then(batch)
        .ok_or_else(|| unreadable_meta(partition))
}

/// [`crate::store::Store::session`].
pub(super) async fn session(
    redis: &RedisStore,
    partition: &PartitionId,
    account: &AccountId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let get = |part: Part| {
        let mut command = redis::cmd("HGET");
        command.arg(part.of(partition)).arg(account.as_str());
        command
    };
    let (record, addition) = (get(Part::Sessions), get(Part::Additions));
    let (record, addition) = tokio::try_join!(
        redis.send(&record, partition),
        redis.send(&addition, partition)
    )?;
    let Some(mut record) = reply::bytes(record) else {
        return Ok(None);
    };
    record.extend(reply::bytes(addition).unwrap_or_default());
    Ok(Some(record))
}

/// [`crate::store::Store::sessions`].
pub(super) async fn sessions(
    redis: &RedisStore,
    partition: &PartitionId,
) -> Result<Vec<StoredSession>, StoreError> {
    let mut sessions = by_account(redis, Part::Sessions, partition).await?;
    for added in by_account(redis, Part::Additions, partition).await? {
        let found = sessions.binary_search_by(|session| session.account.cmp(&added.account));
        if let Some(session) = found.ok().and_then(|index| sessions.get_mut(index)) {
            session.record.extend(added.record);
        }
    }
    Ok(sessions)
}

/// A hash of accounts, in their order.
async fn by_account(
    redis: &RedisStore,
    part: Part,
    partition: &PartitionId,
) -> Result<Vec<StoredSession>, StoreError> {
    let session = |(account, record)| {
        Some(StoredSession {
            account: AccountId::new(reply::text(account)?),
            record: reply::bytes(record)?,
        })
    };
    let mut sessions: Vec<_> = redis
        .pairs(part, partition)
        .await?
        .into_iter()
        .map(session)
        .collect::<Option<_>>()
        .ok_or_else(|| part.corrupt(partition, "an account is not UTF-8"))?;
    sessions.sort_unstable_by(|a, b| a.account.cmp(&b.account));
    Ok(sessions)
}

/// [`crate::store::Store::sends`].
pub(super) async fn sends(
    redis: &RedisStore,
    partition: &PartitionId,
) -> Result<Vec<StoredSend>, StoreError> {
    let send = |(name, record)| {
        let name = reply::text(name)?;
        let (account, client_message_id) = keys::parted(&name)?;
        Some(StoredSend {
            account: AccountId::new(account),
            client_message_id: client_message_id.to_owned(),
            record: reply::bytes(record)?,
        })
    };
    let mut sends: Vec<_> = redis
        .pairs(Part::Sends, partition)
        .await?
        .into_iter()
        .map(send)
        .collect::<Option<_>>()
        .ok_or_else(|| Part::Sends.corrupt(partition, "a field is not an account and an ID"))?;
    sends.sort_unstable_by(|a, b| {
        (&a.account, &a.client_message_id).cmp(&(&b.account, &b.client_message_id))
    });
    Ok(sends)
}

/// [`crate::store::Store::log_bounds`].
pub(super) async fn bounds(
    redis: &RedisStore,
    partition: &PartitionId,
) -> Result<LogBounds, StoreError> {
    let mut command = redis::cmd("HMGET");
    command
        .arg(Part::Meta.of(partition))
        .arg(&["log", "last", "first"]);
    let answer = redis.send(&command, partition).await?;
    read_bounds(answer).ok_or_else(|| unreadable_meta(partition))
}

/// [`crate::store::Store::read`].
pub(super) async fn read(
    redis: &RedisStore,
    partition: &PartitionId,
    after: u64,
    limit: usize,
) -> Result<LogRead, StoreError> {
    let mut call = invocation(&SCRIPTS.read, partition, [Part::Meta, Part::Log]);
    let first = after.saturating_add(1);
    call.arg(first)
        .arg(i64::try_from(limit).unwrap_or(i64::MAX));
    let answer = redis.run(&SCRIPTS.read, &call, partition).await?;
    let unreadable = || Part::Log.corrupt(partition, "an entry has other fields than t and p");
    let [bounds, entries] = reply::list(answer)
        .and_then(|parts| <[Value; 2]>::try_from(parts).ok())
        .ok_or_else(unreadable)?;
    let bounds = read_bounds(bounds).ok_or_else(|| unreadable_meta(partition))?;
    let groups: Vec<Vec<LogEntry>> = reply::list(entries)
        .and_then(|entries| entries.into_iter().map(reply::entries).collect())
        .ok_or_else(unreadable)?;
    // Of the first group some may be read or dropped already, and the last one may have more than was asked for.
    let first = first.max(bounds.first_sequence);
    let entries = groups.into_iter().flatten();
    let entries = entries.filter(|entry| entry.sequence >= first).take(limit);
    Ok(LogRead {
        entries: entries.collect(),
        bounds,
    })
}

/// [`crate::store::Store::trim`].
pub(super) async fn trim(
    redis: &RedisStore,
    lease: &Lease,
    retention: &Retention,
) -> Result<Trimmed, StoreError> {
    let parts = [Part::Epoch, Part::Meta, Part::Log];
    let mut call = invocation(&SCRIPTS.trim, &lease.partition, parts);
    call.arg(lease.epoch.0)
        .arg(retention.events)
        .arg(retention.bytes)
        .arg(retention.since.0)
        .arg(TRIM_ENTRIES)
        .arg(TRIM_BYTES);
    let answer = redis.run_fenced(&SCRIPTS.trim, &call, lease).await?;
    let numbers: Option<Vec<u64>> = answer.into_iter().map(reply::number).collect();
    match numbers.as_deref() {
        Some(&[too_old, too_many, too_large, more]) => Ok(Trimmed {
            too_old,
            too_many,
            too_large,
            more: more == 1,
        }),
        Some(_) | None => Err(unreadable_meta(&lease.partition)),
    }
}

fn unreadable_meta(partition: &PartitionId) -> StoreError {
    Part::Meta.corrupt(partition, "it does not hold numbers")
}

fn read_bounds(answer: Value) -> Option<LogBounds> {
    let or = |value, default| {
        if value == Value::Nil {
            Some(default)
        } else {
            reply::number(value)
        }
    };
    let [log, last, first] = <[Value; 3]>::try_from(reply::list(answer)?).ok()?;
    Some(LogBounds {
        log: LogId(or(log, 0)?),
        first_sequence: or(first, 1)?,
        last_sequence: or(last, 0)?,
    })
}
