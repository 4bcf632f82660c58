//! Whether a session costs the same among few and among many: what each further one adds, and the slope of that.

use std::time::Duration;

use crate::bench::Bench;
use crate::gateway::UNPACED;
use crate::memory::settled;
use crate::row::{Better, Of, Row};
use crate::stage::Stage;
use crate::stats::fit;
use crate::upstream::Wire;

/// A process at some number of sessions.
struct Point {
    sessions: f64,
    kib: f64,
    /// CPU time in a second, in microseconds.
    cpu: f64,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let rounds: Vec<_> = bench.rounds().map(|_| round(bench)).collect();
    let of =
        |figure: fn(&Point) -> f64| rounds.iter().map(|points| slope(points, figure)).collect();
    let last = |figure: fn(&Point) -> f64| {
        rounds
            .iter()
            .filter_map(|points| Some(figure(points.last()?)))
            .collect()
    };
    vec![
        Row::new(
            "growth",
            "memory per session, 18,000 against 1,000",
            "%",
            of(|point| point.kib),
        )
        .goal(Of::Value, Better::Less, 10.0, None),
        Row::new(
            "growth",
            "idle CPU per session, 18,000 against 1,000",
            "%",
            of(|point| point.cpu),
        )
        .goal(Of::Value, Better::Less, 10.0, None),
        Row::new(
            "growth",
            "idle CPU per session and second, at 18,000",
            "us",
            last(|point| point.cpu / point.sessions),
        ),
    ]
}

fn round(bench: &Bench) -> Vec<Point> {
    let steps: &[usize] = bench.size(&[1000, 6000, 12_000, 18_000], &[10, 20, 30]);
    // Some beats of all sessions.
    let watched = bench.size(Duration::from_secs(30), Duration::from_secs(1));
    let mut stage = Stage::start(bench, Wire::Plain, UNPACED);
    let mut at = |&count: &usize| {
        stage.raise(count);
        let process = &stage.gateway.process;
        let kib = settled(bench, process);
        let before = process.cpu();
        std::thread::sleep(watched);
        let cpu = process.cpu() - before;
        Point {
            sessions: count as f64,
            kib,
            cpu: cpu.as_secs_f64() * 1e6 / watched.as_secs_f64(),
        }
    };
    steps.iter().map(&mut at).collect()
}

/// By how many percent what a further session adds changes from the first step to the last, on the line through all.
fn slope(points: &[Point], figure: fn(&Point) -> f64) -> f64 {
    let added: Vec<_> = points
        .windows(2)
        .map(|pair| {
            let more = pair[1].sessions - pair[0].sessions;
            let middle = f64::midpoint(pair[0].sessions, pair[1].sessions);
            (middle, (figure(&pair[1]) - figure(&pair[0])) / more)
        })
        .collect();
    let (offset, slope) = fit(&added);
    let ends = points.first().zip(points.last());
    ends.map_or(0.0, |(first, last)| {
        let (at_first, more) = (
            offset + slope * first.sessions,
            last.sessions - first.sessions,
        );
        // A short look may see no CPU at all.
        if at_first == 0.0 {
            0.0
        } else {
            100.0 * slope * more / at_first
        }
    })
}
