//! Ids and small values that every room uses. Nothing here does I/O.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroize;

/// Declares a cheap-to-clone string id.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps an id that has been checked where it came in.
            pub fn new(id: impl AsRef<str>) -> Self {
                Self(Arc::from(id.as_ref()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_id!(
    /// A customer of the gateway.
    TenantId
);
string_id!(
    /// One upstream user ID of a tenant.
    AccountId
);
string_id!(
    /// One imgate process, by a name that it keeps over restarts.
    ReplicaId
);

string_id!(
    /// One stream that shares a subscription.
    MemberId
);

string_id!(
    /// One upstream app at one address, which several tenants may share.
    AppId
);

impl TenantId {
    /// Whether it is the gateway's own and no customer's. The configuration takes no ID with a dash at its front.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('-')
    }
}

impl AccountId {
    /// The longest user ID in bytes; the upstream's own limit is 32 by default, raised on request.
    pub const MAX_BYTES: usize = 64;

    /// Checks a user ID that came from outside. The error is the remedy, safe to show.
    pub fn parse(id: &str) -> Result<Self, &'static str> {
        if id.is_empty() {
            return Err("must not be empty: give the upstream user ID");
        }
        if id.len() > Self::MAX_BYTES {
            return Err("must be at most 64 bytes of UTF-8");
        }
        if id.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        Ok(Self::new(id))
    }
}

/// A session's name: whose account it is, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub account: AccountId,
}

impl SessionKey {
    /// The partition that the session belongs to, of a tenant with `partitions` of them.
    pub fn partition(&self, partitions: u16) -> PartitionId {
        // CRC-32 is stable over versions and machines, which is all that a placement needs.
        let hash = crc32fast::hash(self.account.as_str().as_bytes());
        let number = u16::try_from(hash % u32::from(partitions.max(1))).unwrap_or(0);
        PartitionId {
            tenant: self.tenant.clone(),
            number,
        }
    }
}

/// The unit of ownership, ordering and logging.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// Whose.
    pub tenant: TenantId,
    /// Which, from 0.
    pub number: u16,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tenant, self.number)
    }
}

/// The fencing token of a lease. It only grows: a greater one has been given out later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value that is never printed and is wiped from memory when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that needs it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A moment of the wall clock, in milliseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How far this moment lies after `earlier`; zero if it does not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The day that the moment lies in.
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0.saturating_add(Day::AHEAD) / Day::MILLIS).unwrap_or(u32::MAX))
    }

    /// How long the day of the moment lasts yet.
    pub const fn rest_of_day(self) -> Duration {
        Duration::from_millis(Day::MILLIS - self.0.saturating_add(Day::AHEAD) % Day::MILLIS)
    }

    /// The moment `delay` later.
    pub fn plus(self, delay: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// A calendar day in UTC+8, counted from 1970. The vendor counts active users by natural days and does not say of which
/// zone; it is where its billing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    const MILLIS: u64 = 24 * 60 * 60 * 1000;
    /// How far the zone's clock is ahead of UTC.
    const AHEAD: u64 = 8 * 60 * 60 * 1000;
}

/// Where the wall clock is read. Timers never use it: they run on `tokio::time::Instant`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl WallClock {
    /// The present moment.
    pub fn now(self) -> UnixMillis {
        UnixMillis(u64::try_from(Self::since_1970().as_millis()).unwrap_or(u64::MAX))
    }

    /// The present moment in nanoseconds since 1970, to measure by.
    pub fn nanos(self) -> u64 {
        u64::try_from(Self::since_1970().as_nanos()).unwrap_or(u64::MAX)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one reader of the wall clock"
    )]
    fn since_1970() -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_as_stars() {
        let secret = Secret::new(String::from("key"));
        assert_eq!(format!("{secret:?} {secret}"), "*** ***");
        assert_eq!(secret.expose(), "key");
    }

    #[test]
    fn a_day_ends_at_four_in_the_afternoon_of_utc() {
        // 1970-01-01 15:59:59.999 and a millisecond later.
        let last = UnixMillis(16 * 3_600_000 - 1);
        let first = UnixMillis(last.0 + 1);
        assert_eq!((last.day(), first.day()), (Day(0), Day(1)));
        assert_eq!(last.rest_of_day(), Duration::from_millis(1));
        assert_eq!(first.rest_of_day(), Duration::from_secs(24 * 3600));
        // 2026-11-28 00:00 UTC is eight in the morning of the same day there.
        assert_eq!(UnixMillis::from_secs(1_795_824_000).day(), Day(20_785));
    }

    #[test]
    fn account_ids_are_checked() {
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(AccountId::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(AccountId::parse("用户-1@x").unwrap().as_str(), "用户-1@x");
    }

    #[test]
    fn a_partition_is_stable_and_in_range() {
        let key = |account: &str| SessionKey {
            tenant: TenantId::new("t"),
            account: AccountId::new(account),
        };
        assert_eq!(key("bot1").partition(8), key("bot1").partition(8));
        assert!((0..100).all(|n| key(&format!("bot{n}")).partition(8).number < 8));
        assert_eq!(key("bot1").partition(0).number, 0);
    }
}
