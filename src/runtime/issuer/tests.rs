//! Issuers that are real gRPC servers, and all that they can do wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use futures_util::stream;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::connectors::tencent::usersig::{UserSig, mint};
use crate::proto::v1::signature_issuer_service_server::{
    SignatureIssuerService, SignatureIssuerServiceServer,
};
use crate::proto::v1::{IssueReason, IssueSignatureRequest, IssueSignatureResponse};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::types::UnixMillis;

const APP: u64 = 1_400_000_001;
const KEY: &str = "the-key-of-the-app";
const SECRET: &str = "eJw-what-nobody-may-see";
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A request, and the two headers that matter.
type Asked = (IssueSignatureRequest, Option<String>, Option<String>);

/// Does what the account's name says.
#[derive(Clone, Default)]
struct Service {
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Whether calls for "moody" fail.
    broken: Arc<watch::Sender<bool>>,
}

#[tonic::async_trait]
impl SignatureIssuerService for Service {
    async fn issue_signature(
        &self,
        request: Request<IssueSignatureRequest>,
    ) -> Result<Response<IssueSignatureResponse>, Status> {
        let header = |name: &str| {
            let value = request.metadata().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let headers = (header("authorization"), header("grpc-timeout"));
        let asked = request.get_ref().clone();
        let account = asked.account.clone();
        self.asked
            .lock()
            .unwrap()
            .push((asked, headers.0, headers.1));
        let signature = match account.as_str() {
            "hangs" => std::future::pending().await,
            "garbage" => SECRET.to_owned(),
            "nothing" => String::new(),
            "another" => signature(APP, KEY, "somebody", 0, HOUR),
            "app" => signature(APP + 1, KEY, &account, 0, HOUR),
            "key" => signature(APP, "another", &account, 0, HOUR),
            "expired" => signature(APP, KEY, &account, 60, Duration::from_secs(60)),
            "soon" => signature(APP, KEY, &account, 60, Duration::from_secs(65)),
            "large" => "x".repeat(1 << 20),
            "unknown" => return Err(Status::not_found(SECRET)),
            "busy" => return Err(retry(Code::ResourceExhausted, 7)),
            "undecided" => return Err(retry(Code::PermissionDenied, 9)),
            "leaks" => return Err(Status::internal(SECRET)),
            "moody" if *self.broken.borrow() => return Err(Status::unavailable("not now")),
            _ => signature(APP, KEY, &account, 0, HOUR),
        };
        Ok(Response::new(IssueSignatureResponse { signature }))
    }
}

fn retry(code: Code, seconds: u64) -> Status {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
    Status::with_error_details(code, "later", details)
}

fn signature(app: u64, key: &str, account: &str, ago: u64, life: Duration) -> String {
    let at = UnixMillis::from_secs(WallClock.now().as_secs() - ago);
    let key = Secret::new(key.to_owned());
    mint(app, &key, account, at, life, None).expose().clone()
}

/// A server that is gone with the value.
struct Served {
    address: SocketAddr,
    tasks: Tasks,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn serve(mut server: Server, routes: Routes) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let stop = tasks.clone();
    tasks.spawn("issuer", TaskKind::Work, async move {
        let router = server.add_routes(routes);
        tokio::select! {
            served = router.serve_with_incoming(TcpListenerStream::new(listener)) => served.unwrap(),
            () = stop.stopping() => {}
        }
    });
    Served { address, tasks }
}

async fn service(service: &Service) -> Served {
    let routes = Routes::new(SignatureIssuerServiceServer::new(service.clone()));
    serve(Server::builder(), routes).await
}

/// A server that answers every request with this.
async fn answering(
    answer: impl Fn() -> axum::response::Response + Clone + Send + Sync + 'static,
) -> Served {
    let router = Router::new().fallback(move || std::future::ready(answer()));
    serve(Server::builder(), Routes::from(router)).await
}

fn options(url: String) -> CallbackOptions {
    CallbackOptions {
        url,
        ca_pem: None,
        identity: None,
        token: None,
        timeout: PATIENCE,
        calls_per_second: 10_000,
        concurrency: 16,
    }
}

fn plain(served: &Served) -> CallbackOptions {
    options(format!("http://{}", served.address))
}

fn issuers(order: Vec<IssuerOptions>, key: Option<&str>) -> Issuers {
    let issued_for = IssuedFor {
        sdk_app_id: APP,
        secret_key: key.map(|key| Secret::new(key.to_owned())),
        login_spacing: Duration::from_secs(15),
    };
    Issuers::new(order, issued_for).unwrap()
}

fn calling(options: CallbackOptions) -> Issuers {
    issuers(vec![IssuerOptions::Callback(options)], Some(KEY))
}

fn ask(account: &str, reason: RenewReason, attempt: u32) -> Ask {
    Ask {
        account: AccountId::new(account),
        reason,
        attempt,
    }
}

async fn issue(issuers: &Issuers, account: &str) -> Result<Signature, RenewalFailure> {
    let ask = ask(account, RenewReason::Expired, 1);
    tokio::time::timeout(PATIENCE * 2, issuers.issue(&ask))
        .await
        .unwrap()
}

async fn reason(issuers: &Issuers, account: &str) -> &'static str {
    issue(issuers, account).await.unwrap_err().reason
}

#[tokio::test]
async fn a_service_is_told_who_why_how_often_and_until_when() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let mut options = plain(&served);
    options.token = Some(Secret::new("the-gateways-token".to_owned()));
    options.timeout = Duration::from_secs(30);
    let issuers = calling(options);
    let reasons = [
        (RenewReason::FirstLogin, IssueReason::FirstLogin),
        (RenewReason::Expiring, IssueReason::Expiring),
        (RenewReason::Expired, IssueReason::Expired),
        (RenewReason::Refused, IssueReason::Refused),
    ];
    for (attempt, (reason, said)) in (1..).zip(reasons) {
        let answer = issuers.issue(&ask("bot", reason, attempt)).await.unwrap();
        assert_eq!(UserSig::parse(answer.text.expose()).unwrap().account, "bot");
        assert!(answer.life.is_some());
        let (asked, authorization, timeout) = tenant.asked.lock().unwrap().pop().unwrap();
        assert_eq!((asked.account.as_str(), asked.sdk_app_id), ("bot", APP));
        assert_eq!((asked.reason(), asked.attempt), (said, attempt));
        assert_eq!(authorization.unwrap(), "Bearer the-gateways-token");
        assert!(timeout.unwrap().starts_with("30000000u"));
    }
}

#[tokio::test]
async fn what_the_upstream_would_refuse_does_not_get_there() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    for (account, word) in [
        ("garbage", "no signature"),
        ("nothing", "no signature"),
        ("another", "another account"),
        ("app", "another app"),
        ("key", "app's key"),
        ("expired", "has ended"),
        ("soon", "too soon"),
    ] {
        let issuers = calling(plain(&served));
        let failure = issue(&issuers, account).await.unwrap_err();
        assert!(failure.reason.contains(word), "{account}: {failure:?}");
        assert!(!failure.refused && failure.retry_after.is_zero());
    }
    // Who has no key cannot tell with which a signature is made.
    let without_key = issuers(vec![IssuerOptions::Callback(plain(&served))], None);
    assert!(issue(&without_key, "key").await.is_ok());
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_at_the_deadline() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let mut options = plain(&served);
    options.timeout = Duration::from_millis(300);
    let issuers = calling(options);
    assert_eq!(
        reason(&issuers, "hangs").await,
        "the issuer does not answer in time"
    );
    assert!(issue(&issuers, "bot").await.is_ok());
}

#[tokio::test]
async fn a_peer_that_takes_a_connection_and_says_nothing_is_given_up_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(format!("http://{}", listener.local_addr().unwrap()));
    options.timeout = Duration::from_millis(300);
    let failure = issue(&calling(options), "bot").await.unwrap_err();
    let known = [
        "the issuer does not answer in time",
        "the issuer fails or cannot be reached",
    ];
    assert!(known.contains(&failure.reason), "{failure:?}");
}

#[tokio::test]
async fn an_oversize_answer_is_not_read() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let issuers = calling(plain(&served));
    assert_eq!(
        reason(&issuers, "large").await,
        "the issuer fails or cannot be reached"
    );
}

#[tokio::test]
async fn a_refusal_is_final_but_one_with_a_time_to_come_back() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let lifetime = HOUR;
    let order = vec![
        IssuerOptions::Callback(plain(&served)),
        IssuerOptions::Local { lifetime },
    ];
    let with_local = issuers(order, Some(KEY));
    let refusal = issue(&with_local, "unknown").await.unwrap_err();
    assert_eq!(
        (refusal.refused, refusal.retry_after),
        (true, Duration::ZERO)
    );
    // Those who are put off fall to the next issuer, if there is one.
    assert!(issue(&with_local, "busy").await.is_ok());
    let alone = calling(plain(&served));
    for (account, seconds) in [("busy", 7), ("undecided", 9)] {
        let failure = issue(&alone, account).await.unwrap_err();
        assert_eq!(failure.retry_after, Duration::from_secs(seconds));
        assert!(!failure.refused, "{account}");
    }
}

/// A whole answer of a gRPC service, as it stands in a body.
fn message() -> Bytes {
    let signature = signature(APP, KEY, "bot", 0, HOUR);
    let message = IssueSignatureResponse { signature }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed.into()
}

#[tokio::test]
async fn an_answer_that_is_none_of_a_grpc_service_is_a_failure_whatever_it_holds() {
    let answer = |status: u16| {
        axum::response::Response::builder()
            .status(status)
            .header("location", "http://127.0.0.1:1/")
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .body(Body::from(message()))
            .unwrap()
    };
    // The answer would do, were it not for the status.
    let good = answering(move || answer(200)).await;
    assert!(issue(&calling(plain(&good)), "bot").await.is_ok());
    for status in [301, 302, 303, 307, 308, 204, 404, 500] {
        let served = answering(move || answer(status)).await;
        let failure = issue(&calling(plain(&served)), "bot").await.unwrap_err();
        assert_eq!(
            failure.reason, "the issuer fails or cannot be reached",
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_of_an_answer_has_failed() {
    let dying = answering(|| {
        let half = message().slice(..20);
        let parts = [Ok(half), Err(std::io::Error::other("dies"))];
        axum::response::Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::from_stream(stream::iter(parts)))
            .unwrap()
    })
    .await;
    let failed = "the issuer fails or cannot be reached";
    assert_eq!(reason(&calling(plain(&dying)), "bot").await, failed);

    // And one that dies before its answer; the next call finds its successor at the same place.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let issuers = calling(options(format!("http://{address}")));
    let dies = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 64];
        assert!(stream.read(&mut some).await.unwrap() > 0);
    };
    let (failure, ()) = tokio::join!(reason(&issuers, "bot"), dies);
    assert_eq!(failure, failed);
    let tasks = Tasks::new();
    let routes = Routes::new(SignatureIssuerServiceServer::new(Service::default()));
    tasks.spawn("issuer", TaskKind::Work, async move {
        let incoming = TcpListenerStream::new(listener);
        let router = Server::builder().add_routes(routes);
        router.serve_with_incoming(incoming).await.unwrap();
    });
    assert!(issue(&issuers, "bot").await.is_ok());
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name` and its key, in PEM.
fn certified(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn tls_is_with_the_right_authority_name_and_certificate_only() {
    let (servers, clients, strangers) = (authority(), authority(), authority());
    let (certificate, key) = certified(&servers, "localhost");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(clients.pem()));
    let server = Server::builder().tls_config(tls).unwrap();
    let tenant = Service::default();
    let routes = Routes::new(SignatureIssuerServiceServer::new(tenant.clone()));
    let served = serve(server, routes).await;
    let port = served.address.port();
    let secure = |host: &str, ca: &Authority, shown: Option<&Authority>| CallbackOptions {
        ca_pem: Some(ca.pem().into_bytes()),
        identity: shown.map(|authority| {
            let (certificate, key) = certified(authority, "imgate.test");
            (certificate.into_bytes(), Secret::new(key.into_bytes()))
        }),
        ..options(format!("https://{host}:{port}"))
    };
    let good = secure("localhost", &servers, Some(&clients));
    assert!(issue(&calling(good), "bot").await.is_ok());
    for (what, options) in [
        ("authority", secure("localhost", &strangers, Some(&clients))),
        ("name", secure("127.0.0.1", &servers, Some(&clients))),
        ("no certificate", secure("localhost", &servers, None)),
        (
            "certificate",
            secure("localhost", &servers, Some(&strangers)),
        ),
        ("plain text", options(format!("http://localhost:{port}"))),
    ] {
        let failed = reason(&calling(options), "bot").await;
        assert_eq!(failed, "the issuer fails or cannot be reached", "{what}");
    }
    assert_eq!(tenant.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_one_that_refuses_is_not() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let issuers = calling(plain(&served));
    tenant.broken.send_replace(true);
    for _ in 0..breaker::FAILURES {
        let failed = reason(&issuers, "moody").await;
        assert_eq!(failed, "the issuer fails or cannot be reached");
    }
    let before = tenant.asked.lock().unwrap().len();
    let failure = issue(&issuers, "moody").await.unwrap_err();
    assert!(failure.reason.contains("left alone"), "{failure:?}");
    assert!(failure.retry_after > Duration::ZERO);
    assert!(failure.retry_after <= breaker::OPEN_FOR);
    assert_eq!(tenant.asked.lock().unwrap().len(), before);
    // Refusals are answers of a service that works.
    let healthy = calling(plain(&served));
    for _ in 0..breaker::FAILURES * 2 {
        assert!(issue(&healthy, "unknown").await.unwrap_err().refused);
    }
}

#[tokio::test]
async fn no_more_wait_than_the_queue_has_room_for_and_who_goes_away_leaves_it() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let mut options = plain(&served);
    (options.calls_per_second, options.concurrency) = (1, 2);
    let issuers = calling(options);
    // Two in flight, and ten seconds of the pace.
    let hangs = ask("hangs", RenewReason::Expired, 1);
    let mut waiting: Vec<_> = (0..12).map(|_| Box::pin(issuers.issue(&hangs))).collect();
    for one in &mut waiting {
        assert!(futures_util::poll!(one.as_mut()).is_pending());
    }
    let failure = issue(&issuers, "bot").await.unwrap_err();
    assert_eq!(failure.reason, "too many sessions wait for the issuer");
    assert_eq!(failure.retry_after, Duration::from_secs(10));
    drop(waiting);
    assert!(issue(&issuers, "bot").await.is_ok());
}

#[tokio::test]
async fn the_order_is_kept_and_the_bot_has_its_time() {
    let tenant = Service::default();
    let served = service(&tenant).await;
    let callback = || IssuerOptions::Callback(plain(&served));
    let local = || IssuerOptions::Local { lifetime: HOUR };
    let manual = || IssuerOptions::Manual;
    let (expired, first) = (RenewReason::Expired, RenewReason::FirstLogin);
    // Whether the callback was asked, and whether there was a signature.
    let cases = [
        (
            vec![callback(), local(), manual()],
            "bot",
            expired,
            1,
            true,
            true,
        ),
        (
            vec![callback(), local(), manual()],
            "garbage",
            expired,
            1,
            true,
            true,
        ),
        (vec![local(), callback()], "bot", expired, 1, false, true),
        (
            vec![callback(), manual()],
            "garbage",
            expired,
            1,
            true,
            false,
        ),
        (
            vec![callback(), manual(), local()],
            "garbage",
            expired,
            1,
            true,
            false,
        ),
        (
            vec![callback(), manual(), local()],
            "garbage",
            expired,
            2,
            true,
            true,
        ),
        (
            vec![callback(), manual(), local()],
            "garbage",
            first,
            1,
            true,
            true,
        ),
        (vec![manual(), callback()], "bot", expired, 1, false, false),
        (vec![manual(), callback()], "bot", expired, 2, true, true),
        (vec![manual(), callback()], "bot", first, 1, true, true),
    ];
    for (number, (order, account, reason, attempt, asked, signed)) in cases.into_iter().enumerate()
    {
        let issuers = issuers(order, Some(KEY));
        assert!(issuers.can_issue());
        tenant.asked.lock().unwrap().clear();
        let answer = issuers.issue(&ask(account, reason, attempt)).await;
        assert_eq!(answer.is_ok(), signed, "case {number}");
        assert_eq!(
            !tenant.asked.lock().unwrap().is_empty(),
            asked,
            "case {number}"
        );
    }
}

#[tokio::test]
async fn the_bot_is_waited_for_where_others_stand_behind_it_only() {
    let served = service(&Service::default()).await;
    let callback = || IssuerOptions::Callback(plain(&served));
    let local = || IssuerOptions::Local { lifetime: HOUR };
    let manual = || IssuerOptions::Manual;
    let bot_first = issuers(vec![manual(), local()], Some(KEY));
    let failure = issue(&bot_first, "bot").await.unwrap_err();
    assert_eq!((failure.refused, failure.retry_after), (false, BOT_FIRST));
    let bot_last = issuers(vec![callback(), manual()], Some(KEY));
    let failure = issue(&bot_last, "garbage").await.unwrap_err();
    assert_eq!(failure.retry_after, Duration::ZERO);
    assert!(bot_last.asks_bot() && !calling(plain(&served)).asks_bot());
    assert!(!issuers(vec![manual()], None).can_issue());
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn failures_are_logged_at_a_bounded_rate_and_without_what_the_service_says() {
    let written = Written::default();
    let lines = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || lines.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let tenant = Service::default();
    let served = service(&tenant).await;
    let mut options = plain(&served);
    options.token = Some(Secret::new("the-gateways-token".to_owned()));
    let issuers = calling(options);
    for account in ["leaks", "garbage", "unknown", "leaks", "garbage", "another"] {
        let failure = issue(&issuers, account).await.unwrap_err();
        assert!(!format!("{failure:?} {issuers:?}").contains(SECRET));
    }
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    // Not even the libraries show it.
    assert!(!text.contains("the-gateways-token"));
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("imgate::runtime::issuer"))
        .collect();
    let failures = ours
        .iter()
        .filter(|line| line.contains("gave no signature"));
    assert!((1..6).contains(&failures.count()), "{ours:#?}");
    let first = ours[0];
    assert!(
        first.contains("WARN") && first.contains("outcome=\"failed\""),
        "{first}"
    );
    assert!(first.contains("code=Internal"), "{first}");
    assert!(ours.iter().all(|line| !line.contains(SECRET)), "{ours:#?}");
}
