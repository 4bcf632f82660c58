//! A JSON Web Key Set: which of its keys can check signatures, and which one a JWT asks for.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;

/// The most keys of a set. An issuer has two or three, one that comes and one that goes.
const MOST: usize = 100;

/// Why a text is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    /// It is something else.
    #[error("is no JSON Web Key Set: {0}")]
    Form(#[from] serde_json::Error),
    /// It has too many keys.
    #[error("has more than {MOST} keys")]
    TooMany,
    /// It has none that is of use.
    #[error("has no public key of RSA, P-256, P-384 or Ed25519 for signatures")]
    Empty,
}

/// The keys of an issuer that can check signatures.
#[derive(Debug)]
pub(super) struct KeySet(Vec<PublicKey>);

#[derive(Debug)]
struct PublicKey {
    id: Option<String>,
    /// By which algorithms it signs.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a set. Keys of other kinds or uses are left out, as RFC 7517 wants.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let document: Document = serde_json::from_slice(text)?;
        if document.keys.len() > MOST {
            return Err(KeySetError::TooMany);
        }
        let keys = document.keys.into_iter().filter_map(|key| {
            let key = serde_json::from_value(key).ok()?;
            PublicKey::of(&key)
        });
        let keys: Vec<PublicKey> = keys.collect();
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self(keys))
    }

    /// How many keys there are.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of this ID, if it signs by this algorithm. A JWT may leave the ID out where there is no choice.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        });
        let first = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then_some(&first.key)
    }
}

impl PublicKey {
    fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let other_use = common
            .public_key_use
            .as_ref()
            .is_some_and(|it| *it != PublicKeyUse::Signature);
        let other_operations = common
            .key_operations
            .as_ref()
            .is_some_and(|all| !all.contains(&KeyOperations::Verify));
        if other_use || other_operations {
            return None;
        }
        let mut algorithms = algorithms(&jwk.algorithm).to_vec();
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::try_from(only).ok();
            algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            id: common.key_id.clone(),
            algorithms,
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}

/// By which algorithms a kind of key can sign. None, for a secret.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enums, which may grow: what is not known is not taken"
)]
fn algorithms(parameters: &AlgorithmParameters) -> &[Algorithm] {
    match parameters {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            _ => &[],
        },
        _ => &[],
    }
}
