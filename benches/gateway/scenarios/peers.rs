//! What a bot's author would do without a gateway: the vendor's SDK in Node, one instance per account, all in one process.
//! The same accounts with the same messages, by the gateway and by the SDK in turn.
//!
//! Both have a part that does not grow with the accounts: the gateway's process and pools, Node and the SDK's code. Memory
//! per account is therefore what the further accounts add, from one number of them to another; the SDK's figure without
//! its fixed part is its best. CPU per event is what comes on top of the same seconds without events.

use std::time::Duration;

use imgate::sim::LoadOutcome;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, Core};
use crate::gateway::UNPACED;
use crate::memory::settled;
use crate::parts::subscriber::{Came, Subscribed};
use crate::process::{PATIENCE, Process};
use crate::row::{Better, Of, Row};
use crate::stage::{Stage, TENANT};
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
    events_per_second: u32,
    seconds: u32,
}

const FULL: Plan = Plan {
    accounts: 200,
    sdk_fewer: 50,
    gateway_more: 5000,
    events_per_second: 500,
    seconds: 20,
};
const QUICK: Plan = Plan {
    accounts: 4,
    sdk_fewer: 2,
    gateway_more: 40,
    events_per_second: 20,
    seconds: 1,
};

/// What one round has shown, of either.
struct Round {
    /// In MiB, with all accounts that get events.
    memory: f64,
    /// In KiB.
    memory_per_account: f64,
    /// In microseconds.
    cpu_per_event: f64,
    /// In microseconds.
    idle_cpu_per_account: f64,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let plan = bench.size(FULL, QUICK);
    let (sdks, gateways) = bench.alternate(|| sdk(bench, plan), || gateway(bench, plan));
    let row = |what: String, unit: &str, figure: fn(&Round) -> f64| {
        let of = |rounds: &[Round]| rounds.iter().map(figure).collect();
        Row::new("peers", what, unit, of(&gateways)).floor("SDK", of(&sdks))
    };
    let Plan {
        accounts,
        events_per_second,
        ..
    } = plan;
    vec![
        row("memory per account".into(), "KiB", |round| {
            round.memory_per_account
        })
        .ratio_at_most(1.0 / 20.0, 1.0 / 40.0),
        row(
            format!("memory of a process with {accounts} accounts"),
            "MiB",
            |round| round.memory,
        ),
        row(
            format!("CPU per event, {accounts} accounts, {events_per_second}/s"),
            "us",
            |round| round.cpu_per_event,
        )
        .goal(Of::Ratio, Better::Less, 1.0 / 5.0, None),
        row("CPU per idle account and second".into(), "us", |round| {
            round.idle_cpu_per_account
        }),
    ]
}

/// What the SDK's program answers.
#[derive(Debug, Deserialize)]
struct Report {
    accounts: usize,
    events: u64,
}

fn sdk(bench: &Bench, plan: Plan) -> Round {
    let mut upstream = Upstream::start(bench, Wire::Plain);
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
    let (idle, busy) = cpu(plan, &mut upstream, &mut node, |node| {
        node.tell("report");
        node.report::<Report>(PATIENCE).events
    });
    Round::of(
        plan,
        all,
        (all - fewer) / (plan.accounts - plan.sdk_fewer) as f64,
        idle,
        busy,
    )
}

fn gateway(bench: &Bench, plan: Plan) -> Round {
    let mut stage = Stage::start(bench, Wire::Plain, UNPACED);
    let address = stage.gateway.grpc.clone();
    let arguments = ["subscriber", "--gateway", &address, "--tenant", TENANT];
    let mut subscriber = Process::part(bench, Core::Load, &arguments);
    let _subscribed: Subscribed = subscriber.report(PATIENCE);
    stage.raise(plan.accounts);
    let few = settled(bench, &stage.gateway.process);
    let (upstream, process) = (&mut stage.upstream, &mut stage.gateway.process);
    let (idle, busy) = cpu(plan, upstream, process, |_| {
        subscriber.tell("tell");
        subscriber.report::<Came>(PATIENCE).events
    });
    let before = settled(bench, &stage.gateway.process);
    stage.raise(plan.gateway_more);
    let added = settled(bench, &stage.gateway.process) - before;
    Round::of(
        plan,
        few,
        added / (plan.gateway_more - plan.accounts) as f64,
        idle,
        busy,
    )
}

impl Round {
    fn of(plan: Plan, kib: f64, per_account: f64, idle: Duration, busy: Busy) -> Self {
        let on_top = busy.cpu.saturating_sub(idle);
        let idle = idle.as_secs_f64() / f64::from(plan.seconds);
        Self {
            memory: kib / 1024.0,
            memory_per_account: per_account,
            cpu_per_event: on_top.as_secs_f64() * 1e6 / busy.events as f64,
            idle_cpu_per_account: idle * 1e6 / plan.accounts as f64,
        }
    }
}

/// The CPU that events have cost.
struct Busy {
    events: u64,
    cpu: Duration,
}

/// The process's CPU in so many seconds without events, and in as many with them, until all have been counted.
fn cpu(
    plan: Plan,
    upstream: &mut Upstream,
    process: &mut Process,
    mut count: impl FnMut(&mut Process) -> u64,
) -> (Duration, Busy) {
    let before = process.cpu();
    std::thread::sleep(Duration::from_secs(plan.seconds.into()));
    let idle = process.cpu() - before;
    let load = json!({ "events_per_second": plan.events_per_second, "seconds": plan.seconds });
    let before = process.cpu();
    let done = upstream.control.post("/load", &load.to_string());
    let LoadOutcome { pushed, .. } = serde_json::from_str(&done).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let events = count(process);
        let cpu = process.cpu() - before;
        if events >= pushed {
            assert_eq!(events, pushed, "an event came twice");
            return (idle, Busy { events, cpu });
        }
        assert!(
            Instant::now() < deadline,
            "{events} of {pushed} events have come"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
