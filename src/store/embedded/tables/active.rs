//! Who was active on which day.

use redb::{ReadTransaction, ReadableTable as _};

use super::{ACTIVE_COUNTS, Step, Tables, written};
use crate::store::active::oldest_kept;
use crate::types::{AccountId, Day, TenantId};

impl Tables<'_> {
    /// [`crate::store::Store::note_active`].
    pub(in super::super) fn note_active(
        &mut self,
        tenant: &TenantId,
        day: Day,
        accounts: &[AccountId],
    ) -> Step<u64> {
        let tenant = tenant.as_str();
        let before = self.active_counts.get((tenant, day.0))?;
        let before = before.map(|count| count.value());
        let mut count = before.unwrap_or_default();
        for account in accounts {
            let key = (tenant, day.0, account.as_str());
            if self.active.insert(key, ())?.is_none() {
                count += 1;
            }
        }
        self.active_counts.insert((tenant, day.0), count)?;
        if before.is_none() {
            // The first of a day drops what is too old; a day that comes late is not the newest.
            let oldest = oldest_kept(day).0;
            let old = (tenant, 0, "")..(tenant, oldest, "");
            self.active.retain_in(old, |_, ()| false)?;
            let old = (tenant, 0)..(tenant, oldest);
            self.active_counts.retain_in(old, |_, _| false)?;
        }
        Ok(count)
    }

    /// Forgets who was active of a tenant.
    pub(super) fn forget_active(&mut self, tenant: &TenantId) -> Step<()> {
        let tenant = tenant.as_str();
        let days = (tenant, 0, "")..(tenant, u32::MAX, "");
        self.active.retain_in(days, |_, ()| false)?;
        let days = (tenant, 0)..(tenant, u32::MAX);
        self.active_counts.retain_in(days, |_, _| false)?;
        Ok(())
    }
}

/// How many accounts were noted.
pub(in super::super) fn count(
    transaction: &ReadTransaction,
    tenant: &TenantId,
    day: Day,
) -> Step<u64> {
    let Some(counts) = written(transaction.open_table(ACTIVE_COUNTS))? else {
        return Ok(0);
    };
    let count = counts.get((tenant.as_str(), day.0))?;
    Ok(count.map_or(0, |count| count.value()))
}
