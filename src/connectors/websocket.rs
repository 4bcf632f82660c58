//! Dialling an upstream: TCP, TLS, WebSocket handshake.

mod connection;
mod handshake;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::http::Uri;

pub use crate::connectors::websocket::connection::{Connection, Ended};
use crate::connectors::websocket::tls::TlsStream;
use crate::error::{Classified, ErrorKind};

/// What a session's socket must be able to do; TCP and TLS alike, and memory in tests.
pub trait Transport: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Transport for T {}

/// Opens connections to one upstream. The seam at which tests put an upstream in memory.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// Opens a connection to `path`, which begins with a slash.
    async fn dial(&self, path: &str) -> Result<Connection, DialError>;
}

/// Where and how to dial.
#[derive(Clone)]
pub struct Dialer {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    max_frame_bytes: usize,
    timeout: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        write!(f, "Dialer({scheme}://{}:{})", self.host, self.port)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The upstream's URL is not one that can be dialled.
    #[error("upstream_url {url:?}: {remedy}")]
    Url {
        /// As configured.
        url: String,
        /// What it should be.
        remedy: &'static str,
    },
    /// The additional root certificates cannot be used.
    #[error("upstream_ca_file: {0}")]
    Roots(String),
    /// Name, TCP or TLS.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The server is no WebSocket server, or not for this path.
    #[error("the WebSocket handshake failed: {0}")]
    Handshake(#[source] Box<Error>),
    /// It took too long.
    #[error("not connected within {0:?}")]
    TimedOut(Duration),
}

impl Classified for DialError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::Roots(_) => ErrorKind::InvalidInput,
            Self::Connect(_) | Self::Handshake(_) | Self::TimedOut(_) => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Url { .. } | Self::Roots(_) => None,
            Self::Connect(_) | Self::Handshake(_) | Self::TimedOut(_) => {
                Some(Duration::from_secs(1))
            }
        }
    }

    fn public_text(&self) -> String {
        "the upstream cannot be reached".into()
    }
}

impl Dialer {
    /// Checks a `ws://` or `wss://` URL with a host, an optional port and nothing else. `extra_roots` is PEM that is
    /// trusted besides the system's roots.
    pub fn new(
        url: &str,
        extra_roots: Option<&[u8]>,
        max_frame_bytes: usize,
        timeout: Duration,
    ) -> Result<Self, DialError> {
        let refuse = |remedy| DialError::Url {
            url: url.to_owned(),
            remedy,
        };
        let uri: Uri = url
            .parse()
            .map_err(|_| refuse("must be ws://HOST[:PORT] or wss://HOST[:PORT]"))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(_) | None => return Err(refuse("must begin with ws:// or wss://")),
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| refuse("has no host"))?;
        // Reading the URL drops a fragment.
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || url.contains('#') {
            return Err(refuse("must end after the port; the gateway adds the path"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match authority.strip_prefix(host) {
            Some("") if secure => 443,
            Some("") => 80,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| refuse("must have a port from 1 to 65535, or none"))?,
            None => return Err(refuse("must have nothing before the host")),
        };
        let tls = if secure {
            Some(tls_config(extra_roots)?)
        } else {
            None
        };
        Ok(Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port,
            tls,
            max_frame_bytes,
            timeout,
        })
    }

    async fn dial_without_limit(&self, path: &str) -> Result<Connection, DialError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Transport> = match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|error| std::io::Error::other(error.to_string()))?;
                Box::new(TlsStream::connect(tcp, Arc::clone(tls), name).await?)
            }
            None => Box::new(tcp),
        };
        self.handshake(stream, path).await
    }

    /// The WebSocket handshake over a stream that is open.
    pub async fn handshake(
        &self,
        mut stream: Box<dyn Transport>,
        path: &str,
    ) -> Result<Connection, DialError> {
        let host = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let unread = handshake::handshake(&mut *stream, &host, path)
            .await
            .map_err(|error| DialError::Handshake(Box::new(error)))?;
        Ok(Connection::new(stream, unread, self.max_frame_bytes))
    }
}

#[async_trait]
impl Dial for Dialer {
    async fn dial(&self, path: &str) -> Result<Connection, DialError> {
        match tokio::time::timeout(self.timeout, self.dial_without_limit(path)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(DialError::TimedOut(self.timeout)),
        }
    }
}

fn tls_config(extra_roots: Option<&[u8]>) -> Result<Arc<ClientConfig>, DialError> {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = extra_roots {
        let before = roots.len();
        for root in CertificateDer::pem_slice_iter(pem) {
            let root = root.map_err(|error| DialError::Roots(error.to_string()))?;
            roots
                .add(root)
                .map_err(|error| DialError::Roots(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(DialError::Roots("holds no certificate in PEM".into()));
        }
    }
    if roots.is_empty() {
        return Err(DialError::Roots(
            "there are no root certificates on this machine".into(),
        ));
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DialError::Roots(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
