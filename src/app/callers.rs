//! Who may call, as the configuration has it: the directory, and the issuers whose keys are kept fresh for it.

use std::sync::Arc;

use crate::config::{self, Config, JwtKeys};
use crate::runtime::supervisor::Tasks;
use crate::tenants::auth::Scope;
use crate::tenants::directory::{
    self, ApiKey, Checked, ClientCertificate, Contents, Directory, DirectoryError, JwtSubject,
    Tenant,
};
use crate::tenants::jwt::{Issuer, IssuerOptions, Issuers, Source};
use crate::tenants::keys::{Key, KeyDigest, Validity};

/// The callers of the gateway.
#[derive(Debug)]
pub(super) struct Callers {
    directory: Directory,
    issuers: Issuers,
}

impl Callers {
    /// Those of `config`. The tasks of the issuers stop with `tasks`.
    pub(super) fn start(config: &Config, tasks: &Tasks) -> Result<Self, DirectoryError> {
        let mut callers = Self {
            directory: Directory::new(Contents::default())?,
            issuers: Issuers::new(tasks),
        };
        let first = callers.prepare(config)?;
        callers.put(first);
        Ok(callers)
    }

    /// Those of another configuration, for [`Callers::put`]. Issuers that stay are the same, with their keys.
    pub(super) fn prepare(&self, config: &Config) -> Result<Next, DirectoryError> {
        let issuers = config.jwt_issuers.iter().map(issuer).collect();
        let issuers = self.issuers.prepare(issuers);
        let contents = Contents {
            tenants: config.tenants.iter().map(tenant).collect(),
            operators: config.operators.iter().filter_map(key).collect(),
            issuers: issuers.clone(),
        };
        Ok(Next {
            directory: contents.check()?,
            issuers,
        })
    }

    /// Makes these the callers from now on.
    pub(super) fn put(&mut self, next: Next) {
        self.issuers.run(&next.issuers);
        self.directory.put(next.directory);
    }

    /// A handle on the directory.
    pub(super) fn directory(&self) -> Directory {
        self.directory.clone()
    }
}

/// Callers that are to take the place of others.
#[derive(Debug)]
pub(super) struct Next {
    directory: Checked,
    issuers: Vec<Arc<Issuer>>,
}

fn tenant(tenant: &config::Tenant) -> Tenant {
    let keys = tenant.api_keys.iter().filter_map(|api_key| {
        Some(ApiKey {
            key: key(&api_key.key)?,
            scopes: scopes(&api_key.scopes),
        })
    });
    let certificates = tenant
        .client_certificates
        .iter()
        .map(|certificate| ClientCertificate {
            id: certificate.id.clone(),
            name: certificate.name.clone(),
            scopes: scopes(&certificate.scopes),
        });
    let subjects = tenant.jwt_subjects.iter().map(|subject| JwtSubject {
        id: subject.id.clone(),
        issuer: subject.issuer.clone(),
        subject: subject.subject.clone(),
        scopes: scopes(&subject.scopes),
    });
    Tenant {
        id: tenant.id.clone(),
        partitions: tenant.partitions,
        max_subscriptions: usize::try_from(tenant.limits.subscriptions).unwrap_or(usize::MAX),
        callers: directory::Callers {
            keys: keys.collect(),
            certificates: certificates.collect(),
            subjects: subjects.collect(),
        },
        open: tenant.is_open(),
    }
}

/// `None` for a digest that is none, which the configuration has refused.
fn key(key: &config::Key) -> Option<Key> {
    Some(Key {
        id: key.id.clone(),
        prefix: key.prefix.clone(),
        digest: KeyDigest::from_hex(&key.sha256)?,
        validity: Validity {
            not_before: key.not_before,
            not_after: key.not_after,
        },
    })
}

fn scopes(scopes: &[config::Scope]) -> Vec<Scope> {
    let scopes = scopes.iter().map(|scope| match scope {
        config::Scope::Sessions => Scope::Sessions,
        config::Scope::Events => Scope::Events,
        config::Scope::Messages => Scope::Messages,
    });
    scopes.collect()
}

fn issuer(issuer: &config::JwtIssuer) -> IssuerOptions {
    IssuerOptions {
        id: issuer.id.clone(),
        issuer: issuer.issuer.clone(),
        audience: issuer.audience.clone(),
        source: match &issuer.keys {
            JwtKeys::File(path) => Source::File(path.clone()),
            JwtKeys::Url {
                url,
                ca_file,
                token_file,
            } => Source::Url {
                url: url.clone(),
                ca_file: ca_file.clone(),
                token_file: token_file.clone(),
            },
        },
        refresh: issuer.refresh,
        clock_skew: issuer.clock_skew,
    }
}
