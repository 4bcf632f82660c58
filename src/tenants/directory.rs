//! What the API knows of tenants, operators and issuers, and the look-up of a caller among them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::auth::{AuthError, Caller, Credentials, JwtFault, Means, Operator, Principal, Scope};
use super::jwt::{self, Issuer, Token};
use super::keys::{Key, KeyConflict, Keys};
use super::peer::PeerNames;
use crate::types::{TenantId, UnixMillis};

/// The most partitions that a tenant can have.
pub const MAX_PARTITIONS: u16 = 1024;

/// A tenant, as configured.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its ID.
    pub id: TenantId,
    /// How many partitions it has; fixed for the tenant's life. 1 to [`MAX_PARTITIONS`].
    pub partitions: u16,
    /// How many named subscriptions it may have.
    pub max_subscriptions: usize,
    /// What its callers are known by.
    pub callers: Callers,
    /// True: callers who show nothing are this tenant's. Only a gateway that listens on loopback may have such a tenant, and only
    /// a tenant without callers of its own may be one.
    pub open: bool,
}

/// What the callers of a tenant are known by.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    /// API keys; several, so that one can be rotated.
    pub keys: Vec<ApiKey>,
    /// Client certificates.
    pub certificates: Vec<ClientCertificate>,
    /// Subjects of JWTs.
    pub subjects: Vec<JwtSubject>,
}

impl Callers {
    const fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.certificates.is_empty() && self.subjects.is_empty()
    }
}

/// An API key of a tenant, as configured.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The key.
    pub key: Key,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// A client certificate of a tenant, as configured.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// Its name in logs.
    pub id: String,
    /// The DNS or URI name that the certificate has, as [`PeerNames`] writes it.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// A subject of JWTs that is a tenant's, as configured.
#[derive(Clone, Debug)]
pub struct JwtSubject {
    /// Its name in logs.
    pub id: String,
    /// The ID of the issuer.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// What a directory is made of.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The keys of the operators.
    pub operators: Vec<Key>,
    /// Whose JWTs are believed.
    pub issuers: Vec<Arc<Issuer>>,
}

impl From<Vec<Tenant>> for Contents {
    fn from(tenants: Vec<Tenant>) -> Self {
        Self {
            tenants,
            ..Self::default()
        }
    }
}

impl Contents {
    /// Checks the contents and makes them findable.
    pub fn check(self) -> Result<Checked, DirectoryError> {
        Inner::new(self).map(Checked)
    }
}

/// Contents that are without contradiction.
#[derive(Debug)]
pub struct Checked(Inner);

/// All who may call the gateway. A handle, cheap to clone: what is behind it can be replaced as a whole while calls are
/// being authenticated.
#[derive(Clone, Debug)]
pub struct Directory {
    inner: Arc<ArcSwap<Inner>>,
    /// Counts the replacements.
    replaced: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    tenants: BTreeMap<TenantId, Tenant>,
    keys: Keys,
    /// By the certificate's name.
    certificates: HashMap<String, Principal>,
    /// By the claim `iss`.
    issuers: HashMap<String, Trusted>,
    open: Vec<Principal>,
}

#[derive(Debug)]
struct Trusted {
    issuer: Arc<Issuer>,
    /// By the claim `sub`.
    subjects: HashMap<String, Principal>,
}

/// Why a list of tenants is not a directory. The text names the tenant and the remedy, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Two tenants have one ID.
    #[error("tenant {0}: the ID is given twice; give each tenant its own")]
    DuplicateTenant(TenantId),
    /// A caller is given twice, so that it would not say whose it is.
    #[error("{owner}: {caller} is given twice; make one of its own for each use")]
    DuplicateCaller {
        /// The later of the two owners: a tenant, or the operators.
        owner: String,
        /// The caller's kind and ID there.
        caller: String,
    },
    /// The prefix of a key does not tell it from another.
    #[error("{owner}: the prefix of the key {key} and another key's begin alike; take longer ones")]
    Prefix {
        /// The later of the two owners: a tenant, or the operators.
        owner: String,
        /// The key's ID there.
        key: String,
    },
    /// No partitions, or too many.
    #[error("tenant {0}: partitions must be 1 to {MAX_PARTITIONS}")]
    Partitions(TenantId),
    /// An open tenant has callers.
    #[error(
        "tenant {0}: a tenant that is open cannot have keys, certificates or subjects; remove them or close it"
    )]
    OpenWithCallers(TenantId),
    /// Two issuers have one name.
    #[error("issuer {0}: the claim iss is given twice; give each issuer its own")]
    DuplicateIssuer(String),
    /// A subject is of an issuer that there is not.
    #[error("tenant {tenant}: the subject {subject} is of an issuer that is not there")]
    UnknownIssuer {
        /// Whose.
        tenant: TenantId,
        /// The subject's ID.
        subject: String,
    },
}

impl Directory {
    /// Checks the contents and makes them findable.
    pub fn new(contents: impl Into<Contents>) -> Result<Self, DirectoryError> {
        let Checked(inner) = contents.into().check()?;
        Ok(Self {
            inner: Arc::new(ArcSwap::from_pointee(inner)),
            replaced: watch::Sender::new(0),
        })
    }

    /// Puts other contents in the place of these, for every handle. If they are refused, these stay.
    pub fn replace(&self, contents: impl Into<Contents>) -> Result<(), DirectoryError> {
        self.put(contents.into().check()?);
        Ok(())
    }

    /// Puts contents that were checked before in the place of these, for every handle.
    pub fn put(&self, Checked(inner): Checked) {
        self.inner.store(Arc::new(inner));
        self.replaced.send_modify(|times| *times += 1);
    }

    /// Tells when the contents are others.
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Finds out who calls. Waits for nothing, whatever else goes on.
    pub fn authenticate(
        &self,
        now: UnixMillis,
        credentials: Credentials<'_>,
    ) -> Result<Caller, AuthError> {
        let inner = self.inner.load();
        match credentials.bearer()? {
            Some(bearer) => {
                let caller = inner.by_bearer(now, bearer)?;
                match (&caller, credentials.tenant) {
                    (Caller::Tenant(principal), Some(named))
                        if named != principal.tenant.as_str() =>
                    {
                        Err(AuthError::OtherTenant)
                    }
                    (Caller::Tenant(_) | Caller::Operator(_), Some(_) | None) => Ok(caller),
                }
            }
            None => inner.without_bearer(credentials).map(Caller::Tenant),
        }
    }

    /// One tenant.
    pub fn tenant(&self, id: &TenantId) -> Option<Tenant> {
        self.inner.load().tenants.get(id).cloned()
    }

    /// All tenants, in the order of their IDs.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.inner.load().tenants.values().cloned().collect()
    }

    /// Whether some tenant takes callers who show nothing.
    pub fn has_open_tenant(&self) -> bool {
        !self.inner.load().open.is_empty()
    }
}

impl Inner {
    fn by_bearer(&self, now: UnixMillis, bearer: &str) -> Result<Caller, AuthError> {
        match self.keys.find(now, bearer) {
            Err(AuthError::KeyUnknown)
                if jwt::looks_like_one(bearer) && !self.issuers.is_empty() =>
            {
                self.by_jwt(now, bearer).map(Caller::Tenant)
            }
            found => found.cloned(),
        }
    }

    fn by_jwt(&self, now: UnixMillis, text: &str) -> Result<Principal, AuthError> {
        let token = Token::read(text)?;
        let trusted = self.issuers.get(token.issuer());
        let trusted = trusted.ok_or(AuthError::JwtInvalid(JwtFault::Issuer))?;
        trusted.issuer.verify(now, &token)?;
        let principal = trusted.subjects.get(token.subject());
        principal.cloned().ok_or(AuthError::JwtSubjectUnknown)
    }

    fn without_bearer(&self, credentials: Credentials<'_>) -> Result<Principal, AuthError> {
        let named = credentials.tenant;
        match credentials.certificate {
            Some(names) => match self.by_certificate(names, named) {
                // A certificate that nobody is known by shuts nobody out of an open tenant.
                Err(AuthError::CertificateUnknown) if !self.open.is_empty() => {
                    self.by_openness(named)
                }
                found => found,
            },
            None => self.by_openness(named),
        }
        .cloned()
    }

    fn by_certificate(
        &self,
        names: &PeerNames,
        named: Option<&str>,
    ) -> Result<&Principal, AuthError> {
        let mut known = names
            .iter()
            .filter_map(|name| self.certificates.get(name))
            .peekable();
        let first = *known.peek().ok_or(AuthError::CertificateUnknown)?;
        match named {
            Some(named) => known
                .find(|principal| principal.tenant.as_str() == named)
                .ok_or(AuthError::OtherTenant),
            None if known.all(|other| other.tenant == first.tenant) => Ok(first),
            None => Err(AuthError::TenantNotNamed),
        }
    }

    fn by_openness(&self, named: Option<&str>) -> Result<&Principal, AuthError> {
        match (named, self.open.as_slice()) {
            (_, []) => Err(AuthError::KeyMissing),
            (None, [only]) => Ok(only),
            (None, [_, ..]) => Err(AuthError::TenantNotNamed),
            (Some(named), open) => open
                .iter()
                .find(|principal| principal.tenant.as_str() == named)
                .ok_or(AuthError::KeyMissing),
        }
    }

    fn new(contents: Contents) -> Result<Self, DirectoryError> {
        let mut inner = Self::default();
        for key in &contents.operators {
            let operator = Operator {
                id: Arc::from(key.id.as_str()),
            };
            inner.add_key(key, Caller::Operator(operator), "operators")?;
        }
        for issuer in contents.issuers {
            let name = issuer.options().issuer.clone();
            let trusted = Trusted {
                issuer,
                subjects: HashMap::new(),
            };
            if inner.issuers.insert(name.clone(), trusted).is_some() {
                return Err(DirectoryError::DuplicateIssuer(name));
            }
        }
        for tenant in contents.tenants {
            inner.add(tenant)?;
        }
        Ok(inner)
    }

    fn add(&mut self, tenant: Tenant) -> Result<(), DirectoryError> {
        if !(1..=MAX_PARTITIONS).contains(&tenant.partitions) {
            return Err(DirectoryError::Partitions(tenant.id));
        }
        if tenant.open && !tenant.callers.is_empty() {
            return Err(DirectoryError::OpenWithCallers(tenant.id));
        }
        if self.tenants.contains_key(&tenant.id) {
            return Err(DirectoryError::DuplicateTenant(tenant.id));
        }
        let owner = format!("tenant {}", tenant.id);
        for ApiKey { key, scopes } in &tenant.callers.keys {
            let principal = principal(&tenant, Means::ApiKey, &key.id, scopes);
            self.add_key(key, Caller::Tenant(principal), &owner)?;
        }
        for certificate in &tenant.callers.certificates {
            let ClientCertificate { id, name, scopes } = certificate;
            let principal = principal(&tenant, Means::Certificate, id, scopes);
            let known = self.certificates.insert(name.clone(), principal);
            given_once(known, &owner, "the certificate", id)?;
        }
        for subject in &tenant.callers.subjects {
            self.add_subject(&tenant, subject, &owner)?;
        }
        if tenant.open {
            let anybody = principal(&tenant, Means::Nothing, "", &Scope::ALL);
            self.open.push(anybody);
        }
        self.tenants.insert(tenant.id.clone(), tenant);
        Ok(())
    }

    fn add_key(&mut self, key: &Key, caller: Caller, owner: &str) -> Result<(), DirectoryError> {
        self.keys
            .add(key, caller)
            .map_err(|conflict| match conflict {
                KeyConflict::Digest => duplicate(owner, "the key", &key.id),
                KeyConflict::Prefix => DirectoryError::Prefix {
                    owner: owner.to_owned(),
                    key: key.id.clone(),
                },
            })
    }

    fn add_subject(
        &mut self,
        tenant: &Tenant,
        subject: &JwtSubject,
        owner: &str,
    ) -> Result<(), DirectoryError> {
        let mut trusted = self.issuers.values_mut();
        let trusted = trusted.find(|trusted| trusted.issuer.options().id == subject.issuer);
        let trusted = trusted.ok_or_else(|| DirectoryError::UnknownIssuer {
            tenant: tenant.id.clone(),
            subject: subject.id.clone(),
        })?;
        let principal = principal(tenant, Means::Jwt, &subject.id, &subject.scopes);
        let known = trusted.subjects.insert(subject.subject.clone(), principal);
        given_once(known, owner, "the subject", &subject.id)
    }
}

fn given_once(
    known: Option<Principal>,
    owner: &str,
    kind: &str,
    id: &str,
) -> Result<(), DirectoryError> {
    match known {
        None => Ok(()),
        Some(_) => Err(duplicate(owner, kind, id)),
    }
}

fn duplicate(owner: &str, kind: &str, id: &str) -> DirectoryError {
    DirectoryError::DuplicateCaller {
        owner: owner.to_owned(),
        caller: format!("{kind} {id}"),
    }
}

fn principal(tenant: &Tenant, means: Means, id: &str, scopes: &[Scope]) -> Principal {
    Principal {
        tenant: tenant.id.clone(),
        partitions: tenant.partitions,
        max_subscriptions: tenant.max_subscriptions,
        means,
        key_id: Arc::from(id),
        scopes: Arc::from(scopes),
    }
}

#[cfg(test)]
mod tests;
