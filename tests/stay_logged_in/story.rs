//! A thousand bots through a dropped network, a kill, a restart and a kick: one login each for the whole story.

use imgate::proto::v1::{LogoutRequest, ParkReason, SessionState};
use serde_json::json;
use tokio::time::Instant;

use crate::SENDER;
use crate::control::Control;
use crate::messages::{Mark, Rounds};
use crate::subscriber::Subscriber;
use crate::world::{PATIENCE, Stage, StoreChoice, World, names, until};

const BOTS: usize = 1000;
const KICKED: &str = "kicked";
const OUT: &str = "logged-out";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_login_per_bot_for_the_whole_story_with_redis() {
    story(StoreChoice::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_login_per_bot_for_the_whole_story_embedded() {
    story(StoreChoice::Embedded).await;
}

async fn story(store: StoreChoice) {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let began = Instant::now();
    let done = |what: &str| println!("{store:?}: {what} after {:.1?}", began.elapsed());
    let mut world = World::start(Stage::new(store)).await;
    let subscriber = Subscriber::start(world.grpc()).await;
    world.control.make_account(SENDER).await;
    let bots = names(BOTS);
    let mut everybody = bots.clone();
    everybody.extend([KICKED.to_owned(), OUT.to_owned()]);

    world.log_in(&everybody).await;
    done("all logged in");
    let control = Control::connect(world.control_address).await;
    let mut rounds = Rounds::new(control, bots.clone());
    for _ in 0..2 {
        rounds.send(Mark::Live).await;
        rounds.have_come(&subscriber).await;
    }
    lose_two(&mut world, &subscriber).await;
    done("messages have come, one bot kicked, one logged out");

    let drop = world.control.post("/drop", json!({}));
    rounds.send_around(&subscriber, drop).await;
    rounds.send(Mark::Either).await;
    back(&mut world, 1).await;
    done("all back after the drop");
    settle(&subscriber, &mut rounds).await;
    done("messages have come");

    rounds.send_around(&subscriber, world.kill_gateway()).await;
    away(&mut world, &mut rounds).await;
    world.start_gateway().await;
    rounds.send(Mark::Either).await;
    back(&mut world, 2).await;
    done("all back after the kill");
    settle(&subscriber, &mut rounds).await;
    done("messages have come");

    let stop = world.ask_gateway_to_stop();
    rounds.send_around(&subscriber, stop).await;
    let ended = world.gateway_ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(0), "a stop within the grace time");
    done("stopped");
    away(&mut world, &mut rounds).await;
    world.start_gateway().await;
    rounds.send(Mark::Either).await;
    back(&mut world, 3).await;
    done("all back after the stop");
    settle(&subscriber, &mut rounds).await;
    done("messages have come");

    check(&mut world, &bots).await;
    take_back(&mut world).await;
    let more = {
        let books = subscriber.books();
        assert_eq!(books.faults, Vec::<String>::new());
        assert_eq!(books.gaps, []);
        assert_eq!(books.kicked, [KICKED]);
        rounds.check(&books)
    };
    done("all is as it should be");
    println!("{store:?}: {more} messages came more than once");
}

/// One bot is kicked by another login, one is logged out by its backend.
async fn lose_two(world: &mut World, subscriber: &Subscriber) {
    let kick = json!({ "user_id": KICKED });
    world.control.post("/kick", kick).await;
    let account = OUT.to_owned();
    let mut sessions = world.sessions().await;
    let out = sessions.logout(LogoutRequest { account }).await.unwrap();
    let out = out.into_inner().session.unwrap();
    assert_eq!(out.state(), SessionState::LoggedOut);
    until("subscribers hear of the kick", async || {
        subscriber.books().kicked == [KICKED]
    })
    .await;
}

/// All bots are online again, by their `times`-th resume.
async fn back(world: &mut World, times: u64) {
    let control = &mut world.control;
    until("all bots are back", async || {
        let stats = control.stats().await;
        let back = |name: &str| {
            let user = stats.users.get(name);
            user.is_some_and(|user| user.online && user.resumes >= times)
        };
        (0..BOTS).all(|number| back(&format!("bot{number}")))
    })
    .await;
}

/// Messages to bots that are away.
async fn away(world: &mut World, rounds: &mut Rounds) {
    let control = &mut world.control;
    until("the upstream has seen them go", async || {
        control.stats().await.online == 0
    })
    .await;
    rounds.send(Mark::Waited).await;
}

/// What was sent so far has come, and so does what is sent now.
async fn settle(subscriber: &Subscriber, rounds: &mut Rounds) {
    // A catch-up may still be going on and bring this one.
    rounds.send(Mark::Either).await;
    rounds.have_come(subscriber).await;
    rounds.send(Mark::Live).await;
    rounds.have_come(subscriber).await;
}

/// What the whole story has cost, by the upstream's count and by the gateway's.
async fn check(world: &mut World, bots: &[String]) {
    let stats = world.control.stats().await;
    for bot in bots {
        let user = stats.users[bot];
        assert_eq!((user.logins, user.kicked), (1, 0), "{bot}: {user:?}");
        assert!((3..=5).contains(&user.resumes), "{bot}: {user:?}");
    }
    for name in [KICKED, OUT] {
        let user = stats.users[name];
        let all = (user.online, user.logins, user.resumes);
        assert_eq!(all, (false, 1, 0), "{name}: {user:?}");
    }
    assert_eq!(stats.refused, 0, "every login and resume was good");
    println!(
        "{} logins and {} resumes of {} bots",
        stats.logins,
        stats.resumes,
        bots.len() + 2
    );
    let sessions = world.all_sessions().await;
    assert_eq!(sessions.len(), bots.len() + 2);
    for session in sessions {
        assert_eq!(session.logins, 1, "{session:?}");
        let expected = match session.account.as_str() {
            KICKED => (SessionState::Parked, ParkReason::Kicked, true),
            OUT => (SessionState::LoggedOut, ParkReason::Unspecified, false),
            _ => (SessionState::Online, ParkReason::Unspecified, true),
        };
        let is = (session.state(), session.park_reason(), session.desired);
        assert_eq!(is, expected, "{session:?}");
    }
}

/// The bot that was kicked takes its account back by a Login, which costs one.
async fn take_back(world: &mut World) {
    world.log_in(&[KICKED.to_owned()]).await;
    let user = world.control.user(KICKED).await;
    assert!(user.online && user.logins == 2, "{user:?}");
    let session = world.session(KICKED).await;
    assert_eq!((session.logins, session.resumes), (2, 0));
}
