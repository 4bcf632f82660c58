//! Key sets read from real files and real servers, good ones and bad ones.

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::runtime::supervisor::{TaskKind, Tasks};

const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A server of key sets, for as long as the test.
struct Server {
    tasks: Tasks,
    base: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Server {
    async fn start() -> Self {
        let guarded = async |headers: HeaderMap| -> Response {
            match headers.get("authorization") {
                Some(token) if token == "Bearer the-token" => SET.into_response(),
                Some(_) | None => StatusCode::UNAUTHORIZED.into_response(),
            }
        };
        let large = || async { format!("{SET}{}", " ".repeat(MOST_BYTES)) };
        let endless = || async {
            let bytes = futures_util::stream::repeat_with(|| {
                Ok::<_, io::Error>(Bytes::from_static(&[b' '; 4096]))
            });
            Body::from_stream(bytes)
        };
        let router = Router::new()
            .route("/jwks", get(async || SET))
            .route(
                "/query",
                get(async |uri: Uri| {
                    assert_eq!(uri.query(), Some("a=b"));
                    SET
                }),
            )
            .route("/guarded", get(guarded))
            .route("/moved", get(async || Redirect::temporary("/jwks")))
            .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
            .route("/none", get(async || StatusCode::NO_CONTENT))
            .route("/large", get(large))
            .route("/endless", get(endless))
            .route("/page", get(async || "<html>sign in</html>"))
            .route("/hangs", get(async || std::future::pending::<()>().await));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        Self::run(base, async move {
            let _ended = axum::serve(listener, router).await;
        })
    }

    fn run(base: String, serving: impl Future<Output = ()> + Send + 'static) -> Self {
        let tasks = Tasks::new();
        let stop = tasks.clone();
        tasks.spawn("key server", TaskKind::Work, async move {
            tokio::select! {
                () = serving => {}
                () = stop.stopping() => {}
            }
        });
        Self { tasks, base }
    }

    /// One that says the same on each connection, whatever it is asked.
    async fn raw(talk: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        Self::run(base, async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // What is left unread would have the system reset the connection.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.is_ok() {}
                let _sent = stream.write_all(talk).await;
            }
        })
    }

    async fn read(&self, path: &str) -> Result<KeySet, SourceError> {
        read(&url(format!("{}{path}", self.base), None, None)).await
    }
}

fn url(url: String, ca_file: Option<&Path>, token_file: Option<&Path>) -> Source {
    Source::Url {
        url,
        ca_file: ca_file.map(Path::to_owned),
        token_file: token_file.map(Path::to_owned),
    }
}

#[tokio::test]
async fn only_a_key_set_that_was_asked_for_is_taken() {
    let server = Server::start().await;
    for good in ["/jwks", "/query?a=b"] {
        assert_eq!(server.read(good).await.unwrap().len(), 1);
    }
    for (path, expected) in [
        ("/moved", 307),
        ("/broken", 500),
        ("/none", 204),
        ("/guarded", 401),
        ("/elsewhere", 404),
    ] {
        let error = server.read(path).await.unwrap_err();
        let status = matches!(error, SourceError::Status(status) if status == expected);
        assert!(status, "{path}: {error}");
    }
    for path in ["/large", "/endless"] {
        let error = server.read(path).await.unwrap_err();
        assert!(matches!(error, SourceError::Body(_)), "{error}");
    }
    let error = server.read("/page").await.unwrap_err();
    assert!(matches!(error, SourceError::KeySet(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_breaks_off_or_talks_nonsense_is_an_error() {
    for talk in [
        &b""[..],
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":[",
    ] {
        let server = Server::raw(talk).await;
        let error = server.read("/jwks").await.unwrap_err();
        assert!(
            matches!(error, SourceError::Http(_) | SourceError::Body(_)),
            "{error}"
        );
    }
    // One that closes when all is said has said it.
    let closing = "HTTP/1.0 200 OK\r\n\r\n".to_owned() + SET;
    let server = Server::raw(closing.leak().as_bytes()).await;
    assert_eq!(server.read("/").await.unwrap().len(), 1);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = read(&url(nobody, None, None)).await.unwrap_err();
    assert!(matches!(error, SourceError::Connect(_)), "{error}");
}

/// The clock is moved on while the server is being waited for.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_not_waited_for() {
    let server = Server::start().await;
    let error = server.read("/hangs").await.unwrap_err();
    assert!(matches!(error, SourceError::TimedOut), "{error}");
}

#[tokio::test]
async fn the_token_is_read_anew_each_time_and_is_sent() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let source = url(format!("{}/guarded", server.base), None, Some(&token_file));
    let error = read(&source).await.unwrap_err();
    assert!(matches!(error, SourceError::File { .. }), "{error}");
    for bad in ["", " \n", "two\nlines"] {
        std::fs::write(&token_file, bad).unwrap();
        let error = read(&source).await.unwrap_err();
        assert!(matches!(error, SourceError::Token(_)), "{error}");
    }
    std::fs::write(&token_file, "stale").unwrap();
    let error = read(&source).await.unwrap_err();
    assert!(matches!(error, SourceError::Status(_)), "{error}");
    std::fs::write(&token_file, "the-token\n").unwrap();
    assert!(read(&source).await.is_ok());
}

/// A server of [`SET`] over TLS, and its authority in PEM.
async fn tls_server() -> (Server, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::run(format!("https://localhost:{port}"), async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut asked = [0; 1024];
            let _some = stream.read(&mut asked).await;
            let length = SET.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{SET}");
            let _sent = stream.write_all(answer.as_bytes()).await;
            let _closed = stream.shutdown().await;
        }
    });
    (server, authority.pem())
}

#[tokio::test]
async fn a_server_over_tls_must_be_one_of_the_authoritys() {
    let (server, authority) = tls_server().await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.crt");
    let source = url(server.base.clone(), Some(&ca_file), None);
    std::fs::write(&ca_file, &authority).unwrap();
    assert_eq!(read(&source).await.unwrap().len(), 1);

    let (_, other) = tls_server().await;
    std::fs::write(&ca_file, other).unwrap();
    let error = read(&source).await.unwrap_err();
    assert!(matches!(error, SourceError::Connect(_)), "{error}");
    // Nor does the system trust it.
    let error = read(&url(server.base.clone(), None, None)).await;
    assert!(matches!(error, Err(SourceError::Connect(_))));
    // It is the host that was asked for, not just anybody of the authority's.
    std::fs::write(&ca_file, &authority).unwrap();
    let by_number = server.base.replace("localhost", "127.0.0.1");
    let error = read(&url(by_number, Some(&ca_file), None)).await;
    assert!(matches!(error, Err(SourceError::Connect(_))));
    std::fs::write(&ca_file, "no certificate").unwrap();
    let error = read(&source).await.unwrap_err();
    assert!(matches!(error, SourceError::Authorities(_)), "{error}");
}

#[tokio::test]
async fn a_file_is_read_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let source = Source::File(path.clone());
    let missing = read(&source).await.unwrap_err();
    assert!(missing.to_string().contains("jwks.json"), "{missing}");
    let folder = read(&Source::File(folder.path().to_owned()))
        .await
        .unwrap_err();
    assert!(folder.to_string().contains("is not a file"), "{folder}");
    std::fs::write(&path, format!("{SET}{}", " ".repeat(MOST_BYTES))).unwrap();
    let large = read(&source).await.unwrap_err();
    assert!(large.to_string().contains("1 MiB"), "{large}");
    std::fs::write(&path, SET).unwrap();
    assert_eq!(read(&source).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_url_of_a_web_server_is_not_asked() {
    for bad in [
        "",
        "/jwks",
        "ftp://localhost/jwks",
        "localhost:80",
        "http://",
    ] {
        let error = read(&url(bad.to_owned(), None, None)).await.unwrap_err();
        assert!(matches!(error, SourceError::Url), "{bad}: {error}");
    }
}
