//! How fast accounts are logged in, and what that costs: the tenant signs, sessions are stored in Redis.

use std::time::Duration;

use crate::bench::Bench;
use crate::floors::RawSessions;
use crate::gateway::UNPACED;
use crate::row::Row;
use crate::stage::Stage;
use crate::upstream::{Upstream, Wire};

/// What one round has shown: so many logins.
pub(super) struct Logins {
    pub(super) count: usize,
    pub(super) seconds: f64,
    /// Of the gateway's or the floor's process.
    pub(super) cpu: Duration,
}

impl Logins {
    fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    /// In microseconds.
    pub(super) fn cpu_of_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count as f64
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

fn rows(wire: Wire, floors: &[Logins], gateways: &[Logins]) -> [Row; 2] {
    let of = |rounds: &[Logins], figure: fn(&Logins) -> f64| rounds.iter().map(figure).collect();
    let wire = wire.label();
    [
        Row::new(
            "logins",
            format!("login rate, {wire}"),
            "logins/s",
            of(gateways, Logins::per_second),
        )
        .floor("LOGINFLOOR", of(floors, Logins::per_second))
        .ratio_at_least(0.6, 0.9),
        Row::new(
            "logins",
            format!("CPU per login, {wire}"),
            "us",
            of(gateways, Logins::cpu_of_each),
        )
        .floor("LOGINFLOOR", of(floors, Logins::cpu_of_each)),
    ]
}

/// LOGINFLOOR.
pub(super) fn floor(bench: &Bench, wire: Wire, count: usize) -> Logins {
    let upstream = Upstream::start(bench, wire);
    let mut floor = RawSessions::start(bench, &upstream, count);
    let before = floor.process.cpu();
    let seconds = floor.raise(count);
    Logins {
        count,
        seconds,
        cpu: floor.process.cpu() - before,
    }
}

fn gateway(bench: &Bench, wire: Wire, count: usize) -> Logins {
    let mut stage = Stage::start(bench, wire, UNPACED);
    let before = stage.gateway.process.cpu();
    let seconds = stage.raise(count);
    Logins {
        count,
        seconds,
        cpu: stage.gateway.process.cpu() - before,
    }
}
