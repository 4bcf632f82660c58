//! From the options of the configuration to what the parts are made of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::AppError;
use crate::config::{self, Config, DailyActiveUsersAction, GrpcTls, Issuer, SealKeys, StoreKind};
use crate::connectors::greatest_frame;
use crate::connectors::websocket::Dialer;
use crate::events::hub::Hub;
use crate::events::log::LogOptions;
use crate::events::service::Events;
use crate::grpc::server::{ClientCertificates, Limits, ServerOptions, Tls};
use crate::runtime::issuer::{CallbackOptions, IssuedFor, IssuerError, IssuerOptions, Issuers};
use crate::runtime::pacer::Pacer;
use crate::runtime::supervisor::Tasks;
use crate::runtime::tenant::{Settings, Tenant};
use crate::session::backoff::Backoff;
use crate::session::keepalive::KeepalivePolicy;
use crate::session::policy::{KickPolicy, Policy};
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use crate::store::memory::MemoryStore;
use crate::store::metrics::{Backend, Measured};
use crate::store::redis::{RedisOptions, RedisStore};
use crate::store::seal::{KeyRing, KeyRingError, Sealer};
use crate::tenants::quotas::Limits as Quotas;
use crate::tenants::token::Tokens;
use crate::types::{AppId, Secret};

/// How long a connection to an upstream may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn open_store(store: &config::Store) -> Result<Arc<dyn Store>, AppError> {
    Ok(match &store.kind {
        StoreKind::Embedded { path } => {
            Arc::new(Measured::new(EmbeddedStore::open(path)?, Backend::Embedded))
        }
        StoreKind::Redis { url } => {
            let options = RedisOptions {
                response_timeout: store.operation_timeout,
                ..RedisOptions::new(url.expose())
            };
            Arc::new(Measured::new(
                RedisStore::connect(&options).await?,
                Backend::Redis,
            ))
        }
        StoreKind::Memory => Arc::new(Measured::new(MemoryStore::new(), Backend::Memory)),
    })
}

/// What seals, and what makes cursors and page tokens, of the same keys.
pub(super) fn secrets(keys: &SealKeys) -> Result<(Arc<Sealer>, Tokens), KeyRingError> {
    let (ring, active) = key_ring(keys)?;
    let tokens = Tokens::new(active, keys.keys.values());
    Ok((Arc::new(Sealer::new(ring)), tokens))
}

/// What serves the events of a store, until `tasks` stop.
pub(super) fn events(
    store: &Arc<dyn Store>,
    sealer: &Arc<Sealer>,
    tokens: &Tokens,
    hub: &Hub,
    tasks: &Tasks,
) -> Events {
    let (store, sealer) = (Arc::clone(store), Arc::clone(sealer));
    Events::new(store, sealer, tokens.clone(), hub.clone(), tasks.clone())
}

/// Has both go on with other keys, or neither.
pub(super) fn replace_secrets(
    sealer: &Sealer,
    tokens: &Tokens,
    keys: &SealKeys,
) -> Result<(), KeyRingError> {
    let (ring, active) = key_ring(keys)?;
    sealer.replace(ring)?;
    tokens.replace(active, keys.keys.values());
    Ok(())
}

/// The ring, and its active key.
fn key_ring(keys: &SealKeys) -> Result<(KeyRing, &Secret<[u8; 32]>), KeyRingError> {
    let active = keys.keys.get(&keys.active);
    let active = active.ok_or_else(|| KeyRingError::NoActive(keys.active.clone()))?;
    Ok((KeyRing::of(&keys.active, &keys.keys)?, active))
}

pub(super) fn runtime_tenant(
    config: &Config,
    tenant: &config::Tenant,
    sealer: &Arc<Sealer>,
    pacers: &Pacers,
) -> Result<Arc<Tenant>, AppError> {
    Ok(Arc::new(Tenant::new(
        tenant.id.clone(),
        tenant.partitions,
        tenant.sdk_app_id.into(),
        Arc::clone(sealer),
        settings(config, tenant, pacers)?,
    )))
}

/// What of a tenant's configuration may be set anew while its sessions live.
pub(super) fn settings(
    config: &Config,
    tenant: &config::Tenant,
    pacers: &Pacers,
) -> Result<Settings, AppError> {
    let max_frame_bytes = tenant.limits.upstream_frame_bytes.0;
    let roots = tenant.upstream_ca_pem.as_deref();
    let greatest = greatest_frame(max_frame_bytes);
    let dialer =
        Dialer::new(&tenant.upstream_url, roots, greatest, DIAL_TIMEOUT).map_err(|error| {
            AppError::Upstream {
                tenant: tenant.id.to_string(),
                error,
            }
        })?;
    let issuers = issuers(tenant).map_err(|error| AppError::Issuer {
        tenant: tenant.id.to_string(),
        error,
    })?;
    Ok(Settings {
        dialer: Arc::new(dialer),
        policy: Arc::new(policy(config, tenant, &issuers)),
        issuers: Arc::new(issuers),
        pacer: pacers.of(config, tenant),
        limits: limits(&tenant.limits),
        start_jitter: config.pacing.start_jitter,
        invoke_commands: tenant.invoke_commands.clone(),
        max_sessions: usize::try_from(tenant.limits.sessions).unwrap_or(usize::MAX),
        max_pending_sends: usize::try_from(tenant.limits.pending_sends_per_session)
            .unwrap_or(usize::MAX),
        max_frame_bytes,
    })
}

/// The pacers of all upstream apps. Tenants of one app share one. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pacers {
    store: Arc<dyn Store>,
    apps: Arc<Mutex<HashMap<AppId, Arc<Pacer>>>>,
}

impl Pacers {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        Self {
            store: Arc::clone(store),
            apps: Arc::default(),
        }
    }

    /// Sets another rate for all of them.
    pub(super) fn set_rate(&self, per_second: u32) {
        for pacer in self.apps().values() {
            pacer.set_rate(per_second);
        }
    }

    /// That of the tenant's app; a new one is made with the rate that is configured.
    fn of(&self, config: &Config, tenant: &config::Tenant) -> Arc<Pacer> {
        let app = AppId::new(format!("{}@{}", tenant.sdk_app_id, tenant.upstream_url));
        let per_second = config.pacing.connects_per_second;
        let mut apps = self.apps();
        // Of an app that no tenant has any more nobody else holds the pacer.
        apps.retain(|_, pacer| Arc::strong_count(pacer) > 1);
        let make = || {
            let (store, patience) = (Arc::clone(&self.store), config.store.operation_timeout / 4);
            Arc::new(Pacer::new(app.clone(), store, patience, per_second))
        };
        Arc::clone(apps.entry(app.clone()).or_insert_with(make))
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<AppId, Arc<Pacer>>> {
        // Nothing panics while it is held.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(limits: &config::Limits) -> Quotas {
    Quotas {
        logins_per_minute: limits.logins_per_minute,
        sends_per_second: limits.sends_per_second,
        subscribers: usize::try_from(limits.subscribers).unwrap_or(usize::MAX),
        daily_active_users: limits.daily_active_users.map(u64::from),
        refuse_daily_active_users: match limits.daily_active_users_action {
            DailyActiveUsersAction::Warn => false,
            DailyActiveUsersAction::Refuse => true,
        },
    }
}

fn issuers(tenant: &config::Tenant) -> Result<Issuers, IssuerError> {
    let options = |issuer: &Issuer| match issuer {
        Issuer::Callback => tenant.callback.clone().map(|callback| {
            IssuerOptions::Callback(CallbackOptions {
                url: callback.url,
                ca_pem: callback.ca_pem,
                identity: callback.identity,
                token: callback.token,
                timeout: callback.timeout,
                calls_per_second: callback.calls_per_second,
                concurrency: callback.concurrency,
            })
        }),
        Issuer::Local => Some(IssuerOptions::Local {
            lifetime: tenant.signature_lifetime,
        }),
        Issuer::Manual => Some(IssuerOptions::Manual),
    };
    let issued_for = IssuedFor {
        sdk_app_id: tenant.sdk_app_id.into(),
        secret_key: tenant.secret_key.clone(),
        login_spacing: tenant.login_spacing,
    };
    Issuers::new(
        tenant.issuers.iter().filter_map(options).collect(),
        issued_for,
    )
}

pub(super) fn log_options(log: &config::TenantLog, sealer: &Arc<Sealer>) -> LogOptions {
    LogOptions {
        retain_events: log.retain_events.into(),
        retain_bytes: u64::try_from(log.retain_bytes.0).unwrap_or(u64::MAX),
        retain_age: log.retain_age,
        sealer: log.seal.then(|| Arc::clone(sealer)),
        ..LogOptions::default()
    }
}

pub(super) fn server_options(config: &Config) -> ServerOptions {
    let grpc = &config.grpc;
    ServerOptions {
        tls: grpc.tls.as_ref().map(tls),
        drain_within: config.shutdown.grace / 3,
        max_message_bytes: grpc.max_message_bytes,
        limits: Limits {
            max_connections: grpc.max_connections,
            connections_per_second: grpc.connections_per_second,
            handshake_timeout: grpc.handshake_timeout,
            max_header_bytes: grpc.max_header_bytes,
            max_streams: grpc.max_streams_per_connection,
            keepalive_interval: grpc.keepalive_interval,
            keepalive_timeout: grpc.keepalive_timeout,
            max_age: grpc.max_connection_age,
            max_age_grace: grpc.max_connection_age_grace,
        },
    }
}

pub(super) fn tls(tls: &GrpcTls) -> Tls {
    Tls {
        certificate: tls.cert_pem.clone(),
        key: tls.key_pem.clone(),
        client_ca: tls.client_ca_pem.clone(),
        client_certificates: if tls.clients_optional {
            ClientCertificates::Optional
        } else {
            ClientCertificates::Required
        },
    }
}

fn policy(config: &Config, tenant: &config::Tenant, issuers: &Issuers) -> Policy {
    Policy {
        backoff: Backoff {
            first: config.backoff.first,
            max: config.backoff.max,
        },
        keepalive: KeepalivePolicy {
            idle: config.keepalive.heartbeat,
            answer_timeout: config.keepalive.answer_timeout,
        },
        login_spacing: tenant.login_spacing,
        can_issue: issuers.can_issue(),
        asks_bot: issuers.asks_bot(),
        renew_at: tenant.renew_at,
        kick: match tenant.kick_policy {
            config::KickPolicy::Yield => KickPolicy::Yield,
            config::KickPolicy::Retake => KickPolicy::Retake {
                delay: tenant.retake_delay,
            },
        },
        ..Policy::default()
    }
}
