//! The opaque tokens that a tenant is handed and brings back: versioned, bound to the tenant and to one use,
//! and checked for damage. Pure.
//!
//! The check is a keyless digest: it keeps honest callers from mixing tokens up and catches damage, but whoever
//! reads this file can make a token for their own tenant. So nothing in a token may grant anything.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::types::TenantId;

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;
const OVERHEAD: usize = 1 + 2 * CHECK_BYTES;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A position in a tenant's logs.
    Cursor,
    /// A place in a list.
    Page,
}

impl Use {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Cursor => b"imgate cursor",
            Self::Page => b"imgate page",
        }
    }
}

/// Why a token is not one. The texts are safe to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token of this use.
    #[error("is too long to be one of this gateway's")]
    TooLong,
    /// Not made by this gateway, cut short, or changed.
    #[error("is damaged or was not made by this gateway; use it exactly as it was received")]
    Damaged,
    /// Made for another tenant.
    #[error("was made for another tenant")]
    OtherTenant,
}

/// Makes a token of a body.
pub fn seal(usage: Use, tenant: &TenantId, body: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(OVERHEAD + body.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&fingerprint(usage, tenant));
    bytes.extend_from_slice(body);
    let check = checksum(usage, tenant, &bytes);
    bytes.extend_from_slice(&check);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The body of a token, which has at most `max_body` bytes.
pub fn open(
    usage: Use,
    tenant: &TenantId,
    token: &str,
    max_body: usize,
) -> Result<Vec<u8>, TokenError> {
    // Four characters carry three bytes; what is far too long is not even decoded.
    if token.len() > (OVERHEAD + max_body).div_ceil(3) * 4 {
        return Err(TokenError::TooLong);
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| TokenError::Damaged)?;
    let (version, rest) = bytes.split_first().ok_or(TokenError::Damaged)?;
    if *version != VERSION {
        return Err(TokenError::Damaged);
    }
    let (owner, rest) = rest
        .split_at_checked(CHECK_BYTES)
        .ok_or(TokenError::Damaged)?;
    let body_len = rest
        .len()
        .checked_sub(CHECK_BYTES)
        .ok_or(TokenError::Damaged)?;
    let (body, check) = rest.split_at(body_len);
    if owner != fingerprint(usage, tenant) {
        return Err(TokenError::OtherTenant);
    }
    let (checked, _) = bytes.split_at(bytes.len() - CHECK_BYTES);
    if check != checksum(usage, tenant, checked) {
        return Err(TokenError::Damaged);
    }
    if body.len() > max_body {
        return Err(TokenError::TooLong);
    }
    Ok(body.to_vec())
}

fn fingerprint(usage: Use, tenant: &TenantId) -> [u8; CHECK_BYTES] {
    short_digest(&[usage.label(), b" of ", tenant.as_str().as_bytes()])
}

fn checksum(usage: Use, tenant: &TenantId, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let tenant = tenant.as_str().as_bytes();
    short_digest(&[usage.label(), b" check ", tenant, b"\0", bytes])
}

fn short_digest(parts: &[&[u8]]) -> [u8; CHECK_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let whole = context.finish();
    let mut short = [0; CHECK_BYTES];
    for (to, from) in short.iter_mut().zip(whole.as_ref()) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_good_for_its_tenant_and_use_only() {
        let (a, b) = (TenantId::new("a"), TenantId::new("b"));
        let token = seal(Use::Page, &a, b"bot7");
        assert_eq!(open(Use::Page, &a, &token, 64).unwrap(), b"bot7");
        assert_eq!(
            open(Use::Page, &b, &token, 64),
            Err(TokenError::OtherTenant)
        );
        assert!(open(Use::Cursor, &a, &token, 64).is_err());
        assert_eq!(open(Use::Page, &a, &token, 3), Err(TokenError::TooLong));
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in prop::collection::vec(any::<u8>(), 0..200), tenant in "\\PC{1,20}") {
            let tenant = TenantId::new(tenant);
            let token = seal(Use::Cursor, &tenant, &body);
            prop_assert_eq!(open(Use::Cursor, &tenant, &token, 200).unwrap(), body);
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in "\\PC{0,100}") {
            prop_assert!(open(Use::Cursor, &TenantId::new("t"), &text, 64).is_err());
        }

        #[test]
        fn any_change_is_noticed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let tenant = TenantId::new("t");
            let token = seal(Use::Cursor, &tenant, b"some position");
            let at = at.index(token.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert!(open(Use::Cursor, &tenant, &changed, 64).is_err());
            prop_assert!(open(Use::Cursor, &tenant, &token[..at], 64).is_err());
        }
    }
}
