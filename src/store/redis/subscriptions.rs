//! Named subscriptions, and who shares them. Sharing goes by the server's clock.

use std::time::Duration;

use redis::Value;

use super::keys::{self, Part};
use super::scripts::{SCRIPTS, invocation};
use super::{RedisStore, millis, reply};
use crate::store::{LogId, Position, StoreError, StoredSubscription};
use crate::types::{MemberId, PartitionId, TenantId, UnixMillis};

/// [`crate::store::Store::subscription`].
pub(super) async fn position(
    redis: &RedisStore,
    partition: &PartitionId,
    name: &str,
) -> Result<Option<Position>, StoreError> {
    let mut command = redis::cmd("HGET");
    command.arg(Part::Subs.of(partition)).arg(name);
    let answer = redis.send(&command, partition).await?;
    if answer == Value::Nil {
        return Ok(None);
    }
    let (position, _used_at) = stored(answer).ok_or_else(|| unreadable(partition))?;
    Ok(Some(position))
}

/// [`crate::store::Store::subscriptions`].
pub(super) async fn all(
    redis: &RedisStore,
    partition: &PartitionId,
) -> Result<Vec<StoredSubscription>, StoreError> {
    let subscription = |(name, value)| {
        let (position, used_at) = stored(value)?;
        Some(StoredSubscription {
            name: reply::text(name)?,
            position,
            used_at,
        })
    };
    let mut subscriptions: Vec<_> = redis
        .pairs(Part::Subs, partition)
        .await?
        .into_iter()
        .map(subscription)
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable(partition))?;
    subscriptions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(subscriptions)
}

/// [`crate::store::Store::advance_subscription`].
pub(super) async fn advance(
    redis: &RedisStore,
    partition: &PartitionId,
    name: &str,
    position: &Position,
    now: UnixMillis,
    only_if_there: bool,
) -> Result<bool, StoreError> {
    let mut call = invocation(&SCRIPTS.advance, partition, [Part::Subs, Part::Meta]);
    call.arg(name)
        .arg(position.log.0)
        .arg(position.sequence)
        .arg(now.0)
        .arg(u8::from(only_if_there));
    let answer = redis.run(&SCRIPTS.advance, &call, partition).await?;
    Ok(answer == Value::Int(1))
}

/// [`crate::store::Store::remove_subscription`].
pub(super) async fn remove(
    redis: &RedisStore,
    partition: &PartitionId,
    name: &str,
    unused_since: Option<UnixMillis>,
) -> Result<bool, StoreError> {
    let mut call = invocation(&SCRIPTS.remove, partition, [Part::Subs, Part::Shares]);
    let since = unused_since.map_or_else(String::new, |since| since.0.to_string());
    call.arg(name).arg(since);
    let answer = redis.run(&SCRIPTS.remove, &call, partition).await?;
    Ok(answer == Value::Int(1))
}

/// [`crate::store::Store::attend`].
pub(super) async fn attend(
    redis: &RedisStore,
    tenant: &TenantId,
    subscription: &str,
    member: &MemberId,
    ttl: Option<Duration>,
) -> Result<Vec<MemberId>, StoreError> {
    let ttl = ttl.map_or_else(String::new, |ttl| millis(ttl).to_string());
    attendance(redis, tenant, subscription, &[member.as_str(), &ttl]).await
}

/// [`crate::store::Store::members`].
pub(super) async fn members(
    redis: &RedisStore,
    tenant: &TenantId,
    subscription: &str,
) -> Result<Vec<MemberId>, StoreError> {
    attendance(redis, tenant, subscription, &[]).await
}

async fn attendance(
    redis: &RedisStore,
    tenant: &TenantId,
    subscription: &str,
    change: &[&str],
) -> Result<Vec<MemberId>, StoreError> {
    let place = PartitionId {
        tenant: tenant.clone(),
        number: 0,
    };
    let mut call = invocation(&SCRIPTS.attend, &place, [Part::Members]);
    call.arg(keys::joined(subscription, "")).arg(change);
    let answer = redis.run(&SCRIPTS.attend, &call, &place).await?;
    let mut members: Vec<_> = reply::list(answer)
        .and_then(|names| names.into_iter().map(reply::text).collect())
        .map(|names: Vec<String>| names.into_iter().map(MemberId::new).collect())
        .ok_or_else(|| Part::Members.corrupt(&place, "a member is not UTF-8"))?;
    members.sort_unstable();
    Ok(members)
}

/// [`crate::store::Store::claim_share`].
pub(super) async fn claim_share(
    redis: &RedisStore,
    partition: &PartitionId,
    subscription: &str,
    member: &MemberId,
    ttl: Duration,
) -> Result<bool, StoreError> {
    let mut call = invocation(&SCRIPTS.claim_share, partition, [Part::Shares]);
    call.arg(subscription).arg(member.as_str()).arg(millis(ttl));
    let answer = redis.run(&SCRIPTS.claim_share, &call, partition).await?;
    Ok(answer == Value::Int(1))
}

/// [`crate::store::Store::release_share`].
pub(super) async fn release_share(
    redis: &RedisStore,
    partition: &PartitionId,
    subscription: &str,
    member: &MemberId,
) -> Result<(), StoreError> {
    let mut call = invocation(&SCRIPTS.release_share, partition, [Part::Shares]);
    call.arg(subscription).arg(member.as_str());
    redis.run(&SCRIPTS.release_share, &call, partition).await?;
    Ok(())
}

fn unreadable(partition: &PartitionId) -> StoreError {
    Part::Subs.corrupt(partition, "a subscription is not two or three numbers")
}

/// A field of the hash. One that an earlier version wrote does not say when it was used.
fn stored(value: Value) -> Option<(Position, UnixMillis)> {
    let text = reply::text(value)?;
    let mut numbers = text.split(' ').map(str::parse);
    let position = Position {
        log: LogId(numbers.next()?.ok()?),
        sequence: numbers.next()?.ok()?,
    };
    let used_at = UnixMillis(numbers.next().unwrap_or(Ok(0)).ok()?);
    numbers.next().is_none().then_some((position, used_at))
}
