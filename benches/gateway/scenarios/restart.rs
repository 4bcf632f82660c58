//! A restart: the gateway is stopped, messages come, it starts again, and its sessions and all messages are there.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Bench;
use crate::figures::grouped;
use crate::gateway::UNPACED;
use crate::messages::{FRIEND, text_to};
use crate::row::{Better, Of, Row};
use crate::stage::Stage;
use crate::upstream::{Wire, account};

/// One session in so many is sent a message meanwhile.
const MISSED: usize = 10;
/// How much longer than a resume storm it may take, in seconds.
const LONGER: f64 = 2.0;

/// In seconds.
struct Round {
    storm: f64,
    ready: f64,
    online: f64,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let count = bench.size(10_000, 50);
    let rounds: Vec<_> = bench.rounds().map(|_| round(bench, count)).collect();
    let of = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect();
    let many = grouped(count as u64);
    let what = |until: &str| format!("restart with {many} sessions, until {until}");
    vec![
        Row::new("restart", what("ready"), "s", of(|round| round.ready)).goal(
            Of::Value,
            Better::Less,
            2.0,
            None,
        ),
        Row::new(
            "restart",
            what("all are online"),
            "s",
            of(|round| round.online),
        )
        .floor("storm + 2 s", of(|round| round.storm + LONGER))
        .goal(Of::Ratio, Better::Less, 1.0, None),
    ]
}

fn round(bench: &Bench, count: usize) -> Round {
    let mut stage = Stage::start(bench, Wire::Plain, UNPACED);
    stage.raise(count);
    let storm = stage.storm();
    let control = &mut stage.upstream.control;
    control.post("/account", &format!("{{\"user_id\":\"{FRIEND}\"}}"));

    stage.gateway.stop();
    let missed = (0..count)
        .step_by(MISSED)
        .map(|bot| text_to(&account(bot), 0));
    control.post_all("/message", missed);
    let started = Instant::now();
    stage.gateway.start_again();
    let ready = started.elapsed();
    stage.gateway.until_online(count, Duration::from_secs(120));
    let online = started.elapsed();
    // None is lost: neither a session nor a message.
    stage.gateway.until_events(count.div_ceil(MISSED));
    Round {
        storm,
        ready: ready.as_secs_f64(),
        online: online.as_secs_f64(),
    }
}
