//! Signatures that live for 30 s only, and a steady stream of messages that must not notice.

use std::time::Duration;

use imgate::runtime::supervisor::{TaskKind, Tasks};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::SENDER;
use crate::control::Control;
use crate::messages::count_reaches;
use crate::subscriber::{Books, Subscriber};
use crate::world::{Stage, StoreChoice, World, names};

const BOTS: usize = 200;
const LIFETIME: u64 = 30;
/// The part of a second in which one lot of messages goes out.
const LOTS: usize = 20;

/// `IMGATE_SOAK_SECONDS` says for how long messages are sent (45), `IMGATE_SOAK_STORE` whether the store is `redis`
/// (default) or `embedded`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_stream_on_while_signatures_end_every_30_seconds() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let setting = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let seconds = setting("IMGATE_SOAK_SECONDS").map_or(45, |text| text.parse().unwrap());
    let store = match setting("IMGATE_SOAK_STORE").as_deref() {
        None | Some("redis") => StoreChoice::Redis,
        Some("embedded") => StoreChoice::Embedded,
        Some(other) => panic!("IMGATE_SOAK_STORE = {other:?}"),
    };
    let mut world = World::start(Stage {
        tenant: "signature_lifetime = \"30s\"",
        sim: &["--login-spacing", "15"],
        ..Stage::new(store)
    })
    .await;
    let subscriber = Subscriber::start(world.grpc()).await;
    world.control.make_account(SENDER).await;
    let bots = names(BOTS);
    let first_login = Instant::now();
    world.log_in(&bots).await;

    let sent = send(&world, bots.clone(), seconds).await;
    count_reaches(&subscriber, sent.len()).await;
    let lived = first_login.elapsed().as_secs();
    let stats = world.control.stats().await;
    let logins = bots.iter().map(|bot| stats.users[bot].logins);
    let (least, most) = (logins.clone().min().unwrap(), logins.max().unwrap());
    {
        let books = subscriber.books();
        let more = check(&books, &bots, seconds);
        let delays = delays(&books, &bots, &sent);
        let at = |share: f64| delays[(share * (delays.len() - 1) as f64) as usize];
        let late = delays.iter().filter(|delay| delay.as_secs() >= 1).count();
        println!(
            "soak, {store:?}: {BOTS} bots for {lived} s with signatures of {LIFETIME} s\n\
             messages: {} sent, {} came, {more} more than once, {} back-filled, {late} took 1 s or longer\n\
             delay: 50 % {:.1?}, 99 % {:.1?}, 99.9 % {:.1?}, all {:.1?}\n\
             upstream: {least} to {most} logins a bot, {} resumes, {} refused, {} kicks",
            sent.len(),
            books.count,
            backfilled(&books),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            stats.resumes,
            stats.refused,
            stats.users.values().map(|user| user.kicked).sum::<u64>(),
        );
        assert_eq!(books.faults, Vec::<String>::new());
        assert_eq!(books.gaps, []);
        assert_eq!(
            books.ends.len(),
            0,
            "the subscription went on: {:?}",
            books.ends
        );
    }
    // A login too soon after the one before, or with a signature that has ended, would be refused.
    assert_eq!(stats.refused, 0);
    // A signature's life begins when it is fetched: at 80 % of the life of the one before, earlier by a twentieth at
    // the most. So the first one lasts for 30 s and each other one for 24 s after the end of the one before.
    let most_allowed = 2.0 + (lived as f64 - 30.0) / (24.0 * 0.95);
    assert!(most as f64 <= most_allowed, "{most} logins in {lived} s");
    // Each signature's end costs a login, which may come some seconds after it.
    assert!(
        least >= lived / (LIFETIME + 4),
        "{least} logins in {lived} s"
    );
}

/// Sends to each bot once a second, evenly spread, and answers when each message was sent: those of the first second,
/// bot by bot, then those of the next.
async fn send(world: &World, bots: Vec<String>, seconds: usize) -> Vec<Instant> {
    let mut control = Control::connect(world.control_address).await;
    let (done, sent) = oneshot::channel();
    let tasks = Tasks::new();
    tasks.spawn("sender", TaskKind::Work, async move {
        let mut times = Vec::new();
        let mut beat = tokio::time::interval(Duration::from_secs(1) / LOTS as u32);
        for second in 1..=seconds {
            for lot in bots.chunks(bots.len() / LOTS) {
                beat.tick().await;
                times.extend(lot.iter().map(|_| Instant::now()));
                let bodies = lot
                    .iter()
                    .map(|bot| json!({ "from": SENDER, "to": bot, "text": second.to_string() }));
                control.post_all("/message", bodies).await;
            }
        }
        done.send(times).unwrap();
    });
    sent.await.unwrap()
}

/// Every message came, the first times in order. Answers how many came more than once.
fn check(books: &Books, bots: &[String], seconds: usize) -> usize {
    let mut more = 0;
    for bot in bots {
        let mut expected = 1;
        for seen in &books.messages[bot] {
            let number: usize = seen.text.parse().unwrap();
            if number < expected {
                more += 1;
            } else {
                assert_eq!(number, expected, "{bot}: {:?}", books.messages[bot]);
                expected += 1;
            }
        }
        assert_eq!(expected, seconds + 1, "{bot}");
    }
    more
}

/// How long each message took, in rising order.
fn delays(books: &Books, bots: &[String], sent: &[Instant]) -> Vec<Duration> {
    let mut delays = Vec::new();
    for (index, bot) in bots.iter().enumerate() {
        for seen in &books.messages[bot] {
            let number: usize = seen.text.parse().unwrap();
            delays.push(seen.at - sent[(number - 1) * bots.len() + index]);
        }
    }
    delays.sort_unstable();
    delays
}

fn backfilled(books: &Books) -> usize {
    let all = books.messages.values().flatten();
    all.filter(|seen| seen.backfilled).count()
}
