//! Events as fast as they are taken, each in Redis before it is delivered, against REDISFLOOR.

use crate::bench::{Bench, Core};
use crate::flow::{self, Flowed, Plan};
use crate::parts::redis_floor::Appended;
use crate::process::{PATIENCE, Process};
use crate::redis_server::RedisServer;
use crate::row::Row;
use crate::stage::Kind;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    // Alone as they come, and some together.
    [(1000, 1), (1000, 8)]
        .into_iter()
        .flat_map(|(sessions, per_write)| {
            let plan = Plan {
                sessions: bench.size(sessions, 10),
                clients: 1,
                per_write,
                rate: 0.0,
            };
            let gateway = || flow::gateway(bench, Kind::Redis, &plan);
            let (floors, gateways) = bench.alternate(|| floor(bench), gateway);
            rows(&plan, floors, &gateways)
        })
        .collect()
}

fn rows(plan: &Plan, floors: Vec<f64>, gateways: &[Flowed]) -> [Row; 2] {
    let (sessions, per_write) = (plan.sessions, plan.per_write);
    let what = |figure: &str| {
        format!("{figure}, durable in Redis, {sessions} sessions, {per_write} in a write")
    };
    let rates = gateways.iter().map(|flowed| flowed.per_second).collect();
    let cpus = gateways.iter().map(|flowed| flowed.cpu_per_event).collect();
    [
        Row::new("durable", what("events"), "events/s", rates)
            .floor("REDISFLOOR", floors)
            .ratio_at_least(0.6, 0.9),
        Row::new("durable", what("CPU per event"), "us", cpus),
    ]
}

/// Events per second.
fn floor(bench: &Bench) -> f64 {
    let redis = RedisServer::start(bench);
    let seconds = bench.size("5", "0.5");
    let arguments = ["redis-floor", "--url", &redis.url(), "--seconds", seconds];
    let mut floor = Process::part(bench, Core::Measured, &arguments);
    let appended: Appended = floor.report(PATIENCE);
    appended.events as f64 / appended.seconds
}
