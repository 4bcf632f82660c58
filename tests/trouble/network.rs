//! The way to the upstream: silent, refused, unknown, or not what it should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imgate::config::StoreKind;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::fixture::*;
use crate::process::{Process, write_config};
use crate::proxy::Proxy;

/// A caller that does not wait long.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_silent_connection_is_found_out_and_resumed_and_nothing_is_missing() {
    let upstream = Upstream::start().await;
    let mut config = config(StoreKind::Memory, vec![tenant("acme", upstream.url())]);
    config.keepalive.heartbeat = Duration::from_millis(300);
    config.keepalive.answer_timeout = Duration::from_millis(200);
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;

    let before = upstream.user("bot");
    let began = Instant::now();
    let forever = Duration::from_secs(3600);
    upstream.sim.stall("bot", forever).unwrap();
    upstream.texts("friend", "bot", numbered("stalled", 3));
    until("it does not resume", || {
        upstream.user("bot").resumes > before.resumes
    })
    .await;
    // Heartbeat, time-out and the first back-off are 550 ms; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(5));
    let texts = events.texts_until("bot", "stalled-2").await;
    assert_eq!(texts, numbered("stalled", 3));
    assert_eq!(upstream.user("bot").logins, 1);
    let lost = "imgate_session_connections_lost_total";
    assert!(gateway.metrics.sum(lost, "") >= 1.0);
}

#[tokio::test]
async fn a_gateway_that_was_held_up_reads_the_answer_that_is_there_before_it_gives_up() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Process::start(&write_config(folder.path(), proxy.url()));
    gateway.ready().await;
    let client = Client::connect(gateway.grpc, "acme").await;
    let mut events = client.subscribe().await;
    client.online("bot").await;

    // The heartbeat's answer comes in time, while the process stands still.
    proxy.hold();
    until("no heartbeat", || proxy.kept() > 0).await;
    gateway.signal("STOP");
    let (began, before) = (Instant::now(), proxy.answered());
    proxy.release();
    until("no answer", || proxy.answered() > before).await;
    let too_long = Duration::from_millis(600);
    until("time stands still", || began.elapsed() > too_long).await;
    gateway.signal("CONT");

    upstream.texts("friend", "bot", ["after".into()]);
    assert_eq!(events.text("bot").await, "after");
    assert_eq!((proxy.accepted(), upstream.user("bot").resumes), (1, 0));
}

#[tokio::test]
async fn a_dial_that_nobody_answers_does_not_hold_up_a_logout() {
    // The system accepts for a listener that never does.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let gateway = Gateway::with(vec![tenant("acme", url)]).await;
    let client = gateway.client().await;
    assert_late(client.login_within(SHORT, "bot", &sig("bot")).await);
    client.until_state("bot", SessionState::Connecting).await;
    let began = Instant::now();
    let out = client.logout("bot").await.unwrap();
    assert_eq!(out.state(), SessionState::LoggedOut);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_refused_dial_backs_off_visibly_until_the_upstream_is_there() {
    let place = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let gateway = Gateway::with(vec![tenant("acme", format!("ws://{address}"))]).await;
    let client = gateway.client().await;
    assert_late(client.login_within(SHORT, "bot", &sig("bot")).await);

    // The login goes on without its caller.
    let away = client.until("bot", |bot| bot.attempt >= 4).await;
    assert!(away.desired);
    assert_eq!((away.logins, away.resumes), (0, 0));
    client.until_state("bot", SessionState::BackingOff).await;
    let lost = "imgate_session_connections_lost_total";
    assert!(gateway.metrics.sum(lost, "") >= 4.0);

    let upstream = Upstream::start_at(address).await;
    let online = client.until_state("bot", SessionState::Online).await;
    assert_eq!((online.logins, upstream.user("bot").logins), (1, 1));
}

#[tokio::test]
async fn an_unknown_host_backs_off_and_the_session_can_be_logged_out() {
    let url = "ws://no-such-host.invalid:1".to_owned();
    let gateway = Gateway::with(vec![tenant("acme", url)]).await;
    let client = gateway.client().await;
    assert_late(client.login_within(SHORT, "bot", &sig("bot")).await);
    client.until("bot", |bot| bot.attempt >= 2).await;
    let out = client.logout("bot").await.unwrap();
    assert_eq!(out.state(), SessionState::LoggedOut);
}

/// A server that says one thing to whoever connects, and counts.
async fn says(words: &'static [u8], tasks: &Tasks) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let (counter, stop) = (Arc::clone(&count), tasks.clone());
    tasks.spawn("says", TaskKind::Work, async move {
        let serve = async {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                // Who has gone already need not be told.
                let _gone = stream.write_all(words).await;
            }
        };
        tokio::select! {
            () = serve => {}
            () = stop.stopping() => {}
        }
    });
    (url, count)
}

#[tokio::test]
async fn an_upstream_that_is_no_web_socket_server_is_dialled_with_growing_delays() {
    let tasks = Tasks::new();
    let servers: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
    ];
    let (mut tenants, mut counts) = (Vec::new(), Vec::new());
    for (number, words) in servers.into_iter().enumerate() {
        let (url, count) = says(words, &tasks).await;
        tenants.push(tenant(&format!("tenant-{number}"), url));
        counts.push(count);
    }
    let gateway = Gateway::with(tenants).await;
    for (number, count) in counts.iter().enumerate() {
        let client = gateway.client_of(&format!("tenant-{number}")).await;
        assert_late(client.login_within(SHORT, "bot", &sig("bot")).await);
        let away = client.until("bot", |bot| bot.attempt >= 4).await;
        let dialled = count.load(Ordering::Relaxed);
        // One more may be under way, and some more since the session was looked at.
        assert!(dialled >= 4 && dialled <= u64::from(away.attempt) + 10);
        assert_eq!((away.logins, away.resumes), (0, 0));
        client.logout("bot").await.unwrap();
    }
    tasks.stop();
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// What a server of this name needs.
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}

#[tokio::test]
async fn an_upstream_over_tls_is_trusted_by_the_authority_that_the_tenant_names_and_no_other() {
    let upstream = Upstream::start().await;
    let (known, unknown) = (Authority::new(), Authority::new());
    let to = upstream.sim.listen_addr();
    let good = Proxy::start(to, Some(known.acceptor("localhost"))).await;
    let stranger = Proxy::start(to, Some(unknown.acceptor("localhost"))).await;
    let misnamed = Proxy::start(to, Some(known.acceptor("elsewhere.test"))).await;
    let plain = Proxy::start(to, None).await;
    let tenants = [
        ("acme", &good),
        ("stranger", &stranger),
        ("misnamed", &misnamed),
        ("plain", &plain),
    ]
    .map(|(id, proxy)| {
        let url = format!("wss://localhost:{}", proxy.address.port());
        let mut tenant = tenant(id, url);
        tenant.upstream_ca_pem = Some(known.pem());
        tenant
    });
    let gateway = Gateway::with(tenants.into()).await;
    for id in ["stranger", "misnamed"] {
        let client = gateway.client_of(id).await;
        assert_late(client.login_within(SHORT, "bot", &sig("bot")).await);
        client.until("bot", |bot| bot.attempt >= 2).await;
    }
    assert_eq!(upstream.sim.stats().logins, 0);

    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    upstream.texts("friend", "bot", ["sealed".into()]);
    assert_eq!(events.text("bot").await, "sealed");
    assert_eq!(upstream.user("bot").logins, 1);
    // Nothing of a login went to the one that does not speak TLS.
    let other = gateway.client_of("plain").await;
    assert_late(other.login_within(SHORT, "bot2", &sig("bot2")).await);
    assert_eq!(upstream.user("bot2").connections, 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_in_the_middle_leaves_the_gateway_as_it_was() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    // A subscriber that never reads, one that goes away, and a connection that speaks no HTTP/2.
    let silent = gateway.client().await.subscribe().await;
    drop(gateway.client().await.subscribe().await);
    let mut noise = TcpStream::connect(gateway.grpc_address()).await.unwrap();
    noise.write_all(&[0; 4096]).await.unwrap();
    let mut events = client.subscribe().await;
    upstream.texts("friend", "bot", numbered("text", 200));
    let texts = events.texts_until("bot", "text-199").await;
    assert_eq!(texts, numbered("text", 200));
    drop(silent);
    assert_eq!(upstream.user("bot").connections, 1);
}
