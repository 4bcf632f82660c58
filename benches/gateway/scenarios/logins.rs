//! How fast accounts are logged in, and what that costs: the tenant signs, sessions are stored in Redis.

use std::time::Duration;

use crate::bench::Bench;
use crate::floors::RawSessions;
use crate::gateway::UNPACED;
use crate::row::Row;
use crate::stage::Stage;
use crate::upstream::{Upstream, Wire};

/// What one round has shown.
struct Round {
    per_second: f64,
    /// Of the gateway's or the floor's process, in microseconds.
    cpu_per_login: f64,
}

impl Round {
    fn of(count: usize, seconds: f64, cpu: Duration) -> Self {
        Self {
            per_second: count as f64 / seconds,
            cpu_per_login: cpu.as_secs_f64() * 1e6 / count as f64,
        }
    }
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let count = bench.size(6000, 50);
    let of_wire = |wire| {
        let (floors, gateways) =
            bench.alternate(|| floor(bench, wire, count), || gateway(bench, wire, count));
        rows(wire, &floors, &gateways)
    };
    Wire::BOTH.into_iter().flat_map(of_wire).collect()
}

fn rows(wire: Wire, floors: &[Round], gateways: &[Round]) -> [Row; 2] {
    let of = |rounds: &[Round], figure: fn(&Round) -> f64| rounds.iter().map(figure).collect();
    let (rate, cpu) = (
        |round: &Round| round.per_second,
        |round: &Round| round.cpu_per_login,
    );
    let wire = wire.label();
    [
        Row::new(
            "logins",
            format!("login rate, {wire}"),
            "logins/s",
            of(gateways, rate),
        )
        .floor("LOGINFLOOR", of(floors, rate))
        .ratio_at_least(0.6, 0.9),
        Row::new(
            "logins",
            format!("CPU per login, {wire}"),
            "us",
            of(gateways, cpu),
        )
        .floor("LOGINFLOOR", of(floors, cpu)),
    ]
}

fn floor(bench: &Bench, wire: Wire, count: usize) -> Round {
    let upstream = Upstream::start(bench, wire);
    let mut floor = RawSessions::start(bench, &upstream, count);
    let before = floor.process.cpu();
    let seconds = floor.raise(count);
    Round::of(count, seconds, floor.process.cpu() - before)
}

fn gateway(bench: &Bench, wire: Wire, count: usize) -> Round {
    let mut stage = Stage::start(bench, wire, UNPACED);
    let before = stage.gateway.process.cpu();
    let seconds = stage.raise(count);
    Round::of(count, seconds, stage.gateway.process.cpu() - before)
}
