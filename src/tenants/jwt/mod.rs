//! JWTs as credentials: what one must be to be believed. Signatures are checked by a library; which algorithms, keys, claims
//! and moments are taken is decided here.

mod keys;
pub mod metrics;
mod source;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, Header, decode_header};
use serde::Deserialize;
use tokio::sync::Notify;

use self::keys::KeySet;
use super::auth::{AuthError, JwtFault};
use crate::types::UnixMillis;

pub use self::watch::Issuers;

/// Someone who signs JWTs that are believed, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerOptions {
    /// The name in the configuration, in logs and in metrics.
    pub id: String,
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `aud`, or one of its list.
    pub audience: String,
    /// Where its keys are.
    pub source: Source,
    /// How often they are read again.
    pub refresh: Duration,
    /// How far its clock may be from this one.
    pub clock_skew: Duration,
}

/// Where an issuer's keys are, as a JSON Web Key Set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// Behind a URL. The files are read anew each time.
    Url {
        /// `https://`, or `http://` on this machine.
        url: String,
        /// The authorities to trust, PEM; the system's without it.
        ca_file: Option<PathBuf>,
        /// What is sent as a bearer token.
        token_file: Option<PathBuf>,
    },
}

/// Someone who signs JWTs that are believed, with the keys that were read last.
pub struct Issuer {
    options: IssuerOptions,
    keys: ArcSwapOption<KeySet>,
    /// Told when somebody shows a JWT whose key is not among them.
    wanted: Notify,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    const fn new(options: IssuerOptions) -> Self {
        Self {
            options,
            keys: ArcSwapOption::const_empty(),
            wanted: Notify::const_new(),
        }
    }

    /// What is configured of it.
    pub const fn options(&self) -> &IssuerOptions {
        &self.options
    }

    /// Whether a JWT is this issuer's, for this gateway, and valid now. What is cheap is checked first; what depends on the time
    /// is told to those only whose signature is right.
    pub(super) fn verify(&self, now: UnixMillis, token: &Token<'_>) -> Result<(), AuthError> {
        if !token.claims.audience.has(&self.options.audience) {
            return Err(AuthError::JwtInvalid(JwtFault::Audience));
        }
        let Some(keys) = self.keys.load_full() else {
            return Err(AuthError::JwtKeysUnavailable);
        };
        let id = token.header.kid.as_deref();
        let Some(key) = keys.find(id, token.header.alg) else {
            self.wanted.notify_one();
            return Err(AuthError::JwtKeyUnknown);
        };
        let message = token.message.as_bytes();
        let signed = jsonwebtoken::crypto::verify(token.signature, message, key, token.header.alg);
        if !signed.is_ok_and(|right| right) {
            return Err(AuthError::JwtInvalid(JwtFault::Signature));
        }
        token.claims.check_time(now, self.options.clock_skew)
    }
}

/// Whether a bearer value may be a JWT.
pub(super) fn looks_like_one(bearer: &str) -> bool {
    bearer.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// A JWT that was taken apart. Nothing in it is to be believed before [`Issuer::verify`].
pub(super) struct Token<'a> {
    /// What is signed.
    message: &'a str,
    signature: &'a str,
    header: Header,
    claims: Claims,
}

impl<'a> Token<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, AuthError> {
        let refuse = AuthError::JwtInvalid;
        let (message, signature) = text
            .rsplit_once('.')
            .ok_or_else(|| refuse(JwtFault::Header))?;
        let header = decode_header(text).map_err(|_| refuse(JwtFault::Header))?;
        if !is_taken(header.alg) {
            return Err(refuse(JwtFault::Algorithm));
        }
        if header.crit.is_some() {
            return Err(refuse(JwtFault::Critical));
        }
        let claims = insecure_decode_claims(text).map_err(|_| refuse(JwtFault::Claims))?;
        Ok(Self {
            message,
            signature,
            header,
            claims,
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.claims.issuer
    }

    pub(super) fn subject(&self) -> &str {
        &self.claims.subject
    }
}

/// Whether an algorithm is of a public key. With a shared secret, whoever can check a JWT can make one; and a public key that is
/// taken for a secret is known to everybody.
const fn is_taken(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::ES256
            | Algorithm::ES384
            | Algorithm::EdDSA
    )
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "aud")]
    audience: Audience,
    #[serde(rename = "sub")]
    subject: String,
    #[serde(rename = "exp")]
    expires: NumericDate,
    #[serde(rename = "nbf")]
    not_before: Option<NumericDate>,
    #[serde(rename = "iat")]
    issued: Option<NumericDate>,
}

impl Claims {
    fn check_time(&self, now: UnixMillis, skew: Duration) -> Result<(), AuthError> {
        let late_by_now = |moment: &NumericDate| moment.0 > now.plus(skew);
        if self.not_before.iter().any(late_by_now) || self.issued.iter().any(late_by_now) {
            return Err(AuthError::JwtNotYetValid);
        }
        if self.expires.0.plus(skew) <= now {
            return Err(AuthError::JwtExpired);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// Seconds since 1970, perhaps with a fraction.
#[derive(Deserialize)]
#[serde(try_from = "f64")]
struct NumericDate(UnixMillis);

impl TryFrom<f64> for NumericDate {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        // What is beyond the calendar is beyond what whole milliseconds of an f64 tell apart.
        if (0.0..1e12).contains(&seconds) {
            Ok(Self(UnixMillis((seconds * 1000.0) as u64)))
        } else {
            Err("is no moment")
        }
    }
}

#[cfg(test)]
mod tests;
