//! What all sessions of a tenant share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Counter, counter};
use tokio::sync::Semaphore;

use crate::connectors::invoke::CommandList;
use crate::connectors::tencent::protocol::Identification;
use crate::connectors::websocket::{Connection, Dial, DialError};
use crate::runtime::issuer::Issuers;
use crate::runtime::metrics::{self as names, ConnectGauges, SessionGauges, counted};
use crate::runtime::pacer::Pacer;
use crate::session::policy::Policy;
use crate::store::seal::Sealer;
use crate::tenants::quotas::{Limits, Quotas, Share};
use crate::types::{AccountId, SessionKey, TenantId};

/// How many of a tenant's sessions connect at a time on this replica at the most. Of thousands at once the upstream's
/// system drops what it cannot queue, and those come again after a second or three. Policy when full: the others, who are
/// no more than the tenant's sessions, wait, first come, first served.
pub(super) const CONNECTING: usize = 512;

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
    /// Places to connect.
    places: Semaphore,
    connects: ConnectGauges,
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
            places: Semaphore::new(CONNECTING),
            connects: ConnectGauges::new(),
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

    /// Connects to the upstream's `path`, when it is the caller's turn. Who waits for a place uses no turn, and dials where
    /// the upstream is then.
    pub async fn connect(&self, path: &str) -> Result<Connection, DialError> {
        // Never closed.
        let _place = counted(&self.connects.place, self.places.acquire()).await;
        let turn = async { self.settings().pacer.turn().await };
        counted(&self.connects.turn, turn).await;
        // The settings may be other ones by now.
        let dialling = async { self.settings().dialer.dial(path).await };
        counted(&self.connects.dial, dialling).await
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
