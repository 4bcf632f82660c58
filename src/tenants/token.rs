//! The opaque tokens that a tenant is handed and brings back: versioned, bound to the tenant and to one use, and
//! authenticated, so that nobody but the gateway can make or alter one. Pure.
//!
//! A token is `version | body | MAC` in base64. The MAC is HMAC-SHA-256, cut to 16 bytes, under a key that is derived
//! from one of the gateway's sealing keys; all replicas that have the keys accept it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::types::{Secret, TenantId};

const VERSION: u8 = 2;
/// Half of the whole, as is usual: a forgery by guessing is hopeless, and a cursor goes with every batch.
const MAC_BYTES: usize = 16;
const OVERHEAD: usize = 1 + MAC_BYTES;
const KEY_BYTES: usize = 32;
/// They set the derived keys apart from all others that are ever made of the sealing keys.
const SALT: &[u8] = b"imgate";
const INFO: &[u8] = b"token";

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
            Self::Cursor => b"cursor",
            Self::Page => b"page",
        }
    }
}

/// Why a token is not one. The texts are safe to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token of this use.
    #[error("is too long to be one of this gateway's")]
    TooLong,
    /// Made for another tenant or use, by somebody else, or under a key that was taken out; cut short, or changed.
    #[error(
        "was not made by this gateway for this tenant, was changed, or is older than the gateway's keys; use it exactly \
         as it was received, or begin without it"
    )]
    Refused,
}

/// Makes tokens, and opens those that were made here. Cheap to clone; prints as `***`. The keys can be replaced at any
/// time, for all clones at once.
#[derive(Clone)]
pub struct Tokens {
    keys: Arc<ArcSwap<Keys>>,
}

/// Keys of the MAC.
struct Keys {
    /// Makes and opens.
    active: Secret<[u8; KEY_BYTES]>,
    /// Open only.
    others: Vec<Secret<[u8; KEY_BYTES]>>,
}

impl Tokens {
    /// Makes tokens under a key derived from `active`, and accepts those made under `active` or any of `others`.
    /// The keys may seal other things as well: what is derived tells nothing about them.
    pub fn new<'a>(
        active: &Secret<[u8; KEY_BYTES]>,
        others: impl IntoIterator<Item = &'a Secret<[u8; KEY_BYTES]>>,
    ) -> Self {
        Self {
            keys: Arc::new(ArcSwap::from_pointee(Keys::of(active, others))),
        }
    }

    /// Makes and accepts tokens by other keys from now on. Those under keys that are gone are refused.
    pub fn replace<'a>(
        &self,
        active: &Secret<[u8; KEY_BYTES]>,
        others: impl IntoIterator<Item = &'a Secret<[u8; KEY_BYTES]>>,
    ) {
        self.keys.store(Arc::new(Keys::of(active, others)));
    }

    /// Makes a token of a body.
    pub fn seal(&self, usage: Use, tenant: &TenantId, body: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(OVERHEAD + body.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&mac(&self.keys.load().active, usage, tenant, body));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The body of a token, which has at most `max_body` bytes.
    ///
    /// # Errors
    /// When it is longer, or was not made for this tenant and use under one of the keys.
    pub fn open(
        &self,
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
            .map_err(|_| TokenError::Refused)?;
        let (body, claimed) = match bytes.split_first() {
            Some((&VERSION, rest)) => rest.split_last_chunk::<MAC_BYTES>(),
            Some(_) | None => None,
        }
        .ok_or(TokenError::Refused)?;
        let keys = self.keys.load();
        let made_here = std::iter::once(&keys.active)
            .chain(&keys.others)
            .any(|key| verify_slices_are_equal(&mac(key, usage, tenant, body), claimed).is_ok());
        if !made_here {
            return Err(TokenError::Refused);
        }
        if body.len() > max_body {
            return Err(TokenError::TooLong);
        }
        Ok(body.to_vec())
    }

    /// Keys that every test has.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Secret::new([7; KEY_BYTES]), [])
    }
}

impl Keys {
    fn of<'a>(
        active: &Secret<[u8; KEY_BYTES]>,
        others: impl IntoIterator<Item = &'a Secret<[u8; KEY_BYTES]>>,
    ) -> Self {
        let others = others.into_iter().filter(|&other| other != active);
        Self {
            active: derive(active),
            others: others.map(derive).collect(),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The MAC key that belongs to a sealing key: HKDF-SHA-256 (RFC 5869) of one block, which cannot fail. The library wipes
/// its contexts; its tags are on the stack only, and are not.
fn derive(key: &Secret<[u8; KEY_BYTES]>) -> Secret<[u8; KEY_BYTES]> {
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text);
    let extracted = sign(SALT, key.expose());
    Secret::new(shortened(&sign(extracted.as_ref(), &[INFO, &[1]].concat())))
}

/// Each part of what it belongs to comes after its length, so that no two choices of parts are alike.
fn mac(
    key: &Secret<[u8; KEY_BYTES]>,
    usage: Use,
    tenant: &TenantId,
    body: &[u8],
) -> [u8; MAC_BYTES] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, key.expose()));
    context.update(&[VERSION]);
    for part in [usage.label(), tenant.as_str().as_bytes(), body] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    shortened(&context.sign())
}

fn shortened<const N: usize>(tag: &hmac::Tag) -> [u8; N] {
    let mut short = [0; N];
    for (to, from) in short.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> Secret<[u8; KEY_BYTES]> {
        Secret::new([seed; KEY_BYTES])
    }

    #[test]
    fn a_token_is_good_for_its_tenant_and_use_only() {
        let tokens = Tokens::for_tests();
        let (a, b) = (TenantId::new("a"), TenantId::new("b"));
        let token = tokens.seal(Use::Page, &a, b"bot7");
        let open = |usage, tenant, max| tokens.open(usage, tenant, &token, max);
        assert_eq!(open(Use::Page, &a, 64).unwrap(), b"bot7");
        assert_eq!(open(Use::Page, &b, 64), Err(TokenError::Refused));
        assert_eq!(open(Use::Cursor, &a, 64), Err(TokenError::Refused));
        assert_eq!(open(Use::Page, &a, 3), Err(TokenError::TooLong));
    }

    #[test]
    fn a_token_lives_as_long_as_its_key_is_in_the_ring() {
        let tenant = TenantId::new("t");
        let old = Tokens::new(&key(1), []).seal(Use::Cursor, &tenant, b"body");
        let open = |tokens: &Tokens| tokens.open(Use::Cursor, &tenant, &old, 64);
        let rotated = Tokens::new(&key(2), [&key(1), &key(2)]);
        assert_eq!(open(&rotated).unwrap(), b"body");
        // What is made now is under the active key.
        let new = rotated.seal(Use::Cursor, &tenant, b"body");
        assert_ne!(new, old);
        let taken_out = Tokens::new(&key(2), []);
        assert_eq!(
            taken_out.open(Use::Cursor, &tenant, &new, 64).unwrap(),
            b"body"
        );
        assert_eq!(open(&taken_out), Err(TokenError::Refused));
    }

    #[test]
    fn keys_are_replaced_under_all_clones() {
        let (tokens, tenant) = (Tokens::new(&key(1), []), TenantId::new("t"));
        let clone = tokens.clone();
        let old = tokens.seal(Use::Cursor, &tenant, b"body");
        let open = |token: &str| clone.open(Use::Cursor, &tenant, token, 64);
        tokens.replace(&key(2), [&key(1)]);
        assert_eq!(open(&old).unwrap(), b"body");
        let new = clone.seal(Use::Cursor, &tenant, b"body");
        assert_ne!(new, old);
        tokens.replace(&key(2), []);
        assert_eq!(open(&old), Err(TokenError::Refused));
        assert_eq!(open(&new).unwrap(), b"body");
    }

    #[test]
    fn whoever_reads_this_file_can_still_not_make_one() {
        // A valid token cut open: the same body under a MAC by anything but the key is refused.
        let (tokens, tenant) = (Tokens::for_tests(), TenantId::new("t"));
        let mine = Tokens::new(&key(8), []).seal(Use::Cursor, &tenant, b"body");
        assert_eq!(
            tokens.open(Use::Cursor, &tenant, &mine, 64),
            Err(TokenError::Refused)
        );
        // The sealing key itself is not the MAC key.
        let under_sealing_key = mac(&key(7), Use::Cursor, &tenant, b"body");
        let bytes = [&[VERSION][..], b"body", &under_sealing_key].concat();
        assert_eq!(
            tokens.open(Use::Cursor, &tenant, &URL_SAFE_NO_PAD.encode(bytes), 64),
            Err(TokenError::Refused)
        );
    }

    #[test]
    fn the_key_is_derived_by_hkdf() {
        let mut expected = [0; KEY_BYTES];
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(key(3).expose());
        let info = [INFO];
        let output = extracted.expand(&info, HKDF_SHA256).unwrap();
        output.fill(&mut expected).unwrap();
        assert_eq!(derive(&key(3)).expose(), &expected);
    }

    #[test]
    fn nothing_of_the_keys_is_printed() {
        assert_eq!(format!("{:?}", Tokens::for_tests()), "***");
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in prop::collection::vec(any::<u8>(), 0..200), tenant in "\\PC{1,20}") {
            let (tokens, tenant) = (Tokens::for_tests(), TenantId::new(tenant));
            let token = tokens.seal(Use::Cursor, &tenant, &body);
            prop_assert_eq!(tokens.open(Use::Cursor, &tenant, &token, 200).unwrap(), body);
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in "\\PC{0,100}") {
            let tokens = Tokens::for_tests();
            prop_assert!(tokens.open(Use::Cursor, &TenantId::new("t"), &text, 64).is_err());
        }

        #[test]
        fn any_change_is_noticed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let (tokens, tenant) = (Tokens::for_tests(), TenantId::new("t"));
            let token = tokens.seal(Use::Cursor, &tenant, b"some position");
            let at = at.index(token.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert!(tokens.open(Use::Cursor, &tenant, &changed, 64).is_err());
            prop_assert!(tokens.open(Use::Cursor, &tenant, &token[..at], 64).is_err());
        }
    }
}
