//! Ownership: claim, renew, release.

use std::time::Duration;

use redis::Value;

use super::keys::Part;
use super::scripts::{SCRIPTS, invocation};
use super::{RedisStore, millis, reply};
use crate::store::{Claim, Lease, Renewal, StoreError};
use crate::types::{Epoch, PartitionId, ReplicaId};

/// [`crate::store::Store::claim`].
pub(super) async fn claim(
    redis: &RedisStore,
    partition: &PartitionId,
    owner: &ReplicaId,
    ttl: Duration,
    floor: Option<Epoch>,
) -> Result<Claim, StoreError> {
    let mut call = invocation(&SCRIPTS.claim, partition, [Part::Lease, Part::Epoch]);
    // The server counts epochs in 63 bits, and the new one is greater by one.
    let floor = floor.map(|floor| floor.0.min(i64::MAX as u64 - 1));
    let floor = floor.map_or_else(String::new, |floor| floor.to_string());
    call.arg(owner.as_str()).arg(millis(ttl)).arg(floor);
    let answer = redis.run(&SCRIPTS.claim, &call, partition).await?;
    claimed(answer, partition, owner)
        .ok_or_else(|| Part::Lease.corrupt(partition, "it cannot be read"))
}

/// [`crate::store::Store::renew`].
pub(super) async fn renew(
    redis: &RedisStore,
    lease: &Lease,
    ttl: Duration,
) -> Result<Renewal, StoreError> {
    let mut call = invocation(&SCRIPTS.renew, &lease.partition, [Part::Lease, Part::Epoch]);
    call.arg(stored(lease)).arg(lease.epoch.0).arg(millis(ttl));
    let answer = redis.run(&SCRIPTS.renew, &call, &lease.partition).await?;
    Ok(match reply::number(answer) {
        Some(1) => Renewal::Renewed,
        Some(3) => Renewal::Missing,
        _ => Renewal::Lost,
    })
}

/// [`crate::store::Store::release`].
pub(super) async fn release(redis: &RedisStore, lease: &Lease) -> Result<(), StoreError> {
    let mut call = invocation(&SCRIPTS.release, &lease.partition, [Part::Lease]);
    call.arg(stored(lease));
    redis.run(&SCRIPTS.release, &call, &lease.partition).await?;
    Ok(())
}

/// A lease as its key holds it.
fn stored(lease: &Lease) -> String {
    format!("{} {}", lease.epoch, lease.owner)
}

fn claimed(answer: Value, partition: &PartitionId, owner: &ReplicaId) -> Option<Claim> {
    let mut values = reply::list(answer)?.into_iter();
    match reply::number(values.next()?)? {
        1 => Some(Claim::Granted(Lease {
            partition: partition.clone(),
            owner: owner.clone(),
            epoch: Epoch(reply::number(values.next()?)?),
        })),
        2 => Some(Claim::Unknown),
        _ => Some(Claim::Held {
            owner: ReplicaId::new(reply::text(values.next()?)?),
            remaining: Duration::from_millis(reply::number(values.next()?)?),
        }),
    }
}
