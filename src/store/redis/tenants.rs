//! Which tenants have data, by what it is laid out, and its end.

use redis::Value;

use super::keys::{Part, TENANTS};
use super::scripts::{SCRIPTS, invocation};
use super::{RedisStore, reply};
use crate::store::{Lease, StoreError, TenantLayout};
use crate::types::{PartitionId, TenantId};

/// What of a partition goes in a purge: all but the epoch, and the lease, which its owner gives back.
const PURGED: [Part; 9] = [
    // The script looks at it.
    Part::Epoch,
    Part::Sessions,
    Part::Additions,
    Part::Log,
    Part::Meta,
    Part::Sends,
    Part::Subs,
    Part::Shares,
    Part::Members,
];

/// [`crate::store::Store::enrol`].
pub(super) async fn enrol(
    redis: &RedisStore,
    tenant: &TenantId,
    layout: TenantLayout,
) -> Result<TenantLayout, StoreError> {
    let mut call = redis::cmd("EVALSHA");
    call.arg(SCRIPTS.enrol.get_hash()).arg(1).arg(TENANTS);
    let TenantLayout {
        partitions,
        sdk_app_id,
    } = layout;
    call.arg(tenant.as_str())
        .arg(format!("{partitions} {sdk_app_id}"));
    let answer = redis.run(&SCRIPTS.enrol, &call, &first(tenant)).await?;
    read(answer).ok_or_else(|| unreadable(tenant))
}

/// [`crate::store::Store::enrolled`].
pub(super) async fn enrolled(
    redis: &RedisStore,
) -> Result<Vec<(TenantId, TenantLayout)>, StoreError> {
    let nobody = TenantId::new("");
    let mut command = redis::cmd("HGETALL");
    command.arg(TENANTS);
    let answer = redis.send(&command, &first(&nobody)).await?;
    let mut enrolled = Vec::new();
    for (tenant, layout) in reply::pairs(answer).ok_or_else(|| unreadable(&nobody))? {
        let tenant = TenantId::new(reply::text(tenant).ok_or_else(|| unreadable(&nobody))?);
        let layout = read(layout).ok_or_else(|| unreadable(&tenant))?;
        enrolled.push((tenant, layout));
    }
    enrolled.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(enrolled)
}

/// [`crate::store::Store::strike`].
pub(super) async fn strike(redis: &RedisStore, tenant: &TenantId) -> Result<(), StoreError> {
    let mut command = redis::cmd("HDEL");
    command.arg(TENANTS).arg(tenant.as_str());
    redis.send(&command, &first(tenant)).await?;
    Ok(())
}

/// [`crate::store::Store::purge`].
pub(super) async fn purge(redis: &RedisStore, lease: &Lease) -> Result<(), StoreError> {
    let mut call = invocation(&SCRIPTS.purge, &lease.partition, PURGED);
    call.arg(lease.epoch.0);
    redis.run_fenced(&SCRIPTS.purge, &call, lease).await?;
    Ok(())
}

/// The place that an error names.
fn first(tenant: &TenantId) -> PartitionId {
    PartitionId {
        tenant: tenant.clone(),
        number: 0,
    }
}

fn read(value: Value) -> Option<TenantLayout> {
    let text = reply::text(value)?;
    let (partitions, sdk_app_id) = text.split_once(' ')?;
    Some(TenantLayout {
        partitions: partitions.parse().ok()?,
        sdk_app_id: sdk_app_id.parse().ok()?,
    })
}

fn unreadable(tenant: &TenantId) -> StoreError {
    StoreError::Corrupt {
        place: format!("{TENANTS}, field {tenant:?}"),
        detail: "it cannot be read".into(),
    }
}
