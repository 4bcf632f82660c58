//! Tenants with a service of their own that makes signatures, and what such a service can do to their sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgate::config::Issuer;
use imgate::proto::v1::signature_issuer_service_server::{
    SignatureIssuerService, SignatureIssuerServiceServer,
};
use imgate::proto::v1::{IssueReason, IssueSignatureRequest, IssueSignatureResponse};
use imgate::runtime::supervisor::{TaskKind, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fixture::*;

/// What the service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Signs,
    Hangs,
    AsksForPatience,
    Refuses,
    NamesSomebodyElse,
}

/// A tenant's service, and what it has seen.
#[derive(Clone)]
struct Service {
    mood: Arc<watch::Sender<Mood>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    asked: Vec<IssueSignatureRequest>,
    /// Accounts with a call in flight.
    now: BTreeSet<String>,
    /// The most that there were at a time.
    most: usize,
    /// Accounts that were asked for twice at a time.
    doubled: Vec<String>,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Calls whose caller went away.
    left: usize,
}

/// One call in flight, however it ends.
struct InFlight<'a>(&'a Service, String, bool);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut seen = self.0.seen.lock().unwrap();
        seen.now.remove(&self.1);
        seen.left += usize::from(!self.2);
    }
}

#[tonic::async_trait]
impl SignatureIssuerService for Service {
    async fn issue_signature(
        &self,
        request: Request<IssueSignatureRequest>,
    ) -> Result<Response<IssueSignatureResponse>, Status> {
        let asked = request.into_inner();
        let account = asked.account.clone();
        {
            let mut seen = self.seen.lock().unwrap();
            if !seen.now.insert(account.clone()) {
                seen.doubled.push(account.clone());
            }
            seen.most = seen.most.max(seen.now.len());
            seen.first.get_or_insert_with(Instant::now);
            seen.last = Some(Instant::now());
            seen.asked.push(asked);
        }
        let mut in_flight = InFlight(self, account.clone(), false);
        // Long enough for others to come meanwhile.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mood = *self.mood.borrow();
        let signature = match mood {
            Mood::Signs => sig(&account),
            Mood::NamesSomebodyElse => sig("somebody"),
            Mood::Hangs => std::future::pending().await,
            Mood::AsksForPatience | Mood::Refuses => String::new(),
        };
        in_flight.2 = true;
        match mood {
            Mood::Signs | Mood::NamesSomebodyElse | Mood::Hangs => {
                Ok(Response::new(IssueSignatureResponse { signature }))
            }
            Mood::Refuses => Err(Status::not_found("nobody of ours")),
            Mood::AsksForPatience => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(20)));
                Err(Status::with_error_details(
                    Code::Unavailable,
                    "busy",
                    details,
                ))
            }
        }
    }
}

impl Service {
    fn new(mood: Mood) -> Self {
        Self {
            mood: Arc::new(watch::channel(mood).0),
            seen: Arc::default(),
        }
    }

    /// Serves until the tasks stop.
    async fn serve(&self) -> (SocketAddr, Stopping) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let stop = tasks.clone();
        let service = SignatureIssuerServiceServer::new(self.clone());
        tasks.spawn("issuer", TaskKind::Work, async move {
            let incoming = TcpListenerStream::new(listener);
            let serving = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            tokio::select! {
                served = serving => served.unwrap(),
                () = stop.stopping() => {}
            }
        });
        (address, Stopping(tasks))
    }

    fn asked(&self) -> Vec<IssueSignatureRequest> {
        self.seen.lock().unwrap().asked.clone()
    }

    async fn until_asked(&self, times: usize) {
        until("the issuer is not asked", || self.asked().len() >= times).await;
    }
}

struct Stopping(Tasks);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A simulator, a service in this mood, and a gateway whose tenant `acme` has it.
struct World {
    upstream: Upstream,
    service: Service,
    gateway: Gateway,
    client: Client,
    _serving: Stopping,
}

impl World {
    async fn new(mood: Mood) -> Self {
        Self::with(mood, |_| {}).await
    }

    async fn with(mood: Mood, change: impl FnOnce(&mut imgate::config::Tenant)) -> Self {
        let upstream = Upstream::start().await;
        let service = Service::new(mood);
        let (address, serving) = service.serve().await;
        let mut acme = tenant("acme", upstream.url()).with_callback(format!("http://{address}"));
        change(&mut acme);
        let gateway = Gateway::with(vec![acme]).await;
        let client = gateway.client().await;
        Self {
            upstream,
            service,
            gateway,
            client,
            _serving: serving,
        }
    }
}

#[tokio::test]
async fn a_login_without_a_signature_gets_its_first_one_and_later_its_next_one() {
    let world = World::new(Mood::Signs).await;
    let all = (0..20).map(|_| world.client.login("bot", ""));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(
            answer.unwrap().session.unwrap().state(),
            SessionState::Online
        );
    }
    assert_eq!(world.upstream.user("bot").logins, 1);
    world.upstream.sim.expire("bot").unwrap();
    world
        .client
        .until("bot", |session| session.logins == 2)
        .await;
    let asked = world.service.asked();
    let asked: Vec<_> = asked
        .iter()
        .map(|asked| {
            (
                asked.account.as_str(),
                asked.sdk_app_id,
                asked.reason(),
                asked.attempt,
            )
        })
        .collect();
    let app = u64::from(APP);
    // A session that is ended as soon as it began has had its signature refused.
    assert_eq!(asked[0], ("bot", app, IssueReason::FirstLogin, 1));
    assert!(matches!(
        asked[1].2,
        IssueReason::Expired | IssueReason::Refused
    ));
    // Within one second of the first, a signature is the same one once more, which is of no use.
    assert!(asked.len() >= 2);
    let calls = |outcome| {
        let labels = format!("outcome=\"{outcome}\"");
        let calls = "imgate_runtime_issuer_calls_total";
        world.gateway.metrics.sum(calls, &labels)
    };
    assert_eq!(calls("ok"), asked.len() as f64);
}

#[tokio::test]
async fn a_first_login_says_what_the_issuer_does_and_comes_online_when_it_can() {
    let world = World::new(Mood::NamesSomebodyElse).await;
    let mut events = world.client.subscribe().await;
    let status = world.client.login("bot", "").await.unwrap_err();
    assert!(status.message().contains("another account"), "{status:?}");
    let wait = status.get_error_details().retry_info().cloned();
    assert!(wait.unwrap().retry_delay.is_some());
    let (code, reason, _) = refusal::<()>(Err(status));
    assert_eq!(
        (code, reason.as_str()),
        (Code::Unavailable, "ISSUER_UNAVAILABLE")
    );
    // The bot is the last issuer.
    events.signature_expired("bot").await;
    let session = world.client.session("bot").await.unwrap();
    assert!(session.desired);
    assert_eq!(session.state(), SessionState::RenewingSignature);
    assert_eq!(world.upstream.sim.stats().refused, 0);
    world.service.mood.send_replace(Mood::Signs);
    world.client.until_state("bot", SessionState::Online).await;
    let labels = "outcome=\"other_account\"";
    let calls = "imgate_runtime_issuer_calls_total";
    assert!(world.gateway.metrics.sum(calls, labels) >= 1.0);
}

#[tokio::test]
async fn an_account_that_the_issuer_does_not_know_is_not_held() {
    let world = World::new(Mood::Refuses).await;
    let (code, reason, _) = refusal(world.client.login("made-up", "").await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "ISSUER_REFUSED")
    );
    let session = world.client.session("made-up").await.unwrap();
    assert_eq!(
        (session.state(), session.desired),
        (SessionState::LoggedOut, false)
    );
    // A bot with a signature of its own needs no issuer.
    world.client.online("made-up").await;
}

#[tokio::test]
async fn a_wish_to_be_left_alone_is_told_and_kept() {
    let world = World::new(Mood::AsksForPatience).await;
    for _ in 0..3 {
        let status = world.client.login("bot", "").await.unwrap_err();
        let wait = status
            .get_error_details()
            .retry_info()
            .unwrap()
            .retry_delay
            .unwrap();
        assert!(wait > Duration::from_secs(10), "{wait:?}");
    }
    assert_eq!(world.service.asked().len(), 1);
}

#[tokio::test]
async fn while_a_service_hangs_the_session_goes_on_and_a_logout_takes_the_call_back() {
    let world = World::with(Mood::Hangs, |acme| {
        acme.renew_at = 0.1;
        acme.callback.as_mut().unwrap().timeout = Duration::from_secs(50);
    })
    .await;
    world.upstream.sim.account("bob").unwrap();
    // The next signature is due after four seconds, and the service hangs.
    let signature = sig_for("bot", Duration::from_secs(40));
    let answer = world.client.login("bot", &signature).await.unwrap();
    assert_eq!(answer.code, 0);
    world.service.until_asked(1).await;
    // Commands are answered, and beats, which are due after half a second, are sent: a session that stood still would
    // be lost.
    for _ in 0..3 {
        let sent = world.client.send("bot", "bob", "hello", "").await.unwrap();
        assert_eq!(sent.code, 0);
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    let user = world.upstream.user("bot");
    assert_eq!((user.logins, user.resumes, user.connections), (1, 0, 1));
    assert_eq!(world.service.asked().len(), 1);
    assert_eq!(world.service.asked()[0].reason(), IssueReason::Expiring);

    world.client.logout("bot").await.unwrap();
    until("the call is not taken back", || {
        world.service.seen.lock().unwrap().left == 1
    })
    .await;
    let waiting = world
        .gateway
        .metrics
        .sum("imgate_runtime_issuer_waiting", "");
    assert_eq!(waiting, 0.0);
}

#[tokio::test]
async fn a_login_that_waits_for_a_service_that_hangs_goes_on_behind_its_callers_deadline() {
    let world = World::new(Mood::Hangs).await;
    let deadline = Duration::from_millis(300);
    assert_late(world.client.login_within(deadline, "bot", "").await);
    world.service.until_asked(1).await;
    // A stop does not wait for it.
    let began = world.service.asked().len();
    let World {
        gateway,
        service,
        upstream,
        ..
    } = world;
    gateway.stop().await;
    until("the call is not taken back", || {
        service.seen.lock().unwrap().left >= began
    })
    .await;
    drop(upstream);
}

#[tokio::test]
async fn a_failed_service_falls_through_to_the_key_that_is_behind_it() {
    let world = World::with(Mood::NamesSomebodyElse, |acme| {
        acme.secret_key = Some(secret(KEY));
        acme.issuers = vec![Issuer::Callback, Issuer::Local];
    })
    .await;
    let answer = world.client.login("bot", "").await.unwrap();
    assert_eq!(answer.code, 0);
    assert_eq!(world.service.asked().len(), 1);
    let calls = "imgate_runtime_issuer_calls_total";
    assert_eq!(world.gateway.metrics.sum(calls, "issuer=\"local\""), 1.0);
}

#[tokio::test]
async fn a_thousand_sessions_that_end_at_once_ask_one_by_one_and_in_turn() {
    const SESSIONS: usize = 1000;
    const PER_SECOND: u32 = 150;
    const AT_ONCE: u32 = 8;
    let world = World::with(Mood::Signs, |acme| {
        let callback = acme.callback.as_mut().unwrap();
        callback.calls_per_second = PER_SECOND;
        callback.concurrency = AT_ONCE;
        callback.timeout = PATIENCE;
    })
    .await;
    let accounts = numbered("bot", SESSIONS);
    let logins = accounts.iter().map(|account| world.client.online(account));
    futures_util::future::join_all(logins).await;
    assert_eq!(world.service.asked().len(), 0);

    for account in &accounts {
        world.upstream.sim.expire(account).unwrap();
    }
    let two = |world: &World| {
        world
            .upstream
            .sim
            .stats()
            .users
            .values()
            .all(|user| user.logins == 2)
    };
    let patience = Instant::now() + PATIENCE * 4;
    while !two(&world) {
        assert!(
            Instant::now() < patience,
            "{:?}",
            world.service.asked().len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let seen = world.service.seen.lock().unwrap();
    assert_eq!(seen.doubled, [] as [&str; 0]);
    assert!(
        seen.most > 1 && seen.most <= AT_ONCE as usize,
        "{}",
        seen.most
    );
    let mut each: BTreeMap<&str, usize> = BTreeMap::new();
    for asked in &seen.asked {
        *each.entry(&asked.account).or_default() += 1;
    }
    assert_eq!(each.len(), SESSIONS);
    assert!(each.values().all(|times| *times == 1), "{each:?}");
    // They were spread: half of what the pace makes of them, for the first may have come late.
    let took = seen.last.unwrap() - seen.first.unwrap();
    let paced = Duration::from_secs(1) * SESSIONS as u32 / PER_SECOND;
    assert!(took >= paced / 2, "{took:?} of {paced:?}");
}
