//! Sessions on paused time, with the upstream at the other end of a pipe in memory.

mod connects;
mod gaps;
mod keys;
mod quotas;
mod sealing;
mod sends;
mod slow;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::connectors::invoke::CommandList;
use crate::connectors::tencent::frame::{self, Incoming};
use crate::connectors::websocket::{Connection, Dial, DialError, Dialer};
use crate::events::hub::Hub;
use crate::events::log::{LogOptions, LogWriter};
use crate::proto::record::SessionRecord;
use crate::proto::v1;
use crate::runtime::handle::Gateway;
use crate::runtime::issuer::{IssuedFor, IssuerOptions, Issuers};
use crate::runtime::pacer::Pacer;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::runtime::tenant::{Settings, Tenant};
use crate::session::policy::Policy;
use crate::store::memory::MemoryStore;
use crate::store::seal::{KeyRing, Sealer};
use crate::store::{Claim, Lease, Store};
use crate::tenants::quotas::Limits;
use crate::types::{AccountId, AppId, Epoch, PartitionId, ReplicaId, Secret, SessionKey, TenantId};

/// An upstream with one account. It answers what a login needs, and counts.
#[derive(Debug)]
struct Upstream {
    dialer: Dialer,
    tasks: Tasks,
    logins: AtomicU32,
    resumes: AtomicU32,
    dials: AtomicU32,
    logouts: AtomicU32,
    pages: AtomicU32,
    /// When logins by signature came.
    login_times: Mutex<Vec<Instant>>,
    /// Closes each connection right after the login.
    fickle: AtomicBool,
    /// Reads nothing and answers nothing.
    stalled: watch::Sender<bool>,
    /// The codes of the next logins.
    refusals: Mutex<Vec<i32>>,
    pushes: broadcast::Sender<String>,
    /// How many of them the connections have taken.
    pushed: AtomicU32,
    acks: mpsc::UnboundedSender<String>,
    /// The messages that came, with the repeated ones.
    sends: watch::Sender<Vec<Value>>,
    /// Takes messages, and does not answer them.
    silent: AtomicBool,
    /// The codes that answer the next messages.
    send_refusals: Mutex<Vec<i32>>,
}

#[async_trait]
impl Dial for Arc<Upstream> {
    async fn dial(&self, path: &str) -> Result<Connection, DialError> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let upstream = Arc::clone(self);
        self.tasks.spawn("upstream", TaskKind::Work, async move {
            upstream.serve(far).await
        });
        self.dialer.handshake(Box::new(near), path).await
    }
}

impl Upstream {
    async fn serve(&self, stream: DuplexStream) {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut pushes = self.pushes.subscribe();
        let mut stalled = self.stalled.subscribe();
        loop {
            while *stalled.borrow_and_update() {
                stalled.changed().await.unwrap();
            }
            tokio::select! {
                // Who writes and does not read stops the other side as well.
                biased;
                _ = stalled.changed() => {}
                message = socket.next() => {
                    let Some(Ok(Message::Binary(bytes))) = message else { return };
                    let request = frame::decode(&bytes, 1 << 20).unwrap();
                    if !self.answer(&mut socket, &request).await {
                        return;
                    }
                }
                push = pushes.recv() => {
                    let push = frame::encode_response("im_open_push.msg_push", 0, &push.unwrap());
                    if socket.send(Message::Binary(push.into())).await.is_err() {
                        return;
                    }
                    self.pushed.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    async fn answer(&self, socket: &mut WebSocketStream<DuplexStream>, request: &Incoming) -> bool {
        let mut body = json!({ "ErrorCode": 0 });
        let login = request.servcmd == "im_open_status.wslogin";
        match request.servcmd.as_str() {
            "im_open_status.wslogin" => body = self.log_in(request),
            "im_open_status.wslogout" => {
                self.logouts.fetch_add(1, Ordering::SeqCst);
            }
            "openim.getmsg" => {
                self.pages.fetch_add(1, Ordering::SeqCst);
                body = json!({ "Cookie": "MQ==", "SyncFlag": 2, "MsgList": [] });
            }
            "openim.sendmsg" => {
                let sent = serde_json::from_str(request.body.get()).unwrap();
                self.sends.send_modify(|sends| sends.push(sent));
                if self.silent.load(Ordering::SeqCst) {
                    return true;
                }
                let code = self.send_refusals.lock().unwrap().pop();
                body = json!({ "ErrorCode": code.unwrap_or(0), "MsgTime": 7 });
            }
            "openim.ws_msg_push_ack" => {
                self.acks.send(request.body.get().to_owned()).unwrap();
                return true;
            }
            _ => {}
        }
        let answer = frame::encode_response(&request.servcmd, request.seq, &body.to_string());
        let sent = socket.send(Message::Binary(answer.into())).await.is_ok();
        sent && !(login && self.fickle.load(Ordering::SeqCst))
    }

    fn log_in(&self, request: &Incoming) -> Value {
        if request.head.get("a2").is_some() {
            self.resumes.fetch_add(1, Ordering::SeqCst);
        } else {
            self.logins.fetch_add(1, Ordering::SeqCst);
            self.login_times.lock().unwrap().push(Instant::now());
        }
        match self.refusals.lock().unwrap().pop() {
            Some(code) => json!({ "ErrorCode": code, "ErrorInfo": "on purpose" }),
            None => json!({ "ErrorCode": 0, "A2Key": "a2", "TinyId": "144", "InstId": 7 }),
        }
    }

    fn count(&self) -> (u32, u32) {
        (
            self.logins.load(Ordering::SeqCst),
            self.resumes.load(Ordering::SeqCst),
        )
    }
}

/// A gateway of one tenant with one partition.
struct World {
    upstream: Arc<Upstream>,
    acks: mpsc::UnboundedReceiver<String>,
    store: Arc<MemoryStore>,
    gateway: Gateway,
    sealer: Arc<Sealer>,
    lease: Lease,
    keeper: watch::Sender<Option<Lease>>,
    tasks: Tasks,
}

const ALL: &str = "every queue of these tests is read at once";

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "every queue of these tests is read at once"
    )]
    async fn new() -> Self {
        let tasks = Tasks::new();
        let (acks, acked) = mpsc::unbounded_channel();
        let url = "ws://upstream.test";
        let upstream = Arc::new(Upstream {
            dialer: Dialer::new(url, None, 1 << 20, Duration::from_secs(10)).unwrap(),
            tasks: tasks.clone(),
            logins: AtomicU32::new(0),
            resumes: AtomicU32::new(0),
            dials: AtomicU32::new(0),
            logouts: AtomicU32::new(0),
            pages: AtomicU32::new(0),
            login_times: Mutex::default(),
            fickle: AtomicBool::new(false),
            stalled: watch::channel(false).0,
            refusals: Mutex::default(),
            pushes: broadcast::channel(64).0,
            pushed: AtomicU32::new(0),
            acks,
            sends: watch::channel(Vec::new()).0,
            silent: AtomicBool::new(false),
            send_refusals: Mutex::default(),
        });
        let store = Arc::new(MemoryStore::new());
        let key = Secret::new("00".repeat(32));
        let sealer = Arc::new(Sealer::new(KeyRing::parse("k", [("k", &key)]).unwrap()));
        let (gateway, lease, keeper) = gateway(&upstream, &store, &sealer, &tasks).await;
        gateway.adopt(&lease.partition, Vec::new(), Vec::new());
        Self {
            upstream,
            acks: acked,
            store,
            gateway,
            sealer,
            lease,
            keeper,
            tasks,
        }
    }

    fn key() -> SessionKey {
        SessionKey {
            tenant: TenantId::new("t"),
            account: AccountId::new("bot1"),
        }
    }

    async fn log_in(&self) -> i32 {
        self.gateway.login(&Self::key(), None).await.unwrap().0.code
    }

    fn session(&self) -> v1::Session {
        self.gateway.session(&Self::key()).unwrap()
    }

    /// Time passes until the session stands so.
    async fn stands(&self, state: v1::SessionState) {
        let patience = Instant::now() + Duration::from_secs(3600);
        while self.session().state() != state {
            assert!(Instant::now() < patience, "{:?}", self.session());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn push(&self, random: u32) {
        self.push_text(random, "hi");
    }

    fn push_text(&self, random: u32, text: &str) {
        let push = json!({
            "NeedAck": 1,
            "SessionData": random.to_string(),
            "EventArray": [{ "Event": 9, "C2cMsgArray": [{
                "From_Account": "bob", "To_Account": "bot1", "TinyId": "1", "MsgRandom": random,
                "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }],
            }] }],
        });
        self.upstream.pushes.send(push.to_string()).unwrap();
    }

    async fn events(&self) -> usize {
        self.store
            .read(&self.lease.partition, 0, 1000)
            .await
            .unwrap()
            .entries
            .len()
    }

    /// The gateway of another process, with what is stored.
    async fn restart(&mut self) {
        let (gateway, lease, keeper) =
            gateway(&self.upstream, &self.store, &self.sealer, &self.tasks).await;
        let stored = self.store.sessions(&lease.partition).await.unwrap();
        let sends = self.store.sends(&lease.partition).await.unwrap();
        gateway.adopt(&lease.partition, stored, sends);
        (self.gateway, self.lease, self.keeper) = (gateway, lease, keeper);
    }
}

async fn gateway(
    upstream: &Arc<Upstream>,
    store: &Arc<MemoryStore>,
    sealer: &Arc<Sealer>,
    tasks: &Tasks,
) -> (Gateway, Lease, watch::Sender<Option<Lease>>) {
    let partition = PartitionId {
        tenant: TenantId::new("t"),
        number: 0,
    };
    let hour = Duration::from_secs(3600);
    let claim = store
        .claim(&partition, &ReplicaId::new("r"), hour, Some(Epoch(0)))
        .await
        .unwrap();
    let Claim::Granted(lease) = claim else {
        panic!("{claim:?}")
    };
    let shared: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    let (keeper, kept) = watch::channel(Some(lease.clone()));
    let writer = LogWriter::start(
        partition,
        Arc::clone(&shared),
        kept,
        Hub::new(),
        mpsc::channel(8).0,
        LogOptions::default(),
        tasks,
    );
    let settings = settings(upstream, &shared);
    let sealer = Arc::clone(sealer);
    let tenant = Tenant::new(TenantId::new("t"), 1, 1, sealer, settings);
    let gateway = Gateway::new(vec![(Arc::new(tenant), vec![writer])], shared, tasks);
    (gateway, lease, keeper)
}

fn settings(upstream: &Arc<Upstream>, store: &Arc<dyn Store>) -> Settings {
    let patience = Duration::from_millis(250);
    Settings {
        dialer: Arc::new(Arc::clone(upstream)),
        policy: Arc::new(Policy {
            can_issue: true,
            ..Policy::default()
        }),
        issuers: Arc::new(
            Issuers::new(
                vec![IssuerOptions::Local { lifetime: DAY }],
                IssuedFor {
                    sdk_app_id: 1,
                    secret_key: Some(Secret::new("key".into())),
                    login_spacing: Duration::ZERO,
                },
            )
            .unwrap(),
        ),
        pacer: Arc::new(Pacer::new(
            AppId::new("1"),
            Arc::clone(store),
            patience,
            1000,
        )),
        limits: Limits::NONE,
        start_jitter: Duration::ZERO,
        invoke_commands: CommandList::every(),
        max_sessions: 10,
        max_pending_sends: 8,
        max_frame_bytes: 1 << 20,
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn concurrent_logins_join_and_an_online_account_answers_at_once() {
    let world = World::new().await;
    let all = futures_util::future::join_all((0..50).map(|_| world.log_in())).await;
    assert!(all.iter().all(|code| *code == 0));
    assert_eq!(world.log_in().await, 0);
    assert_eq!(world.upstream.count(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_falls_silent_is_replaced_by_a_resume() {
    let world = World::new().await;
    world.log_in().await;
    world.upstream.stalled.send_replace(true);
    let began = Instant::now();
    world.stands(v1::SessionState::BackingOff).await;
    // 10 s of silence and 3 s for the answer.
    assert!(
        (13..15).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
    world.upstream.stalled.send_replace(false);
    world.stands(v1::SessionState::Online).await;
    assert_eq!(world.upstream.count(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_push_is_acknowledged_only_after_it_is_stored() {
    let mut world = World::new().await;
    world.log_in().await;
    let before = world.events().await;
    world.store.set_available(false);
    world.push(1);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(
        world.acks.try_recv().is_err(),
        "acknowledged and not stored"
    );
    world.store.set_available(true);
    assert!(world.acks.recv().await.expect(ALL).contains("\"1\""));
    assert_eq!(world.events().await, before + 1);
    // The same again is one event and a second acknowledgement.
    world.push(1);
    world.acks.recv().await.expect(ALL);
    assert_eq!(world.events().await, before + 1);
    assert_eq!(world.session().state(), v1::SessionState::Online);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_accepts_and_closes_costs_one_login_and_few_dials() {
    let world = World::new().await;
    world.upstream.fickle.store(true, Ordering::SeqCst);
    world.log_in().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (logins, resumes) = world.upstream.count();
    assert_eq!(logins, 1);
    // Delays double up to a minute: some 8 attempts until then, and then about two a minute.
    assert!((8..60).contains(&resumes), "{resumes}");
    assert!(world.session().attempt >= 8);
    world.upstream.fickle.store(false, Ordering::SeqCst);
    world.stands(v1::SessionState::Online).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.session().attempt, 0, "proven");
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_the_session_and_the_next_process_resumes_it() {
    let mut world = World::new().await;
    world.log_in().await;
    world.gateway.stop().await;
    assert_eq!(world.upstream.logouts.load(Ordering::SeqCst), 0);
    world.restart().await;
    world.stands(v1::SessionState::Online).await;
    assert_eq!(world.upstream.count(), (1, 1));
    world.gateway.logout(&World::key()).await.unwrap();
    world.gateway.stop().await;
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.session().state(), v1::SessionState::LoggedOut);
    assert_eq!(world.upstream.count(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_closes_the_session_and_stores_nothing_more() {
    let world = World::new().await;
    world.log_in().await;
    let (events, dials) = (
        world.events().await,
        world.upstream.dials.load(Ordering::SeqCst),
    );
    world.gateway.lose(&world.lease.partition).await;
    world.upstream.pushes.send("{}".into()).ok();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.events().await, events);
    assert_eq!(world.upstream.dials.load(Ordering::SeqCst), dials);
    assert_eq!(world.upstream.logouts.load(Ordering::SeqCst), 0);
    assert!(world.gateway.session(&World::key()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lease_lost_while_the_store_is_away_does_not_hold_anybody_up() {
    let world = World::new().await;
    world.log_in().await;
    let events = world.events().await;
    world.store.set_available(false);
    world.push(1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.keeper.send_replace(None);
    let losing = world.gateway.lose(&world.lease.partition);
    tokio::time::timeout(Duration::from_secs(10), losing)
        .await
        .expect("the session waits for a store that is not its own any more");
    world.store.set_available(true);
    world.keeper.send_replace(Some(world.lease.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.events().await,
        events,
        "written after the lease was lost"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_answer_a_logout_that_is_not_stored() {
    let world = World::new().await;
    world.log_in().await;
    // The upstream does not answer the logout, and the store goes away once the call is on its way.
    world.upstream.stalled.send_replace(true);
    let key = World::key();
    let mut logout = std::pin::pin!(world.gateway.logout(&key));
    assert!((&mut logout).now_or_never().is_none());
    world.store.set_available(false);
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, &mut logout).await.is_err());
    assert!(
        tokio::time::timeout(second, world.gateway.stop())
            .await
            .is_err()
    );
    let early = tokio::time::timeout(second, &mut logout).await;
    assert!(early.is_err(), "answered and not stored: {early:?}");
    world.store.set_available(true);
    assert!(!logout.await.unwrap().desired);
    let stored = world.store.sessions(&world.lease.partition).await.unwrap();
    let record = SessionRecord::decode(stored[0].record.as_slice()).unwrap();
    assert!(!record.desired);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_with_its_code() {
    let world = World::new().await;
    world.upstream.refusals.lock().unwrap().push(70009);
    assert_eq!(world.log_in().await, 70009);
    assert_eq!(world.session().state(), v1::SessionState::Parked);
    assert_eq!(world.session().park_reason(), v1::ParkReason::Refused);
    // One that may pass is answered too, and tried again, but not before the upstream's least distance.
    world.upstream.refusals.lock().unwrap().push(50001);
    assert_eq!(world.log_in().await, 50001);
    world.stands(v1::SessionState::Online).await;
    let times = world.upstream.login_times.lock().unwrap().clone();
    assert_eq!(times.len(), 3);
    assert!(
        times
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= Duration::from_secs(15))
    );
}

#[tokio::test(start_paused = true)]
async fn an_account_that_logged_out_stays_out_though_the_store_has_lost_it() {
    let mut world = World::new().await;
    assert_eq!(world.log_in().await, 0);
    let lagging = world.store.copy();
    world.gateway.logout(&World::key()).await.unwrap();
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    world.store.fall_back(lagging);
    assert!(world.gateway.save_all(&world.lease.partition));
    tokio::time::sleep(second).await;
    world.restart().await;
    tokio::time::sleep(second).await;
    assert!(!world.session().desired);

    // One that is logged in again is not put out by what was stored before.
    assert_eq!(world.log_in().await, 0);
    world.gateway.logout(&World::key()).await.unwrap();
    // The upstream takes no login that follows another at once.
    tokio::time::sleep(20 * second).await;
    assert_eq!(world.log_in().await, 0);
    assert!(world.gateway.save_all(&world.lease.partition));
    tokio::time::sleep(second).await;
    world.restart().await;
    tokio::time::sleep(second).await;
    assert!(world.session().desired);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_stored_again_now_is_to_be_later() {
    let world = World::new().await;
    assert_eq!(world.log_in().await, 0);
    world.gateway.logout(&World::key()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let partition = &world.lease.partition;
    world.store.set_available(false);
    // One at a time is in hand, and the queue takes as many as it takes.
    while world.gateway.save_all(partition) {
        tokio::task::yield_now().await;
    }
    world.store.set_available(true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.gateway.save_all(partition));
}
