//! One connection of the API: handshake, service, retirement, end.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tracing::debug;

use super::{Limits, Peer, Retired};
use crate::grpc::metrics::{self as names, Ended, HandshakeFailure};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::tenants::peer::PeerNames;

/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much a client may send ahead, on a stream and on a whole connection, in bytes.
const WINDOW: u32 = 1024 * 1024;
/// The largest frame that a client may send, in bytes.
const MAX_FRAME: u32 = 16 * 1024;
/// How much of an answer waits here for a client that does not read, for each stream, in bytes.
const SEND_BUFFER: usize = 400 * 1024;
/// Streams that a client has reset before they were looked at; more at a time end the connection (rapid reset).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were reset for the client's errors; more end the connection.
const MAX_ERROR_RESETS: usize = 1024;
/// How long streams may take to say why they end, at the end of the grace.
const FAREWELL: Duration = Duration::from_secs(5);

/// TCP or TLS.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection that speaks HTTP/2, and the certificate that it has shown.
type Begun = (Box<dyn Transport>, Option<Arc<CertificateDer<'static>>>);

/// What a connection is served with.
pub(super) struct Connection {
    pub(super) limits: Arc<Limits>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) routes: Routes,
    /// Told when the server is to stop.
    pub(super) tasks: Tasks,
    /// Told when the connection is to be cut; its calls are tasks of it.
    pub(super) connections: Tasks,
}

impl Connection {
    pub(super) async fn live(self, stream: TcpStream, address: SocketAddr) {
        let begun = tokio::select! {
            begun = tokio::time::timeout(self.limits.handshake_timeout, self.begin(stream)) => {
                begun.unwrap_or(Err(HandshakeFailure::TooLate))
            }
            () = self.tasks.stopping() => return,
        };
        match begun {
            Ok((transport, certificate)) => {
                let peer = Peer {
                    address,
                    certificate,
                };
                let ended = self.serve(transport, peer).await;
                debug!(%address, reason = ended.label(), "a connection has ended");
                counter!(names::CONNECTIONS_ENDED, "reason" => ended.label()).increment(1);
            }
            Err(failure) => {
                debug!(%address, reason = failure.label(), "a connection has not begun");
                counter!(names::HANDSHAKE_FAILURES, "reason" => failure.label()).increment(1);
            }
        }
    }

    /// The TLS handshake, and the first words of HTTP/2.
    async fn begin(&self, stream: TcpStream) -> Result<Begun, HandshakeFailure> {
        // A connection that is gone already says so when it is read.
        let _gone = stream.set_nodelay(true);
        let mut certificate = None;
        let mut transport: Box<dyn Transport> = match &self.tls {
            Some(tls) => {
                let stream = tls.accept(stream).await.map_err(|error| {
                    debug!(%error, "a TLS handshake has failed");
                    failure(&error, HandshakeFailure::Tls)
                })?;
                let shown = stream.get_ref().1.peer_certificates();
                let leaf = shown.and_then(|chain| chain.first());
                certificate = leaf.map(|leaf| Arc::new(leaf.clone().into_owned()));
                Box::new(stream)
            }
            None => Box::new(stream),
        };
        let mut preface = [0; PREFACE.len()];
        let read = transport.read_exact(&mut preface).await;
        read.map_err(|error| failure(&error, HandshakeFailure::Closed))?;
        if preface != PREFACE {
            return Err(HandshakeFailure::NotHttp2);
        }
        Ok((transport, certificate))
    }

    /// Serves until the client leaves, or until the connection has had its time.
    async fn serve(&self, transport: Box<dyn Transport>, peer: Peer) -> Ended {
        let retired = CancellationToken::new();
        let (routes, told) = (self.routes.clone(), Retired(retired.clone()));
        // Read once for all calls of the connection.
        let leaf = peer.certificate.as_deref();
        let names = leaf.map(|leaf| PeerNames::of_certificate(leaf));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            if let Some(names) = &names {
                request.extensions_mut().insert(names.clone());
            }
            request.extensions_mut().insert(told.clone());
            routes.clone().call(request)
        });
        let (reader, writer) = tokio::io::split(transport);
        // What was read of it already is read again.
        let transport = tokio::io::join(PREFACE.chain(reader), writer);
        let mut served = pin!(
            self.http2()
                .serve_connection(TokioIo::new(transport), service)
        );
        let limits = &self.limits;
        let age = limits.max_age.mul_f64(rand::rng().random_range(0.9..=1.1));
        let retires = tokio::select! {
            end = after_others(served.as_mut()) => return ended(end, Ended::Closed),
            () = self.tasks.stopping() => false,
            () = tokio::time::sleep(age) => true,
        };
        // Calls that come before the client has read this are still served.
        served.as_mut().graceful_shutdown();
        let leaves = if retires {
            Ended::Retired
        } else {
            Ended::Stopped
        };
        let cut = self.connections.stopping();
        let mut over = pin!(async {
            tokio::time::sleep(limits.max_age_grace).await;
            retired.cancel();
            tokio::time::sleep(FAREWELL).await;
        });
        tokio::select! {
            end = after_others(served.as_mut()) => ended(end, leaves),
            () = &mut over => Ended::Cut,
            () = cut => Ended::Cut,
        }
    }

    fn http2(&self) -> http2::Builder<OnTasks> {
        let limits = &self.limits;
        let mut http2 = http2::Builder::new(OnTasks(self.connections.clone()));
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(limits.max_header_bytes)
            .max_concurrent_streams(limits.max_streams)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS);
        http2
    }
}

/// Lets the tasks that are ready go before each look at a connection: what their calls answer is written at once, where the
/// first of them would otherwise have it written for itself.
async fn after_others<F: Future>(mut connection: Pin<&mut F>) -> F::Output {
    let mut has_waited = false;
    poll_fn(|context| {
        has_waited = !has_waited;
        if has_waited {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
}

/// Why a handshake has failed: the client has gone away, or else.
fn failure(error: &io::Error, or_else: HandshakeFailure) -> HandshakeFailure {
    let gone = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    if gone {
        HandshakeFailure::Closed
    } else {
        or_else
    }
}

/// Why a connection has ended: well, for the reason given, or by an error.
fn ended(end: hyper::Result<()>, well: Ended) -> Ended {
    let Err(error) = end else {
        return well;
    };
    if error.is_timeout() {
        return Ended::Silent;
    }
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(cause) => ended_by(cause),
        None => Ended::Lost,
    }
}

fn ended_by(error: &h2::Error) -> Ended {
    if error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && error.is_library() {
        Ended::Flood
    } else if error.is_io() || error.is_remote() {
        Ended::Lost
    } else {
        Ended::Protocol
    }
}

/// Spawns the calls of a connection.
#[derive(Clone, Debug)]
struct OnTasks(Tasks);

impl<F> Executor<F> for OnTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn("grpc call", TaskKind::Work, call);
    }
}
