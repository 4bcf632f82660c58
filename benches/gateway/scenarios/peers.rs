//! What a bot's author would do without a gateway: the vendor's SDK in Node, one instance per account, all in one process.
//! The same accounts with the same messages, by the SDK and by the gateway in turn.
//!
//! Both have a part that does not grow with the accounts: the gateway's process and pools, Node and the SDK's code. So
//! memory per account is what the further accounts add, from one number of them to another, and CPU per event is what comes
//! on top of the same time without events. The SDK stores nothing; the gateway is measured with Redis and without.

use std::time::Duration;

use imgate::sim::LoadOptions;
use serde::Deserialize;

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
    /// As many as the SDK can follow with ease.
    events_per_second: f64,
    window: Duration,
}

const FULL: Plan = Plan {
    accounts: 200,
    sdk_fewer: 50,
    gateway_more: 5000,
    events_per_second: 1000.0,
    window: Duration::from_secs(10),
};
const QUICK: Plan = Plan {
    accounts: 4,
    sdk_fewer: 2,
    gateway_more: 40,
    events_per_second: 20.0,
    window: Duration::from_secs(1),
};

/// What a process needs for all its accounts and for each, in KiB.
struct Memory {
    all: f64,
    each: f64,
}

/// CPU in microseconds.
struct Cpu {
    /// Per account and second.
    idle: f64,
    /// Per event, at an even pace.
    paced: f64,
    /// Per event, when as many come as are taken.
    flooded: f64,
    /// How many these are per second.
    taken: f64,
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
    rows(plan, &rounds)
}

fn rows(plan: Plan, rounds: &[Round]) -> Vec<Row> {
    let of = |figure: &dyn Fn(&Round) -> f64| rounds.iter().map(figure).collect();
    let row = |what: String, unit: &str, gateway: Vec<f64>, sdk: Vec<f64>| {
        Row::new("peers", what, unit, gateway).floor("SDK", sdk)
    };
    let memory = |what: String, figure: fn(&Memory) -> f64| {
        let gateways = of(&|round| figure(&round.gateway.0));
        row(what, "KiB", gateways, of(&|round| figure(&round.sdk.0)))
    };
    let cpu = |what: &str, unit: &str, figure: fn(&Cpu) -> f64| {
        let sdks = || of(&|round| figure(&round.sdk.1));
        let redis = of(&|round| figure(&round.gateway.1));
        let storeless = of(&|round| figure(&round.storeless));
        [(redis, "durable in Redis"), (storeless, "memory store")]
            .map(|(gateways, store)| row(format!("{what}, {store}"), unit, gateways, sdks()))
    };
    let fifth = |row: Row| row.goal(Of::Ratio, Better::Less, 1.0 / 5.0, None);
    let (accounts, pace) = (plan.accounts, plan.events_per_second);
    let mut rows = vec![
        memory(String::from("memory per account"), |memory| memory.each)
            .ratio_at_most(1.0 / 20.0, 1.0 / 40.0),
        memory(format!("memory with {accounts} accounts"), |memory| {
            memory.all
        }),
    ];
    let paced = format!("CPU per event at {pace} events/s");
    rows.extend(cpu(&paced, "us", |cpu| cpu.paced).map(fifth));
    rows.extend(cpu("CPU per event at the limit", "us", |cpu| cpu.flooded).map(fifth));
    rows.extend(cpu("events/s at the limit", "events/s", |cpu| cpu.taken));
    let [idle, _] = cpu("CPU per idle account and second", "us", |cpu| cpu.idle);
    rows.push(idle);
    rows
}

fn gateway(bench: &Bench, plan: Plan) -> (Memory, Cpu) {
    let mut stage = Stage::stored(bench, Kind::Redis);
    stage.raise(plan.accounts);
    let all = settled(bench, &stage.gateway.process);
    let cpu = gateway_cpu(bench, plan, &stage);
    let before = settled(bench, &stage.gateway.process);
    stage.raise(plan.gateway_more);
    let added = settled(bench, &stage.gateway.process) - before;
    let each = added / (plan.gateway_more - plan.accounts) as f64;
    (Memory { all, each }, cpu)
}

fn storeless(bench: &Bench, plan: Plan) -> Cpu {
    let mut stage = Stage::stored(bench, Kind::Memory);
    stage.raise(plan.accounts);
    gateway_cpu(bench, plan, &stage)
}

fn gateway_cpu(bench: &Bench, plan: Plan, stage: &Stage<'_>) -> Cpu {
    let idle = idle(plan, &stage.gateway.process);
    let [paced, flooded] = [plan.events_per_second, 0.0].map(|rate| {
        let plan = flow::Plan {
            sessions: plan.accounts,
            clients: 1,
            per_write: 1,
            rate,
        };
        let flowed = flow::through(bench, stage, &plan);
        (flowed.per_second, flowed.cpu_per_event)
    });
    Cpu::of(plan, idle, paced, flooded)
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
    let mut raise = |count: usize| {
        node.tell(&format!("raise {count}"));
        let report: Report = node.report(LOGINS);
        assert_eq!(report.accounts, count);
        settled(bench, &node)
    };
    let (fewer, all) = (raise(plan.sdk_fewer), raise(plan.accounts));
    let each = (all - fewer) / (plan.accounts - plan.sdk_fewer) as f64;
    let idle = idle(plan, &node);
    let [paced, flooded] =
        [plan.events_per_second, 0.0].map(|rate| sdk_receives(plan, &upstream, &mut node, rate));
    (Memory { all, each }, Cpu::of(plan, idle, paced, flooded))
}

/// Events per second, and the CPU of each in microseconds.
fn sdk_receives(plan: Plan, upstream: &Upstream, node: &mut Process, rate: f64) -> (f64, f64) {
    let warm_up = plan.window / 4;
    let load = upstream.load(&LoadOptions {
        events_per_second: rate,
        // Until the window is over for certain.
        seconds: (warm_up + plan.window * 2).as_secs_f64(),
        ..LoadOptions::default()
    });
    std::thread::sleep(warm_up);
    let (events, cpu) = (received(node), node.cpu());
    std::thread::sleep(plan.window);
    let (events, cpu) = (received(node) - events, node.cpu() - cpu);
    load.join().unwrap();
    let per_second = events as f64 / plan.window.as_secs_f64();
    (per_second, cpu.as_secs_f64() * 1e6 / events as f64)
}

fn received(node: &mut Process) -> u64 {
    node.tell("report");
    node.report::<Report>(PATIENCE).events
}

/// CPU per second while nothing comes, in microseconds.
fn idle(plan: Plan, process: &Process) -> f64 {
    let before = process.cpu();
    std::thread::sleep(plan.window);
    (process.cpu() - before).as_secs_f64() * 1e6 / plan.window.as_secs_f64()
}

impl Cpu {
    /// From events per second and the CPU of each, with what the process does anyway in it.
    fn of(plan: Plan, idle: f64, paced: (f64, f64), flooded: (f64, f64)) -> Self {
        let on_top = |(per_second, each): (f64, f64)| each - idle / per_second;
        Self {
            idle: idle / plan.accounts as f64,
            paced: on_top(paced),
            flooded: on_top(flooded),
            taken: flooded.0,
        }
    }
}
