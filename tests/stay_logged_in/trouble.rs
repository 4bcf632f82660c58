//! Many callers at once, an upstream that closes what it has accepted, and the end of the process in the middle of it.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::proto::v1::SessionState;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use imgate::sim::{SimStats, UserStats};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::control::Control;
use crate::messages::{Mark, Rounds};
use crate::redis::Data;
use crate::subscriber::Subscriber;
use crate::world::{PATIENCE, Stage, StoreChoice, World, log_in, names, pause, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_the_same_time_are_one_and_one_more_costs_nothing() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut world = World::start(Stage::new(StoreChoice::Redis)).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(world.sessions().await);
    }
    fifty_logins(&clients).await;
    let once = world.control.user("bot").await;
    assert_eq!((once.logins, once.connections), (1, 1));

    fifty_logins(&clients).await;
    let stats = world.control.stats().await;
    assert_eq!((stats.users["bot"], stats.refused), (once, 0));

    // While the session comes back from a lost connection, a Login waits for that.
    world
        .control
        .post("/drop", json!({ "user_id": "bot" }))
        .await;
    until("the loss is seen", async || {
        let session = world.session("bot").await;
        session.state() != SessionState::Online || session.resumes == 1
    })
    .await;
    fifty_logins(&clients).await;
    let user = world.control.user("bot").await;
    let is = (user.online, user.logins, user.resumes, user.refused);
    assert_eq!(is, (true, 1, 1, 0));
}

/// Calls Login for one account fifty times at once.
async fn fifty_logins(clients: &[SessionServiceClient<Channel>]) {
    let logins = (0..50).map(|number| {
        let mut client = clients[number % clients.len()].clone();
        async move { log_in(&mut client, "bot").await }
    });
    for answer in join_all(logins).await {
        let answer = answer.unwrap();
        let session = answer.session.unwrap();
        let is = (answer.code, session.state(), session.logins);
        assert_eq!(is, (0, SessionState::Online, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_accepts_and_closes_gets_no_storm() {
    const BOTS: usize = 20;
    const TROUBLE: Duration = Duration::from_secs(10);
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut world = World::start(Stage {
        config: "keepalive = { heartbeat = \"1s\", answer_timeout = \"900ms\" }",
        ..Stage::new(StoreChoice::Embedded)
    })
    .await;
    let bots = names(BOTS);
    world.log_in(&bots).await;

    let began = Instant::now();
    let mut greatest = 0;
    let mut drops = 0;
    while began.elapsed() < TROUBLE {
        world.control.post("/drop", json!({})).await;
        drops += 1;
        if drops % 10 == 0 {
            greatest = greatest.max(world.session("bot0").await.attempt);
        }
        pause(Duration::from_millis(20)).await;
    }
    let stats = world.control.stats().await;
    let of_bots = |of: fn(&UserStats) -> u64| {
        let all = bots.iter().map(|bot| of(&stats.users[bot]));
        all.max().unwrap()
    };
    let most = of_bots(|user| user.resumes);
    println!("{drops} times cut in {TROUBLE:?}: at most {most} resumes a bot, attempt {greatest}");
    assert_eq!(of_bots(|user| user.logins), 1);
    // The shortest delays there can be are 50 ms, doubled each time: the ninth ends after 25 s.
    assert!(most <= 8, "{most} resumes");
    assert!(greatest >= 3, "attempts are shown: {greatest}");

    // The longest delay before the last attempts is a minute; with eight attempts it is most likely far less.
    until("all bots are back and proven", async || {
        let sessions = world.all_sessions().await;
        let proven = |session: &imgate::proto::v1::Session| {
            session.state() == SessionState::Online && session.attempt == 0
        };
        sessions.len() == BOTS && sessions.iter().all(proven)
    })
    .await;
    let stats = world.control.stats().await;
    assert_eq!((stats.logins, stats.online), (BOTS as u64, BOTS as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_stored_is_not_acknowledged_and_comes_again_after_a_kill() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut world = World::start(Stage::new(StoreChoice::Redis)).await;
    let subscriber = Subscriber::start(world.grpc()).await;
    world.control.make_account(crate::SENDER).await;
    let bots = names(50);
    world.log_in(&bots).await;
    let control = Control::connect(world.control_address).await;
    let mut rounds = Rounds::new(control, bots.clone());
    rounds.send(Mark::Live).await;
    rounds.have_come(&subscriber).await;
    let acked = |stats: &SimStats| stats.users.values().map(|user| user.acked).sum::<u64>();
    until("the round is acknowledged", async || {
        acked(&world.control.stats().await) == bots.len() as u64
    })
    .await;

    world.redis.as_mut().unwrap().kill();
    for _ in 0..3 {
        rounds.send(Mark::Waited).await;
    }
    until("all have been pushed to the gateway", async || {
        let stats = world.control.stats().await;
        bots.iter().all(|bot| stats.users[bot].delivered == 4)
    })
    .await;
    let stats = world.control.stats().await;
    let is = (acked(&stats), stats.online);
    assert_eq!(is, (bots.len() as u64, bots.len() as u64));
    world.kill_gateway().await;
    world.redis.as_mut().unwrap().restart(Data::Kept);
    world.start_gateway().await;
    rounds.have_come(&subscriber).await;
    rounds.check(&subscriber.books());
    let stats = world.control.stats().await;
    assert_eq!((stats.logins, stats.refused), (bots.len() as u64, 0));
}

/// Logins that go on in the background, and how they ended.
struct InFlight {
    ends: mpsc::Receiver<Result<i32, Status>>,
    tasks: Tasks,
}

impl InFlight {
    async fn start(world: &World, accounts: &[String]) -> Self {
        let (tell, ends) = mpsc::channel(accounts.len());
        let tasks = Tasks::new();
        let client = world.sessions().await;
        for account in accounts {
            let (mut client, account, tell) = (client.clone(), account.clone(), tell.clone());
            tasks.spawn("login", TaskKind::Work, async move {
                let end = log_in(&mut client, &account).await;
                tell.send(end.map(|answer| answer.code)).await.unwrap();
            });
        }
        for account in accounts {
            until("the login is in flight", async || {
                let request = imgate::proto::v1::GetSessionRequest {
                    account: account.clone(),
                };
                let session = client.clone().get_session(request).await;
                session.is_ok_and(|session| {
                    let session = session.into_inner().session.unwrap();
                    session.state() == SessionState::Connecting
                })
            })
            .await;
        }
        Self { ends, tasks }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map_or_else(String::new, |info| info.reason.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_logins_is_in_order_and_in_time() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut world = World::start(Stage {
        log: "info",
        config: "shutdown.grace = \"9s\"",
        ..Stage::new(StoreChoice::Redis)
    })
    .await;
    let subscribers = [
        Subscriber::start(world.grpc()).await,
        Subscriber::start(world.grpc()).await,
    ];
    let online = names(50);
    world.log_in(&online).await;
    // An upstream that answers nothing keeps logins in flight for longer than the grace time.
    world.sim.signal("STOP").await;
    let late: Vec<String> = (0..20).map(|number| format!("late{number}")).collect();
    let mut logins = InFlight::start(&world, &late).await;

    let asked = Instant::now();
    world.ask_gateway_to_stop().await;
    let ended = world.gateway_ended(PATIENCE).await;
    println!("stopped within {:.1?}", asked.elapsed());
    assert_eq!(ended.code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(9),
        "{:?}",
        asked.elapsed()
    );
    for subscriber in &subscribers {
        until("the stream has ended", async || {
            !subscriber.books().ends.is_empty()
        })
        .await;
        let end = subscriber.books().ends.remove(0);
        let is = (end.code(), reason(&end));
        assert_eq!(is, (Code::Unavailable, "DRAINING".into()), "{end:?}");
    }
    for _ in &late {
        let end = logins.ends.recv().await.unwrap().unwrap_err();
        let is = (end.code(), reason(&end));
        assert_eq!(is, (Code::Unavailable, "DRAINING".into()), "{end:?}");
    }

    // Both those that were online and those that were on their way are to be logged in, once each.
    world.sim.signal("CONT").await;
    world.start_gateway().await;
    let all = online.len() + late.len();
    until("all are online", async || {
        world.control.stats().await.online == all as u64
    })
    .await;
    let stats = world.control.stats().await;
    assert_eq!((stats.logins, stats.refused), (all as u64, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_stop_at_once() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut world = World::start(Stage {
        log: "info",
        config: "shutdown.grace = \"50s\"",
        ..Stage::new(StoreChoice::Embedded)
    })
    .await;
    let subscriber = Subscriber::start(world.grpc()).await;
    world.log_in(&names(10)).await;
    world.sim.signal("STOP").await;
    let _logins = InFlight::start(&world, &["late".to_owned()]).await;

    world.ask_gateway_to_stop().await;
    until("the stop has begun", async || {
        !subscriber.books().ends.is_empty()
    })
    .await;
    let again = Instant::now();
    world.ask_gateway_to_stop().await;
    let ended = world.gateway_ended(Duration::from_secs(5)).await;
    println!("ended {:.1?} after the second signal", again.elapsed());
    assert_eq!(ended.code(), Some(1), "not everything was stopped");
    world.sim.signal("CONT").await;
}
