//! Whether an event costs the same among many sessions as among few, at the same pace.

use crate::bench::Bench;
use crate::flow::{self, Plan};
use crate::row::{Better, Of, Row};
use crate::stage::{Kind, Stage};
use crate::stats::fit;

/// Events per second.
const RATE: f64 = 10_000.0;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let rounds: Vec<_> = bench.rounds().map(|_| round(bench)).collect();
    let ends = |pick: fn(&[(f64, f64)]) -> Option<&(f64, f64)>| {
        let cpu = rounds.iter().filter_map(|points| Some(pick(points)?.1));
        cpu.collect::<Vec<_>>()
    };
    let what = "CPU per event, 18,000 against 1,000 sessions";
    vec![
        Row::new(
            "event_growth",
            what,
            "%",
            rounds.iter().map(|points| slope(points)).collect(),
        )
        .goal(Of::Value, Better::Less, 10.0, None),
        Row::new(
            "event_growth",
            "CPU per event at 18,000",
            "us",
            ends(|points| points.last()),
        )
        .floor("at 1,000", ends(|points| points.first())),
    ]
}

/// Sessions, and microseconds per event.
fn round(bench: &Bench) -> Vec<(f64, f64)> {
    let steps: &[usize] = bench.size(&[1000, 6000, 12_000, 18_000], &[10, 20]);
    let mut stage = Stage::stored(bench, Kind::Redis);
    let mut at = |&sessions: &usize| {
        stage.raise(sessions);
        let plan = Plan {
            sessions,
            clients: 1,
            per_write: 1,
            rate: RATE,
        };
        let flowed = flow::through(bench, &stage, &plan);
        (sessions as f64, flowed.cpu_per_event)
    };
    steps.iter().map(&mut at).collect()
}

/// By how many percent an event costs more at the last step than at the first, on the line through all.
fn slope(points: &[(f64, f64)]) -> f64 {
    let (offset, slope) = fit(points);
    let ends = points.first().zip(points.last());
    ends.map_or(0.0, |(first, last)| {
        100.0 * slope * (last.0 - first.0) / (offset + slope * first.0)
    })
}
