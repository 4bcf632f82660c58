//! The names of all keys. Those of a partition share a hash tag, so that one script can use them together.

use std::fmt::Write as _;

use crate::store::StoreError;
use crate::types::PartitionId;

/// One of a partition's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// String `<epoch> <owner>` with a time to live: the lease.
    Lease,
    /// String: the latest epoch given out.
    Epoch,
    /// Hash of account to record.
    Sessions,
    /// Stream of events, with the IDs `<sequence>-0` and the fields `t` (the owner's time) and `p` (payload).
    Log,
    /// Hash: `log`, the log's identity; `last`, its last sequence; `first`, the first retained after a trim.
    Meta,
    /// Hash of a subscription's name to `<log> <sequence>`.
    Subs,
}

impl Part {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [
        Self::Lease,
        Self::Epoch,
        Self::Sessions,
        Self::Log,
        Self::Meta,
        Self::Subs,
    ];

    /// The end of the key's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Epoch => "epoch",
            Self::Sessions => "sessions",
            Self::Log => "log",
            Self::Meta => "meta",
            Self::Subs => "subs",
        }
    }

    /// What Redis calls the type of its value.
    pub(super) const fn type_name(self) -> &'static str {
        match self {
            Self::Lease | Self::Epoch => "string",
            Self::Sessions | Self::Meta | Self::Subs => "hash",
            Self::Log => "stream",
        }
    }

    /// The key's name for a partition.
    pub(super) fn of(self, partition: &PartitionId) -> String {
        let tenant = partition.tenant.as_str();
        let mut key = String::with_capacity(tenant.len() + 32);
        key.push_str("imgate:{");
        for byte in tenant.bytes() {
            // Everything that could end the tag, or make two tenants' names alike, is written in hexadecimal.
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
                key.push(char::from(byte));
            } else {
                let _never_fails = write!(key, "%{byte:02X}");
            }
        }
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
    }
}
