//! What all sessions of a tenant share.

use std::sync::Arc;
use std::time::Duration;

use crate::connectors::tencent::protocol::Identification;
use crate::connectors::tencent::usersig;
use crate::connectors::websocket::Dial;
use crate::runtime::pacer::Pacer;
use crate::session::input::{Now, Signature};
use crate::session::policy::Policy;
use crate::store::seal::Sealer;
use crate::tenants::quotas::{Quotas, Share};
use crate::types::{AccountId, Secret, SessionKey, TenantId};

/// What all sessions of a tenant share.
#[derive(Debug)]
pub struct Tenant {
    /// Whose.
    pub id: TenantId,
    /// How many partitions its accounts are spread over. Fixed for the life of the tenant.
    pub partitions: u16,
    /// The upstream app.
    pub sdk_app_id: u64,
    /// Where the upstream is.
    pub dialer: Arc<dyn Dial>,
    /// How sessions behave.
    pub policy: Arc<Policy>,
    /// Makes signatures, if the tenant's key is here.
    pub issuer: Option<LocalIssuer>,
    /// Spreads connections over time, of all tenants of the upstream app.
    pub pacer: Arc<Pacer>,
    /// What it may use, and what it uses.
    pub quotas: Arc<Quotas>,
    /// The greatest random delay of a session after a restart.
    pub start_jitter: Duration,
    /// Seals credentials.
    pub sealer: Arc<Sealer>,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// How many sends of one session may wait.
    pub max_pending_sends: usize,
    /// The tenant's limit of an upstream frame, in bytes; see [`crate::connectors::greatest_frame`].
    pub max_frame_bytes: usize,
}

/// The issuer `local`: the tenant's own key makes signatures on the spot.
#[derive(Debug)]
pub struct LocalIssuer {
    /// The app's secret key.
    pub key: Secret<String>,
    /// How long a signature is to be good.
    pub lifetime: Duration,
}

impl Tenant {
    /// Names an account of the tenant.
    pub fn key(&self, account: &AccountId) -> SessionKey {
        SessionKey {
            tenant: self.id.clone(),
            account: account.clone(),
        }
    }

    /// Notes how many of its partitions this replica holds: so much of what the fleet may do is this replica's.
    pub fn set_held(&self, held: u16) {
        self.quotas.set_share(Share::new(held, self.partitions));
        self.pacer.set_held(&self.id, held, self.partitions);
    }

    /// What the connector needs to know of an account.
    pub fn identification(&self, account: &AccountId) -> Identification {
        Identification {
            account: account.as_str().to_owned(),
            sdk_app_id: self.sdk_app_id,
            max_frame_bytes: self.max_frame_bytes,
        }
    }

    /// Makes a fresh signature, if there is an issuer that can.
    pub fn issue(&self, account: &AccountId, now: Now) -> Option<Signature> {
        let issuer = self.issuer.as_ref()?;
        let text = usersig::mint(
            self.sdk_app_id,
            &issuer.key,
            account.as_str(),
            now.wall,
            issuer.lifetime,
            None,
        );
        Some(crate::runtime::record::signature(text))
    }
}
