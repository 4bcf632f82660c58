//! As many sessions as one process can have under an ordinary limit of open files, over TLS: its memory in all.

use crate::bench::Bench;
use crate::figures::grouped;
use crate::floors::RawSessions;
use crate::gateway::UNPACED;
use crate::memory::settled;
use crate::row::Row;
use crate::stage::Stage;
use crate::upstream::{Upstream, Wire};

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    // The limit is 20,000; the gateway and the upstream need some for others.
    let count = bench.size(19_500, 100);
    let floor = || {
        let upstream = Upstream::start(bench, Wire::Tls);
        let mut floor = RawSessions::start(bench, &upstream, count);
        floor.raise(count);
        settled(bench, &floor.process) / 1024.0
    };
    let gateway = || {
        let mut stage = Stage::start(bench, Wire::Tls, UNPACED);
        stage.raise(count);
        settled(bench, &stage.gateway.process) / 1024.0
    };
    let (floors, gateways) = bench.alternate(floor, gateway);
    let what = format!(
        "memory of {} WSS sessions in one process",
        grouped(count as u64)
    );
    vec![
        Row::new("full", what, "MiB", gateways)
            .floor("TLSFLOOR", floors)
            .value_at_most(350.0, 220.0),
    ]
}
