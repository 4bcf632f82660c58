//! A resume storm: all sockets are cut at once, and all sessions are to be online again.

use crate::bench::Bench;
use crate::figures::grouped;
use crate::floors::RawSessions;
use crate::gateway::UNPACED;
use crate::row::{Better, Of, Row};
use crate::stage::Stage;
use crate::upstream::{Upstream, Wire};

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let count = bench.size(10_000, 50);
    let many = grouped(count as u64);
    let unpaced = |wire: Wire| {
        let floor = || {
            let upstream = Upstream::start(bench, wire);
            RawSessions::start(bench, &upstream, count).raise(count)
        };
        let (floors, gateways) = bench.alternate(floor, || storm(bench, wire, UNPACED, count));
        let what = format!("resume storm of {many}, {}, no pace", wire.label());
        Row::new("resume", what, "s", gateways)
            .floor("LOGINFLOOR", floors)
            .ratio_at_most(1.6, 1.25)
    };
    let pace = bench.size(1000, 50);
    let paced = bench
        .rounds()
        .map(|_| storm(bench, Wire::Plain, pace, count));
    let paced: Vec<_> = paced.collect();
    let due = vec![count as f64 / f64::from(pace); paced.len()];
    let mut rows: Vec<_> = Wire::BOTH.into_iter().map(unpaced).collect();
    let what = format!(
        "resume storm of {many}, plain, paced at {pace}/s",
        pace = grouped(pace.into())
    );
    rows.push(
        Row::new("resume", what, "s", paced)
            .floor("the pace", due)
            .goal(Of::Ratio, Better::Less, 1.05, None),
    );
    rows
}

/// How many seconds it takes.
fn storm(bench: &Bench, wire: Wire, pace: u32, count: usize) -> f64 {
    let mut stage = Stage::start(bench, wire, pace);
    stage.raise(count);
    stage.storm()
}
