//! Events as fast as they are taken, against PIPE: how many a core can do, by the CPU time of each, and how many came in a second.

use crate::bench::Bench;
use crate::flow::{self, Flowed, Plan};
use crate::row::Row;
use crate::stage::Kind;

/// A case, and what the ratio to PIPE is to be, at the least.
struct Case {
    what: &'static str,
    kind: Kind,
    plan: Plan,
    goal: Option<(f64, f64)>,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    cases(bench)
        .iter()
        .flat_map(|case| {
            let plan = &case.plan;
            let gateway = || flow::gateway(bench, case.kind, plan);
            let (floors, gateways) = bench.alternate(|| flow::pipe(bench, plan), gateway);
            rows(case, &floors, &gateways)
        })
        .collect()
}

fn cases(bench: &Bench) -> [Case; 5] {
    let plan = Plan {
        sessions: bench.size(1000, 10),
        clients: 1,
        per_write: 1,
        rate: 0.0,
    };
    let case = |what, plan, goal| Case {
        what,
        kind: Kind::Memory,
        plan,
        goal,
    };
    let coalesced = Plan {
        sessions: 8,
        per_write: 32,
        ..plan
    };
    let clients = Plan {
        clients: bench.size(100, 2),
        ..plan
    };
    let many = Plan {
        sessions: bench.size(10_000, 20),
        ..plan
    };
    [
        case("1,000 sessions, one in a write", plan, Some((0.8, 1.0))),
        case("8 sessions, 32 in a write", coalesced, Some((0.7, 1.3))),
        case(
            "100 clients, each its own accounts",
            clients,
            Some((0.8, 0.95)),
        ),
        case("10,000 sessions, one in a write", many, None),
        Case {
            kind: Kind::Embedded,
            ..case("1,000 sessions, one in a write", plan, None)
        },
    ]
}

fn rows(case: &Case, floors: &[Flowed], gateways: &[Flowed]) -> [Row; 2] {
    let row = |figure: &str, of: fn(&Flowed) -> f64| {
        let what = format!("{figure}, {}, {}", case.kind.label(), case.what);
        let of = |rounds: &[Flowed]| rounds.iter().map(of).collect();
        Row::new("events", what, "events/s", of(gateways)).floor("PIPE", of(floors))
    };
    // What its core would do with nothing else to wait for. The sender of an event, on the other cores, pays for more of the loopback
    // than its receiver, and so PIPE waits for it.
    let of_a_core = row("events by one core", |flowed| 1e6 / flowed.cpu_per_event);
    let of_a_core = match case.goal {
        Some((reach, moonshot)) => of_a_core.ratio_at_least(reach, moonshot),
        None => of_a_core,
    };
    [of_a_core, row("events", |flowed| flowed.per_second)]
}
