//! What a tenant that calls far more often than it may costs 50 quiet ones: the delays of their events and of their sends, without it and
//! with it, in turns at one gateway.

use std::time::Duration;

use imgate::sim::LoadOptions;

use crate::bench::{Bench, Core};
use crate::clients;
use crate::flow::Subscribers;
use crate::gateway::{Tenant, UNPACED};
use crate::messages::FRIEND;
use crate::parts::delays::Told;
use crate::parts::noise::Called;
use crate::process::{PATIENCE, Process};
use crate::row::Row;
use crate::stage::{Kind, Stage};
use crate::upstream::{Wire, account};

const QUIET: usize = 50;
/// Accounts of each quiet tenant.
const ACCOUNTS: usize = 2;
/// Events per second to all quiet tenants together.
const RATE: f64 = 1000.0;
/// Calls per second of the noisy tenant, some ten times as many as it may.
const NOISE: u32 = 300;
const NOISY: Tenant<'_> = Tenant {
    id: "noisy",
    logins_per_minute: 6,
    sends_per_second: 10,
    subscribers: 5,
    kept: 100_000,
};

/// Of the quiet tenants.
struct Round {
    events: Told,
    sends: Told,
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let names: Vec<_> = (0..bench.size(QUIET, 3))
        .map(|number| format!("quiet{number}"))
        .collect();
    let quiet = names.iter().map(|name| Tenant::free(name));
    let tenants: Vec<_> = quiet.chain([NOISY]).collect();
    let mut stage = Stage::with(bench, Wire::Plain, UNPACED, Kind::Memory, &tenants);
    for (number, tenant) in tenants.iter().enumerate() {
        let first = number * ACCOUNTS;
        clients::log_in(bench, &stage.gateway, tenant.id, first..first + ACCOUNTS);
    }
    stage
        .gateway
        .until_online(tenants.len() * ACCOUNTS, PATIENCE);
    let control = &mut stage.upstream.control;
    control.post("/account", &format!("{{\"user_id\":\"{FRIEND}\"}}"));

    let stage = &stage;
    let mut all: Vec<&str> = Vec::new();
    for name in &names {
        all.extend(["--tenant", name]);
    }
    let mut subscribers = Subscribers::with(bench, &stage.gateway.grpc, &all);
    let sends = [
        "sends",
        "--gateway",
        &stage.gateway.grpc,
        "--tenant",
        &names[0],
    ];
    let accounts = ACCOUNTS.to_string();
    let sends = [&sends[..], &["--accounts", &accounts, "--in-flight", "1"]].concat();
    let mut sends = Process::part(bench, Core::Load, &sends);
    let _ready: String = sends.report(PATIENCE);
    let mut round = || {
        round(
            bench,
            stage,
            names.len() * ACCOUNTS,
            &mut subscribers,
            &mut sends,
        )
    };
    // One that warms everything up.
    round();
    let mut rounds = Vec::new();
    for _ in bench.rounds() {
        let without = round();
        let mut noise = noise(bench, stage, names.len() * ACCOUNTS);
        let with = round();
        noise.tell("stop");
        let called: Called = noise.report(PATIENCE);
        let most = called.refused * 3 > called.calls * 2;
        assert!(most, "of the noisy tenant's calls: {called:?}");
        rounds.push((without, with));
    }
    rows(&rounds)
}

fn rows(rounds: &[(Round, Round)]) -> Vec<Row> {
    let row = |name: &str, of: fn(&Round) -> f64| {
        let what = format!("{name} of {QUIET} quiet tenants beside a noisy one");
        let with = rounds.iter().map(|(_, with)| of(with)).collect();
        let without = rounds.iter().map(|(without, _)| of(without)).collect();
        Row::new("noisy", what, "ms", with).floor("without", without)
    };
    vec![
        row("delay p50", |round| round.events.p50),
        row("delay p99", |round| round.events.p99).ratio_at_most(1.2, 1.05),
        row("send p50", |round| round.sends.p50),
        row("send p99", |round| round.sends.p99).ratio_at_most(1.2, 1.05),
    ]
}

fn noise(bench: &Bench, stage: &Stage<'_>, number: usize) -> Process {
    let (number, rate) = (number.to_string(), NOISE.to_string());
    let arguments = [
        "noise",
        "--gateway",
        &stage.gateway.grpc,
        "--tenant",
        NOISY.id,
    ];
    let arguments = [
        &arguments[..],
        &["--account", &number, "--per-second", &rate],
    ]
    .concat();
    let mut noise = Process::part(bench, Core::Load, &arguments);
    let _ready: String = noise.report(PATIENCE);
    // Until what it may at first is used up.
    std::thread::sleep(Duration::from_secs(1));
    noise
}

fn round(
    bench: &Bench,
    stage: &Stage<'_>,
    quiet_accounts: usize,
    subscribers: &mut Subscribers,
    sends: &mut Process,
) -> Round {
    let seconds = bench.size(5.0, 1.0);
    subscribers.begin();
    sends.tell("begin");
    let load = stage.upstream.load(&LoadOptions {
        events_per_second: RATE,
        seconds,
        prefix: account(0)[..3].to_owned(),
        count: Some(quiet_accounts),
        ..LoadOptions::default()
    });
    load.join().unwrap();
    sends.tell("tell");
    Round {
        events: subscribers.came(),
        sends: sends.report(PATIENCE),
    }
}
