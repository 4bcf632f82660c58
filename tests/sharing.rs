//! A shared subscription over two replicas on one Redis: members at both, and one replica killed under traffic.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

#[path = "support/program.rs"]
mod program;
#[path = "support/redis.rs"]
mod redis;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use imgate::sim::{Sim, SimHandle, SimOptions};
use imgate::types::Secret;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Endpoint;

use program::Program;
use redis::RedisServer;

const APP: u32 = 1_400_000_001;
const KEY: &str = "the app's secret key";
const NAME: &str = "workers";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// One delivery of a message: who got it, and which of its account's messages it is.
#[derive(Clone, Copy, Debug)]
struct Got {
    member: usize,
    number: usize,
}

/// The deliveries of each account, in the order in which they came.
type Books = Arc<Mutex<BTreeMap<String, Vec<Got>>>>;

/// A subscriber that is a member for as long as it can, and then another one.
struct Worker {
    books: Books,
    replicas: Vec<SocketAddr>,
    /// While false it reads and does not acknowledge.
    acknowledges: Arc<AtomicBool>,
}

impl Worker {
    /// Reads by turns at the replicas, as the member `first` and then as that plus 10 and so on.
    async fn run(self, first: usize) {
        for (turn, replica) in self.replicas.iter().cycle().enumerate() {
            let end = self.read(*replica, first + 10 * turn).await;
            eprintln!("member {} ended: {end}", first + 10 * turn);
            sleep(LOOK).await;
        }
    }

    async fn read(&self, replica: SocketAddr, member: usize) -> Status {
        let Ok(channel) = endpoint(replica).connect().await else {
            return Status::unavailable("nobody listens");
        };
        let mut client = EventServiceClient::new(channel);
        let mut stream = match client.subscribe(sharing()).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return status,
        };
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Status::ok("the stream has ended"),
                Err(status) => return status,
            };
            self.enter(member, response.events);
            if self.acknowledges.load(Ordering::Relaxed) {
                let request = v1::AcknowledgeRequest {
                    subscription: NAME.into(),
                    cursor: response.cursor,
                };
                if let Err(status) = client.acknowledge(request).await {
                    return status;
                }
            }
        }
    }

    fn enter(&self, member: usize, events: Vec<v1::Event>) {
        let mut books = self.books.lock().unwrap();
        for event in events {
            if let Some(text) = text(&event) {
                let number = text.parse().unwrap();
                let got = Got { member, number };
                books.entry(event.account).or_default().push(got);
            }
        }
    }
}

/// The text of an event; none if it is no message.
fn text(event: &v1::Event) -> Option<&str> {
    use v1::event::Kind;
    match event.kind.as_ref()? {
        Kind::Message(message) => match message.elements.first()?.kind.as_ref()? {
            v1::element::Kind::Text(text) => Some(&text.text),
            v1::element::Kind::Custom(_) | v1::element::Kind::Raw(_) => None,
        },
        Kind::SessionChanged(_) => None,
        other @ (Kind::SignatureExpired(_)
        | Kind::KickedOffline(_)
        | Kind::UpstreamNotice(_)
        | Kind::Gap(_)) => panic!("{other:?}"),
    }
}

fn sharing() -> v1::SubscribeRequest {
    let name = NAME.to_owned();
    v1::SubscribeRequest {
        start: Some(v1::subscribe_request::Start::Subscription(name)),
        shared: true,
        max_batch_size: 5,
        heartbeat: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..v1::SubscribeRequest::default()
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// A replica, which need not be ready: it may stand by.
async fn replica(
    folder: &Path,
    id: &str,
    upstream: &SimHandle,
    redis: &RedisServer,
) -> (Program, SocketAddr) {
    let file = |name: &str| folder.join(name);
    std::fs::write(file("app.key"), KEY).unwrap();
    std::fs::write(file("seal.key"), "5a".repeat(32)).unwrap();
    let config = format!(
        "replica_id = \"{id}\"\n\
         grpc.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\nlog.level = \"info\"\n\
         pacing.start_jitter = \"100ms\"\n\
         store = {{ kind = \"redis\", url = \"{}\", operation_timeout = \"1s\", lease_ttl = \"3s\" }}\n\
         seal = {{ active = \"k1\", keys = {{ k1 = {{ file = \"seal.key\" }} }} }}\n\
         [[tenants]]\nid = \"acme\"\nsdk_app_id = {APP}\nupstream_url = \"ws://{}\"\n\
         secret_key = {{ file = \"app.key\" }}\nlogin_spacing = \"0s\"\n",
        redis.url(),
        upstream.listen_addr(),
    );
    let path = file(&format!("{id}.toml"));
    std::fs::write(&path, config).unwrap();
    let arguments = ["serve", "--config", path.to_str().unwrap()];
    let mut program = Program::start(&arguments, &file(&format!("{id}.log")));
    let grpc = program.address("imgate grpc on ").await;
    let _ops = program.address("imgate ops on http://").await;
    (program, grpc)
}

/// Looks again and again until it is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        sleep(LOOK).await;
    }
}

/// Checks one account's deliveries: each message came, in order; who goes back has not had the partition before.
fn check(account: &str, got: &[Got], sent: usize) -> usize {
    let numbers: BTreeSet<usize> = got.iter().map(|got| got.number).collect();
    assert_eq!(numbers, (1..=sent).collect(), "{account}: {got:?}");
    let (mut last, mut furthest, mut again) = (
        Got {
            member: 0,
            number: 0,
        },
        0,
        0,
    );
    for &now in got {
        let on = now.number == last.number + 1;
        let back = now.number <= furthest && now.member != last.member;
        assert!(on || back, "{account}: {now:?} after {last:?}: {got:?}");
        again += usize::from(now.number <= furthest);
        furthest = furthest.max(now.number);
        last = now;
    }
    again
}

async fn subscription(replica: SocketAddr) -> v1::Subscription {
    let channel = endpoint(replica).connect().await.unwrap();
    let request = v1::ListSubscriptionsRequest {};
    let answer = EventServiceClient::new(channel)
        .list_subscriptions(request)
        .await;
    let list = answer.unwrap().into_inner().subscriptions;
    // There is none before the first has subscribed.
    list.into_iter().next().unwrap_or_default()
}

fn accounts() -> Vec<String> {
    (0..12).map(|n| format!("bot{n}")).collect()
}

/// Waits until all accounts are logged in at a replica, which takes all partitions for that.
async fn log_in(replica: SocketAddr) {
    let channel = endpoint(replica).connect().await.unwrap();
    let mut sessions = SessionServiceClient::new(channel);
    for account in accounts() {
        until("a login", async || {
            let request = v1::LoginRequest {
                account: account.clone(),
                signature: String::new(),
            };
            let answer = sessions.login(request).await;
            answer.is_ok_and(|answer| answer.into_inner().code == 0)
        })
        .await;
    }
}

/// Three workers, and an upstream that sends the same to all accounts.
struct Story {
    books: Books,
    /// Whether each worker acknowledges.
    acknowledges: [Arc<AtomicBool>; 3],
    accounts: Vec<String>,
    upstream: SimHandle,
    /// How many messages each account was sent.
    sent: usize,
}

impl Story {
    /// The first worker is at the first replica for as long as that is there, the others are at the second.
    fn begin(upstream: SimHandle, replicas: [SocketAddr; 2], tasks: &Tasks) -> Self {
        let books = Books::default();
        let acknowledges = [true; 3].map(|yes| Arc::new(AtomicBool::new(yes)));
        for (index, acknowledges) in acknowledges.iter().enumerate() {
            let worker = Worker {
                books: Arc::clone(&books),
                replicas: replicas[index.min(1)..].to_vec(),
                acknowledges: Arc::clone(acknowledges),
            };
            let stop = tasks.clone();
            tasks.spawn("worker", TaskKind::Work, async move {
                tokio::select! {
                    () = worker.run(index + 1) => {}
                    () = stop.stopping() => {}
                }
            });
        }
        upstream.account("human").unwrap();
        Self {
            books,
            acknowledges,
            accounts: accounts(),
            upstream,
            sent: 0,
        }
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.sent += 1;
            let text = self.sent.to_string();
            for account in &self.accounts {
                self.upstream.message("human", account, &text).unwrap();
            }
        }
    }

    /// Waits until the last message of every account was delivered.
    async fn delivered(&self) {
        until("all is delivered", async || {
            let books = self.books.lock().unwrap();
            let of = |account| books.get(account).into_iter().flatten();
            let mut accounts = self.accounts.iter();
            accounts.all(|account| of(account).any(|got| got.number == self.sent))
        })
        .await;
    }

    /// Who has got anything so far.
    fn members(&self) -> BTreeSet<usize> {
        let books = self.books.lock().unwrap();
        books.values().flatten().map(|got| got.member).collect()
    }
}

#[tokio::test]
async fn members_at_two_replicas_lose_nothing_when_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (redis, tasks) = (RedisServer::start(), Tasks::new());
    let options = SimOptions::new(APP.into(), Secret::new(KEY.into()));
    let upstream = Sim::start(options, &tasks).await.unwrap();
    let (owner, first) = replica(folder.path(), "first", &upstream, &redis).await;
    log_in(first).await;
    // It stands by, and serves events.
    let (_other, second) = replica(folder.path(), "second", &upstream, &redis).await;
    let mut story = Story::begin(upstream, [first, second], &tasks);
    until("three members", async || {
        subscription(second).await.members == 3
    })
    .await;
    // Messages come until each of the three has its part.
    let began = Instant::now();
    while story.members().len() < 3 {
        assert!(began.elapsed() < PATIENCE, "somebody gets nothing");
        story.send(1);
        story.delivered().await;
    }
    // The member at the owner does not acknowledge any more; then the owner is gone, with messages on their way.
    story.acknowledges[0].store(false, Ordering::Relaxed);
    story.send(5);
    story.delivered().await;
    story.send(10);
    owner.kill().await;
    story.acknowledges[0].store(true, Ordering::Relaxed);
    story.send(10);
    log_in(second).await;
    story.send(5);
    story.delivered().await;
    until("all is acknowledged", async || {
        subscription(second).await.lag_events == 0
    })
    .await;
    let there = subscription(second).await;
    assert_eq!((there.members, there.oldest_pending_at), (3, None));

    let books = story.books.lock().unwrap();
    let accounts = story.accounts.iter();
    let again: usize = accounts
        .map(|account| check(account, &books[account], story.sent))
        .sum();
    assert!(
        again > 0,
        "what was not acknowledged is not delivered again"
    );
    tasks.stop();
}
