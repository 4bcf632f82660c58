//! The gRPC server: services, health, reflection, and its orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use tokio::net::TcpListener;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::{info, warn};

use super::admin::Admin;
use super::auth_layer::{Door, guard};
use super::events::EventsApi;
use super::listener::Listener;
use super::listener::tls::{TlsError, TlsReload};
use super::messages::Messages;
use super::refusals::Refusals;
use super::sessions::Sessions;
use crate::error::with_causes;
use crate::events::service::Events;
use crate::proto;
use crate::proto::encoded::event_service_server::EventServiceServer;
use crate::proto::v1::admin_service_server::AdminServiceServer;
use crate::proto::v1::message_service_server::MessageServiceServer;
use crate::proto::v1::session_service_server::SessionServiceServer;
use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::tenants::directory::Directory;
use crate::tenants::token::Tokens;

pub use super::listener::Limits;
pub use super::listener::tls::{ClientCertificates, Tls};

/// The largest request of health and reflection, which need no key, in bytes.
const MAX_KEYLESS_MESSAGE: usize = 16 * 1024;

/// What the API serves.
#[derive(Clone, Debug)]
pub struct Api {
    /// The sessions.
    pub gateway: Gateway,
    /// The events.
    pub events: Events,
    /// Who may call.
    pub directory: Directory,
    /// What makes page tokens.
    pub tokens: Tokens,
}

/// How it is served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// TLS; plain text when `None`. Default none.
    pub tls: Option<Tls>,
    /// How long calls may take to end after the stop; then the server ends without them. Default 10 s.
    pub drain_within: Duration,
    /// The largest request, in bytes. Default 512 KiB, far above any that is valid.
    pub max_message_bytes: usize,
    /// The bounds of connections.
    pub limits: Limits,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            drain_within: Duration::from_secs(10),
            max_message_bytes: 512 * 1024,
            limits: Limits::default(),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Says to health checks whether the API serves.
    pub health: Health,
    /// Replaces the TLS material; `None` if it serves plain text.
    pub tls: Option<TlsReload>,
}

/// Why the API cannot be served. The texts name the remedy, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A tenant is open and the address is not a loopback one.
    #[error(
        "a tenant is open and {0} can be reached from elsewhere; listen on 127.0.0.1 or give the tenant a key, certificate or \
         JWT subject"
    )]
    OpenToTheWorld(SocketAddr),
    /// The listener has no address.
    #[error("the listener has no address: {0}")]
    Listener(std::io::Error),
    /// The TLS material is not usable.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The descriptors of the API cannot be served: a fault of the build.
    #[error("reflection cannot serve the API's descriptors: {0}")]
    Reflection(String),
}

/// Says to health checks whether the API serves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    tasks: Tasks,
}

impl Health {
    /// Sets the status of every service and of the server as a whole. A server that is stopping does not serve
    /// any more, whatever is said.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving && !self.tasks.is_stopping() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in [
            "",
            SessionServiceServer::<Sessions>::NAME,
            EventServiceServer::<EventsApi>::NAME,
            MessageServiceServer::<Messages>::NAME,
            AdminServiceServer::<Admin>::NAME,
        ] {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Serves the API on a bound listener until `tasks` are told to stop: then health says NOT_SERVING, no
/// connection is accepted, and calls that have begun may end.
pub async fn start(
    listener: TcpListener,
    api: Api,
    options: ServerOptions,
    tasks: &Tasks,
) -> Result<Running, ServerError> {
    let address = listener.local_addr().map_err(ServerError::Listener)?;
    if api.directory.has_open_tenant() && !address.ip().is_loopback() {
        return Err(ServerError::OpenToTheWorld(address));
    }
    let tls = options.tls.as_ref().map(TlsReload::begin).transpose()?;
    let health = Health {
        reporter: HealthReporter::new(),
        tasks: tasks.clone(),
    };
    // Whoever put the parts together knows when they can serve.
    health.set_serving(false).await;
    let connections = Tasks::new();
    let accepting = Listener {
        limits: Arc::new(options.limits),
        tls: tls.clone(),
        routes: routes(api, options.max_message_bytes, &health, tasks)?,
        tasks: tasks.clone(),
        connections: connections.clone(),
    };
    let (stopped, drain_within) = (health.clone(), options.drain_within);
    let serving = async move {
        accepting.accept(listener).await;
        stopped.set_serving(false).await;
        drain(&connections, drain_within).await;
    };
    tasks.spawn("grpc server", TaskKind::Critical, serving);
    info!(%address, tls = tls.is_some(), "the API listens");
    Ok(Running { health, tls })
}

/// Waits until the connections have ended, and cuts those that do not.
async fn drain(connections: &Tasks, within: Duration) {
    if tokio::time::timeout(within, connections.ended())
        .await
        .is_ok()
    {
        info!("the API has ended");
        return;
    }
    connections.stop();
    connections.ended().await;
    warn!("the API has ended with calls still open");
}

fn routes(
    api: Api,
    max_message_bytes: usize,
    health: &Health,
    tasks: &Tasks,
) -> Result<Routes, ServerError> {
    let Api {
        gateway,
        events,
        directory,
        tokens,
    } = api;
    let admin = AdminServiceServer::new(Admin {
        gateway: gateway.clone(),
        tokens: tokens.clone(),
    });
    let sessions = SessionServiceServer::new(Sessions {
        gateway: gateway.clone(),
        tokens,
    });
    let events = EventServiceServer::new(EventsApi {
        events,
        gateway: gateway.clone(),
    });
    let messages = MessageServiceServer::new(Messages { gateway });
    let reporter = health.reporter.clone();
    let health = HealthService::from_health_reporter(reporter);
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken =
        |error: tonic_reflection::server::Error| ServerError::Reflection(with_causes(&error));
    let v1 = reflection().build_v1().map_err(broken)?;
    let v1alpha = reflection().build_v1alpha().map_err(broken)?;
    let routes = Routes::new(sessions.max_decoding_message_size(max_message_bytes))
        .add_service(events.max_decoding_message_size(max_message_bytes))
        .add_service(messages.max_decoding_message_size(max_message_bytes))
        .add_service(admin.max_decoding_message_size(max_message_bytes))
        .add_service(health.max_decoding_message_size(MAX_KEYLESS_MESSAGE))
        .add_service(v1.max_decoding_message_size(MAX_KEYLESS_MESSAGE))
        .add_service(v1alpha.max_decoding_message_size(MAX_KEYLESS_MESSAGE));
    let door = Door {
        directory,
        refusals: Refusals::start(tasks),
    };
    let guarded = routes
        .into_axum_router()
        .layer(middleware::from_fn_with_state(door, guard));
    Ok(Routes::from(guarded).prepare())
}
