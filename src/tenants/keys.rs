//! API keys: what is kept of them, when they are valid, and how one is found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Bound;

use aws_lc_rs::digest;

use super::auth::{AuthError, Caller};
use crate::types::UnixMillis;

/// The SHA-256 of an API key: all that is kept of one. Keys are random and long, so the digest needs no salt.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl KeyDigest {
    /// What a key is compared with that nobody has. No text is known whose digest it is.
    const NOBODY: Self = Self([0; digest::SHA256_OUTPUT_LEN]);

    /// The digest of a key in the clear.
    pub fn of(key: &str) -> Self {
        #[cfg(test)]
        work::note(|work| work.digests += 1);
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

    /// As 64 small hexadecimal digits: the form of the configuration.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        #[cfg(test)]
        work::note(|work| work.compares += 1);
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:***")
    }
}

/// When a key is valid. Always, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Option<UnixMillis>,
    /// The first moment after it.
    pub not_after: Option<UnixMillis>,
}

impl Validity {
    fn check(self, now: UnixMillis) -> Result<(), AuthError> {
        if self.not_before.is_some_and(|first| now < first) {
            return Err(AuthError::KeyNotYetValid);
        }
        if self.not_after.is_some_and(|end| now >= end) {
            return Err(AuthError::KeyExpired);
        }
        Ok(())
    }
}

/// An API key, as configured.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in logs.
    pub id: String,
    /// The key's first characters, by which it is found; without them it is found by its digest.
    pub prefix: Option<String>,
    /// Its digest.
    pub digest: KeyDigest,
    /// When it is valid.
    pub validity: Validity,
}

impl Key {
    /// A key that is found by its digest and always valid.
    pub const fn new(id: String, digest: KeyDigest) -> Self {
        Self {
            id,
            prefix: None,
            digest,
            validity: Validity {
                not_before: None,
                not_after: None,
            },
        }
    }
}

/// Why a list of keys is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyConflict {
    /// The digest is another key's already.
    Digest,
    /// Its prefix and another key's begin alike, so that they would not tell the keys apart.
    Prefix,
}

/// All keys of the gateway, tenants' and operators'.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_digest: HashMap<KeyDigest, Held>,
    /// No prefix is the beginning of another, so that at most one of them is the beginning of a key.
    by_prefix: BTreeMap<String, Held>,
    /// Of the keys with a prefix.
    digests: HashSet<KeyDigest>,
}

#[derive(Debug)]
struct Held {
    digest: KeyDigest,
    validity: Validity,
    caller: Caller,
}

impl Keys {
    /// Takes a key in.
    pub(super) fn add(&mut self, key: &Key, caller: Caller) -> Result<(), KeyConflict> {
        let known = self.by_digest.contains_key(&key.digest) || self.digests.contains(&key.digest);
        if known {
            return Err(KeyConflict::Digest);
        }
        let held = Held {
            digest: key.digest,
            validity: key.validity,
            caller,
        };
        let Some(prefix) = &key.prefix else {
            self.by_digest.insert(key.digest, held);
            return Ok(());
        };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let next = self.by_prefix.range::<str, _>(from).next();
        let extends_this = next.is_some_and(|(next, _)| next.starts_with(prefix.as_str()));
        if extends_this || self.by_prefix(prefix).is_some() {
            return Err(KeyConflict::Prefix);
        }
        self.digests.insert(key.digest);
        self.by_prefix.insert(prefix.clone(), held);
        Ok(())
    }

    /// Whose key it is. The work is the same whether a key is known, has only a known prefix or is anything else: one digest,
    /// one look-up of each kind, one comparison.
    pub(super) fn find(&self, now: UnixMillis, key: &str) -> Result<&Caller, AuthError> {
        let digest = KeyDigest::of(key);
        let by_prefix = self.by_prefix(key);
        let found = self.by_digest.get(&digest).or(by_prefix);
        let expected = found.map_or(&KeyDigest::NOBODY, |held| &held.digest);
        let matches = expected.matches(&digest);
        match found {
            Some(held) if matches => held.validity.check(now).map(|()| &held.caller),
            Some(_) | None => Err(AuthError::KeyUnknown),
        }
    }

    /// The one whose prefix the key begins with. What lies between a prefix and a key that begins with it begins with the prefix
    /// as well, and no such prefix is taken in: so it is the last one that is not greater than the key.
    fn by_prefix(&self, key: &str) -> Option<&Held> {
        let until = (Bound::Unbounded, Bound::Included(key));
        let (prefix, held) = self.by_prefix.range::<str, _>(until).next_back()?;
        key.starts_with(prefix.as_str()).then_some(held)
    }
}

/// Counts what looking a key up costs, for the tests.
#[cfg(test)]
mod work {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Work {
        pub(super) digests: u32,
        pub(super) compares: u32,
    }

    thread_local! {
        static DONE: Cell<Work> = const { Cell::new(Work { digests: 0, compares: 0 }) };
    }

    pub(super) fn note(add: impl FnOnce(&mut Work)) {
        let mut work = DONE.get();
        add(&mut work);
        DONE.set(work);
    }

    /// What was done since the last time.
    pub(super) fn take() -> Work {
        DONE.take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::work::Work;
    use super::*;
    use crate::tenants::auth::Operator;

    const NOW: UnixMillis = UnixMillis::from_secs(1_700_000_000);

    fn key(id: &str, text: &str, prefix: Option<&str>) -> Key {
        Key {
            prefix: prefix.map(str::to_owned),
            ..Key::new(id.to_owned(), KeyDigest::of(text))
        }
    }

    fn caller(id: &str) -> Caller {
        Caller::Operator(Operator { id: Arc::from(id) })
    }

    fn keys(list: &[Key]) -> Keys {
        let mut keys = Keys::default();
        for key in list {
            keys.add(key, caller(&key.id)).unwrap();
        }
        keys
    }

    #[test]
    fn a_digest_reads_its_own_hex_and_nothing_else() {
        // The SHA-256 of "abc", from FIPS 180-2.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyDigest::from_hex(hex), Some(KeyDigest::of("abc")));
        assert_eq!(KeyDigest::of("abc").to_hex(), hex);
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
    fn a_key_is_found_by_its_prefix_or_by_its_digest() {
        let keys = keys(&[
            key("plain", "plain-key", None),
            key("one", "imgate_a1234567", Some("imgate_a")),
            key("two", "imgate_b1234567", Some("imgate_b")),
            // It begins as another's prefix says, and has none itself.
            key("alike", "imgate_a-plain", None),
        ]);
        for (text, id) in [
            ("plain-key", "plain"),
            ("imgate_a1234567", "one"),
            ("imgate_b1234567", "two"),
            ("imgate_a-plain", "alike"),
        ] {
            assert_eq!(keys.find(NOW, text), Ok(&caller(id)), "{text}");
        }
        for wrong in [
            "",
            "plain",
            "imgate_",
            "imgate_a",
            "imgate_a12345678",
            "imgate_c1234567",
            "\u{10ffff}",
        ] {
            let found = keys.find(NOW, wrong);
            assert_eq!(found, Err(AuthError::KeyUnknown), "{wrong}");
        }
    }

    /// Whoever tries keys learns nothing from how long the answer takes, for there is nothing that takes longer.
    #[test]
    fn every_key_costs_the_same_whether_it_is_right_or_wrong() {
        let keys = keys(&[
            key("plain", "plain-key", None),
            key("one", "imgate_a1234567", Some("imgate_a")),
        ]);
        for (kind, text) in [
            ("right, by digest", "plain-key"),
            ("right, by prefix", "imgate_a1234567"),
            ("wrong, with a known prefix", "imgate_a7654321"),
            ("wrong, with an unknown prefix", "imgate_z7654321"),
            ("wrong, of no form", "x"),
        ] {
            work::take();
            let _ = keys.find(NOW, text);
            let once = Work {
                digests: 1,
                compares: 1,
            };
            assert_eq!(work::take(), once, "{kind}");
        }
        // Nor is it cheaper where there is no key at all.
        let _ = Keys::default().find(NOW, "x");
        assert_eq!(work::take().compares, 1);
    }

    #[test]
    fn a_key_is_valid_from_its_first_moment_until_its_last() {
        let (first, end) = (UnixMillis(1000), UnixMillis(2000));
        let with = |not_before, not_after| {
            keys(&[Key {
                validity: Validity {
                    not_before,
                    not_after,
                },
                ..key("k", "the-key", Some("the-"))
            }])
        };
        let early = Err(AuthError::KeyNotYetValid);
        let late = Err(AuthError::KeyExpired);
        let owner = caller("k");
        for (not_before, not_after, now, expected) in [
            (Some(first), Some(end), 999, early),
            (Some(first), Some(end), 1000, Ok(&owner)),
            (Some(first), Some(end), 1999, Ok(&owner)),
            (Some(first), Some(end), 2000, late),
            (Some(first), None, 999, early),
            (Some(first), None, u64::MAX, Ok(&owner)),
            (None, Some(end), 0, Ok(&owner)),
            (None, Some(end), 2000, late),
        ] {
            let keys = with(not_before, not_after);
            assert_eq!(keys.find(UnixMillis(now), "the-key"), expected, "{now}");
            // Only who has the key learns that there was one.
            let wrong = keys.find(UnixMillis(now), "the-wrong-key");
            assert_eq!(wrong, Err(AuthError::KeyUnknown));
        }
    }

    #[test]
    fn keys_that_cannot_be_told_apart_are_not_taken() {
        let mut keys = keys(&[
            key("plain", "plain-key", None),
            key("one", "imgate_abc", Some("imgate_ab")),
        ]);
        for (refused, conflict) in [
            (key("x", "plain-key", None), KeyConflict::Digest),
            (key("x", "plain-key", Some("plain-ke")), KeyConflict::Digest),
            (key("x", "imgate_abc", None), KeyConflict::Digest),
            (key("x", "other", Some("imgate_ab")), KeyConflict::Prefix),
            (key("x", "other", Some("imgate_a")), KeyConflict::Prefix),
            (key("x", "other", Some("imgate_abc")), KeyConflict::Prefix),
        ] {
            assert_eq!(keys.add(&refused, caller("x")), Err(conflict));
        }
        let apart = key("y", "other", Some("imgate_ac"));
        assert_eq!(keys.add(&apart, caller("y")), Ok(()));
    }
}
