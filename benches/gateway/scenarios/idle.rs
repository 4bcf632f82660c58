//! What an idle session costs in memory, with all its state, from few sessions to many in one process.

use crate::bench::Bench;
use crate::figures::grouped;
use crate::floors::RawSessions;
use crate::gateway::UNPACED;
use crate::memory::settled;
use crate::row::Row;
use crate::stage::Stage;
use crate::upstream::{Upstream, Wire};

/// The size that has a goal.
const GOAL_AT: usize = 10_000;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let steps = bench.size(vec![1000, GOAL_AT, 18_000], vec![20, 40]);
    let of_wire = |wire| {
        let (floors, gateways) = bench.alternate(
            || floor(bench, wire, &steps),
            || gateway(bench, wire, &steps),
        );
        let rows = steps.iter().enumerate().map(move |(step, &count)| {
            let at_step = |rounds: &[Vec<f64>]| rounds.iter().map(|round| round[step]).collect();
            row(wire, count, at_step(&gateways), at_step(&floors))
        });
        rows.collect::<Vec<_>>()
    };
    Wire::BOTH.into_iter().flat_map(of_wire).collect()
}

fn row(wire: Wire, count: usize, gateway: Vec<f64>, floor: Vec<f64>) -> Row {
    let what = format!(
        "memory per idle session, {}, {} sessions",
        wire.label(),
        grouped(count as u64)
    );
    let (name, reach, moonshot) = match wire {
        Wire::Plain => ("FLOOR", 11.0, 5.0),
        Wire::Tls => ("TLSFLOOR", 18.0, 10.0),
    };
    let row = Row::new("idle", what, "KiB", gateway).floor(name, floor);
    if count == GOAL_AT {
        row.value_at_most(reach, moonshot)
    } else {
        row
    }
}

/// KiB per session at each step.
fn floor(bench: &Bench, wire: Wire, steps: &[usize]) -> Vec<f64> {
    let upstream = Upstream::start(bench, wire);
    let most = steps.last().copied().unwrap_or_default();
    let mut floor = RawSessions::start(bench, &upstream, most);
    let none = settled(bench, &floor.process);
    let mut at = |&count: &usize| {
        floor.raise(count);
        (settled(bench, &floor.process) - none) / count as f64
    };
    steps.iter().map(&mut at).collect()
}

/// KiB per session at each step.
fn gateway(bench: &Bench, wire: Wire, steps: &[usize]) -> Vec<f64> {
    let mut stage = Stage::start(bench, wire, UNPACED);
    let none = settled(bench, &stage.gateway.process);
    let mut at = |&count: &usize| {
        stage.raise(count);
        (settled(bench, &stage.gateway.process) - none) / count as f64
    };
    steps.iter().map(&mut at).collect()
}
