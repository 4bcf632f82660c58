//! Tests of dialling, against small servers on the loopback.

use std::future::Future;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;

const MAX_FRAME: usize = 1 << 16;
const PATIENCE: Duration = Duration::from_secs(10);

fn dialer(url: &str, roots: Option<&str>) -> Result<Dialer, DialError> {
    Dialer::new(url, roots.map(str::as_bytes), MAX_FRAME, PATIENCE)
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Runs a server for one connection beside its client.
async fn beside<S, C, F>(server: S, client: C) -> F
where
    S: Future<Output = ()>,
    C: Future<Output = F>,
{
    tokio::time::timeout(PATIENCE, async { tokio::join!(server, client).1 })
        .await
        .unwrap()
}

async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (tcp, _) = listener.accept().await.unwrap();
    tokio_tungstenite::accept_async(tcp).await.unwrap()
}

#[test]
fn a_url_is_a_scheme_a_host_and_a_port() {
    for (url, shown) in [
        ("ws://127.0.0.1:9200", "Dialer(ws://127.0.0.1:9200)"),
        ("ws://127.0.0.1", "Dialer(ws://127.0.0.1:80)"),
        ("ws://localhost/", "Dialer(ws://localhost:80)"),
        ("wss://im.example", "Dialer(wss://im.example:443)"),
        ("wss://im.example:8443/", "Dialer(wss://im.example:8443)"),
        ("ws://[::1]:9200", "Dialer(ws://::1:9200)"),
    ] {
        assert_eq!(format!("{:?}", dialer(url, None).unwrap()), shown, "{url}");
    }
    for url in [
        "",
        "im.example",
        "im.example:80",
        "http://im.example",
        "https://im.example",
        "ws://",
        "ws://:80",
        "ws:///binfo",
        "ws://im.example/binfo",
        "ws://im.example?x=1",
        "ws://im.example/?x=1",
        "ws://im.example/#part",
        "ws://im.example#part",
        "ws://user:word@im.example",
        "ws://user@im.example",
        "ws://im.example:99999",
        "ws://im.example:0",
        "ws://im.example:",
        "ws://im.example:port",
        "ws://im example",
        "ws://[::1",
    ] {
        let refused = dialer(url, None).map(|dialer| format!("{dialer:?}"));
        let Err(error) = refused else {
            panic!("{url} is {refused:?}")
        };
        assert!(matches!(error, DialError::Url { .. }), "{url}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("upstream_url "), "{error}");
    }
}

#[test]
fn extra_roots_are_certificates() {
    let wss = "wss://im.example";
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        let error = dialer(wss, Some(pem)).unwrap_err();
        assert!(matches!(error, DialError::Roots(_)), "{pem:?}: {error}");
        assert!(
            error.to_string().starts_with("upstream_ca_file: "),
            "{error}"
        );
    }
    assert!(dialer(wss, Some(&Authority::new().0.pem())).is_ok());
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_an_upstream_that_is_away() {
    let (listener, url) = listen().await;
    drop(listener);
    let error = dialer(&url, None)
        .unwrap()
        .dial("/binfo")
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(error.public_text(), "the upstream cannot be reached");
}

#[tokio::test]
async fn a_server_that_speaks_no_websocket_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "",
    ] {
        let (listener, url) = listen().await;
        let server = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(tcp.read(&mut request).await.unwrap() > 0);
            tcp.write_all(answer.as_bytes()).await.unwrap();
            tcp.shutdown().await.unwrap();
        };
        let dialer = dialer(&url, None).unwrap();
        let error = beside(server, dialer.dial("/binfo")).await.unwrap_err();
        assert!(
            matches!(error, DialError::Handshake(_)),
            "{answer:?}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let (listener, url) = listen().await;
    let patience = Duration::from_millis(50);
    let dialer = Dialer::new(&url, None, MAX_FRAME, patience).unwrap();
    let server = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // To the end: until the client has hung up.
        tcp.read_to_end(&mut request).await.unwrap();
        let request = String::from_utf8(request).unwrap();
        assert!(
            request.starts_with("GET /binfo?x=1 HTTP/1.1\r\n"),
            "{request}"
        );
        let host = format!("Host: {}\r\n", url.trim_start_matches("ws://"));
        assert!(request.contains(&host), "{request}");
    };
    let error = beside(server, dialer.dial("/binfo?x=1")).await.unwrap_err();
    assert!(
        matches!(error, DialError::TimedOut(time) if time == patience),
        "{error}"
    );
}

#[tokio::test]
async fn frames_go_both_ways_until_the_upstream_closes() {
    let (listener, url) = listen().await;
    let server = async {
        let mut socket = accept(&listener).await;
        let asked = socket.next().await.unwrap().unwrap();
        assert_eq!(asked, Message::Binary("{}".into()));
        for message in [
            Message::Ping("p".into()),
            Message::Binary("one".into()),
            Message::Text("two".into()),
        ] {
            socket.send(message).await.unwrap();
        }
        // The ping is answered by the one who reads.
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::Pong("p".into())
        );
        let close = CloseFrame {
            code: CloseCode::Away,
            reason: "going".into(),
        };
        socket.close(Some(close)).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let dialer = dialer(&url, None).unwrap();
    let client = async {
        let mut connection = dialer.dial("/binfo").await.unwrap();
        connection.send([b"{}".to_vec()]).await.unwrap();
        assert_eq!(connection.receive().await.unwrap(), "one");
        assert_eq!(connection.receive().await.unwrap(), "two");
        let end = connection.receive().await.unwrap_err();
        connection.close().await;
        end
    };
    let end = beside(server, client).await;
    assert_eq!(end.reason, "closed by the upstream: 1001");
    assert!(!end.too_large);
}

#[tokio::test]
async fn a_connection_that_breaks_off_has_ended() {
    let (listener, url) = listen().await;
    let server = async { drop(accept(&listener).await) };
    let dialer = dialer(&url, None).unwrap();
    let client = async {
        let mut connection = dialer.dial("/binfo").await.unwrap();
        let end = connection.receive().await.unwrap_err();
        // Also afterwards nobody waits for ever, and a goodbye does no harm.
        assert!(connection.receive().await.is_err());
        connection.close().await;
        end
    };
    let end = beside(server, client).await;
    assert!(!end.reason.is_empty() && !end.too_large);
}

#[tokio::test]
async fn a_frame_over_the_bound_ends_the_connection_before_it_is_read() {
    // A frame that says it is a gibibyte, and fragments that are too much together.
    let huge = [&[0x82, 127][..], &(1_u64 << 30).to_be_bytes(), b"and so on"].concat();
    let fragment = [&[0x00, 126][..], &40_000_u16.to_be_bytes(), &[b'x'; 40_000]].concat();
    let mut first = fragment.clone();
    first[0] = 0x02;
    let fragments = [first, fragment].concat();
    for bytes in [huge, fragments] {
        let (listener, url) = listen().await;
        let server = async {
            let mut socket = accept(&listener).await;
            let tcp = socket.get_mut();
            tcp.write_all(&bytes).await.unwrap();
            // The client hangs up, having waited for no more.
            let mut rest = Vec::new();
            let _reset = tcp.read_to_end(&mut rest).await;
        };
        let dialer = dialer(&url, None).unwrap();
        let client = async {
            let mut connection = dialer.dial("/binfo").await.unwrap();
            connection.receive().await.unwrap_err()
        };
        let end = beside(server, client).await;
        assert!(end.too_large, "{end:?}");
    }
}

#[tokio::test]
async fn a_frame_within_the_bound_is_read() {
    let (listener, url) = listen().await;
    let server = async {
        let mut socket = accept(&listener).await;
        let frame = vec![b'x'; MAX_FRAME];
        socket.send(Message::Binary(frame.into())).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let dialer = dialer(&url, None).unwrap();
    let client = async {
        let mut connection = dialer.dial("/binfo").await.unwrap();
        let frame = connection.receive().await.unwrap();
        connection.close().await;
        frame.len()
    };
    assert_eq!(beside(server, client).await, MAX_FRAME);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server with a certificate for this name.
    fn server(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_not_lost() {
    let (listener, url) = listen().await;
    let server = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = tcp.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = derive_accept_key(key.unwrap().as_bytes());
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n\u{2}\u{1}"
        );
        // A frame of one byte, not the last of its message, and then the rest.
        tcp.write_all(response.as_bytes()).await.unwrap();
        tcp.write_all(b"a\x80\x01b").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let dialer = dialer(&url, None).unwrap();
    let client = async {
        let mut connection = dialer.dial("/binfo").await.unwrap();
        connection.receive().await.unwrap()
    };
    assert_eq!(beside(server, client).await, "ab");
}

#[tokio::test]
async fn an_extension_that_was_not_asked_for_is_refused() {
    let (listener, url) = listen().await;
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the type is the library's")]
        let extended = |_: &Request, mut response: Response| {
            let value = HeaderValue::from_static("permessage-deflate");
            response
                .headers_mut()
                .insert("sec-websocket-extensions", value);
            Ok(response)
        };
        let _refused = tokio_tungstenite::accept_hdr_async(tcp, extended).await;
    };
    let dialer = dialer(&url, None).unwrap();
    let error = beside(server, dialer.dial("/binfo")).await.unwrap_err();
    assert!(
        error.to_string().contains("sec-websocket-extensions"),
        "{error}"
    );
}

/// Over TLS, in sizes below and above what a record and a read hold.
#[tokio::test]
async fn long_messages_go_both_ways_over_tls() {
    let authority = Authority::new();
    let (listener, url) = listen().await;
    let port = url.rsplit(':').next().unwrap().to_owned();
    let acceptor = authority.server("127.0.0.1");
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = acceptor.accept(tcp).await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tls).await.unwrap();
        while let Some(Ok(Message::Binary(message))) = socket.next().await {
            socket.send(Message::Binary(message)).await.unwrap();
        }
    };
    let roots = authority.0.pem();
    let url = format!("wss://127.0.0.1:{port}");
    let dialer = Dialer::new(&url, Some(roots.as_bytes()), 1 << 20, PATIENCE).unwrap();
    let client = async {
        let mut connection = dialer.dial("/binfo").await.unwrap();
        for size in [
            0,
            1,
            125,
            126,
            16_384,
            16_385,
            65_535,
            65_536,
            200_000,
            1 << 20,
        ] {
            let message: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            connection.send([message.clone()]).await.unwrap();
            assert_eq!(connection.receive().await.unwrap(), message, "{size}");
        }
        connection.close().await;
    };
    Box::pin(beside(server, client)).await;
}

/// Dials a server that shows a certificate of `authority` for `name`, trusting `roots`; answers what it says.
async fn dial_tls(
    authority: &Authority,
    name: &str,
    host: &str,
    roots: Option<&str>,
) -> Result<Bytes, DialError> {
    let (listener, url) = listen().await;
    let port = url.rsplit(':').next().unwrap().to_owned();
    let acceptor = authority.server(name);
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(tls) = acceptor.accept(tcp).await else {
            return;
        };
        let Ok(mut socket) = tokio_tungstenite::accept_async(tls).await else {
            return;
        };
        socket.send(Message::Binary("hi".into())).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let dialer = dialer(&format!("wss://{host}:{port}"), roots)?;
    let client = async {
        let mut connection = dialer.dial("/binfo").await?;
        let frame = connection.receive().await.unwrap();
        connection.close().await;
        Ok(frame)
    };
    Box::pin(beside(server, client)).await
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named_and_only_then() {
    let authority = Authority::new();
    let roots = authority.0.pem();
    for name in ["127.0.0.1", "localhost"] {
        let said = dial_tls(&authority, name, name, Some(&roots)).await;
        assert_eq!(said.unwrap(), "hi", "{name}");
    }
    let another = Authority::new().0.pem();
    for (name, roots) in [
        ("127.0.0.1", another.as_str()),
        ("another.example", roots.as_str()),
    ] {
        let error = dial_tls(&authority, name, "127.0.0.1", Some(roots)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, DialError::Connect(_)), "{name}: {error}");
        assert!(error.to_string().contains("certificate"), "{name}: {error}");
    }
}
