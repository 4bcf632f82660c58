//! What a bot's author would do without a gateway: the vendor's SDK in Node, one instance per account, all in one process.
//! The same accounts with the same messages, by the SDK and by the gateway in turn.
//!
//! Both have a part that does not grow with the accounts: the gateway's process and pools, Node and the SDK's code. So
//! memory per account is what the further accounts add, from one number of them to another, and CPU per event is what comes
//! on top of the same time without events. The SDK stores nothing; the gateway is measured with Redis and without.

use std::time::Duration;

use imgate::sim::LoadOptions;
use serde::Deserialize;
use tokio::time::Instant;

use crate::bench::{Bench, Core};
use crate::flow;
use crate::memory::settled;
use crate::process::{PATIENCE, Process};
use crate::row::{Better, Of, Row};
use crate::stage::{Kind, Stage};
use crate::upstream::{APP, APP_KEY, Upstream, Wire};

/// The peer's program.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/sdk.mjs");
/// Its logins take long.
const LOGINS: Duration = Duration::from_secs(300);

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Accounts that get events.
    accounts: usize,
    /// Fewer of them, for the memory of each.
    sdk_fewer: usize,
    /// More of them, for the gateway's memory: of a few hundred it cannot be told from its pools.
    gateway_more: usize,
    /// Events per second, one pace after the other: what the SDK follows with ease, and nearly all that it can follow.
    paces: &'static [f64],
    window: Duration,
}

const FULL: Plan = Plan {
    accounts: 200,
    sdk_fewer: 50,
    gateway_more: 5000,
    paces: &[1000.0, 4000.0],
    window: Duration::from_secs(10),
};
const QUICK: Plan = Plan {
    accounts: 4,
    sdk_fewer: 2,
    gateway_more: 40,
    paces: &[20.0],
    window: Duration::from_secs(1),
};

/// What a process needs, in KiB.
struct Memory {
    /// For each account.
    each: f64,
    /// For all that get events.
    before: f64,
    /// For the same, after the events.
    after: f64,
}

/// CPU in microseconds.
struct Cpu {
    /// Per account and second.
    idle: f64,
    /// Per event, by pace.
    paced: Vec<f64>,
}

/// What one round has shown.
struct Round {
    sdk: (Memory, Cpu),
    gateway: (Memory, Cpu),
    /// Of the gateway that stores nothing.
    storeless: Cpu,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let plan = bench.size(FULL, QUICK);
    let rounds: Vec<_> = bench
        .rounds()
        .map(|_| Round {
            sdk: sdk(bench, plan),
            gateway: gateway(bench, plan),
            storeless: storeless(bench, plan),
        })
        .collect();
    let accounts = plan.accounts;
    let memory = [
        memory(&rounds, "memory per account", |memory| memory.each)
            .ratio_at_most(1.0 / 20.0, 1.0 / 40.0),
        memory(
            &rounds,
            &format!("memory with {accounts} accounts"),
            |memory| memory.before,
        ),
        memory(
            &rounds,
            &format!("memory with {accounts} accounts, after the events"),
            |memory| memory.after,
        ),
    ];
    let paced = plan.paces.iter().enumerate().flat_map(|(index, pace)| {
        let what = format!("CPU per event at {pace} events/s");
        let rows = cpu(&rounds, &what, |cpu| cpu.paced[index]);
        rows.map(|row| row.goal(Of::Ratio, Better::Less, 1.0 / 5.0, None))
    });
    let [idle, _] = cpu(&rounds, "CPU per idle account and second", |cpu| cpu.idle);
    memory.into_iter().chain(paced).chain([idle]).collect()
}

fn memory(rounds: &[Round], what: &str, figure: fn(&Memory) -> f64) -> Row {
    let gateways = rounds.iter().map(|round| figure(&round.gateway.0));
    let sdks = rounds.iter().map(|round| figure(&round.sdk.0));
    Row::new("peers", what, "KiB", gateways.collect()).floor("SDK", sdks.collect())
}

/// With a store, and without.
fn cpu(rounds: &[Round], what: &str, figure: impl Fn(&Cpu) -> f64) -> [Row; 2] {
    let row = |store: &str, of: fn(&Round) -> &Cpu| {
        let gateways = rounds.iter().map(|round| figure(of(round)));
        let sdks = rounds.iter().map(|round| figure(&round.sdk.1));
        Row::new(
            "peers",
            format!("{what}, {store}"),
            "us",
            gateways.collect(),
        )
        .floor("SDK", sdks.collect())
    };
    [
        row("durable in Redis", |round| &round.gateway.1),
        row("memory store", |round| &round.storeless),
    ]
}

fn gateway(bench: &Bench, plan: Plan) -> (Memory, Cpu) {
    let each = gateway_memory(bench, plan);
    let mut stage = Stage::stored(bench, Kind::Redis);
    stage.raise(plan.accounts);
    let before = settled(bench, &stage.gateway.process);
    let cpu = gateway_cpu(bench, plan, &stage);
    let after = settled(bench, &stage.gateway.process);
    let memory = Memory {
        each,
        before,
        after,
    };
    (memory, cpu)
}

/// Of each further account, in a gateway of its own: one that has passed events on has pools that hold some more.
fn gateway_memory(bench: &Bench, plan: Plan) -> f64 {
    let mut stage = Stage::stored(bench, Kind::Redis);
    let mut memory = |sessions| {
        stage.raise(sessions);
        settled(bench, &stage.gateway.process)
    };
    let before = memory(plan.accounts);
    (memory(plan.gateway_more) - before) / (plan.gateway_more - plan.accounts) as f64
}

fn storeless(bench: &Bench, plan: Plan) -> Cpu {
    let mut stage = Stage::stored(bench, Kind::Memory);
    stage.raise(plan.accounts);
    gateway_cpu(bench, plan, &stage)
}

fn gateway_cpu(bench: &Bench, plan: Plan, stage: &Stage<'_>) -> Cpu {
    let idle = idle(plan, &stage.gateway.process);
    Cpu::of(plan, idle, |rate| {
        let flow = flow::Plan {
            sessions: plan.accounts,
            clients: 1,
            per_write: 1,
            rate,
        };
        let flowed = flow::through(bench, stage, &flow);
        (flowed.per_second, flowed.cpu_per_event)
    })
}

/// What the SDK's program answers.
#[derive(Debug, Deserialize)]
struct Report {
    accounts: usize,
    events: u64,
}

fn sdk(bench: &Bench, plan: Plan) -> (Memory, Cpu) {
    let upstream = Upstream::start(bench, Wire::Plain);
    let (sim, app) = (upstream.url(), APP.to_string());
    let mut arguments = vec!["--expose-gc", SDK, "--sim", &sim];
    arguments.extend(["--sdk-app-id", &app, "--secret-key", APP_KEY]);
    let mut node = Process::start(bench, Core::Measured, "sdk", "node", &arguments);
    let fewer = raise(bench, &mut node, plan.sdk_fewer);
    let before = raise(bench, &mut node, plan.accounts);
    let idle = idle(plan, &node);
    let cpu = Cpu::of(plan, idle, |rate| receive(plan, &upstream, &mut node, rate));
    let memory = Memory {
        each: (before - fewer) / (plan.accounts - plan.sdk_fewer) as f64,
        before,
        after: raise(bench, &mut node, plan.accounts),
    };
    (memory, cpu)
}

/// Logs in until there are so many. Answers the memory without garbage.
fn raise(bench: &Bench, node: &mut Process, count: usize) -> f64 {
    node.tell(&format!("raise {count}"));
    let report: Report = node.report(LOGINS);
    assert_eq!(report.accounts, count);
    settled(bench, node)
}

/// Events per second, and the CPU of each in microseconds.
fn receive(plan: Plan, upstream: &Upstream, node: &mut Process, rate: f64) -> (f64, f64) {
    let warm_up = plan.window / 4;
    let load = upstream.load(&LoadOptions {
        events_per_second: rate,
        // Until the window is over for certain.
        seconds: (warm_up + plan.window).as_secs_f64() + 1.0,
        ..LoadOptions::default()
    });
    std::thread::sleep(warm_up);
    let (events, cpu, began) = (received(node), node.cpu(), Instant::now());
    std::thread::sleep(plan.window);
    let (events, cpu, elapsed) = (received(node) - events, node.cpu() - cpu, began.elapsed());
    load.join().unwrap();
    let per_second = events as f64 / elapsed.as_secs_f64();
    (per_second, cpu.as_secs_f64() * 1e6 / events as f64)
}

fn received(node: &mut Process) -> u64 {
    node.tell("report");
    node.report::<Report>(PATIENCE).events
}

impl Cpu {
    /// Without events, and then with as many per second as there are paces: `receive` answers how many came per second,
    /// and the CPU of each with all else that the process did meanwhile.
    fn of(plan: Plan, idle: f64, mut receive: impl FnMut(f64) -> (f64, f64)) -> Self {
        let on_top = |&pace: &f64| {
            let (per_second, each) = receive(pace);
            each - idle / per_second
        };
        Self {
            idle: idle / plan.accounts as f64,
            paced: plan.paces.iter().map(on_top).collect(),
        }
    }
}

/// CPU per second while nothing comes, in microseconds.
fn idle(plan: Plan, process: &Process) -> f64 {
    let before = process.cpu();
    std::thread::sleep(plan.window);
    (process.cpu() - before).as_secs_f64() * 1e6 / plan.window.as_secs_f64()
}
