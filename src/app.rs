//! The composition root: from a checked configuration to a running gateway, and its ordered stop. The only file
//! that knows every part.

mod callers;
mod enrolment;
mod partitions;
mod parts;
mod reload;
mod watches;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tracing::{info, warn};

use self::callers::Callers;
use self::partitions::Partitions;
pub use self::reload::ReloadError;
use self::reload::{Asker, Live};
use self::watches::Watches;
use crate::config::{self, Config, Files, Seen};
use crate::connectors::websocket::DialError;
use crate::error::{Classified, ErrorKind};
use crate::events::follower;
use crate::events::hub::Hub;
use crate::events::upkeep;
use crate::grpc::server::{self, Api, ServerError};
use crate::net;
use crate::observability::ops_server;
use crate::observability::readiness::{Condition, Readiness};
use crate::runtime::handle::Gateway;
use crate::runtime::issuer::IssuerError;
use crate::runtime::supervisor::Tasks;
use crate::runtime::usage;
use crate::store::seal::KeyRingError;
use crate::store::{Store, StoreError};
use crate::tenants::directory::DirectoryError;
use crate::types::TenantId;

/// How often the canary is sent, unless readiness is to know sooner.
const CANARY_EVERY: Duration = Duration::from_secs(2);

/// Why the gateway does not start. The text is for the operator and names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("{key} = {address}: {error}; choose a free address of this machine")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The keys that seal credentials cannot be had.
    #[error("seal: {0}")]
    Seal(#[from] config::SealError),
    /// They are not keys.
    #[error("seal: {0}")]
    KeyRing(#[from] KeyRingError),
    /// The store cannot be opened.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A tenant's upstream cannot be dialled.
    #[error("tenants[{tenant}]: {error}")]
    Upstream {
        /// Whose.
        tenant: String,
        /// Why.
        error: DialError,
    },
    /// A tenant's issuer cannot be called.
    #[error("tenants[{tenant}].{error}")]
    Issuer {
        /// Whose.
        tenant: String,
        /// Why.
        error: IssuerError,
    },
    /// A tenant's data is laid out otherwise than its configuration says.
    #[error(
        "tenants[{tenant}].{key} = {configured}: its data in the store was made with {stored}; put that back, declare another          tenant, or purge this one"
    )]
    Layout {
        /// Whose.
        tenant: TenantId,
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        configured: u32,
        /// What the data was made with.
        stored: u32,
    },
    /// The tenants contradict each other.
    #[error("tenants: {0}")]
    Directory(#[from] DirectoryError),
    /// The API cannot be served.
    #[error("grpc: {0}")]
    Server(#[from] ServerError),
}

impl Classified for AppError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Listen { .. }
            | Self::Seal(_)
            | Self::KeyRing(_)
            | Self::Upstream { .. }
            | Self::Issuer { .. }
            | Self::Layout { .. }
            | Self::Directory(_)
            | Self::Server(_) => ErrorKind::InvalidInput,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the gateway does not start; ask the operator".into()
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct App {
    grpc_address: SocketAddr,
    ops_address: SocketAddr,
    readiness: Readiness,
    gateway: Gateway,
    grace: Duration,
    /// Asks for the configuration to be read again.
    asker: Asker,
    /// In the order in which they stop.
    api: Tasks,
    ownership: Tasks,
    writers: Tasks,
    services: Tasks,
}

impl App {
    /// Starts everything that `config` asks for. Ready comes later: see [`App::ready`].
    pub async fn start(config: Config, metrics: PrometheusHandle) -> Result<Self, AppError> {
        let store = config.store.clone();
        let opened = async move { parts::open_store(&store).await };
        Self::start_on(config, None, metrics, opened).await
    }

    /// The same, and follows the files that `config` was read from: what changes there is put in force.
    pub async fn start_and_follow(
        config: Config,
        files: (Files, Seen),
        metrics: PrometheusHandle,
    ) -> Result<Self, AppError> {
        let store = config.store.clone();
        let opened = async move { parts::open_store(&store).await };
        Self::start_on(config, Some(files), metrics, opened).await
    }

    /// Starts everything on the store that `opened` gives.
    async fn start_on(
        config: Config,
        files: Option<(Files, Seen)>,
        metrics: PrometheusHandle,
        opened: impl Future<Output = Result<Arc<dyn Store>, AppError>>,
    ) -> Result<Self, AppError> {
        for warning in config.warnings() {
            warn!("{warning}");
        }
        let (sealer, tokens) = parts::secrets(&config.seal.open()?)?;
        let (grpc_listener, grpc_address) = listen("grpc.listen", config.grpc.listen)?;
        let (ops_listener, ops_address) = listen("ops.listen", config.ops.listen)?;

        let (api, ownership, writers, services) =
            (Tasks::new(), Tasks::new(), Tasks::new(), Tasks::new());
        let callers = Callers::start(&config, &services)?;
        let readiness = Readiness::new();
        crate::observability::metrics::keep_up(&services, metrics.clone());
        ops_server::serve(&services, ops_listener, metrics, readiness.clone());

        let store = opened.await?;
        let pacers = parts::Pacers::new(&store);
        enrolment::at_start(&store, &config.tenants, &services).await?;

        let hub = Hub::new();
        let events = parts::events(&store, &sealer, &tokens, &hub, &api);
        follower::start(Arc::clone(&store), hub.clone(), &services);
        let (partitions, started) =
            Partitions::start(&config, &store, &hub, &sealer, &pacers, &writers)?;
        let gateway = partitions.gateway().clone();
        partitions::keep_leases(started.keeper, &ownership);
        let grace = config.store.lease_ttl;
        let every = CANARY_EVERY.min(grace / 3);
        let canary = started.canary.canary(events.clone(), every);
        let watches = Watches {
            readiness: readiness.clone(),
            grace,
            tasks: services.clone(),
        };
        watches.store(Arc::clone(&store), gateway.clone());
        watches.restore(started.complete);
        watches.delivery(canary.start(&api));
        upkeep::start(Arc::clone(&store), started.kept, &api);
        usage::start(gateway.clone(), Arc::clone(&store), &services);

        let options = parts::server_options(&config);
        let served = Api {
            gateway: gateway.clone(),
            events,
            directory: callers.directory(),
            tokens: tokens.clone(),
        };
        let server = server::start(grpc_listener, served, options, &api).await?;
        watches.tell_health(server.health);
        readiness.met(Condition::Listener);
        info!(%grpc_address, %ops_address, replica = %config.replica_id, "imgate has started");
        let grace = config.shutdown.grace;
        let live = Live {
            config,
            store,
            partitions,
            callers,
            tls: server.tls,
            sealer,
            tokens,
            pacers,
        };
        let asker = reload::follow(files, live, &api);
        Ok(Self {
            grpc_address,
            ops_address,
            readiness,
            gateway,
            grace,
            asker,
            api,
            ownership,
            writers,
            services,
        })
    }

    /// Where the API listens.
    pub const fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where the operations port listens.
    pub const fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Waits until the gateway can take calls.
    pub async fn ready(&self) {
        self.readiness.ready().await;
    }

    /// Reads the configuration again and puts it in force.
    ///
    /// # Errors
    /// When it is wrong, or changes what cannot change now: nothing of it is in force then.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        self.asker.ask().await
    }

    /// Waits until a part has ended without which the gateway is of no use.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.api.stopping() => {}
            () = self.ownership.stopping() => {}
            () = self.writers.stopping() => {}
            () = self.services.stopping() => {}
        }
    }

    /// Stops in order, within the grace time: no new calls, streams and the canary end, sessions close without logging out and
    /// store what they have, leases go back. True if it was in time.
    pub async fn stop(self) -> bool {
        info!(grace = ?self.grace, "stopping");
        self.readiness
            .unmet(Condition::NotDraining, "the process was asked to stop");
        let grace = self.grace;
        let in_order = async {
            self.api.stop();
            // Calls may come to their end; what still waits for a session then is answered by the stop of it, while
            // the API can yet carry the answer.
            let _in_time = tokio::time::timeout(grace / 4, self.api.ended()).await;
            // While the store is away the sessions wait for it; the stop of the writers ends that.
            let _in_time = tokio::time::timeout(grace / 4, self.gateway.stop()).await;
            self.api.ended().await;
            self.writers.stop();
            self.writers.ended().await;
            self.ownership.stop();
            self.ownership.ended().await;
        };
        let in_time = tokio::time::timeout(grace, in_order).await.is_ok();
        if !in_time {
            warn!("stopping took longer than shutdown.grace; the rest is left as it is");
        }
        self.services.stop();
        let _late = tokio::time::timeout(Duration::from_secs(2), self.services.ended()).await;
        info!("stopped");
        in_time
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let refuse = |error| AppError::Listen {
        key,
        address,
        error,
    };
    let listener = net::listen(address).map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?;
    Ok((listener, bound))
}

#[cfg(test)]
mod tests;
