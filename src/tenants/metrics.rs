//! The metrics of what tenants use. A tenant is a label here, with a cap: [`Series`].

use std::collections::{BTreeMap, BTreeSet};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use super::quotas::Quota;
use crate::types::TenantId;

/// Calls that were refused because the tenant is at a limit; label `quota`.
pub const REFUSALS: &str = "imgate_tenant_quota_refusals_total";
/// Accounts with a running session on this replica; label `tenant`.
pub const SESSIONS: &str = "imgate_tenant_sessions";
/// Streams of Subscribe at this replica; label `tenant`.
pub const SUBSCRIBERS: &str = "imgate_tenant_subscribers";
/// Accounts that have logged in by signature today, over the fleet; label `tenant`.
pub const DAILY_ACTIVE: &str = "imgate_tenant_daily_active_users";
/// How many may; 0 for any number; label `tenant`.
pub const DAILY_ACTIVE_LIMIT: &str = "imgate_tenant_daily_active_users_limit";
/// Active accounts that were not noted; label `reason`.
pub const DAILY_ACTIVE_FAILURES: &str = "imgate_tenant_daily_active_failures_total";

/// How many tenants have series of their own in the metrics of a process, as long as that runs: a series that was made
/// once stays. Those beyond share one.
const MAX_SERIES: usize = 100;
/// What the shared series is called.
const OTHER: &str = "other";

/// Declares the metrics and starts the counters at zero.
pub fn describe_metrics() {
    describe_counter!(
        REFUSALS,
        Unit::Count,
        "Calls refused because the tenant is at a limit, by quota"
    );
    describe_gauge!(
        SESSIONS,
        Unit::Count,
        "Accounts with a running session on this replica"
    );
    describe_gauge!(
        SUBSCRIBERS,
        Unit::Count,
        "Streams of Subscribe at this replica"
    );
    describe_gauge!(
        DAILY_ACTIVE,
        Unit::Count,
        "Accounts that have logged in by signature today, over the fleet"
    );
    describe_gauge!(
        DAILY_ACTIVE_LIMIT,
        Unit::Count,
        "How many accounts may log in by signature today; 0 for any number"
    );
    describe_counter!(
        DAILY_ACTIVE_FAILURES,
        Unit::Count,
        "Active accounts that were not noted now (store) or at all (queue_full)"
    );
    for quota in Quota::ALL {
        counter!(REFUSALS, "quota" => quota.label()).absolute(0);
    }
    for reason in ["store", "queue_full"] {
        counter!(DAILY_ACTIVE_FAILURES, "reason" => reason).absolute(0);
    }
}

/// A call was refused.
pub fn refused(quota: Quota) {
    counter!(REFUSALS, "quota" => quota.label()).increment(1);
}

/// What a tenant uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Accounts with a running session here.
    pub sessions: usize,
    /// Streams of Subscribe here.
    pub subscribers: usize,
    /// Accounts that have logged in by signature today.
    pub daily_active: u64,
    /// How many may; 0 for any number.
    pub daily_active_limit: u64,
}

/// Which tenants have series of their own. The others share one, which shows their sums.
#[derive(Debug, Default)]
pub struct Series {
    own: BTreeSet<TenantId>,
}

impl Series {
    /// Shows what all tenants use; one that is gone uses nothing.
    pub fn show(&mut self, all: &BTreeMap<TenantId, Usage>) {
        for (tenant, usage) in self.assign(all) {
            show(tenant.as_ref().map_or(OTHER, TenantId::as_str), &usage);
        }
    }

    fn assign(&mut self, all: &BTreeMap<TenantId, Usage>) -> Vec<(Option<TenantId>, Usage)> {
        let mut shared = Usage::default();
        for (tenant, usage) in all {
            if self.own.len() < MAX_SERIES {
                self.own.insert(tenant.clone());
            }
            if !self.own.contains(tenant) {
                shared.sessions += usage.sessions;
                shared.subscribers += usage.subscribers;
                shared.daily_active += usage.daily_active;
                shared.daily_active_limit += usage.daily_active_limit;
            }
        }
        let own = self.own.iter().map(|tenant| {
            let usage = all.get(tenant).copied().unwrap_or_default();
            (Some(tenant.clone()), usage)
        });
        own.chain([(None, shared)]).collect()
    }
}

fn show(tenant: &str, usage: &Usage) {
    for (name, value) in [
        (SESSIONS, usage.sessions as f64),
        (SUBSCRIBERS, usage.subscribers as f64),
        (DAILY_ACTIVE, usage.daily_active as f64),
        (DAILY_ACTIVE_LIMIT, usage.daily_active_limit as f64),
    ] {
        gauge!(name, "tenant" => tenant.to_owned()).set(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_tenants_have_series_and_the_others_share_one() {
        let tenant = |n: usize| TenantId::new(format!("t{n:03}"));
        let usage = Usage {
            sessions: 2,
            subscribers: 1,
            daily_active: 5,
            daily_active_limit: 10,
        };
        let mut series = Series::default();
        let all = (0..103).map(|n| (tenant(n), usage)).collect();
        let shown = series.assign(&all);
        assert_eq!(shown.len(), 101);
        assert_eq!(shown[99], (Some(tenant(99)), usage));
        let shared = Usage {
            sessions: 6,
            subscribers: 3,
            daily_active: 15,
            daily_active_limit: 30,
        };
        assert_eq!(shown[100], (None, shared));
        // A new tenant does not take the place of one that is gone, which shows nothing.
        let later = (50..103).map(|n| (tenant(n), usage)).collect();
        let shown = series.assign(&later);
        assert_eq!(shown[0], (Some(tenant(0)), Usage::default()));
        assert_eq!(shown[100], (None, shared));
    }
}
