//! Whether a session costs the same among few and among many: what each further one adds, and the slope of that.

use std::time::Duration;

use crate::bench::Bench;
use crate::memory::settled;
use crate::row::{Better, Of, Row};
use crate::stage::Stage;
use crate::stats::ends_of_line;
use crate::upstream::Wire;

/// Logins a second. The 6,000 of a step take as long as a heartbeat's interval, so heartbeats are spread over it evenly, as
/// they are where sessions came over time. Those of a crowd come together, and the more that do, the less each costs:
/// the figure would tell how fast the crowd was.
const PACE: u32 = 600;

/// A process at some number of sessions.
struct Point {
    sessions: f64,
    kib: f64,
    /// CPU time in a second, in microseconds.
    cpu: f64,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let rounds: Vec<_> = bench.rounds().map(|_| round(bench)).collect();
    let row = |what: &str, unit: &str, figure: fn(&Point) -> f64| {
        let ends = rounds.iter().map(|points| added(points, figure));
        let (first, last): (Vec<_>, Vec<_>) = ends.map(|[first, last]| (first, last)).unzip();
        Row::new("growth", what, unit, last)
            .floor("among 1,000", first)
            .goal(Of::Ratio, Better::Less, 1.1, None)
    };
    vec![
        row("memory of a further session among 18,000", "KiB", |point| {
            point.kib
        }),
        row(
            "idle CPU of a further session among 18,000",
            "us/s",
            |point| point.cpu,
        ),
    ]
}

fn round(bench: &Bench) -> Vec<Point> {
    let steps: &[usize] = bench.size(&[1000, 6000, 12_000, 18_000], &[10, 20, 30]);
    // Some beats of all sessions.
    let watched = bench.size(Duration::from_secs(30), Duration::from_secs(1));
    let mut stage = Stage::start(bench, Wire::Plain, PACE);
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

/// What a further session adds between the first two steps and between the last two, on the line through all.
fn added(points: &[Point], figure: fn(&Point) -> f64) -> [f64; 2] {
    let added = points.windows(2).map(|pair| {
        let more = pair[1].sessions - pair[0].sessions;
        let middle = f64::midpoint(pair[0].sessions, pair[1].sessions);
        (middle, (figure(&pair[1]) - figure(&pair[0])) / more)
    });
    ends_of_line(&added.collect::<Vec<_>>())
}
