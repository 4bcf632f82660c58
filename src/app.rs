//! The composition root: from a checked configuration to a running gateway, and its ordered stop. The only file
//! that knows every part.

mod parts;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, info, info_span, warn};

use crate::cluster::ownership::Ownership;
use crate::config::{self, Config};
use crate::connectors::websocket::DialError;
use crate::error::{Classified, ErrorKind};
use crate::events::follower;
use crate::events::hub::Hub;
use crate::events::log::LogWriter;
use crate::events::service::Events;
use crate::grpc::server::{self, Api, Health, ServerError, ServerOptions, Tls};
use crate::observability::ops_server;
use crate::observability::readiness::{Condition, Readiness};
use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::runtime::tenant::Tenant;
use crate::store::seal::{KeyRingError, Sealer};
use crate::store::{Lease, Store, StoreError};
use crate::tenants::directory::{Directory, DirectoryError};
use crate::types::PartitionId;

/// How often the store is asked whether it answers.
const STORE_CHECK: Duration = Duration::from_secs(2);

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
    /// In the order in which they stop.
    api: Tasks,
    ownership: Tasks,
    writers: Tasks,
    services: Tasks,
}

impl App {
    /// Starts everything that `config` asks for. Ready comes later: see [`App::ready`].
    pub async fn start(config: Config, metrics: PrometheusHandle) -> Result<Self, AppError> {
        for warning in config.warnings() {
            warn!("{warning}");
        }
        let keys = config.seal.open()?;
        let sealer = Arc::new(Sealer::new(parts::key_ring(&keys)?));
        let tokens = parts::tokens(&keys)?;
        let (grpc_listener, grpc_address) = listen("grpc.listen", config.grpc.listen).await?;
        let (ops_listener, ops_address) = listen("ops.listen", config.ops.listen).await?;
        let directory =
            Directory::new(config.tenants.iter().map(parts::directory_entry).collect())?;
        let tenants = config
            .tenants
            .iter()
            .map(|tenant| parts::runtime_tenant(&config, tenant, &sealer))
            .collect::<Result<Vec<_>, _>>()?;

        let (api, ownership, writers, services) =
            (Tasks::new(), Tasks::new(), Tasks::new(), Tasks::new());
        let readiness = Readiness::new();
        crate::observability::metrics::keep_up(&services, metrics.clone());
        ops_server::serve(&services, ops_listener, metrics, readiness.clone());

        let store = parts::open_store(&config.store).await?;

        let hub = Hub::new();
        let events = Events::new(
            Arc::clone(&store),
            Arc::clone(&sealer),
            tokens.clone(),
            hub.clone(),
            api.clone(),
        );
        follower::start(Arc::clone(&store), hub.clone(), &services);
        let (gateway, keeper, complete) = start_sessions(&config, tenants, &store, &hub, &writers);
        services.spawn(
            "store check",
            TaskKind::Work,
            check_store(
                Arc::clone(&store),
                gateway.clone(),
                readiness.clone(),
                config.store.lease_ttl,
                services.clone(),
            ),
        );
        keep_leases(keeper, &ownership);
        follow_restore(complete, &readiness, &services);

        let options = ServerOptions {
            tls: config.grpc.tls.as_ref().map(|tls| Tls {
                certificate: tls.cert_pem.clone(),
                key: tls.key_pem.clone(),
                client_ca: tls.client_ca_pem.clone(),
            }),
            drain_within: config.shutdown.grace / 3,
            max_message_bytes: config.grpc.max_message_bytes,
            keepalive_interval: config.grpc.keepalive_interval,
            keepalive_timeout: config.grpc.keepalive_timeout,
        };
        let served = Api {
            gateway: gateway.clone(),
            events,
            directory,
            tokens,
        };
        let health = server::start(grpc_listener, served, options, &api).await?;
        services.spawn(
            "health",
            TaskKind::Work,
            follow_readiness(health, readiness.clone(), services.clone()),
        );
        readiness.met(Condition::Listener);
        info!(%grpc_address, %ops_address, replica = %config.replica_id, "imgate has started");
        let grace = config.shutdown.grace;
        Ok(Self {
            grpc_address,
            ops_address,
            readiness,
            gateway,
            grace,
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

    /// Waits until a part has ended without which the gateway is of no use.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.api.stopping() => {}
            () = self.ownership.stopping() => {}
            () = self.services.stopping() => {}
        }
    }

    /// Stops in order, within the grace time: no new calls, streams end, sessions close without logging out and
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

async fn listen(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), AppError> {
    let refuse = |error| AppError::Listen {
        key,
        address,
        error,
    };
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?;
    Ok((listener, bound))
}

/// Starts the writers of all partitions, and prepares who keeps their leases.
fn start_sessions(
    config: &Config,
    tenants: Vec<Arc<Tenant>>,
    store: &Arc<dyn Store>,
    hub: &Hub,
    writers: &Tasks,
) -> (Gateway, Ownership, watch::Receiver<bool>) {
    let count: usize = tenants
        .iter()
        .map(|tenant| usize::from(tenant.partitions))
        .sum();
    let logs = config
        .tenants
        .iter()
        .map(|tenant| parts::log_options(&tenant.log));
    // Each partition reports once for an epoch.
    let (fenced, fenced_reports) = mpsc::channel(count.max(1) * 2);
    let mut partitions = HashMap::new();
    let mut with_writers = Vec::new();
    for (tenant, log) in tenants.into_iter().zip(logs) {
        let mut of_tenant = Vec::new();
        for number in 0..tenant.partitions {
            let partition = PartitionId {
                tenant: tenant.id.clone(),
                number,
            };
            let (keeper, lease) = watch::channel(None::<Lease>);
            of_tenant.push(LogWriter::start(
                partition.clone(),
                Arc::clone(store),
                lease,
                hub.clone(),
                fenced.clone(),
                log.clone(),
                writers,
            ));
            partitions.insert(partition, keeper);
        }
        with_writers.push((tenant, of_tenant));
    }
    // Sessions stop before the writers do, by Gateway::stop.
    let gateway = Gateway::new(with_writers, Arc::clone(store), &Tasks::new());
    let (complete, completed) = watch::channel(false);
    let keeper = Ownership {
        store: Arc::clone(store),
        replica: config.replica_id.clone(),
        ttl: config.store.lease_ttl,
        gateway: gateway.clone(),
        partitions,
        unsure: HashSet::new(),
        fenced: fenced_reports,
        complete,
    };
    (gateway, keeper, completed)
}

fn keep_leases(mut keeper: Ownership, tasks: &Tasks) {
    let stop = tasks.clone();
    let keeping = async move {
        keeper.run(&stop).await;
        keeper.release().await;
    };
    tasks.spawn(
        "ownership",
        TaskKind::Critical,
        keeping.instrument(info_span!("ownership")),
    );
}

/// Ready needs every partition once. One that is lost later is another replica's, which is no fault of this one.
fn follow_restore(mut complete: watch::Receiver<bool>, readiness: &Readiness, tasks: &Tasks) {
    let (readiness, stop) = (readiness.clone(), tasks.clone());
    tasks.spawn("restore check", TaskKind::Work, async move {
        tokio::select! {
            complete = complete.wait_for(|complete| *complete) => {
                if complete.is_ok() {
                    readiness.met(Condition::SessionsRestored);
                }
            }
            () = stop.stopping() => {}
        }
    });
}

/// Says to gRPC health checks what `/ready` says.
async fn follow_readiness(health: Health, readiness: Readiness, tasks: Tasks) {
    loop {
        health.set_serving(readiness.is_ready()).await;
        let changed = async {
            if readiness.is_ready() {
                readiness.not_ready().await;
            } else {
                readiness.ready().await;
            }
        };
        tokio::select! {
            () = changed => {}
            () = tasks.stopping() => return,
        }
    }
}

/// Keeps the readiness of the store true: away or full for longer than `grace`, and the gateway is not ready.
async fn check_store(
    store: Arc<dyn Store>,
    gateway: Gateway,
    readiness: Readiness,
    grace: Duration,
    tasks: Tasks,
) {
    let mut last_answer = None;
    loop {
        // A full store answers, and takes nothing.
        match store.ping().await.and_then(|()| gateway.accepts()) {
            Ok(()) => {
                last_answer = Some(tokio::time::Instant::now());
                readiness.met(Condition::Store);
            }
            Err(error) => {
                if last_answer.is_none_or(|at| at.elapsed() > grace) {
                    readiness.unmet(Condition::Store, error.to_string());
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(STORE_CHECK) => {}
            () = tasks.stopping() => return,
        }
    }
}
