//! JWTs over a real connection: keys from a file, and from a real HTTP server over which they rotate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use imgate::grpc::server::ServerOptions;
use imgate::proto::v1;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use imgate::tenants::auth::Scope;
use imgate::tenants::directory::{Contents, JwtSubject};
use imgate::tenants::jwt::{IssuerOptions, Issuers, Source};
use imgate::types::WallClock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::Code;

use crate::fixture::{PATIENCE, Served, clients, refusal, start, tenant};

const ISSUER: &str = "https://cluster.test";
const ECHO: &str = "system:serviceaccount:bots:echo";

/// A key pair of an issuer.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self {
            id,
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    fn set(&self) -> String {
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y}]})
            .to_string()
    }

    /// A JWT that is valid for so many seconds from now.
    fn token(&self, subject: &str, audience: &str, lifetime: i64) -> String {
        let now = i64::try_from(WallClock.now().as_secs()).unwrap();
        let header = json!({"alg": "ES256", "kid": self.id});
        let claims =
            json!({"iss": ISSUER, "aud": [audience], "sub": subject, "exp": now + lifetime});
        let encode = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature.unwrap()))
    }
}

fn issuer(source: Source) -> IssuerOptions {
    IssuerOptions {
        id: "cluster".into(),
        issuer: ISSUER.into(),
        audience: "imgate".into(),
        source,
        // Long enough for a reading to have been asked for.
        refresh: Duration::from_secs(3600),
        clock_skew: Duration::from_secs(30),
    }
}

/// `acme`, whose caller is [`ECHO`] for one scope, and `other`.
async fn serve(scope: Scope, source: Source) -> Served {
    let tasks = Tasks::new();
    let mut issuers = Issuers::new(&tasks);
    let prepared = issuers.prepare(vec![issuer(source)]);
    issuers.run(&prepared);
    let mut acme = tenant("acme");
    acme.callers.subjects = vec![JwtSubject {
        id: "echo".into(),
        issuer: "cluster".into(),
        subject: ECHO.into(),
        scopes: vec![scope],
    }];
    let contents = Contents {
        tenants: vec![acme, tenant("other")],
        operators: vec![],
        issuers: prepared,
    };
    let options = ServerOptions::default();
    start("127.0.0.1:0", contents, options).await.unwrap()
}

async fn call(served: &Served, bearer: &str) -> (Code, String) {
    let mut clients = clients(served.channel().await, Some(bearer));
    let request = v1::GetSessionRequest::default();
    let (code, reason, _) = refusal(clients.sessions.get_session(request).await);
    (code, reason)
}

/// Calls until the answer is no longer that the keys are not there yet.
async fn call_with_keys(served: &Served, bearer: &str) -> (Code, String) {
    let calling = async {
        loop {
            let answer = call(served, bearer).await;
            if answer.1 != "JWT_KEYS_UNAVAILABLE" {
                return answer;
            }
            assert_eq!(answer.0, Code::Unavailable);
        }
    };
    timeout(PATIENCE, calling).await.unwrap()
}

fn said(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

fn let_in() -> (Code, String) {
    said(Code::InvalidArgument, "INVALID_FIELD")
}

#[tokio::test]
async fn a_subject_whose_issuers_keys_are_in_a_file_is_its_tenants_caller() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let (signer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    std::fs::write(&path, signer.set()).unwrap();
    let served = serve(Scope::Sessions, Source::File(path)).await;
    let good = signer.token(ECHO, "imgate", 600);
    assert_eq!(call_with_keys(&served, &good).await, let_in());
    for (token, reason) in [
        (signer.token(ECHO, "imgate", -60), "JWT_EXPIRED"),
        (signer.token("nobody", "imgate", 600), "JWT_SUBJECT_UNKNOWN"),
        (signer.token(ECHO, "elsewhere", 600), "JWT_INVALID"),
        (stranger.token(ECHO, "imgate", 600), "JWT_INVALID"),
        ("a.b.c".to_owned(), "JWT_INVALID"),
        ("no-jwt".to_owned(), "API_KEY_UNKNOWN"),
    ] {
        let answer = call(&served, &token).await;
        assert_eq!(answer, said(Code::Unauthenticated, reason), "{token}");
    }
    // Its scopes are its own, and keys go on beside it.
    let mut clients = clients(served.channel().await, Some(good.as_str()));
    let request = v1::AcknowledgeRequest::default();
    let (code, reason, _) = refusal(clients.events.acknowledge(request).await);
    assert_eq!(
        (code, reason),
        said(Code::PermissionDenied, "SCOPE_MISSING")
    );
    assert_eq!(call(&served, "acme-key").await, let_in());
}

/// What a key server answers, and what it was asked.
#[derive(Default)]
struct KeyServer {
    answer: Mutex<(StatusCode, String)>,
    asked: AtomicU32,
    shown: Mutex<Option<String>>,
}

impl KeyServer {
    async fn start(answer: String) -> (Arc<Self>, SocketAddr) {
        let server = Arc::new(Self {
            answer: Mutex::new((StatusCode::OK, answer)),
            ..Self::default()
        });
        let answering = async |State(server): State<Arc<Self>>, headers: HeaderMap| -> Response {
            server.jwks(&headers)
        };
        let router = Router::new()
            .route("/jwks", get(answering))
            .with_state(Arc::clone(&server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Tasks::new().spawn("key server", TaskKind::Work, async move {
            let _ended = axum::serve(listener, router).await;
        });
        (server, address)
    }

    fn jwks(&self, headers: &HeaderMap) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let shown = headers.get("authorization");
        let shown = shown.map(|value| value.to_str().unwrap().to_owned());
        *self.shown.lock().unwrap() = shown;
        self.answer.lock().unwrap().clone().into_response()
    }

    fn answer(&self, status: StatusCode, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }
}

fn keys_at(address: SocketAddr, token_file: Option<PathBuf>) -> Source {
    Source::Url {
        url: format!("http://{address}/jwks"),
        ca_file: None,
        token_file,
    }
}

#[tokio::test]
async fn keys_that_rotate_behind_a_url_are_fetched_when_they_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let token_file: PathBuf = folder.path().join("token");
    std::fs::write(&token_file, "first\n").unwrap();
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let (server, address) = KeyServer::start(first.set()).await;
    let source = keys_at(address, Some(token_file.clone()));
    let served = serve(Scope::Sessions, source).await;
    let (old, new) = (
        first.token(ECHO, "imgate", 600),
        second.token(ECHO, "imgate", 600),
    );
    assert_eq!(call_with_keys(&served, &old).await, let_in());
    assert_eq!(
        server.shown.lock().unwrap().as_deref(),
        Some("Bearer first")
    );

    // The issuer takes another key. The first call with it has the keys fetched, and is to be made again.
    std::fs::write(&token_file, "second\n").unwrap();
    server.answer(StatusCode::OK, &second.set());
    let unknown = said(Code::Unauthenticated, "JWT_KEY_UNKNOWN");
    assert_eq!(call(&served, &new).await, unknown);
    let fetched = async { while call(&served, &new).await != let_in() {} };
    timeout(PATIENCE, fetched).await.unwrap();
    assert_eq!(call(&served, &old).await, unknown);
    assert_eq!(
        server.shown.lock().unwrap().as_deref(),
        Some("Bearer second")
    );
    // However many named the key that was not there, it was fetched for them once.
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn while_the_key_server_is_away_the_last_keys_are_used() {
    let signer = Signer::new("k1");
    let (server, address) = KeyServer::start(signer.set()).await;
    let served = serve(Scope::Sessions, keys_at(address, None)).await;
    let good = signer.token(ECHO, "imgate", 600);
    assert_eq!(call_with_keys(&served, &good).await, let_in());
    server.answer(StatusCode::INTERNAL_SERVER_ERROR, "away");
    let other = Signer::new("k2").token(ECHO, "imgate", 600);
    let unknown = said(Code::Unauthenticated, "JWT_KEY_UNKNOWN");
    let asked_again = async {
        while server.asked.load(Ordering::SeqCst) < 2 {
            assert_eq!(call(&served, &other).await, unknown);
        }
    };
    timeout(PATIENCE, asked_again).await.unwrap();
    assert_eq!(call(&served, &good).await, let_in());
    assert_eq!(call(&served, &other).await, unknown);
}

#[tokio::test]
async fn a_stream_ends_when_the_key_of_its_jwt_is_withdrawn() {
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let (server, address) = KeyServer::start(first.set()).await;
    let served = serve(Scope::Events, keys_at(address, None)).await;
    let (old, new) = (
        first.token(ECHO, "imgate", 600),
        second.token(ECHO, "imgate", 600),
    );
    let denied = said(Code::PermissionDenied, "SCOPE_MISSING");
    assert_eq!(call_with_keys(&served, &old).await, denied);
    let mut caller = clients(served.channel().await, Some(old.as_str()));
    let begin = v1::SubscribeRequest::default();
    let mut stream = caller.events.subscribe(begin).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().events, []);

    // The issuer takes another key, and a call with it has the keys fetched.
    server.answer(StatusCode::OK, &second.set());
    let fetched = async { while call(&served, &new).await != denied {} };
    timeout(PATIENCE, fetched).await.unwrap();
    let ended = timeout(PATIENCE, stream.message()).await.unwrap();
    let ended: Result<tonic::Response<()>, _> = ended.map(|_| panic!("it goes on"));
    let (code, reason, _) = refusal(ended);
    assert_eq!(
        (code, reason),
        said(Code::Unauthenticated, "JWT_KEY_UNKNOWN")
    );
}
