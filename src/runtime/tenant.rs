//! What all sessions of a tenant share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Counter, counter};

use crate::connectors::invoke::CommandList;
use crate::connectors::tencent::protocol::Identification;
use crate::connectors::websocket::Dial;
use crate::runtime::issuer::Issuers;
use crate::runtime::metrics::{self as names, SessionGauges};
use crate::runtime::pacer::Pacer;
use crate::session::policy::Policy;
use crate::store::seal::Sealer;
use crate::tenants::quotas::{Limits, Quotas, Share};
use crate::types::{AccountId, SessionKey, TenantId};

/// What all sessions of a tenant share.
#[derive(Debug)]
pub struct Tenant {
    /// Whose.
    pub id: TenantId,
    /// How many partitions its accounts are spread over. Fixed for the life of the tenant.
    pub partitions: u16,
    /// The upstream app. Fixed as well: tickets and reading positions are of one app.
    pub sdk_app_id: u64,
    /// Seals credentials.
    pub sealer: Arc<Sealer>,
    /// What it uses, kept to its limits.
    pub quotas: Arc<Quotas>,
    /// Counts what is pushed; looked up once.
    pub(super) events_in: Counter,
    /// Count its sessions.
    pub(super) gauges: Arc<SessionGauges>,
    /// How many of its partitions are held here.
    held: AtomicU16,
    settings: ArcSwap<Settings>,
}

/// What an operator may set while sessions live.
#[derive(Debug)]
pub struct Settings {
    /// Where the upstream is.
    pub dialer: Arc<dyn Dial>,
    /// How sessions behave.
    pub policy: Arc<Policy>,
    /// Make signatures, where the bot brings none.
    pub issuers: Arc<Issuers>,
    /// Spreads connections over time, of all tenants of the upstream app.
    pub pacer: Arc<Pacer>,
    /// What it may use of what [`Quotas`] counts.
    pub limits: Limits,
    /// The greatest random delay of a session after a restart.
    pub start_jitter: Duration,
    /// The upstream commands that it may send by itself.
    pub invoke_commands: CommandList,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// How many sends of one session may wait. A session that is running keeps the bound that it began with.
    pub max_pending_sends: usize,
    /// The tenant's limit of an upstream frame, in bytes; see [`crate::connectors::greatest_frame`]. A session that is
    /// running keeps the limit that it began with.
    pub max_frame_bytes: usize,
}

impl Tenant {
    /// A tenant with the settings that it begins with.
    pub fn new(
        id: TenantId,
        partitions: u16,
        sdk_app_id: u64,
        sealer: Arc<Sealer>,
        settings: Settings,
    ) -> Self {
        let tenant = Self {
            quotas: Quotas::new(id.clone(), settings.limits),
            events_in: counter!(names::EVENTS_IN),
            gauges: SessionGauges::new(),
            held: AtomicU16::new(0),
            id,
            partitions,
            sdk_app_id,
            sealer,
            settings: ArcSwap::from_pointee(settings),
        };
        // A tenant of which nothing is held here counts for the share of those that are.
        tenant.set_held(0);
        tenant
    }

    /// What is set now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Sets something else, from now on.
    pub fn set(&self, settings: Settings) {
        self.quotas.set_limits(settings.limits);
        let pacer = Arc::clone(&settings.pacer);
        let before = self.settings.swap(Arc::new(settings));
        if !Arc::ptr_eq(&before.pacer, &pacer) {
            before.pacer.forget(&self.id);
        }
        self.set_held(self.held.load(Ordering::Relaxed));
    }

    /// Notes how many of its partitions this replica holds: so much of what the fleet may do is this replica's.
    pub fn set_held(&self, held: u16) {
        self.held.store(held, Ordering::Relaxed);
        self.quotas.set_share(Share::new(held, self.partitions));
        let settings = self.settings();
        settings.pacer.set_held(&self.id, held, self.partitions);
    }

    /// Names an account of the tenant.
    pub fn key(&self, account: &AccountId) -> SessionKey {
        SessionKey {
            tenant: self.id.clone(),
            account: account.clone(),
        }
    }

    /// What the connector needs to know of an account.
    pub fn identification(&self, account: &AccountId) -> Identification {
        Identification {
            account: account.as_str().to_owned(),
            sdk_app_id: self.sdk_app_id,
            max_frame_bytes: self.settings().max_frame_bytes,
        }
    }
}
