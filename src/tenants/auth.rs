//! From what a caller shows to the one who calls.

use std::sync::Arc;
use std::time::Duration;

use super::peer::PeerNames;
use crate::error::{Classified, ErrorKind};
use crate::types::{AccountId, SessionKey, TenantId};

/// What a caller may do: one scope per gRPC service.
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

/// By what a caller of a tenant was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// An API key.
    ApiKey,
    /// A name of its client certificate.
    Certificate,
    /// The subject of a JWT.
    Jwt,
    /// Nothing: the tenant is open.
    Nothing,
}

/// Who calls, on behalf of a tenant. Only [`Directory::authenticate`](super::directory::Directory::authenticate) makes
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose caller it is.
    pub tenant: TenantId,
    /// How many partitions the tenant has.
    pub partitions: u16,
    /// How many named subscriptions the tenant may have.
    pub max_subscriptions: usize,
    /// By what the caller was known.
    pub means: Means,
    /// The ID of the key, certificate or subject in the configuration, for logs; empty for a caller of an open tenant.
    pub key_id: Arc<str>,
    /// What the caller may do.
    pub scopes: Arc<[Scope]>,
}

impl Principal {
    /// Refuses a caller who lacks a scope.
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

/// An operator who calls. Only [`Directory::authenticate`](super::directory::Directory::authenticate) makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The key's ID, for logs.
    pub id: Arc<str>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody of a tenant.
    Tenant(Principal),
    /// An operator of the gateway.
    Operator(Operator),
}

impl Caller {
    /// The caller of a method that is a tenant's.
    pub fn for_tenant(self, scope: Scope) -> Result<Principal, AuthError> {
        match self {
            Self::Tenant(principal) => principal.require(scope).map(|()| principal),
            Self::Operator(_) => Err(AuthError::TenantRequired),
        }
    }

    /// The caller of a method that is the operator's.
    pub fn for_operator(self) -> Result<Operator, AuthError> {
        match self {
            Self::Operator(operator) => Ok(operator),
            // Who has shown nothing is told what to show.
            Self::Tenant(principal) if principal.means == Means::Nothing => {
                Err(AuthError::KeyMissing)
            }
            Self::Tenant(_) => Err(AuthError::OperatorRequired),
        }
    }
}

/// What a caller says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// The `authorization` metadata.
    pub authorization: Option<&'a str>,
    /// The names of the client certificate; `None` without one. It counts only where there is no `authorization`.
    pub certificate: Option<&'a PeerNames>,
    /// The `imgate-tenant` metadata.
    pub tenant: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// What stands in `Bearer <...>`; `None` when there is no `authorization` at all.
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

/// What is wrong with a JWT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtFault {
    /// Its header cannot be read, or names no algorithm that there is.
    #[error("its header cannot be read, or names an algorithm that is not known")]
    Header,
    /// Its algorithm is none that is taken, or needs a shared secret.
    #[error(
        "its algorithm is not taken: sign with RS256, ES256, EdDSA or another one of a public key"
    )]
    Algorithm,
    /// It asks for an extension that must be understood.
    #[error("its header has `crit`, which is not understood")]
    Critical,
    /// Its claims cannot be read, or one that is required is not there.
    #[error("its claims cannot be read: `iss`, `aud`, `sub` and `exp` are required")]
    Claims,
    /// No issuer of this name is trusted.
    #[error("its issuer (`iss`) is not one that this gateway trusts")]
    Issuer,
    /// It was made for somebody else.
    #[error(
        "its audience (`aud`) is not this gateway's: ask the issuer for a token with the right one"
    )]
    Audience,
    /// The signature is not the key's.
    #[error("its signature is wrong")]
    Signature,
}

/// Why a caller is refused. No variant tells whether a tenant or a key of another tenant exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nothing was shown, and no open tenant takes callers without it.
    #[error("no API key: send the metadata `authorization: Bearer <api key>`")]
    KeyMissing,
    /// The `authorization` metadata has another form.
    #[error("the metadata `authorization` must read `Bearer <api key>`")]
    NotBearer,
    /// Nobody has this key.
    #[error("unknown API key: check the key, or ask the operator whether it was retired")]
    KeyUnknown,
    /// The key's time has not come.
    #[error("the API key is not valid yet: ask the operator from when it is")]
    KeyNotYetValid,
    /// The key's time is over.
    #[error("the API key has expired: ask the operator for a new one")]
    KeyExpired,
    /// No key was sent, and nobody has a name of the client certificate.
    #[error(
        "no API key was sent, and no name of the client certificate is known: send `authorization: Bearer <api key>`, \
         or ask the operator to map the certificate"
    )]
    CertificateUnknown,
    /// The JWT is none, or not one for this gateway.
    #[error("the JWT is refused: {0}")]
    JwtInvalid(JwtFault),
    /// The JWT was signed with a key that is not known, or not yet.
    #[error(
        "the JWT was signed with a key that is not known: if the issuer has just begun to use it, try again"
    )]
    JwtKeyUnknown,
    /// The JWT's time has not come.
    #[error("the JWT is not valid yet (`nbf`, `iat`): check the clocks")]
    JwtNotYetValid,
    /// The JWT's time is over.
    #[error("the JWT has expired: get a fresh one from its issuer")]
    JwtExpired,
    /// The JWT is good, and nobody is known by its subject.
    #[error("the JWT is good, but its subject (`sub`) is not known: ask the operator to map it")]
    JwtSubjectUnknown,
    /// The issuer's keys have not been read yet.
    #[error("the keys of the JWT's issuer have not been read yet: try again")]
    JwtKeysUnavailable,
    /// `imgate-tenant` names another tenant than the caller's.
    #[error("the caller does not belong to the tenant named by the metadata `imgate-tenant`")]
    OtherTenant,
    /// Several tenants could be meant, and the caller names none.
    #[error("several tenants can be meant: name one by the metadata `imgate-tenant`")]
    TenantNotNamed,
    /// The caller may not make this call.
    #[error("the caller lacks the scope `{}`", .0.name())]
    ScopeMissing(Scope),
    /// The method is the operator's, and a tenant's caller calls it.
    #[error("this method is the operator's: it takes no credential of a tenant")]
    OperatorRequired,
    /// The method is a tenant's, and an operator calls it.
    #[error("this method is a tenant's: it takes no operator's key")]
    TenantRequired,
}

impl AuthError {
    /// The reasons of all errors that leave a caller unknown.
    pub const UNAUTHENTICATED: [&'static str; 12] = [
        "API_KEY_MISSING",
        "API_KEY_MALFORMED",
        "API_KEY_UNKNOWN",
        "API_KEY_NOT_YET_VALID",
        "API_KEY_EXPIRED",
        "CERTIFICATE_UNKNOWN",
        "JWT_INVALID",
        "JWT_KEY_UNKNOWN",
        "JWT_NOT_YET_VALID",
        "JWT_EXPIRED",
        "JWT_SUBJECT_UNKNOWN",
        "TENANT_NOT_NAMED",
    ];

    /// The reason in ErrorInfo, part of the API.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::KeyMissing => "API_KEY_MISSING",
            Self::NotBearer => "API_KEY_MALFORMED",
            Self::KeyUnknown => "API_KEY_UNKNOWN",
            Self::KeyNotYetValid => "API_KEY_NOT_YET_VALID",
            Self::KeyExpired => "API_KEY_EXPIRED",
            Self::CertificateUnknown => "CERTIFICATE_UNKNOWN",
            Self::JwtInvalid(_) => "JWT_INVALID",
            Self::JwtKeyUnknown => "JWT_KEY_UNKNOWN",
            Self::JwtNotYetValid => "JWT_NOT_YET_VALID",
            Self::JwtExpired => "JWT_EXPIRED",
            Self::JwtSubjectUnknown => "JWT_SUBJECT_UNKNOWN",
            Self::JwtKeysUnavailable => "JWT_KEYS_UNAVAILABLE",
            Self::OtherTenant => "TENANT_MISMATCH",
            Self::TenantNotNamed => "TENANT_NOT_NAMED",
            Self::ScopeMissing(_) => "SCOPE_MISSING",
            Self::OperatorRequired => "OPERATOR_REQUIRED",
            Self::TenantRequired => "TENANT_REQUIRED",
        }
    }
}

impl Classified for AuthError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::KeyMissing
            | Self::NotBearer
            | Self::KeyUnknown
            | Self::KeyNotYetValid
            | Self::KeyExpired
            | Self::CertificateUnknown
            | Self::JwtInvalid(_)
            | Self::JwtKeyUnknown
            | Self::JwtNotYetValid
            | Self::JwtExpired
            | Self::JwtSubjectUnknown
            | Self::TenantNotNamed => ErrorKind::Unauthenticated,
            Self::JwtKeysUnavailable => ErrorKind::Unavailable,
            Self::OtherTenant
            | Self::ScopeMissing(_)
            | Self::OperatorRequired
            | Self::TenantRequired => ErrorKind::Forbidden,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            // By then the issuer's keys have been read, or read again.
            Self::JwtKeyUnknown | Self::JwtKeysUnavailable => Some(Duration::from_secs(1)),
            Self::KeyMissing
            | Self::NotBearer
            | Self::KeyUnknown
            | Self::KeyNotYetValid
            | Self::KeyExpired
            | Self::CertificateUnknown
            | Self::JwtInvalid(_)
            | Self::JwtNotYetValid
            | Self::JwtExpired
            | Self::JwtSubjectUnknown
            | Self::OtherTenant
            | Self::TenantNotNamed
            | Self::ScopeMissing(_)
            | Self::OperatorRequired
            | Self::TenantRequired => None,
        }
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_keys_are_read() {
        let bearer = |value| {
            Credentials {
                authorization: value,
                ..Credentials::default()
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

    #[test]
    fn an_operator_is_no_tenant_and_a_tenant_no_operator() {
        let operator = Caller::Operator(Operator { id: "ops".into() });
        let tenant = |means| {
            Caller::Tenant(Principal {
                tenant: TenantId::new("acme"),
                partitions: 1,
                max_subscriptions: 1,
                means,
                key_id: "k".into(),
                scopes: Scope::ALL.into(),
            })
        };
        assert!(operator.clone().for_operator().is_ok());
        for scope in Scope::ALL {
            let refused = operator.clone().for_tenant(scope);
            assert_eq!(refused, Err(AuthError::TenantRequired));
        }
        for means in [Means::ApiKey, Means::Certificate, Means::Jwt] {
            assert!(tenant(means).for_tenant(Scope::Events).is_ok());
            let refused = tenant(means).for_operator();
            assert_eq!(refused, Err(AuthError::OperatorRequired));
        }
        let nobody = tenant(Means::Nothing).for_operator();
        assert_eq!(nobody, Err(AuthError::KeyMissing));
    }

    /// The metric counts by this list.
    #[test]
    fn the_list_of_reasons_has_all_that_leave_a_caller_unknown() {
        let all = [
            AuthError::KeyMissing,
            AuthError::NotBearer,
            AuthError::KeyUnknown,
            AuthError::KeyNotYetValid,
            AuthError::KeyExpired,
            AuthError::CertificateUnknown,
            AuthError::JwtInvalid(JwtFault::Header),
            AuthError::JwtKeyUnknown,
            AuthError::JwtNotYetValid,
            AuthError::JwtExpired,
            AuthError::JwtSubjectUnknown,
            AuthError::JwtKeysUnavailable,
            AuthError::OtherTenant,
            AuthError::TenantNotNamed,
            AuthError::ScopeMissing(Scope::Events),
            AuthError::OperatorRequired,
            AuthError::TenantRequired,
        ];
        let unknown: Vec<&str> = all
            .iter()
            .filter(|error| error.kind() == ErrorKind::Unauthenticated)
            .map(AuthError::reason)
            .collect();
        assert_eq!(unknown, AuthError::UNAUTHENTICATED);
    }
}
