//! What a subscriber that never reads costs the others: the delay of 50 live ones' events without it and with it, in turns at one gateway.

use std::time::Duration;

use imgate::sim::LoadOptions;

use crate::bench::Bench;
use crate::flow::Subscribers;
use crate::parts::delays::Told;
use crate::row::Row;
use crate::stage::{Kind, Stage, TENANT};

/// Subscribers who read; each gets all events.
const LIVE: usize = 50;
const ACCOUNTS: usize = 10;
/// Messages per second.
const RATE: f64 = 200.0;
/// The text of each.
const BYTES: usize = 1024;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let mut stage = Stage::stored(bench, Kind::Memory);
    stage.raise(ACCOUNTS);
    let live = bench.size(LIVE, 2).to_string();
    let live = ["--tenant", TENANT, "--clients", &live];
    let mut live = Subscribers::with(bench, &stage.gateway.grpc, &live);
    // One that warms everything up.
    round(bench, &stage, &mut live, false);
    let rounds: Vec<_> = bench
        .rounds()
        .map(|_| [false, true].map(|stalled| round(bench, &stage, &mut live, stalled)))
        .collect();
    let row = |what: &str, unit: &str, of: fn(&Round) -> f64| {
        let with = rounds.iter().map(|[_, with]| of(with)).collect();
        let without = rounds.iter().map(|[without, _]| of(without)).collect();
        Row::new("stalled", what, unit, with).floor("without", without)
    };
    let delay = |name: &str, of| {
        row(
            &format!("delay {name} beside a stalled subscriber"),
            "ms",
            of,
        )
    };
    vec![
        delay("p50", |round| round.came.p50),
        delay("p99", |round| round.came.p99).ratio_at_most(1.2, 1.05),
        delay("p99.9", |round| round.came.p999),
        row(
            "growth of memory beside a stalled subscriber",
            "KiB",
            |round| round.growth,
        ),
    ]
}

/// What one round has shown.
struct Round {
    /// To the subscribers who read.
    came: Told,
    /// Of the gateway's memory, in KiB. Its log grows in any round.
    growth: f64,
}

fn round(bench: &Bench, stage: &Stage<'_>, live: &mut Subscribers, stalled: bool) -> Round {
    let before = stage.gateway.process.resident_kib();
    let arguments = ["--tenant", TENANT, "--stalled"];
    let stalled = stalled.then(|| Subscribers::with(bench, &stage.gateway.grpc, &arguments));
    // More than its window and its batches take.
    flow(bench, stage, live, 10.0 * RATE);
    let came = flow(bench, stage, live, RATE);
    let growth = stage.gateway.process.resident_kib() - before;
    drop(stalled);
    Round { came, growth }
}

fn flow(bench: &Bench, stage: &Stage<'_>, live: &mut Subscribers, rate: f64) -> Told {
    let seconds = bench.size(5.0, 0.5);
    live.begin();
    let load = stage.upstream.load(&LoadOptions {
        events_per_second: rate,
        seconds,
        text_bytes: BYTES,
        ..LoadOptions::default()
    });
    load.join().unwrap();
    // The last of them are on their way.
    std::thread::sleep(Duration::from_millis(200));
    live.came()
}
