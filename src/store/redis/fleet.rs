//! What the whole fleet shares beside partitions: turns at an app, and who was active on a day.

use std::time::Duration;

use super::keys;
use super::scripts::{SCRIPTS, invocation_on};
use super::{RedisStore, millis, reply};
use crate::store::StoreError;
use crate::store::active::KEPT_DAYS;
use crate::store::turns::{self, Turns};
use crate::types::{AccountId, AppId, Day, TenantId};

/// [`crate::store::Store::take_turns`].
pub(super) async fn take_turns(
    redis: &RedisStore,
    app: &AppId,
    per_second: u32,
    most: u32,
) -> Result<Turns, StoreError> {
    let key = keys::pace(app);
    let interval = turns::interval(per_second);
    let mut call = invocation_on(&SCRIPTS.take_turns, &key);
    call.arg(interval).arg(turns::look_ahead()).arg(most);
    let answer = redis.run_on(&SCRIPTS.take_turns, &call, &key).await?;
    let numbers = reply::list(answer).map(|values| values.into_iter().map(reply::number));
    let numbers: Option<Vec<u64>> = numbers.and_then(Iterator::collect);
    match numbers.as_deref() {
        Some(&[count, begin_in]) => Ok(Turns {
            count: u32::try_from(count).unwrap_or(u32::MAX),
            begin_in: Duration::from_micros(begin_in),
            interval: Duration::from_micros(interval),
        }),
        Some(_) | None => Err(keys::unreadable(&key, "it does not hold a number")),
    }
}

/// [`crate::store::Store::note_active`].
pub(super) async fn note_active(
    redis: &RedisStore,
    tenant: &TenantId,
    day: Day,
    accounts: &[AccountId],
) -> Result<u64, StoreError> {
    let key = keys::active(tenant, day);
    let kept = Duration::from_secs(u64::from(KEPT_DAYS + 1) * 24 * 60 * 60);
    let mut call = invocation_on(&SCRIPTS.note_active, &key);
    call.arg(millis(kept));
    for account in accounts {
        call.arg(account.as_str());
    }
    let answer = redis.run_on(&SCRIPTS.note_active, &call, &key).await?;
    reply::number(answer).ok_or_else(|| keys::unreadable(&key, "it does not count"))
}
