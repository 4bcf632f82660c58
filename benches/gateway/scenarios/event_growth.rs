//! Whether an event costs the same among many sessions as among few, at the same pace.

use crate::bench::Bench;
use crate::flow::{self, Plan};
use crate::row::{Better, Of, Row};
use crate::stage::{Kind, Stage};
use crate::stats::ends_of_line;

/// Events per second.
const RATE: f64 = 10_000.0;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let rounds = bench.rounds().map(|_| ends_of_line(&round(bench)));
    let (first, last) = rounds.map(|[first, last]| (first, last)).unzip();
    vec![
        Row::new(
            "event_growth",
            "CPU per event at 18,000 sessions",
            "us",
            last,
        )
        .floor("at 1,000", first)
        .goal(Of::Ratio, Better::Less, 1.1, None),
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
