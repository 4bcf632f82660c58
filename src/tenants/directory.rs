//! What the API knows of tenants, and the look-up of a caller among them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::auth::{AuthError, Credentials, KeyDigest, Principal, Scope};
use crate::types::TenantId;

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
    /// Its API keys; several, so that one can be rotated.
    pub keys: Vec<ApiKey>,
    /// True: callers without a key are this tenant's. Only a gateway that listens on loopback may have such a
    /// tenant, and only a tenant without keys may be one.
    pub open: bool,
}

/// An API key, as configured.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its name in logs.
    pub id: String,
    /// Its digest.
    pub digest: KeyDigest,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// All tenants of the gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory {
    inner: Arc<ArcSwap<Inner>>,
}

#[derive(Debug)]
struct Inner {
    tenants: BTreeMap<TenantId, Tenant>,
    by_key: HashMap<KeyDigest, (KeyDigest, Principal)>,
    open: Vec<Principal>,
}

/// Why a list of tenants is not a directory. The text names the tenant and the remedy, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Two tenants have one ID.
    #[error("tenant {0}: the ID is given twice; give each tenant its own")]
    DuplicateTenant(TenantId),
    /// A key is given twice, so that it would not say whose the caller is.
    #[error("tenant {tenant}: the key {key} is given twice; make a key of its own for each use")]
    DuplicateKey {
        /// The later of the two tenants.
        tenant: TenantId,
        /// The key's ID there.
        key: String,
    },
    /// No partitions, or too many.
    #[error("tenant {0}: partitions must be 1 to {MAX_PARTITIONS}")]
    Partitions(TenantId),
    /// An open tenant has keys.
    #[error("tenant {0}: a tenant that is open cannot have API keys; remove the keys or close it")]
    OpenWithKeys(TenantId),
}

impl Directory {
    /// Checks the tenants and makes them findable by key.
    pub fn new(tenants: Vec<Tenant>) -> Result<Self, DirectoryError> {
        Ok(Self {
            inner: Arc::new(ArcSwap::from_pointee(Inner::of(tenants)?)),
        })
    }

    /// Puts other tenants in the place of those that there are, for all clones of the directory. On an error nothing changes.
    pub fn replace(&self, tenants: Vec<Tenant>) -> Result<(), DirectoryError> {
        self.inner.store(Arc::new(Inner::of(tenants)?));
        Ok(())
    }

    /// Finds out who calls.
    pub fn authenticate(&self, credentials: Credentials<'_>) -> Result<Principal, AuthError> {
        let inner = self.inner.load();
        let principal = match credentials.bearer()? {
            Some(key) => inner.by_key(key)?,
            None => return inner.by_openness(credentials.tenant).cloned(),
        };
        match credentials.tenant {
            Some(named) if named != principal.tenant.as_str() => Err(AuthError::OtherTenant),
            Some(_) | None => Ok(principal.clone()),
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

    /// Whether some tenant takes callers without a key.
    pub fn has_open_tenant(&self) -> bool {
        !self.inner.load().open.is_empty()
    }
}

impl Inner {
    fn of(tenants: Vec<Tenant>) -> Result<Self, DirectoryError> {
        let mut inner = Self {
            tenants: BTreeMap::new(),
            by_key: HashMap::new(),
            open: Vec::new(),
        };
        for tenant in tenants {
            inner.add(tenant)?;
        }
        Ok(inner)
    }

    fn by_key(&self, key: &str) -> Result<&Principal, AuthError> {
        let digest = KeyDigest::of(key);
        match self.by_key.get(&digest) {
            Some((stored, principal)) if stored.matches(&digest) => Ok(principal),
            Some(_) | None => Err(AuthError::KeyUnknown),
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

    fn add(&mut self, tenant: Tenant) -> Result<(), DirectoryError> {
        if !(1..=MAX_PARTITIONS).contains(&tenant.partitions) {
            return Err(DirectoryError::Partitions(tenant.id));
        }
        if tenant.open && !tenant.keys.is_empty() {
            return Err(DirectoryError::OpenWithKeys(tenant.id));
        }
        if self.tenants.contains_key(&tenant.id) {
            return Err(DirectoryError::DuplicateTenant(tenant.id));
        }
        for key in &tenant.keys {
            let principal = principal(&tenant, &key.id, &key.scopes);
            let known = self.by_key.insert(key.digest, (key.digest, principal));
            if known.is_some() {
                return Err(DirectoryError::DuplicateKey {
                    tenant: tenant.id,
                    key: key.id.clone(),
                });
            }
        }
        if tenant.open {
            self.open.push(principal(&tenant, "", &Scope::ALL));
        }
        self.tenants.insert(tenant.id.clone(), tenant);
        Ok(())
    }
}

fn principal(tenant: &Tenant, key_id: &str, scopes: &[Scope]) -> Principal {
    Principal {
        tenant: tenant.id.clone(),
        partitions: tenant.partitions,
        max_subscriptions: tenant.max_subscriptions,
        key_id: Arc::from(key_id),
        scopes: Arc::from(scopes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str, keys: &[(&str, &[Scope])]) -> Tenant {
        Tenant {
            id: TenantId::new(id),
            partitions: 8,
            max_subscriptions: 100,
            keys: keys
                .iter()
                .map(|(key, scopes)| ApiKey {
                    id: format!("{key}-id"),
                    digest: KeyDigest::of(key),
                    scopes: scopes.to_vec(),
                })
                .collect(),
            open: false,
        }
    }

    fn open(id: &str) -> Tenant {
        Tenant {
            open: true,
            ..tenant(id, &[])
        }
    }

    fn call<'a>(key: Option<&'a str>, tenant: Option<&'a str>) -> Credentials<'a> {
        Credentials {
            authorization: key,
            tenant,
        }
    }

    #[test]
    fn a_key_says_whose_the_caller_is_and_what_it_may() {
        let directory = Directory::new(vec![
            tenant("a", &[("k1", &[Scope::Sessions]), ("k2", &Scope::ALL)]),
            tenant("b", &[("k3", &[Scope::Events])]),
        ])
        .unwrap();
        let who = |key| directory.authenticate(call(Some(key), None));

        let first = who("Bearer k1").unwrap();
        assert_eq!((first.tenant.as_str(), &*first.key_id), ("a", "k1-id"));
        assert_eq!(first.require(Scope::Sessions), Ok(()));
        let refused = Err(AuthError::ScopeMissing(Scope::Events));
        assert_eq!(first.require(Scope::Events), refused);
        assert_eq!(who("Bearer k3").unwrap().tenant.as_str(), "b");
        assert_eq!(who("Bearer k4"), Err(AuthError::KeyUnknown));
        assert_eq!(who("k1"), Err(AuthError::NotBearer));
    }

    #[test]
    fn without_a_key_nobody_comes_in_unless_a_tenant_is_open() {
        let closed = Directory::new(vec![tenant("a", &[("k1", &Scope::ALL)])]).unwrap();
        for named in [None, Some("a"), Some("b")] {
            let refused = closed.authenticate(call(None, named));
            assert_eq!(refused, Err(AuthError::KeyMissing));
        }
        assert!(!closed.has_open_tenant());

        let one = Directory::new(vec![tenant("a", &[("k1", &Scope::ALL)]), open("dev")]).unwrap();
        let caller = one.authenticate(call(None, None)).unwrap();
        assert_eq!(caller.tenant.as_str(), "dev");
        assert_eq!(caller.require(Scope::Messages), Ok(()));
        // A closed tenant cannot be had by naming it.
        let named = one.authenticate(call(None, Some("a")));
        assert_eq!(named, Err(AuthError::KeyMissing));
        // A wrong key is not a way in either.
        let wrong = one.authenticate(call(Some("Bearer no"), None));
        assert_eq!(wrong, Err(AuthError::KeyUnknown));
    }

    #[test]
    fn of_several_open_tenants_one_must_be_named() {
        let two = Directory::new(vec![open("x"), open("y")]).unwrap();
        let unnamed = two.authenticate(call(None, None));
        assert_eq!(unnamed, Err(AuthError::TenantNotNamed));
        let named = two.authenticate(call(None, Some("y"))).unwrap();
        assert_eq!(named.tenant.as_str(), "y");
    }

    #[test]
    fn a_key_does_not_reach_another_tenant() {
        let directory = Directory::new(vec![
            tenant("a", &[("k1", &Scope::ALL)]),
            tenant("b", &[("k2", &Scope::ALL)]),
        ])
        .unwrap();
        let own = directory.authenticate(call(Some("Bearer k1"), Some("a")));
        assert_eq!(own.unwrap().tenant.as_str(), "a");
        let other = directory.authenticate(call(Some("Bearer k1"), Some("b")));
        assert_eq!(other, Err(AuthError::OtherTenant));
    }

    #[test]
    fn contradictory_tenants_are_refused() {
        let twice = Directory::new(vec![open("a"), open("a")]);
        let id = TenantId::new("a");
        assert_eq!(
            twice.unwrap_err(),
            DirectoryError::DuplicateTenant(id.clone())
        );

        let shared = vec![
            tenant("b", &[("k", &Scope::ALL)]),
            tenant("a", &[("k", &Scope::ALL)]),
        ];
        let error = Directory::new(shared).unwrap_err();
        assert!(matches!(error, DirectoryError::DuplicateKey { tenant, .. } if tenant == id));

        for partitions in [0, MAX_PARTITIONS + 1] {
            let tenant = Tenant {
                partitions,
                ..tenant("a", &[])
            };
            let error = Directory::new(vec![tenant]).unwrap_err();
            assert_eq!(error, DirectoryError::Partitions(id.clone()));
        }

        let mut both = tenant("a", &[("k", &Scope::ALL)]);
        both.open = true;
        let error = Directory::new(vec![both]).unwrap_err();
        assert_eq!(error, DirectoryError::OpenWithKeys(id));
    }
}
