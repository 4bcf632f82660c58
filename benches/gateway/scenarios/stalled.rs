//! What a subscriber that never reads costs the others: the delay of 50 live ones' events without it and with it, in turns at one gateway.

use std::time::Duration;

use imgate::sim::LoadOptions;

use crate::bench::Bench;
use crate::figures::short;
use crate::flow::Subscribers;
use crate::parts::subscriber::Came;
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
    flow(bench, &stage, &mut live, RATE);
    let mut rounds = Vec::new();
    let mut memory = Vec::new();
    for _ in bench.rounds() {
        let without = flow(bench, &stage, &mut live, RATE);
        let before = stage.gateway.process.resident_kib();
        let stalled = ["--tenant", TENANT, "--stalled"];
        let stalled = Subscribers::with(bench, &stage.gateway.grpc, &stalled);
        // More than its window and its batches take.
        flow(bench, &stage, &mut live, 10.0 * RATE);
        let with = flow(bench, &stage, &mut live, RATE);
        memory.push(stage.gateway.process.resident_kib() - before);
        drop(stalled);
        rounds.push((without, with));
    }
    let delay = |name: &str, of: fn(&Came) -> f64| {
        let what = format!("delay {name} of {LIVE} subscribers beside a stalled one");
        let with = rounds.iter().map(|(_, with)| of(with)).collect();
        let without = rounds.iter().map(|(without, _)| of(without)).collect();
        Row::new("stalled", what, "ms", with).floor("without", without)
    };
    let pushed = short(11.0 * RATE * bench.size(5.0, 0.5) * BYTES as f64 / f64::from(1 << 20));
    let what = format!("memory that a stalled subscriber adds, of {pushed} MiB of texts");
    vec![
        delay("p50", |came| came.p50),
        delay("p99", |came| came.p99).ratio_at_most(1.2, 1.05),
        delay("p99.9", |came| came.p999),
        Row::new("stalled", what, "KiB", memory),
    ]
}

fn flow(bench: &Bench, stage: &Stage<'_>, live: &mut Subscribers, rate: f64) -> Came {
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
