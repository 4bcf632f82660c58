//! Accepts the API's connections, as many and as fast as may be, and sees each through its life.

mod connection;
mod rate;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Extensions;
use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::warn;

use self::connection::Connection;
use self::rate::Rate;
use self::tls::TlsReload;
use super::metrics as names;
use crate::runtime::supervisor::{TaskKind, Tasks};

/// How long accepting rests after it failed, as it does when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of connections, and of what goes on in each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many connections there may be. One that is too many is closed at once. Default 10,000.
    pub max_connections: u32,
    /// How many connections are accepted per second, and at once after a calm second; at least 1. Those beyond wait
    /// in the kernel's queue. Default 1000.
    pub connections_per_second: u32,
    /// How long the TLS handshake and the beginning of HTTP/2 may take together. Default 10 s.
    pub handshake_timeout: Duration,
    /// The most headers of a request, in bytes. Default 16 KiB.
    pub max_header_bytes: u32,
    /// The most calls on one connection at a time, streams included. Default 1024.
    pub max_streams: u32,
    /// After how long without traffic a client is asked for a sign of life. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long it may take for that. Default 20 s.
    pub keepalive_timeout: Duration,
    /// After how long, give or take a tenth, the client is told to call on another connection. Default 1 h.
    pub max_age: Duration,
    /// How long the calls that are on the connection then may still take. Default 10 min.
    pub max_age_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            connections_per_second: 1000,
            handshake_timeout: Duration::from_secs(10),
            max_header_bytes: 16 * 1024,
            max_streams: 1024,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_age: Duration::from_secs(60 * 60),
            max_age_grace: Duration::from_secs(10 * 60),
        }
    }
}

/// Who is at the other end of a request's connection. Found in the request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its certificate, which one of the client authorities has signed; `None` if it has shown none.
    pub certificate: Option<Arc<CertificateDer<'static>>>,
}

/// Resolves when the time of a request's connection is over, and its streams should end. Found in the request's
/// extensions.
#[derive(Clone, Debug)]
pub(super) struct Retired(CancellationToken);

impl Retired {
    /// Of a request; one that did not come through a listener has a connection without end.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let found = extensions.get::<Self>().cloned();
        found.unwrap_or_else(|| Self(CancellationToken::new()))
    }

    pub(super) async fn over(&self) {
        self.0.cancelled().await;
    }
}

/// What serves the connections of one listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) limits: Arc<Limits>,
    pub(super) tls: Option<TlsReload>,
    pub(super) routes: Routes,
    /// Told when the server is to stop.
    pub(super) tasks: Tasks,
    /// The connections and their calls. Its stop cuts them.
    pub(super) connections: Tasks,
}

impl Listener {
    /// Accepts until the server is to stop; then the address is free, and the connections end by themselves.
    pub(super) async fn accept(self, listener: TcpListener) {
        let most = usize::try_from(self.limits.max_connections).unwrap_or(usize::MAX);
        let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let mut rate = Rate::new(self.limits.connections_per_second);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                accepted = next(&listener, &mut rate) => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    counter!(names::ACCEPT_ERRORS).increment(1);
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match Arc::clone(&free).try_acquire_owned() {
                Ok(permit) => self.serve(stream, address, Open::new(permit)),
                Err(_) => counter!(names::CONNECTIONS_REFUSED, "reason" => "full").increment(1),
            }
        }
    }

    fn serve(&self, stream: TcpStream, address: SocketAddr, open: Open) {
        let connection = Connection {
            limits: Arc::clone(&self.limits),
            // What is replaced later is for later connections.
            tls: self.tls.as_ref().map(TlsReload::acceptor),
            routes: self.routes.clone(),
            tasks: self.tasks.clone(),
            connections: self.connections.clone(),
        };
        let life = async move {
            connection.live(stream, address).await;
            drop(open);
        };
        self.connections
            .spawn("grpc connection", TaskKind::Work, life);
    }
}

/// The next connection, when it is time for one.
async fn next(listener: &TcpListener, rate: &mut Rate) -> std::io::Result<(TcpStream, SocketAddr)> {
    if rate.is_exceeded() {
        counter!(names::ACCEPT_PAUSES).increment(1);
    }
    rate.ready().await;
    let accepted = listener.accept().await?;
    rate.take();
    Ok(accepted)
}

/// A place among the open connections; free again when it is dropped.
struct Open {
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        gauge!(names::CONNECTIONS).increment(1);
        Self { _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!(names::CONNECTIONS).decrement(1);
    }
}

#[cfg(test)]
mod tests;
