//! Sealing of what must not be read from the store alone: credentials, tickets, payloads.
//!
//! A sealed value is `version | length of key ID | key ID | nonce | ciphertext and tag`, by AES-256-GCM-SIV with a
//! random nonce. What it belongs to is authenticated with it, so that it opens nowhere else.
//!
//! What is wiped: keys and plaintext, wherever they are ours. The cipher keeps its key schedules in memory that
//! aws-lc cleanses when it frees it. Not wiped, for they are not ours: what the store's client and the kernel hold of
//! sealed values, which tell nothing without the keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Classified, ErrorKind};
use crate::types::{AccountId, Secret, TenantId};

/// The first byte of a sealed value.
const VERSION: u8 = 1;
/// A key's length in bytes.
const KEY_LEN: usize = 32;
/// The tag's length in bytes.
const TAG_LEN: usize = 16;
/// The longest key ID in bytes.
const KEY_ID_LEN: usize = 64;
/// It sets the digest that tells keys apart from all others that are ever made of them.
const PRINT: &[u8] = b"imgate key print";

/// The keys that can open, one of which seals.
pub struct KeyRing {
    active: String,
    keys: BTreeMap<String, Key>,
}

/// One key, ready for use.
struct Key {
    cipher: RandomizedNonceKey,
    /// Tells it from another of the same ID, and nothing else about it.
    print: digest::Digest,
}

/// Seals under the active key of a ring and opens under any. The ring can be replaced at any time.
#[derive(Debug)]
pub struct Sealer {
    ring: ArcSwap<KeyRing>,
    replaced: AtomicU64,
    /// Seals nothing while it is set.
    #[cfg(test)]
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

/// What a sealed value belongs to. It opens only for the same.
#[derive(Clone, Copy, Debug)]
pub struct SealedFor<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Which account's.
    pub account: &'a AccountId,
    /// What it is, such as `signature`.
    pub kind: &'a str,
}

/// Why keys cannot be used. The texts name key IDs and never keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// An ID is of another form.
    #[error("key ID {0:?}: give 1 to 64 letters, digits, '-', '_' or '.'")]
    KeyId(String),
    /// Two keys have one ID.
    #[error("key ID {0:?} is given twice: give each key an ID of its own")]
    Repeated(String),
    /// A key is of another form.
    #[error("key {0:?}: give 32 random bytes as 64 hexadecimal digits or in base64")]
    Key(String),
    /// The active key is not among the keys.
    #[error("the active key {0:?} is not among the keys: add it, or name one that is")]
    NoActive(String),
    /// A key that is in use has got other bytes: what it has sealed would not open any more, and nothing would tell that
    /// it needs to be sealed anew.
    #[error("key {0:?} is another than the one in use: give the new key an ID of its own")]
    Changed(String),
}

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not a sealed value, or one of a later version.
    #[error("not a sealed value that this version knows")]
    Malformed,
    /// Sealed under a key that the ring does not have.
    #[error("sealed under key {0:?}, which is not among the keys: add it again")]
    UnknownKey(String),
    /// Altered, sealed for something else, or sealed under another key of the same ID.
    #[error(
        "does not open under key {0:?}: it was altered, or is another account's, or the key is another"
    )]
    Refused(String),
    /// The cipher did not work.
    #[error("cannot seal under key {0:?}")]
    Cipher(String),
}

impl KeyRing {
    /// A ring of keys by ID, each 64 hexadecimal digits or 32 bytes in base64 (either alphabet, padded or not;
    /// white space around it is ignored); `active` seals.
    ///
    /// # Errors
    /// When an ID or a key is of another form, an ID is given twice, or `active` is not among them.
    pub fn parse<'a>(
        active: &str,
        keys: impl IntoIterator<Item = (&'a str, &'a Secret<String>)>,
    ) -> Result<Self, KeyRingError> {
        let mut parsed = BTreeMap::new();
        for (id, key) in keys {
            if !is_key_id(id) {
                return Err(KeyRingError::KeyId(id.to_owned()));
            }
            let key = key_bytes(key.expose()).ok_or_else(|| KeyRingError::Key(id.to_owned()))?;
            if parsed.insert(id.to_owned(), key).is_some() {
                return Err(KeyRingError::Repeated(id.to_owned()));
            }
        }
        Self::of(active, parsed.iter())
    }

    /// A ring of keys by ID; `active` seals.
    ///
    /// # Errors
    /// When an ID is of another form, or `active` is not among them.
    pub fn of<'a>(
        active: &str,
        keys: impl IntoIterator<Item = (&'a String, &'a Secret<[u8; KEY_LEN]>)>,
    ) -> Result<Self, KeyRingError> {
        let mut ring = Self {
            active: active.to_owned(),
            keys: BTreeMap::new(),
        };
        for (id, key) in keys {
            if !is_key_id(id) {
                return Err(KeyRingError::KeyId(id.to_owned()));
            }
            let cipher = RandomizedNonceKey::new(&AES_256_GCM_SIV, key.expose())
                .map_err(|_| KeyRingError::Key(id.to_owned()))?;
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(PRINT);
            context.update(key.expose());
            let print = context.finish();
            ring.keys.insert(id.to_owned(), Key { cipher, print });
        }
        if ring.keys.contains_key(active) {
            Ok(ring)
        } else {
            Err(KeyRingError::NoActive(ring.active))
        }
    }

    /// The ID of a key of this ring that `other` has with other bytes.
    fn changed_in(&self, other: &Self) -> Option<&str> {
        let mut both = self
            .keys
            .iter()
            .filter_map(|(id, key)| Some((id, key, other.keys.get(id)?)));
        both.find(|(_, key, other)| key.print.as_ref() != other.print.as_ref())
            .map(|(id, ..)| id.as_str())
    }
}

impl Sealer {
    /// Seals and opens with a ring.
    pub fn new(ring: KeyRing) -> Self {
        // The library's first randomness takes it tens of milliseconds: not those of the first login.
        let _gathered = aws_lc_rs::rand::fill(&mut [0]);
        Self {
            ring: ArcSwap::from_pointee(ring),
            replaced: AtomicU64::new(0),
            #[cfg(test)]
            broken: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Seals and opens with another ring from now on. What is being sealed or opened just now is finished with the one
    /// before. Values under keys that are gone do not open any more; see [`Sealer::needs_reseal`] for what to do
    /// before that.
    ///
    /// # Errors
    /// When a key keeps its ID and is another key. The ring stays as it was.
    pub fn replace(&self, ring: KeyRing) -> Result<(), KeyRingError> {
        if let Some(id) = self.ring.load().changed_in(&ring) {
            return Err(KeyRingError::Changed(id.to_owned()));
        }
        self.ring.store(ring.into());
        self.replaced.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How often its ring was replaced.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// The ID of the key that seals.
    pub fn active_key(&self) -> String {
        self.ring.load().active.clone()
    }

    /// Seals a value under the active key.
    ///
    /// # Errors
    /// [`SealError::Cipher`], which is not expected.
    pub fn seal(&self, belongs: &SealedFor<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let ring = self.ring.load();
        let id = &ring.active;
        let failed = || SealError::Cipher(id.clone());
        #[cfg(test)]
        if self.broken.load(Ordering::SeqCst) {
            return Err(failed());
        }
        let key = ring.keys.get(id).ok_or_else(failed)?;
        let id_len = u8::try_from(id.len()).map_err(|_| failed())?;

        let start = 2 + id.len() + NONCE_LEN;
        let mut sealed = Vec::with_capacity(start + plaintext.len() + TAG_LEN);
        sealed.extend([VERSION, id_len]);
        sealed.extend(id.as_bytes());
        sealed.extend([0; NONCE_LEN]);
        sealed.extend(plaintext);
        // Encrypted in its place; the nonce is chosen on the way and written before it.
        let (header, text) = sealed.split_at_mut(start);
        let (nonce, tag) = key
            .cipher
            .seal_in_place_separate_tag(Aad::from(belongs.bytes(id)), text)
            .map_err(|_| {
                text.zeroize();
                failed()
            })?;
        if let Some((_, place)) = header.split_last_chunk_mut::<NONCE_LEN>() {
            place.copy_from_slice(nonce.as_ref());
        }
        sealed.extend(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a sealed value under the key that it names.
    ///
    /// # Errors
    /// When it is not a sealed value, its key is not in the ring, or it does not belong to `belongs`.
    pub fn open(
        &self,
        belongs: &SealedFor<'_>,
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, SealError> {
        let (id, rest) = parts(sealed).ok_or(SealError::Malformed)?;
        let (nonce, text) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::Malformed)?;
        let ring = self.ring.load();
        let key = ring.keys.get(id);
        let key = key.ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = key
            .cipher
            .open_in_place(Nonce::from(nonce), Aad::from(belongs.bytes(id)), &mut text)
            .map_err(|_| SealError::Refused(id.to_owned()))?;
        let length = opened.len();
        text.truncate(length);
        Ok(Secret::new(std::mem::take(&mut *text)))
    }

    /// Whether a value should be sealed again: it is not under the active key.
    pub fn needs_reseal(&self, sealed: &[u8]) -> bool {
        parts(sealed).is_none_or(|(id, _)| id != self.ring.load().active)
    }
}

impl SealedFor<'_> {
    /// The associated data. Each part comes after its length, so that no two choices of parts are alike.
    fn bytes(&self, key_id: &str) -> Vec<u8> {
        let parts = [
            key_id,
            self.tenant.as_str(),
            self.account.as_str(),
            self.kind,
        ];
        let length = parts.map(|part| size_of::<u64>() + part.len());
        let mut bytes = Vec::with_capacity(1 + length.iter().sum::<usize>());
        bytes.push(VERSION);
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

impl Classified for KeyRingError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::KeyId(_)
            | Self::Repeated(_)
            | Self::Key(_)
            | Self::NoActive(_)
            | Self::Changed(_) => ErrorKind::InvalidInput,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the gateway's keys cannot be used; ask the operator".into()
    }
}

impl Classified for SealError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed | Self::UnknownKey(_) | Self::Refused(_) | Self::Cipher(_) => {
                ErrorKind::Internal
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the stored record cannot be read; ask the operator".into()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("active", &self.active)
            .field("keys", &self.keys.keys())
            .finish()
    }
}

/// The key ID of a sealed value, and what comes after it.
fn parts(sealed: &[u8]) -> Option<(&str, &[u8])> {
    let (&[version, id_len], rest) = sealed.split_first_chunk()?;
    let (id, rest) = rest.split_at_checked(usize::from(id_len))?;
    let id = std::str::from_utf8(id).ok()?;
    (version == VERSION && is_key_id(id)).then_some((id, rest))
}

fn is_key_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=KEY_ID_LEN).contains(&id.len()) && id.bytes().all(allowed)
}

fn key_bytes(text: &str) -> Option<Secret<[u8; KEY_LEN]>> {
    let text = text.trim();
    let bytes = if text.len() == 2 * KEY_LEN {
        hexadecimal(text)?
    } else {
        base64(text)?
    };
    <[u8; KEY_LEN]>::try_from(bytes.as_slice())
        .ok()
        .map(Secret::new)
}

fn hexadecimal(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN));
    for pair in text.as_bytes().chunks_exact(2) {
        let mut byte = 0;
        for &digit in pair {
            byte = byte << 4 | u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        }
        bytes.push(byte);
    }
    Some(bytes)
}

fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [base64::alphabet::STANDARD, base64::alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| {
            // Decoded in place of what is wiped, also when it turns out to be no base64.
            let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
            let engine = GeneralPurpose::new(alphabet, lenient);
            engine.decode_vec(text, &mut bytes).is_ok().then_some(bytes)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    fn key(seed: u8) -> Secret<String> {
        Secret::new(format!("{seed:02x}").repeat(KEY_LEN))
    }

    fn sealer(active: &str, ids: &[(&str, u8)]) -> Sealer {
        let keys: Vec<_> = ids.iter().map(|&(id, seed)| (id, key(seed))).collect();
        let keys = keys.iter().map(|(id, key)| (*id, key));
        Sealer::new(KeyRing::parse(active, keys).unwrap())
    }

    fn with<T>(
        tenant: &str,
        account: &str,
        kind: &str,
        work: impl FnOnce(&SealedFor<'_>) -> T,
    ) -> T {
        work(&SealedFor {
            tenant: &TenantId::new(tenant),
            account: &AccountId::new(account),
            kind,
        })
    }

    fn ring_error(active: &str, id: &str, key: &str) -> String {
        let key = Secret::new(key.to_owned());
        let error = KeyRing::parse(active, [(id, &key)]).unwrap_err();
        format!("{error} {error:?}")
    }

    #[test]
    fn keys_are_read_in_every_form() {
        let forms = [
            HEX,
            &HEX.to_lowercase(),
            &format!(" {HEX}\n"),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        ];
        let sealed = with("t", "a", "k", |belongs| {
            let key = Secret::new(HEX.to_owned());
            let ring = KeyRing::parse("one", [("one", &key)]).unwrap();
            Sealer::new(ring).seal(belongs, b"text").unwrap()
        });
        for form in forms {
            let key = Secret::new(form.to_owned());
            let sealer = Sealer::new(KeyRing::parse("one", [("one", &key)]).unwrap());
            let opened = with("t", "a", "k", |belongs| sealer.open(belongs, &sealed));
            assert_eq!(opened.unwrap().expose(), b"text", "{form}");
        }
        let url_safe = Secret::new("_".repeat(42) + "8");
        let standard = Secret::new("/".repeat(42) + "8=");
        KeyRing::parse("a", [("a", &url_safe), ("b", &standard)]).unwrap();
    }

    #[test]
    fn bad_keys_are_refused_by_name_and_never_shown() {
        let short = &HEX[2..];
        let no_digit = &HEX.replace("00", "0g");
        for bad in ["", "hush", short, no_digit, "AAECAw==", &"é".repeat(32)] {
            let text = ring_error("one", "one", bad);
            assert!(text.contains("\"one\""), "{text}");
            assert!(bad.is_empty() || !text.contains(bad), "{text}");
        }
        assert!(ring_error("two", "one", HEX).contains("\"two\""));
        for id in ["", "a b", "é", &"x".repeat(65)] {
            assert!(ring_error(id, id, HEX).contains("64 letters"), "{id}");
        }
        let key = Secret::new(HEX.to_owned());
        let twice = KeyRing::parse("a", [("a", &key), ("a", &key)]).unwrap_err();
        assert!(matches!(twice, KeyRingError::Repeated(id) if id == "a"));
        let ring = KeyRing::parse("a", [("a", &key)]).unwrap();
        assert_eq!(
            format!("{ring:?}"),
            "KeyRing { active: \"a\", keys: [\"a\"] }"
        );
    }

    #[test]
    fn a_rotated_key_opens_and_asks_to_be_sealed_again() {
        let old = sealer("2025", &[("2025", 1)]);
        let both = sealer("2026", &[("2025", 1), ("2026", 2)]);
        let new = sealer("2026", &[("2026", 2)]);
        with("t", "a", "k", |belongs| {
            let sealed = old.seal(belongs, b"text").unwrap();
            assert!(!old.needs_reseal(&sealed));
            assert!(both.needs_reseal(&sealed));
            assert_eq!(both.open(belongs, &sealed).unwrap().expose(), b"text");
            let error = new.open(belongs, &sealed).unwrap_err();
            assert!(matches!(error, SealError::UnknownKey(id) if id == "2025"));

            let again = both.seal(belongs, b"text").unwrap();
            assert!(!both.needs_reseal(&again));
            assert_eq!(new.open(belongs, &again).unwrap().expose(), b"text");
            let other = sealer("2026", &[("2026", 3)]);
            let error = other.open(belongs, &again).unwrap_err();
            assert!(matches!(error, SealError::Refused(id) if id == "2026"));
        });
    }

    #[test]
    fn a_ring_is_replaced_as_a_whole_or_not_at_all() {
        let used = sealer("2025", &[("2025", 1)]);
        let ring = |active: &str, ids: &[(&str, u8)]| {
            let keys: Vec<_> = ids.iter().map(|&(id, seed)| (id, key(seed))).collect();
            KeyRing::parse(active, keys.iter().map(|(id, key)| (*id, key))).unwrap()
        };
        with("t", "a", "k", |belongs| {
            let old = used.seal(belongs, b"text").unwrap();

            // The same ID for another key: nothing of the new ring is taken.
            let refused = used.replace(ring("2026", &[("2025", 9), ("2026", 2)]));
            assert!(matches!(refused, Err(KeyRingError::Changed(id)) if id == "2025"));
            assert_eq!(used.active_key(), "2025");
            assert!(!used.needs_reseal(&old));

            used.replace(ring("2026", &[("2025", 1), ("2026", 2)]))
                .unwrap();
            assert_eq!(used.active_key(), "2026");
            assert!(used.needs_reseal(&old));
            assert_eq!(used.open(belongs, &old).unwrap().expose(), b"text");
            let new = used.seal(belongs, b"text").unwrap();

            // The old one is taken out while it is in use.
            used.replace(ring("2026", &[("2026", 2)])).unwrap();
            assert!(
                matches!(used.open(belongs, &old), Err(SealError::UnknownKey(id)) if id == "2025")
            );
            assert_eq!(used.open(belongs, &new).unwrap().expose(), b"text");
        });
    }

    #[test]
    fn the_parts_of_what_it_belongs_to_do_not_run_together() {
        let sealer = sealer("a", &[("a", 1)]);
        let sealed = with("ab", "c", "d", |belongs| sealer.seal(belongs, b"text"));
        let sealed = sealed.unwrap();
        for (tenant, account, kind) in [
            ("a", "bc", "d"),
            ("abc", "", "d"),
            ("ab", "cd", ""),
            ("ab", "c", "e"),
            ("", "abcd", ""),
        ] {
            let error = with(tenant, account, kind, |belongs| {
                sealer.open(belongs, &sealed)
            });
            assert!(
                matches!(error, Err(SealError::Refused(_))),
                "{tenant} {account} {kind}"
            );
        }
    }

    #[test]
    fn two_seals_of_one_value_differ() {
        let sealer = sealer("a", &[("a", 1)]);
        with("t", "a", "k", |belongs| {
            let first = sealer.seal(belongs, b"text").unwrap();
            assert_ne!(first, sealer.seal(belongs, b"text").unwrap());
            assert_eq!(first.len(), 2 + 1 + NONCE_LEN + 4 + TAG_LEN);
        });
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_only_unaltered(
            text in proptest::collection::vec(any::<u8>(), 0..200),
            tenant in ".{0,10}", account in ".{1,10}", other in ".{1,10}",
            at in any::<prop::sample::Index>(), flip in 1_u8..,
        ) {
            let sealer = sealer("one", &[("one", 1), ("two", 1)]);
            with(&tenant, &account, "signature", |belongs| {
                let mut sealed = sealer.seal(belongs, &text).unwrap();
                let opened = sealer.open(belongs, &sealed).unwrap();
                prop_assert_eq!(opened.expose(), &text);
                if other != account {
                    let elsewhere = with(&tenant, &other, "signature", |b| sealer.open(b, &sealed));
                    prop_assert!(elsewhere.is_err());
                }
                let at = at.index(sealed.len());
                prop_assert!(sealer.open(belongs, &sealed[..at]).is_err());
                sealed[at] ^= flip;
                prop_assert!(sealer.open(belongs, &sealed).is_err());
                Ok(())
            })?;
        }

        #[test]
        fn garbage_never_opens_or_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let sealer = sealer("one", &[("one", 1)]);
            let named = [&[VERSION, 3][..], b"one", &bytes].concat();
            with("t", "a", "k", |belongs| {
                prop_assert!(sealer.open(belongs, &bytes).is_err());
                prop_assert!(sealer.open(belongs, &named).is_err());
                Ok(())
            })?;
            prop_assert!(!sealer.needs_reseal(&named));
        }
    }
}
