//! From a bearer key to the one who calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::error::{Classified, ErrorKind};
use crate::types::{AccountId, SessionKey, TenantId};

/// What a key allows: one scope per gRPC service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// SessionService.
    Sessions,
    /// EventService.
    Events,
    /// MessageService.
    Messages,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sessions, Self::Events, Self::Messages];

    /// The name in configuration and in error texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Events => "events",
            Self::Messages => "messages",
        }
    }

    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// The SHA-256 of an API key: all that is kept of one. Keys are random and long, so the digest needs no salt.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl KeyDigest {
    /// The digest of a key in the clear.
    pub fn of(key: &str) -> Self {
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        Self(bytes)
    }

    /// From 64 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:***")
    }
}

/// Who calls. Only [`Directory::authenticate`](super::directory::Directory::authenticate) makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant that the key belongs to.
    pub tenant: TenantId,
    /// How many partitions the tenant has.
    pub partitions: u16,
    /// How many named subscriptions the tenant may have.
    pub max_subscriptions: usize,
    /// The key's ID, for logs; empty for a caller of an open tenant.
    pub key_id: Arc<str>,
    /// What the key allows.
    pub scopes: Arc<[Scope]>,
}

impl Principal {
    /// Refuses a caller whose key lacks a scope.
    pub fn require(&self, scope: Scope) -> Result<(), AuthError> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(AuthError::ScopeMissing(scope))
        }
    }

    /// The name of the session of one of the tenant's accounts.
    pub fn session(&self, account: AccountId) -> SessionKey {
        SessionKey {
            tenant: self.tenant.clone(),
            account,
        }
    }
}

/// An operator who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The key's ID, for logs.
    pub id: Arc<str>,
}

/// What a caller says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// The `authorization` metadata.
    pub authorization: Option<&'a str>,
    /// The `imgate-tenant` metadata.
    pub tenant: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// The key in `Bearer <key>`; `None` when there is no `authorization` at all.
    pub(super) fn bearer(self) -> Result<Option<&'a str>, AuthError> {
        let Some(value) = self.authorization else {
            return Ok(None);
        };
        let (scheme, key) = value.split_once(' ').ok_or(AuthError::NotBearer)?;
        let key = key.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
            return Err(AuthError::NotBearer);
        }
        Ok(Some(key))
    }
}

/// Why a caller is refused. No variant tells whether a tenant or a key of another tenant exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No key was given, and no open tenant takes callers without one.
    #[error("no API key: send the metadata `authorization: Bearer <api key>`")]
    KeyMissing,
    /// The `authorization` metadata has another form.
    #[error("the metadata `authorization` must read `Bearer <api key>`")]
    NotBearer,
    /// No tenant has this key.
    #[error("unknown API key: check the key, or ask the operator whether it was retired")]
    KeyUnknown,
    /// `imgate-tenant` names another tenant than the key's.
    #[error("the API key does not belong to the tenant named by the metadata `imgate-tenant`")]
    OtherTenant,
    /// Several open tenants, and the caller names none.
    #[error("several tenants are open: name one by the metadata `imgate-tenant`")]
    TenantNotNamed,
    /// The key does not allow this call.
    #[error("the API key lacks the scope `{}`", .0.name())]
    ScopeMissing(Scope),
}

impl AuthError {
    /// The reason in ErrorInfo, part of the API.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::KeyMissing => "API_KEY_MISSING",
            Self::NotBearer => "API_KEY_MALFORMED",
            Self::KeyUnknown => "API_KEY_UNKNOWN",
            Self::OtherTenant => "TENANT_MISMATCH",
            Self::TenantNotNamed => "TENANT_NOT_NAMED",
            Self::ScopeMissing(_) => "SCOPE_MISSING",
        }
    }
}

impl Classified for AuthError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::KeyMissing | Self::NotBearer | Self::KeyUnknown | Self::TenantNotNamed => {
                ErrorKind::Unauthenticated
            }
            Self::OtherTenant | Self::ScopeMissing(_) => ErrorKind::Forbidden,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_its_own_hex_and_nothing_else() {
        // The SHA-256 of "abc", from FIPS 180-2.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyDigest::from_hex(hex), Some(KeyDigest::of("abc")));
        for bad in [
            "",
            "ba",
            &hex[1..],
            &hex.replace('b', "x"),
            &format!("{hex}0"),
            &"ü".repeat(32),
        ] {
            assert_eq!(KeyDigest::from_hex(bad), None, "{bad}");
        }
        assert!(KeyDigest::of("abc").matches(&KeyDigest::of("abc")));
        assert!(!KeyDigest::of("abc").matches(&KeyDigest::of("abd")));
        assert_eq!(format!("{:?}", KeyDigest::of("abc")), "sha256:***");
    }

    #[test]
    fn only_bearer_keys_are_read() {
        let bearer = |value| {
            Credentials {
                authorization: value,
                tenant: None,
            }
            .bearer()
        };
        assert_eq!(bearer(None), Ok(None));
        assert_eq!(bearer(Some("Bearer k1")), Ok(Some("k1")));
        assert_eq!(bearer(Some("bearer   k1 ")), Ok(Some("k1")));
        for bad in ["", "k1", "Basic k1", "Bearer", "Bearer ", "Bearerk1"] {
            assert_eq!(bearer(Some(bad)), Err(AuthError::NotBearer), "{bad:?}");
        }
    }

    #[test]
    fn scopes_have_names() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.name()), Some(scope));
        }
        assert_eq!(Scope::parse("admin"), None);
    }
}
