//! Whether the caller of a stream may still have it: its key or certificate may be taken away, its JWT may end, its tenant
//! may be removed.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::tenants::auth::{AuthError, Caller, Credentials, Scope};
use crate::tenants::directory::Directory;
use crate::tenants::peer::PeerNames;
use crate::types::{Secret, TenantId, WallClock};

/// How often a caller is looked at again whose time may have ended. A change of the directory is seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a caller has shown. Found in the extensions of a request that begins a stream.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    directory: Directory,
    authorization: Option<Secret<String>>,
    certificate: Option<PeerNames>,
    named: Option<String>,
    tenant: TenantId,
    scope: Scope,
}

impl Standing {
    /// Of a caller who was let in on behalf of a tenant.
    pub(super) fn of(
        directory: &Directory,
        headers: &HeaderMap,
        certificate: Option<PeerNames>,
        tenant: TenantId,
        scope: Scope,
    ) -> Self {
        let text = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        Self {
            directory: directory.clone(),
            authorization: text("authorization").map(Secret::new),
            certificate,
            named: text("imgate-tenant"),
            tenant,
            scope,
        }
    }

    /// Resolves when the caller may not any more, with the reason. One for the whole stream: each look costs as much as
    /// letting the caller in.
    pub(super) async fn lost(self) -> AuthError {
        let mut replacements = self.directory.replacements();
        loop {
            tokio::select! {
                Ok(()) = replacements.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.check() {
                return error;
            }
        }
    }

    fn check(&self) -> Result<(), AuthError> {
        let credentials = Credentials {
            authorization: self
                .authorization
                .as_ref()
                .map(|text| text.expose().as_str()),
            certificate: self.certificate.as_ref(),
            tenant: self.named.as_deref(),
        };
        match self.directory.authenticate(WallClock.now(), credentials) {
            // No keys of the issuer have been read yet: that says nothing of the caller.
            Err(AuthError::JwtKeysUnavailable) => Ok(()),
            Err(error) => Err(error),
            Ok(caller @ (Caller::Tenant(_) | Caller::Operator(_))) => {
                let principal = caller.for_tenant(self.scope)?;
                if principal.tenant == self.tenant {
                    Ok(())
                } else {
                    Err(AuthError::OtherTenant)
                }
            }
        }
    }
}
