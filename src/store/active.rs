//! Who was active on which day, for the store in memory: exactly, for a few days.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::types::{AccountId, Day, TenantId};

/// For how many days it is known how many accounts were active: long enough to look at after a weekend.
pub const KEPT_DAYS: u32 = 7;

/// The accounts of each day.
#[derive(Debug, Default)]
pub(super) struct ActiveDays {
    tenants: HashMap<TenantId, BTreeMap<Day, HashSet<AccountId>>>,
}

impl ActiveDays {
    /// [`super::Store::note_active`].
    pub(super) fn note(&mut self, tenant: &TenantId, day: Day, accounts: &[AccountId]) -> u64 {
        if !accounts.is_empty() {
            let days = self.tenants.entry(tenant.clone()).or_default();
            days.entry(day)
                .or_default()
                .extend(accounts.iter().cloned());
            let newest = days.keys().next_back().copied().unwrap_or(day);
            days.retain(|day, _| *day >= oldest_kept(newest));
        }
        let noted = self.tenants.get(tenant).and_then(|days| days.get(&day));
        noted.map_or(0, |noted| u64::try_from(noted.len()).unwrap_or(u64::MAX))
    }

    /// Forgets a tenant.
    pub(super) fn forget(&mut self, tenant: &TenantId) {
        self.tenants.remove(tenant);
    }
}

/// The oldest day that is kept when `newest` is the newest.
pub(super) fn oldest_kept(newest: Day) -> Day {
    Day(newest.0.saturating_sub(KEPT_DAYS))
}
