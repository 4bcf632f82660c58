//! The gRPC server: services, health, reflection, and its orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::middleware;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::{info, warn};

use super::admin::Admin;
use super::auth_layer::{Door, guard};
use super::events::EventsApi;
use super::messages::Messages;
use super::metrics as names;
use super::refusals::Refusals;
use super::sessions::Sessions;
use crate::events::service::Events;
use crate::proto;
use crate::proto::v1::admin_service_server::AdminServiceServer;
use crate::proto::v1::event_service_server::EventServiceServer;
use crate::proto::v1::message_service_server::MessageServiceServer;
use crate::proto::v1::session_service_server::SessionServiceServer;
use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::tenants::directory::Directory;
use crate::tenants::token::Tokens;
use crate::types::Secret;

/// The most headers of a request, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// The most calls on one connection at a time, streams included.
const MAX_STREAMS: u32 = 1024;
/// How long accepting rests after it failed, as it does when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    /// After how long without traffic a client is asked for a sign of life. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long it may take for that. Default 20 s.
    pub keepalive_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            drain_within: Duration::from_secs(10),
            max_message_bytes: 512 * 1024,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// The TLS material, all of it PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate, with the chain behind it.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Secret<Vec<u8>>,
    /// Who signs clients' certificates, if anybody.
    pub clients: Option<ClientCertificates>,
}

/// How clients' certificates are checked.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// The authority that signs them.
    pub authority: Vec<u8>,
    /// Whether a client may come without one. One that is shown must be good.
    pub optional: bool,
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
    #[error("the TLS certificate, key or client authority is not usable: {0}")]
    Tls(String),
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
) -> Result<Health, ServerError> {
    let address = listener.local_addr().map_err(ServerError::Listener)?;
    if api.directory.has_open_tenant() && !address.ip().is_loopback() {
        return Err(ServerError::OpenToTheWorld(address));
    }
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS);
    if let Some(tls) = &options.tls {
        server = server
            .tls_config(tls_config(tls))
            .map_err(|error| ServerError::Tls(detail(&error)))?;
    }
    let health = Health {
        reporter: HealthReporter::new(),
        tasks: tasks.clone(),
    };
    // Whoever put the parts together knows when they can serve.
    health.set_serving(false).await;
    let routes = routes(api, options.max_message_bytes, &health, tasks)?;
    let serving = serve(
        server,
        routes,
        listener,
        health.clone(),
        options.drain_within,
        tasks.clone(),
    );
    tasks.spawn("grpc server", TaskKind::Critical, serving);
    info!(%address, tls = options.tls.is_some(), "the API listens");
    Ok(health)
}

async fn serve(
    mut server: Server,
    routes: Routes,
    listener: TcpListener,
    health: Health,
    drain_within: Duration,
    tasks: Tasks,
) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = incoming.then(|accepted| async move {
        if let Err(error) = &accepted {
            metrics::counter!(names::ACCEPT_ERRORS).increment(1);
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    });
    let stop = async {
        tasks.stopping().await;
        health.set_serving(false).await;
    };
    let served = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop);
    let too_late = async {
        tasks.stopping().await;
        tokio::time::sleep(drain_within).await;
    };
    tokio::select! {
        served = served => match served {
            Ok(()) => info!("the API has ended"),
            Err(error) => warn!(error = detail(&error), "the API has ended"),
        },
        () = too_late => warn!("the API has ended with calls still open"),
    }
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
    let events = EventServiceServer::new(EventsApi { events });
    let messages = MessageServiceServer::new(Messages { gateway });
    let reporter = health.reporter.clone();
    let health = HealthService::from_health_reporter(reporter);
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error: tonic_reflection::server::Error| ServerError::Reflection(detail(&error));
    let routes = Routes::new(sessions.max_decoding_message_size(max_message_bytes))
        .add_service(events.max_decoding_message_size(max_message_bytes))
        .add_service(messages.max_decoding_message_size(max_message_bytes))
        .add_service(admin.max_decoding_message_size(max_message_bytes))
        .add_service(health)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    let door = Door {
        directory,
        refusals: Refusals::start(tasks),
    };
    let guarded = routes
        .into_axum_router()
        .layer(middleware::from_fn_with_state(door, guard));
    Ok(Routes::from(guarded).prepare())
}

fn tls_config(tls: &Tls) -> ServerTlsConfig {
    let identity = Identity::from_pem(&tls.certificate, tls.key.expose());
    let config = ServerTlsConfig::new().identity(identity);
    match &tls.clients {
        Some(clients) => config
            .client_ca_root(Certificate::from_pem(&clients.authority))
            .client_auth_optional(clients.optional),
        None => config,
    }
}

/// An error with its causes; the library's own text names the first only.
fn detail(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
