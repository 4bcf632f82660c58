//! Events on their way: from the upstream's load, through the gateway or PIPE, to subscribers.

use std::time::Duration;

use imgate::sim::LoadOptions;
use tokio::time::Instant;

use crate::bench::{Bench, Core};
use crate::gateway::Gateway;
use crate::parts::delays::Told;
use crate::parts::pipe::Listening;
use crate::parts::subscriber::Subscribed;
use crate::process::{PATIENCE, Process};
use crate::stage::{Kind, Stage, TENANT};
use crate::upstream::{Upstream, Wire};

/// How long a load goes on before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long it is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// Between two looks whether all has come.
const LOOK: Duration = Duration::from_millis(20);

/// What flows where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) sessions: usize,
    /// Subscribers, each with its own accounts.
    pub(crate) clients: usize,
    /// Events to one session in one write.
    pub(crate) per_write: usize,
    /// Events per second; 0 is as many as are taken in some seconds, and then until all of them have come.
    pub(crate) rate: f64,
}

/// What was seen while it flowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flowed {
    pub(crate) per_second: f64,
    /// Of the gateway or PIPE, in microseconds.
    pub(crate) cpu_per_event: f64,
    pub(crate) came: Told,
}

/// How many events are on their way to the gateway at a time when as many come as it takes. Beyond what its queues hold it would leave
/// pushes out, for the upstream to keep; the load keeps none.
const UNACKNOWLEDGED: usize = 4000;
/// The most of them at one session: it takes in no more while it catches up.
const AT_A_SESSION: usize = 64;

impl Plan {
    fn load(&self, seconds: f64, unacknowledged: Option<u64>) -> LoadOptions {
        LoadOptions {
            events_per_second: self.rate,
            seconds,
            per_write: self.per_write,
            unacknowledged,
            ..LoadOptions::default()
        }
    }

    /// How many pushes to a session wait for the gateway's acknowledgement, at the most.
    fn unacknowledged(&self) -> u64 {
        let share = (UNACKNOWLEDGED / self.sessions).min(AT_A_SESSION);
        share.max(2 * self.per_write) as u64
    }
}

impl Flowed {
    fn of(came: Told, elapsed: Duration, cpu: Duration) -> Self {
        let events = came.count as f64;
        Self {
            per_second: events / elapsed.as_secs_f64(),
            cpu_per_event: cpu.as_secs_f64() * 1e6 / events,
            came,
        }
    }
}

/// Lets events flow through PIPE.
pub(crate) fn pipe(bench: &Bench, plan: &Plan) -> Flowed {
    let upstream = Upstream::start(bench, Wire::Plain);
    let sessions = plan.sessions.to_string();
    let arguments = [
        "pipe",
        "--upstream",
        &upstream.address,
        "--sessions",
        &sessions,
    ];
    let mut pipe = Process::part(bench, Core::Measured, &arguments);
    let listening: Listening = pipe.report(PATIENCE);
    let mut subscribers = Subscribers::start(bench, &listening.address.to_string(), plan);
    if plan.rate > 0.0 {
        paced(bench, plan, &upstream, &pipe, &mut subscribers)
    } else {
        // It acknowledges nothing: its sockets hold the upstream back.
        flooded(
            &plan.load(seconds(bench), None),
            &upstream,
            &pipe,
            &mut subscribers,
        )
    }
}

/// Lets events flow through the gateway.
pub(crate) fn gateway(bench: &Bench, kind: Kind, plan: &Plan) -> Flowed {
    let mut stage = Stage::stored(bench, kind);
    stage.raise(plan.sessions);
    through(bench, &stage, plan)
}

/// Lets events flow through a gateway that is there.
pub(crate) fn through(bench: &Bench, stage: &Stage<'_>, plan: &Plan) -> Flowed {
    let mut subscribers = Subscribers::of(bench, &stage.gateway, plan);
    let (upstream, process) = (&stage.upstream, &stage.gateway.process);
    if plan.rate > 0.0 {
        paced(bench, plan, upstream, process, &mut subscribers)
    } else {
        let load = plan.load(seconds(bench), Some(plan.unacknowledged()));
        flooded(&load, upstream, process, &mut subscribers)
    }
}

/// How long as many events come as are taken.
fn seconds(bench: &Bench) -> f64 {
    bench.size(3.0, 0.3)
}

/// What a window in the middle of an even flow shows.
fn paced(
    bench: &Bench,
    plan: &Plan,
    upstream: &Upstream,
    measured: &Process,
    subscribers: &mut Subscribers,
) -> Flowed {
    let (warm_up, window) = bench.size((WARM_UP, WINDOW), (WARM_UP / 5, WINDOW / 10));
    // Until the window is over for certain.
    let seconds = (warm_up + window).as_secs_f64() + 0.2;
    let load = upstream.load(&plan.load(seconds, None));
    std::thread::sleep(warm_up);
    let (before, began) = (measured.cpu(), Instant::now());
    subscribers.begin();
    std::thread::sleep(window);
    let (cpu, elapsed) = (measured.cpu() - before, began.elapsed());
    let came = subscribers.came();
    load.join().unwrap();
    Flowed::of(came, elapsed, cpu)
}

/// What it takes to get all through that the upstream's connections took in some seconds.
fn flooded(
    load: &LoadOptions,
    upstream: &Upstream,
    measured: &Process,
    subscribers: &mut Subscribers,
) -> Flowed {
    let (before, began) = (measured.cpu(), Instant::now());
    subscribers.begin();
    let flood = upstream.load(load);
    let pushed = flood.join().unwrap().pushed;
    let mut came = subscribers.came();
    let mut last = Instant::now();
    while came.count < pushed {
        assert!(
            last.elapsed() < PATIENCE,
            "{} of {pushed} events have come",
            came.count
        );
        std::thread::sleep(LOOK);
        let now = subscribers.came();
        if now.count > came.count {
            last = Instant::now();
        }
        came = now;
    }
    Flowed::of(came, last - began, measured.cpu() - before)
}

/// Subscribers, in one process.
pub(crate) struct Subscribers {
    process: Process,
}

impl Subscribers {
    /// Those of a plan, at the gateway.
    pub(crate) fn of(bench: &Bench, gateway: &Gateway<'_>, plan: &Plan) -> Self {
        Self::start(bench, &gateway.grpc, plan)
    }

    fn start(bench: &Bench, address: &str, plan: &Plan) -> Self {
        let (clients, sessions) = (plan.clients.to_string(), plan.sessions.to_string());
        let mut more = vec!["--tenant", TENANT, "--clients", &clients];
        if plan.clients > 1 {
            more.extend(["--share-accounts", &sessions]);
        }
        Self::with(bench, address, &more)
    }

    /// With arguments of one's own.
    pub(crate) fn with(bench: &Bench, address: &str, more: &[&str]) -> Self {
        let arguments = [&["subscriber", "--gateway", address], more].concat();
        let mut process = Process::part(bench, Core::Load, &arguments);
        let _ready: Subscribed = process.report(PATIENCE);
        Self { process }
    }

    /// Counts anew, from now on for certain.
    pub(crate) fn begin(&mut self) {
        self.process.tell("begin");
        let _none = self.came();
    }

    /// What has come since.
    pub(crate) fn came(&mut self) -> Told {
        self.process.tell("tell");
        self.process.report(PATIENCE)
    }
}
