//! The load: what arrives, how much, and where it ends.

use std::time::Duration;

use imgate::sim::{LoadOptions, SimHandle};
use imgate::types::WallClock;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{Client, PATIENCE};
use crate::{PUSH, c2c_text, http, online, sim, until};

fn options(events_per_second: f64, seconds: f64) -> LoadOptions {
    LoadOptions {
        events_per_second,
        seconds,
        ..LoadOptions::default()
    }
}

/// Reads pushes until so many have come.
async fn pushes(client: &mut Client, count: usize) -> Vec<Value> {
    let mut pushes = Vec::new();
    while pushes.len() < count {
        pushes.push(client.push(PUSH).await);
    }
    pushes
}

fn acked(sim: &SimHandle) -> u64 {
    sim.stats().users.values().map(|user| user.acked).sum()
}

#[tokio::test]
async fn a_load_is_ordinary_messages_with_the_time_at_the_front() {
    let sim = sim().await;
    let mut bot = online(&sim, "bot-00001").await;
    let body = json!({ "events_per_second": 20, "seconds": 0.5 }).to_string();
    let before = WallClock.nanos();
    let (status, outcome) = http(sim.control_addr(), "POST", "/load", &body).await;
    assert_eq!(status, 200, "{outcome}");
    assert!(outcome["seconds"].as_f64().unwrap() >= 0.5, "{outcome}");
    let pushed = outcome["pushed"].as_u64().unwrap();
    assert!((2..=10).contains(&pushed), "{outcome}");
    let got = pushes(&mut bot, usize::try_from(pushed).unwrap()).await;
    let mut sequences = Vec::new();
    for push in &got {
        let text = c2c_text(push).as_str().unwrap();
        assert_eq!(text.len(), 64);
        let sent: u64 = text.split(' ').next().unwrap().parse().unwrap();
        assert!((before..WallClock.nanos()).contains(&sent), "{text}");
        let message = &push["EventArray"][0]["C2cMsgArray"][0];
        assert_eq!(message["MsgTimeStamp"], sent / 1_000_000_000);
        assert_eq!(message["MsgRandom"], message["MsgSeq"]);
        let key = format!("{0}_{0}_{1}", message["MsgSeq"], message["MsgTimeStamp"]);
        assert_eq!(
            (&message["MsgKey"], &push["NeedAck"]),
            (&json!(key), &json!(1))
        );
        assert_eq!(message["To_Account"], "bot-00001");
        let data = format!("load-{}", message["MsgSeq"]);
        assert_eq!(push["SessionData"], data);
        sequences.push(message["MsgSeq"].as_u64().unwrap());
        bot.acknowledge(push).await;
    }
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    assert!((620..=650).contains(&bot.size), "{}", bot.size);
    until("all are acknowledged", || acked(&sim) == pushed).await;
    assert_eq!(sim.stats().users["bot-00001"].delivered, pushed);
    let page = bot.request("openim.getmsg", json!({ "Cookie": "" })).await;
    assert_eq!(page["MsgList"], json!([]), "a load is kept nowhere");
}

#[tokio::test]
async fn a_load_goes_round_those_who_are_wanted() {
    let sim = sim().await;
    let mut bots = Vec::new();
    for name in ["a-1", "b-1", "a-2", "a-3"] {
        bots.push(online(&sim, name).await);
    }
    let outcome = sim
        .load(LoadOptions {
            prefix: String::from("a-"),
            count: Some(2),
            per_write: 3,
            ..options(60.0, 0.5)
        })
        .await
        .unwrap();
    let [a1, a2, a3, b1] =
        ["a-1", "a-2", "a-3", "b-1"].map(|user| sim.stats().users[user].delivered);
    assert_eq!((a1 + a2, a3, b1), (outcome.pushed, 0, 0));
    assert!(a1 == a2 || a1 == a2 + 3, "three in a write: {a1} {a2}");
    for (index, count) in [(0, a1), (2, a2)] {
        pushes(&mut bots[index], usize::try_from(count).unwrap()).await;
    }
}

#[tokio::test]
async fn a_load_waits_for_who_reads_slowly_and_mixes_no_frames() {
    let sim = sim().await;
    let mut bot = online(&sim, "bot").await;
    let asked = LoadOptions {
        text_bytes: 20_000,
        ..options(0.0, 0.5)
    };
    let loading = sim.load(asked);
    let reading = async {
        // Until the sockets are full.
        let mut sent = 0;
        until("nothing more is taken", || {
            let before = std::mem::replace(&mut sent, sim.stats().users["bot"].delivered);
            before > 0 && before == sent
        })
        .await;
        // Answers go out between the frames of the load.
        loop {
            bot.request("heartbeat.alive", json!({})).await;
        }
    };
    let pushed = tokio::select! {
        outcome = timeout(PATIENCE, loading) => outcome.unwrap().unwrap().pushed,
        () = reading => unreachable!("it reads until the load has ended"),
    };
    assert!(pushed > 50, "{pushed}");
    pushes(&mut bot, usize::try_from(pushed).unwrap()).await;
}

#[tokio::test]
async fn a_load_waits_for_acknowledgements_if_told_to() {
    let sim = sim().await;
    let mut bot = online(&sim, "bot").await;
    for _ in 0..2 {
        let asked = LoadOptions {
            unacknowledged: Some(3),
            ..options(0.0, 0.3)
        };
        let reading = async {
            let mut came = pushes(&mut bot, 3).await;
            bot.acknowledge(&came[0]).await;
            came.extend(pushes(&mut bot, 1).await);
            came
        };
        let (outcome, came) = tokio::join!(sim.load(asked), reading);
        assert_eq!(
            outcome.unwrap().pushed,
            4,
            "three, and one for the acknowledged"
        );
        for push in &came[1..] {
            bot.acknowledge(push).await;
        }
        until("all are acknowledged", || {
            let user = sim.stats().users["bot"];
            user.acked == user.delivered
        })
        .await;
    }
}

#[tokio::test]
async fn a_load_ends_with_those_who_take_it() {
    let sim = sim().await;
    let bot = online(&sim, "bot").await;
    let loading = sim.load(options(1000.0, 600.0));
    let leaving = async {
        until("the load has begun", || {
            sim.stats().users["bot"].delivered > 0
        })
        .await;
        drop(bot);
    };
    let ended = timeout(PATIENCE, async { tokio::join!(loading, leaving) });
    let outcome = ended.await.unwrap().0.unwrap();
    assert!(outcome.seconds < 600.0);
    let nobody = sim.load(options(0.0, 1.0)).await.unwrap_err();
    assert!(nobody.to_string().contains("nobody is online"), "{nobody}");
}

#[tokio::test]
async fn a_load_ends_when_nobody_waits_for_its_answer() {
    let sim = sim().await;
    let _bot = online(&sim, "bot").await;
    let delivered = || sim.stats().users["bot"].delivered;
    let loading = sim.load(options(1000.0, 600.0));
    let asked = timeout(Duration::from_millis(100), loading).await;
    assert!(asked.is_err(), "{asked:?}");
    let mut last = None;
    until("nothing comes any more", || {
        last.replace(delivered()) == Some(delivered())
    })
    .await;
}
