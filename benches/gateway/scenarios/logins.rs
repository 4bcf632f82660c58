//! How fast accounts are logged in, and what that costs: the tenant signs, sessions are stored in Redis.

use std::time::Duration;

use crate::bench::Bench;
use crate::clients;
use crate::floors::RawSessions;
use crate::gateway::{Gateway, Setup, Store, UNPACED};
use crate::redis_server::RedisServer;
use crate::row::Row;
use crate::upstream::Upstream;

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
    let (floors, gateways) = bench.alternate(|| floor(bench, count), || gateway(bench, count));
    let of = |rounds: &[Round], figure: fn(&Round) -> f64| rounds.iter().map(figure).collect();
    let per_second = |round: &Round| round.per_second;
    let cpu = |round: &Round| round.cpu_per_login;
    vec![
        Row::new(
            "logins",
            "login rate, plain",
            "logins/s",
            of(&gateways, per_second),
        )
        .floor("LOGINFLOOR", of(&floors, per_second))
        .ratio_at_least(0.6, 0.9),
        Row::new("logins", "CPU per login, plain", "us", of(&gateways, cpu))
            .floor("LOGINFLOOR", of(&floors, cpu)),
    ]
}

fn floor(bench: &Bench, count: usize) -> Round {
    let upstream = Upstream::start(bench);
    let mut floor = RawSessions::start(bench, &upstream, count);
    let before = floor.process.cpu();
    let seconds = floor.raise(count);
    Round::of(count, seconds, floor.process.cpu() - before)
}

fn gateway(bench: &Bench, count: usize) -> Round {
    let upstream = Upstream::start(bench);
    let redis = RedisServer::start(bench);
    let gateway = Gateway::start(
        bench,
        &Setup {
            store: Store::Redis(&redis),
            upstream: &upstream,
            pace: UNPACED,
            tenants: &["acme"],
        },
    );
    let before = gateway.process.cpu();
    let seconds = clients::log_in(bench, &gateway, "acme", 0..count);
    Round::of(count, seconds, gateway.process.cpu() - before)
}
