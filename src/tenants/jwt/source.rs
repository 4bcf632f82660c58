//! Reads a key set from a file or from a URL: bounded in size and time, and never from elsewhere than asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Source;
use super::keys::{KeySet, KeySetError};

/// How long a reading may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a set, of a token or of the authorities.
const MOST_BYTES: usize = 1 << 20;
/// The most bytes of the headers of an answer.
const MOST_HEADERS: usize = 64 << 10;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a key set could not be read. For the operator's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// A file cannot be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is no PEM with certificates.
    #[error("{path} has no certificate", path = .0.display())]
    Authorities(PathBuf),
    /// A file has no bearer token.
    #[error("{path} has no token that can be sent", path = .0.display())]
    Token(PathBuf),
    /// The URL is none.
    #[error("the URL must be https://HOST[:PORT][/PATH], or http:// on this machine")]
    Url,
    /// The server cannot be reached, or is not who it is to be.
    #[error("the server cannot be reached: {0}")]
    Connect(io::Error),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The server breaks off, or does not speak HTTP.
    #[error("the server does not answer: {0}")]
    Http(#[from] hyper::Error),
    /// The server answers something else.
    #[error("the server answers {0}; redirects are not followed")]
    Status(StatusCode),
    /// The answer is too large, or ends early.
    #[error("the answer cannot be read: {0}")]
    Body(Cause),
    /// It took too long.
    #[error("it took longer than {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// What was read is no key set.
    #[error("what was read {0}")]
    KeySet(#[from] KeySetError),
}

/// Reads the key set.
pub(super) async fn read(source: &Source) -> Result<KeySet, SourceError> {
    let text = async {
        match source {
            Source::File(path) => read_file(path).await,
            Source::Url {
                url,
                ca_file,
                token_file,
            } => get(url, ca_file.as_deref(), token_file.as_deref()).await,
        }
    };
    let text = tokio::time::timeout(TIMEOUT, text)
        .await
        .map_err(|_| SourceError::TimedOut)??;
    Ok(KeySet::parse(&text)?)
}

async fn read_file(path: &Path) -> Result<Vec<u8>, SourceError> {
    let read = async {
        let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        // A device or a pipe may have no end, or no beginning.
        if !tokio::fs::metadata(path).await?.is_file() {
            return Err(io::Error::other("is not a file"));
        }
        let file = File::open(path).await?;
        file.take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .await?;
        if bytes.len() > MOST_BYTES {
            return Err(io::Error::other("is greater than 1 MiB"));
        }
        Ok(bytes)
    };
    read.await.map_err(|error| SourceError::File {
        path: path.to_owned(),
        error,
    })
}

async fn get(
    url: &str,
    ca_file: Option<&Path>,
    token_file: Option<&Path>,
) -> Result<Vec<u8>, SourceError> {
    let url: Uri = url.parse().map_err(|_| SourceError::Url)?;
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else {
        return Err(SourceError::Url);
    };
    let tls = match url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => return Err(SourceError::Url),
    };
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("imgate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|_| SourceError::Url)?;
    if let Some(path) = token_file {
        request
            .headers_mut()
            .insert(AUTHORIZATION, bearer(path).await?);
    }
    let host = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(SourceError::Connect)?;
    if !tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| SourceError::Url)?;
    let connector = connector(ca_file).await?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(SourceError::Connect)?;
    exchange(stream, request).await
}

/// What is sent as `authorization`.
async fn bearer(path: &Path) -> Result<HeaderValue, SourceError> {
    let bad = || SourceError::Token(path.to_owned());
    let token = zeroize::Zeroizing::new(read_file(path).await?);
    let token = str::from_utf8(&token).map_err(|_| bad())?.trim();
    if token.is_empty() {
        return Err(bad());
    }
    let value = zeroize::Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

async fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, SourceError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let pem = read_file(path).await?;
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(SourceError::Authorities(path.to_owned()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One request on a connection of its own. There is one each few minutes: nothing is worth keeping.
async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Vec<u8>, SourceError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES);
        let body = body.collect().await.map_err(SourceError::Body)?;
        Ok(body.to_bytes().to_vec())
    };
    match select(std::pin::pin!(answer), std::pin::pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // A server that closes after its answer ends the connection first.
        Either::Right((_, answer)) => answer.await,
    }
}

#[cfg(test)]
mod tests;
