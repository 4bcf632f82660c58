//! What a tenant may use, what it uses, and the refusal of what is more. One [`Quotas`] per tenant lives as long as the
//! process: its limits can be replaced while it is in use, and what was used stays counted.
//!
//! Rates are over the fleet. Replicas do not talk about them: each keeps to its share, the part of the tenant's
//! partitions that it holds, for an account's calls go to the owner of its partition. The shares sum up to the limit.

mod daily;
mod rate;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::daily::State as DailyState;
pub use self::daily::{Admitted, Daily, Noted};
use self::rate::Rate;
use crate::error::{Classified, ErrorKind};
use crate::types::{Day, TenantId, UnixMillis};

/// What is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Accounts that are kept logged in.
    Sessions,
    /// Calls of Login that lead to a login by signature.
    Logins,
    /// Calls of Send and Invoke.
    Sends,
    /// Sends of one session that wait.
    PendingSends,
    /// Streams of Subscribe.
    Subscribers,
    /// Named subscriptions.
    Subscriptions,
    /// Accounts that log in by signature on one day.
    DailyActiveUsers,
}

impl Quota {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Sessions,
        Self::Logins,
        Self::Sends,
        Self::PendingSends,
        Self::Subscribers,
        Self::Subscriptions,
        Self::DailyActiveUsers,
    ];

    /// The last part of its key in the configuration, and the metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Logins => "logins_per_minute",
            Self::Sends => "sends_per_second",
            Self::PendingSends => "pending_sends_per_session",
            Self::Subscribers => "subscribers",
            Self::Subscriptions => "subscriptions",
            Self::DailyActiveUsers => "daily_active_users",
        }
    }

    /// The reason in ErrorInfo, part of the API.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Sessions => "SESSIONS",
            Self::Logins => "LOGINS_PER_MINUTE",
            Self::Sends => "SENDS_PER_SECOND",
            Self::PendingSends => "SENDS_PENDING",
            Self::Subscribers => "SUBSCRIBERS",
            Self::Subscriptions => "SUBSCRIPTIONS",
            Self::DailyActiveUsers => "DAILY_ACTIVE_USERS",
        }
    }

    /// When it is worth asking again where nothing tells: soon for what comes and goes by itself, later for what somebody
    /// has to give up first.
    const fn patience(self) -> Duration {
        match self {
            Self::PendingSends | Self::Logins | Self::Sends => Duration::from_secs(1),
            Self::Subscribers => Duration::from_secs(5),
            Self::Sessions | Self::Subscriptions | Self::DailyActiveUsers => {
                Duration::from_secs(30)
            }
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Sessions => "log some out",
            Self::Logins | Self::Sends => "call less often",
            Self::PendingSends => "wait for answers",
            Self::Subscribers => "end one, or share a stream",
            Self::Subscriptions => "delete one (DeleteSubscription)",
            Self::DailyActiveUsers => "wait for the next day",
        }
    }
}

/// A tenant is at a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tenant's limit of {limit} {} is reached: {}, or have limits.{} raised",
    words(.quota.label()), .quota.remedy(), .quota.label()
)]
pub struct Exceeded {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub quota: Quota,
    /// What may be at the most, in the unit of the quota's name.
    pub limit: u64,
    /// When the same may be taken again.
    pub retry_after: Duration,
}

fn words(label: &str) -> String {
    label.replace('_', " ")
}

impl Exceeded {
    /// The refusal of one more than `limit`, of something that no clock gives back.
    pub fn count(tenant: &TenantId, quota: Quota, limit: usize) -> Self {
        Self {
            tenant: tenant.clone(),
            quota,
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            retry_after: quota.patience(),
        }
    }
}

impl Classified for Exceeded {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Exhausted
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(self.retry_after)
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// The limits that [`Quotas`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls of Login that lead to a login by signature, per minute over the fleet; a minute's worth may come at once.
    pub logins_per_minute: u32,
    /// Calls of Send and Invoke per second over the fleet; a second's worth may come at once.
    pub sends_per_second: u32,
    /// Streams of Subscribe at this replica.
    pub subscribers: usize,
    /// Accounts that log in by signature on one day over the fleet; `None` for any number.
    pub daily_active_users: Option<u64>,
    /// Whether accounts beyond that are refused; else there is a warning.
    pub refuse_daily_active_users: bool,
}

impl Limits {
    /// No limit that anybody reaches.
    pub const NONE: Self = Self {
        logins_per_minute: u32::MAX,
        sends_per_second: u32::MAX,
        subscribers: usize::MAX,
        daily_active_users: None,
        refuse_daily_active_users: false,
    };
}

/// What one tenant may use, and what it uses.
#[derive(Debug)]
pub struct Quotas {
    tenant: TenantId,
    state: Mutex<State>,
    subscribers: AtomicUsize,
    daily: Mutex<DailyState>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    share: Share,
    logins: Rate,
    sends: Rate,
}

/// Which part of the fleet's work is this replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    held: u16,
    of: u16,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { held: 1, of: 1 };

    /// That of who holds so many of so many partitions; nobody's is nothing at all, for a call may come just before its
    /// partition does.
    pub fn new(held: u16, of: u16) -> Self {
        let of = of.max(1);
        Self {
            held: held.clamp(1, of),
            of,
        }
    }
}

impl Quotas {
    /// The quotas of a tenant that has used nothing.
    pub fn new(tenant: TenantId, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            state: Mutex::new(State {
                limits,
                share: Share::WHOLE,
                logins: Rate::default(),
                sends: Rate::default(),
            }),
            subscribers: AtomicUsize::new(0),
            daily: Mutex::default(),
        })
    }

    /// Whose.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Replaces the limits. What was used stays counted, and streams that are open stay so.
    pub fn set_limits(&self, limits: Limits) {
        self.state().limits = limits;
    }

    /// The present limits.
    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// Sets the part of the tenant's partitions that this replica holds.
    pub fn set_share(&self, share: Share) {
        self.state().share = share;
    }

    /// Counts a call of Login that leads to a login by signature, or refuses it.
    pub fn log_in(&self) -> Result<(), Exceeded> {
        let mut state = self.state();
        let (limit, share) = (state.limits.logins_per_minute, state.share);
        let taken = state
            .logins
            .take(Instant::now(), limit, share, Duration::from_secs(60));
        taken.map_err(|wait| self.too_fast(Quota::Logins, limit, wait))
    }

    /// Counts a call of Send or Invoke, or refuses it.
    pub fn send(&self) -> Result<(), Exceeded> {
        let mut state = self.state();
        let (limit, share) = (state.limits.sends_per_second, state.share);
        let taken = state
            .sends
            .take(Instant::now(), limit, share, Duration::from_secs(1));
        taken.map_err(|wait| self.too_fast(Quota::Sends, limit, wait))
    }

    /// Counts a stream of Subscribe until the answer is dropped, or refuses it.
    pub fn subscribe(self: &Arc<Self>) -> Result<Subscriber, Exceeded> {
        let limit = self.limits().subscribers;
        let more = |open| (open < limit).then_some(open + 1);
        let counted = self
            .subscribers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        match counted {
            Ok(_) => Ok(Subscriber(Arc::clone(self))),
            Err(_) => Err(Exceeded::count(&self.tenant, Quota::Subscribers, limit)),
        }
    }

    /// The streams that are open.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Admits an account to a login by signature, which was last accepted on the day `last`. One that is new today counts
    /// from now on, until the answer is dropped or noted; it is refused when as many as may be have been, if the tenant is
    /// to be refused more.
    pub fn admit_active(
        self: &Arc<Self>,
        now: UnixMillis,
        last: Option<Day>,
    ) -> Result<Option<Admitted>, Exceeded> {
        let limits = self.limits();
        if last == Some(now.day()) {
            return Ok(None);
        }
        let mut daily = self.daily();
        let used = daily.used(now.day());
        match limits.daily_active_users {
            Some(limit) if limits.refuse_daily_active_users && used >= limit => Err(Exceeded {
                tenant: self.tenant.clone(),
                quota: Quota::DailyActiveUsers,
                limit,
                retry_after: now.rest_of_day(),
            }),
            Some(_) | None => {
                daily.admit();
                Ok(Some(Admitted::new(Arc::clone(self))))
            }
        }
    }

    fn too_fast(&self, quota: Quota, limit: u32, wait: Duration) -> Exceeded {
        Exceeded {
            tenant: self.tenant.clone(),
            quota,
            limit: limit.into(),
            // RetryInfo of nothing would have callers try again at once.
            retry_after: wait.max(Duration::from_millis(1)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn daily(&self) -> MutexGuard<'_, DailyState> {
        self.daily.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of Subscribe that counts until it is dropped.
#[derive(Debug)]
pub struct Subscriber(Arc<Quotas>);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
