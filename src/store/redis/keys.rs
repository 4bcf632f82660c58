//! The names of all keys. Those of a partition share a hash tag, so that one script can use them together.

use std::fmt::Write as _;

use crate::store::StoreError;
use crate::types::{AppId, Day, PartitionId, TenantId};

/// The channel on which every commit that appends says `<log> <last sequence> <number> <tenant>`. The databases of one
/// server share it: what is told of another's log is a hint that leads to nothing.
pub(super) const GROWN: &str = "imgate:grown";

/// Hash of tenant to `<partitions> <upstream app>`: by what its data is laid out.
pub(super) const TENANTS: &str = "imgate:tenants";

/// One of a partition's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// String `<epoch> <owner>` with a time to live: the lease.
    Lease,
    /// String: the latest epoch given out.
    Epoch,
    /// Hash of account to record.
    Sessions,
    /// Hash of account to what was added to the record.
    Additions,
    /// Stream of events. An entry has some that were appended together: the ID `<sequence of the last>-0`, a field `t`
    /// (the owner's time), and a field `p` (payload) for each.
    Log,
    /// Hash: `log`, the log's identity; `last`, its last sequence; `first`, where the last trim left it beginning, 1 if
    /// none did, even within an entry; `count`, how many events it has, by default as many as entries; `bytes`, the sum
    /// of their payloads; `batch`, writer and number of the last batch.
    Meta,
    /// Hash of `<bytes of the account>:<account><client's message ID>` to what is remembered of the send.
    Sends,
    /// Hash of a subscription's name to `<log> <sequence> <Unix ms of its last use>`.
    Subs,
    /// Hash of a shared subscription's name to `<Unix ms until> <member>`, by the server's clock: who has this partition
    /// of it. Its time to live is that of the longest.
    Shares,
    /// Sorted set of `<bytes of the subscription's name>:<name><member>`, scored by the Unix ms until it is there, by the
    /// server's clock. Only a tenant's partition 0 has one, for all of the tenant. Its time to live is that of the
    /// longest.
    Members,
}

impl Part {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::Lease,
        Self::Epoch,
        Self::Sessions,
        Self::Additions,
        Self::Log,
        Self::Meta,
        Self::Sends,
        Self::Subs,
        Self::Shares,
        Self::Members,
    ];

    /// The end of the key's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Epoch => "epoch",
            Self::Sessions => "sessions",
            Self::Additions => "additions",
            Self::Log => "log",
            Self::Meta => "meta",
            Self::Sends => "sends",
            Self::Subs => "subs",
            Self::Shares => "shares",
            Self::Members => "members",
        }
    }

    /// What Redis calls the type of its value.
    pub(super) const fn type_name(self) -> &'static str {
        match self {
            Self::Lease | Self::Epoch => "string",
            Self::Sessions
            | Self::Additions
            | Self::Meta
            | Self::Sends
            | Self::Subs
            | Self::Shares => "hash",
            Self::Log => "stream",
            Self::Members => "zset",
        }
    }

    /// The key's name for a partition.
    pub(super) fn of(self, partition: &PartitionId) -> String {
        let mut key = String::with_capacity(partition.tenant.as_str().len() + 32);
        key.push_str("imgate:{");
        push_plain(&mut key, partition.tenant.as_str());
        let _never_fails = write!(key, ":{}}}:{}", partition.number, self.name());
        key
    }

    /// The error for a key that holds something else than it should.
    pub(super) fn corrupt(self, partition: &PartitionId, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            place: self.of(partition),
            detail: detail.into(),
        }
    }
}

/// String: when the next turn at an app is free, in microseconds of the server's clock.
pub(super) fn pace(app: &AppId) -> String {
    let mut key = "imgate:pace:".to_owned();
    push_plain(&mut key, app.as_str());
    key
}

/// HyperLogLog: the tenant's accounts that were active on a day, which is counted from 1970.
pub(super) fn active(tenant: &TenantId, day: Day) -> String {
    let mut key = "imgate:active:".to_owned();
    push_plain(&mut key, tenant.as_str());
    let _never_fails = write!(key, ":{}", day.0);
    key
}

/// The error for a key that holds something else than it should.
pub(super) fn unreadable(key: &str, detail: impl Into<String>) -> StoreError {
    StoreError::Corrupt {
        place: key.to_owned(),
        detail: detail.into(),
    }
}

/// Everything that could end a hash tag, or make two names alike, is written in hexadecimal.
fn push_plain(key: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            key.push(char::from(byte));
        } else {
            let _never_fails = write!(key, "%{byte:02X}");
        }
    }
}

/// Two texts as one: which they were can be told from it.
pub(super) fn joined(first: &str, second: &str) -> String {
    format!("{}:{first}{second}", first.len())
}

/// The two texts of [`joined`].
pub(super) fn parted(joined: &str) -> Option<(&str, &str)> {
    let (length, rest) = joined.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TenantId;

    fn key(tenant: &str, number: u16) -> String {
        Part::Log.of(&PartitionId {
            tenant: TenantId::new(tenant),
            number,
        })
    }

    #[test]
    fn keys_read_well_and_cannot_be_alike() {
        assert_eq!(key("shop-1", 7), "imgate:{shop-1:7}:log");
        assert_eq!(key("a:1", 0), "imgate:{a%3A1:0}:log");
        assert_eq!(key("a}", 0), "imgate:{a%7D:0}:log");
        assert_eq!(key("a%3A1", 0), "imgate:{a%253A1:0}:log");
        assert_eq!(key("é", 0), "imgate:{%C3%A9:0}:log");
        assert_eq!(key("", 0), "imgate:{:0}:log");
        let app = AppId::new("14@wss://host:1");
        assert_eq!(pace(&app), "imgate:pace:14%40wss%3A%2F%2Fhost%3A1");
        let tenant = TenantId::new("a:1");
        assert_eq!(active(&tenant, Day(20_785)), "imgate:active:a%3A1:20785");
    }

    #[test]
    fn joined_texts_come_apart_again() {
        let texts = ["", "a", "1:", ":", "12", "é用", "1:a", "a\0 \n"];
        let mut seen = std::collections::HashSet::new();
        for first in texts {
            for second in texts {
                let both = joined(first, second);
                assert_eq!(parted(&both), Some((first, second)), "{both}");
                assert!(seen.insert(both));
            }
        }
        for wrong in [
            "",
            "a",
            ":a",
            "2:a",
            "-1:a",
            "1:é",
            "99999999999999999999:a",
        ] {
            assert_eq!(parted(wrong), None, "{wrong}");
        }
    }
}
