//! Events at an even pace, each in Redis before it is delivered, against PIPE at the same pace: the CPU of each, and how long it takes.

use crate::bench::{Bench, Core};
use crate::flow::{self, Flowed, Plan};
use crate::parts::redis_floor::RoundTrips;
use crate::process::{PATIENCE, Process};
use crate::row::{Better, Of, Row};
use crate::stage::{Kind, Stage};

/// How many of Redis's round trips an event may take longer than in PIPE, at the median.
const ROUND_TRIPS: f64 = 1.5;

struct Round {
    pipe: Flowed,
    gateway: Flowed,
    redis: RoundTrips,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let rates: &[f64] = bench.size(&[10_000.0, 30_000.0, 60_000.0], &[1000.0]);
    rates
        .iter()
        .flat_map(|&rate| {
            let plan = Plan {
                sessions: bench.size(1000, 10),
                clients: 1,
                per_write: 1,
                rate,
            };
            let rounds: Vec<_> = bench.rounds().map(|_| round(bench, &plan)).collect();
            rows(rate, &rounds)
        })
        .collect()
}

fn round(bench: &Bench, plan: &Plan) -> Round {
    let pipe = flow::pipe(bench, plan);
    let mut stage = Stage::stored(bench, Kind::Redis);
    stage.raise(plan.sessions);
    let url = stage.redis.as_ref().unwrap().url();
    let arguments = ["redis-round-trips", "--url", &url];
    let mut probe = Process::part(bench, Core::Load, &arguments);
    let _ready: String = probe.report(PATIENCE);
    probe.tell("begin");
    let gateway = flow::through(bench, &stage, plan);
    probe.tell("tell");
    let redis = probe.report(PATIENCE);
    Round {
        pipe,
        gateway,
        redis,
    }
}

fn rows(rate: f64, rounds: &[Round]) -> Vec<Row> {
    let row = |figure: &str, unit: &str, of: fn(&Flowed) -> f64| {
        let gateways = rounds.iter().map(|round| of(&round.gateway)).collect();
        let what = format!("{figure} at {}k events/s, durable in Redis", rate / 1000.0);
        Row::new("paced", what, unit, gateways)
    };
    let pipes = |of: fn(&Flowed) -> f64| rounds.iter().map(|round| of(&round.pipe)).collect();
    let held = row("events", "events/s", |flowed| flowed.per_second)
        .floor("PIPE", pipes(|flowed| flowed.per_second));
    let cpu = row("CPU per event", "us", |flowed| flowed.cpu_per_event)
        .floor("PIPE", pipes(|flowed| flowed.cpu_per_event));
    let cpu = if rate > 10_000.0 {
        cpu.ratio_at_most(2.0, 1.3)
    } else {
        cpu
    };
    let allowed = |round: &Round| round.pipe.came.p50 + ROUND_TRIPS * round.redis.p50;
    let p50 = row("delay p50", "ms", |flowed| flowed.came.p50)
        .floor(
            "PIPE + 1.5 round trips",
            rounds.iter().map(allowed).collect(),
        )
        .goal(Of::Ratio, Better::Less, 1.0, None);
    let p99 = row("delay p99", "ms", |flowed| flowed.came.p99)
        .floor("PIPE", pipes(|flowed| flowed.came.p99))
        .ratio_at_most(3.0, 2.0);
    let p999 = row("delay p99.9", "ms", |flowed| flowed.came.p999)
        .floor("PIPE", pipes(|flowed| flowed.came.p999));
    // By a probe that does nothing else: what of a delay is Redis's.
    let probe = |figure: &str, of: fn(&RoundTrips) -> f64| {
        let what = format!(
            "a round trip of Redis beside it, {figure}, at {}k events/s",
            rate / 1000.0
        );
        let trips = rounds.iter().map(|round| of(&round.redis)).collect();
        Row::new("paced", what, "ms", trips)
    };
    let (trip_p50, trip_p99) = (
        probe("p50", |trips| trips.p50),
        probe("p99", |trips| trips.p99),
    );
    vec![held, cpu, p50, p99, p999, trip_p50, trip_p99]
}
