//! A resume storm: all sockets are cut at once, and all sessions are to be online again.

use super::logins::{self, Logins};
use crate::bench::Bench;
use crate::figures::grouped;
use crate::gateway::UNPACED;
use crate::row::{Better, Of, Row};
use crate::stage::Stage;
use crate::upstream::Wire;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let count = bench.size(10_000, 50);
    let unpaced = |wire: Wire| {
        let (floors, gateways) = bench.alternate(
            || logins::floor(bench, wire, count),
            || storm(bench, wire, UNPACED, count),
        );
        rows(wire, count, &floors, &gateways)
    };
    let mut rows: Vec<_> = Wire::BOTH.into_iter().flat_map(unpaced).collect();
    let pace = bench.size(1000, 50);
    let paced = bench
        .rounds()
        .map(|_| storm(bench, Wire::Plain, pace, count));
    let paced: Vec<_> = paced.map(|storm| storm.seconds).collect();
    let due = vec![count as f64 / f64::from(pace); paced.len()];
    let (many, pace) = (grouped(count as u64), grouped(pace.into()));
    let what = format!("resume storm of {many}, plain, paced at {pace}/s");
    rows.push(
        Row::new("resume", what, "s", paced)
            .floor("the pace", due)
            .goal(Of::Ratio, Better::Less, 1.05, None),
    );
    rows
}

fn rows(wire: Wire, count: usize, floors: &[Logins], gateways: &[Logins]) -> [Row; 2] {
    let of = |rounds: &[Logins], figure: fn(&Logins) -> f64| rounds.iter().map(figure).collect();
    let seconds = |round: &Logins| round.seconds;
    let (wire, many) = (wire.label(), grouped(count as u64));
    let what = format!("resume storm of {many}, {wire}, no pace");
    [
        Row::new("resume", what, "s", of(gateways, seconds))
            .floor("LOGINFLOOR", of(floors, seconds))
            .ratio_at_most(1.6, 1.25),
        Row::new(
            "resume",
            format!("CPU per resume, {wire}"),
            "us",
            of(gateways, Logins::cpu_of_each),
        )
        .floor("LOGINFLOOR", of(floors, Logins::cpu_of_each)),
    ]
}

fn storm(bench: &Bench, wire: Wire, pace: u32, count: usize) -> Logins {
    let mut stage = Stage::start(bench, wire, pace);
    stage.raise(count);
    let before = stage.gateway.process.cpu();
    let seconds = stage.storm();
    Logins {
        count,
        seconds,
        cpu: stage.gateway.process.cpu() - before,
    }
}
