//! Sending: messages per second by the gateway, and how long one takes, until the upstream has answered.

use std::time::Duration;

use crate::bench::{Bench, Core};
use crate::messages::FRIEND;
use crate::parts::delays::Told;
use crate::process::{PATIENCE, Process};
use crate::row::Row;
use crate::stage::{Kind, Stage, TENANT};

struct Round {
    cpu_per_send: f64,
    sent: Told,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let in_flight: &[usize] = bench.size(&[1, 16, 256], &[4]);
    in_flight
        .iter()
        .flat_map(|&in_flight| {
            let rounds: Vec<_> = bench.rounds().map(|_| round(bench, in_flight)).collect();
            rows(in_flight, &rounds)
        })
        .collect()
}

fn rows(in_flight: usize, rounds: &[Round]) -> [Row; 4] {
    let row = |figure: &str, unit: &str, of: fn(&Round) -> f64| {
        let what = format!("{figure}, {in_flight} at a time, Redis");
        Row::new("send", what, unit, rounds.iter().map(of).collect())
    };
    [
        row("sends", "sends/s", |round| {
            round.sent.count as f64 / round.sent.seconds
        }),
        row("CPU per send", "us", |round| round.cpu_per_send),
        row("send p50", "ms", |round| round.sent.p50),
        row("send p99", "ms", |round| round.sent.p99),
    ]
}

fn round(bench: &Bench, in_flight: usize) -> Round {
    let accounts = bench.size(1000, 10);
    let mut stage = Stage::stored(bench, Kind::Redis);
    stage.raise(accounts);
    let control = &mut stage.upstream.control;
    control.post("/account", &format!("{{\"user_id\":\"{FRIEND}\"}}"));
    let (accounts, in_flight) = (accounts.to_string(), in_flight.to_string());
    let mut arguments = vec![
        "sends",
        "--gateway",
        &stage.gateway.grpc,
        "--tenant",
        TENANT,
    ];
    arguments.extend(["--accounts", &accounts, "--in-flight", &in_flight]);
    let mut client = Process::part(bench, Core::Load, &arguments);
    let _ready: String = client.report(PATIENCE);
    std::thread::sleep(bench.size(Duration::from_secs(1), Duration::from_millis(100)));
    let before = stage.gateway.process.cpu();
    client.tell("begin");
    std::thread::sleep(bench.size(Duration::from_secs(5), Duration::from_millis(500)));
    let cpu = stage.gateway.process.cpu() - before;
    client.tell("tell");
    let sent: Told = client.report(PATIENCE);
    Round {
        cpu_per_send: cpu.as_secs_f64() * 1e6 / sent.count as f64,
        sent,
    }
}
