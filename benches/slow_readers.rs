//! What a subscriber that never reads costs the others: the delay of 50 live subscribers' events, without one and with
//! one, in rounds that take turns within one run.
//!
//! ```text
//! cargo bench --bench slow_readers              about two minutes
//! cargo bench --bench slow_readers -- --quick   a few short rounds: it shows that the benchmark works
//! ```
//!
//! How to read it:
//!
//! - A delay begins when the simulated upstream is handed a message and ends when a subscriber's client has decoded its
//!   event. The simulator, the gateway with its store in memory and all subscribers are in this one process, over real
//!   sockets, so a delay holds the work of all of them, and on a small machine mostly that of the 50 clients.
//! - **The ratios are what counts**: of the delay with the stalled one by the delay without, of two rounds that follow each
//!   other. Shown are the median of all pairs and, in brackets, their middle half. 1.00 is no difference.
//! - The last column is the yardstick: the same of pairs of rounds that are both without. A ratio whose median lies within
//!   those brackets shows no difference. The delays themselves tell of the machine and of what else it does; when that is
//!   much, the brackets of both columns are wide, and the run is better repeated.
//! - A message comes late to all 50 or to none, so that p99.9 is made of the one latest message of a round; it is rough.
//! - The memory is the whole process's, and grows in both kinds of rounds by what the simulator keeps of its messages.
//!   The stalled one may hold what fills its HTTP/2 window and two batches, below 1 MiB; a queue that took all that
//!   it does not read would grow by what the last line says.
//! - "taken for it" is how many of the events were read from the log for the one that does not read. The benchmark fails
//!   when it is not stalled: when that is all of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on fails, and it prints what it has measured"
)]

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use imgate::app::App;
use imgate::config::StoreKind;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::fixture::*;
use crate::ratios::{median, percentiles, ratios};
use crate::subscriber::{Connection, Subscriber, Traffic};

#[path = "../tests/trouble/client.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod client;
#[path = "../tests/trouble/fixture.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod fixture;
#[path = "support/ratios.rs"]
mod ratios;
#[path = "../tests/slow_readers/subscriber.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod subscriber;

const LIVE: usize = 50;
const TRAFFIC: Traffic = Traffic {
    bots: 10,
    bytes: 1024,
};
/// Between two messages.
const PACE: Duration = Duration::from_millis(5);
/// Messages before the ones that are measured, as fast as they go: more than a stalled one's window and batches take.
const FILL: usize = 600;
/// So many of them at a time.
const LOT: usize = 100;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Rounds without a stalled subscriber and with one.
    pairs: usize,
    /// Messages measured in a round.
    messages: usize,
}

const FULL: Plan = Plan {
    pairs: 24,
    messages: 400,
};
const QUICK: Plan = Plan {
    pairs: 2,
    messages: 100,
};

/// What a round has shown.
struct Round {
    /// p50, p99 and p99.9 in milliseconds.
    delays: [f64; 3],
    /// In MiB.
    growth: f64,
    /// Events read from the log for those who do not read.
    taken: usize,
}

/// The upstream and the gateway.
struct Stage {
    upstream: Upstream,
    app: App,
    metrics: PrometheusHandle,
    tasks: Tasks,
    /// The number of the next message.
    next: usize,
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let plan = if quick { QUICK } else { FULL };
    let mut stage = Stage::start().await;
    // The first round warms everything up.
    stage.round(plan.messages, false).await;
    let begin = resident_mib();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..plan.pairs {
        // Each kind is first in every other pair, or a drift of the machine would look like a difference.
        for stalled in [pair % 2 == 1, pair % 2 == 0] {
            let round = stage.round(plan.messages, stalled).await;
            if stalled { &mut with } else { &mut without }.push(round);
        }
    }
    print(plan, &without, &with);
    println!(
        "memory             {begin:.0} MiB before, {:.0} MiB after",
        resident_mib()
    );
    stage.stop().await;
}

impl Stage {
    async fn start() -> Self {
        let metrics = imgate::observability::metrics::install().unwrap();
        let upstream = Upstream::start().await;
        let mut tenant = tenant("acme", upstream.url());
        // The log is in this process too: let it reach its bound in the first rounds.
        tenant.log.retain_events = 1000;
        let config = config(StoreKind::Memory, vec![tenant]);
        let app = App::start(config, metrics.clone()).await.unwrap();
        within(app.ready()).await;
        TRAFFIC
            .online(&Client::connect(app.grpc_address(), "acme").await)
            .await;
        Self {
            upstream,
            app,
            metrics,
            tasks: Tasks::new(),
            next: 0,
        }
    }

    async fn stop(self) {
        self.tasks.ended().await;
        assert!(self.app.stop().await, "it does not stop in time");
    }

    fn delivered(&self) -> usize {
        sum_of(&self.metrics.render(), "imgate_events_delivered_total", "") as usize
    }

    async fn round(&mut self, messages: usize, with_stalled: bool) -> Round {
        let address = self.app.grpc_address();
        let (memory, delivered) = (resident_mib(), self.delivered());
        let all = self.next..self.next + FILL + messages;
        self.next = all.end;
        let measured = all.start + FILL..all.end;
        let sent: Arc<[OnceLock<Instant>]> = measured.clone().map(|_| OnceLock::new()).collect();
        let mut stalled = None;
        if with_stalled {
            stalled = Some(
                Connection::narrow(address)
                    .await
                    .subscribe_to_latest()
                    .await,
            );
        }
        let mut filled = Vec::new();
        let mut reading = Vec::new();
        for _ in 0..LIVE {
            let subscriber = Connection::open(address).await.subscribe_to_latest().await;
            let (tell_filled, is_filled) = oneshot::channel();
            let (tell_delays, delays) = oneshot::channel();
            let (measured, sent) = (measured.clone(), Arc::clone(&sent));
            self.tasks.spawn("reader", TaskKind::Work, async move {
                let mut reader = Reader {
                    subscriber,
                    count: 0,
                };
                reader.read(FILL, |_, _| {}).await;
                tell_filled.send(()).unwrap();
                let mut delays = Vec::with_capacity(measured.len());
                let note = |number: usize, at: Instant| {
                    let sent = sent[number - measured.start].get().expect("it was sent");
                    delays.push(at - *sent);
                };
                reader.read(FILL + measured.len(), note).await;
                tell_delays.send(delays).unwrap();
            });
            filled.push(is_filled);
            reading.push(delays);
        }
        self.fill(all.start..measured.start).await;
        for is_filled in filled {
            within(is_filled).await.expect("a reader has failed");
        }
        self.send(measured, &sent).await;
        let mut delays = Vec::new();
        for of_one in reading {
            delays.extend(within(of_one).await.expect("a reader has failed"));
        }
        let growth = resident_mib() - memory;
        let taken = self.delivered() - delivered - LIVE * all.len();
        if with_stalled {
            assert!(
                taken < all.len() / 2,
                "it was not stalled: {taken} of {}",
                all.len()
            );
        }
        drop(stalled);
        Round {
            delays: percentiles(delays),
            growth,
            taken,
        }
    }

    /// Sends as fast as the session takes it.
    async fn fill(&self, numbers: Range<usize>) {
        let acked = || {
            TRAFFIC
                .accounts()
                .map(|account| self.upstream.user(&account).acked)
        };
        let before: u64 = acked().sum();
        for first in numbers.clone().step_by(LOT) {
            TRAFFIC.push(&self.upstream, first..first + LOT);
            let so_far = before + (first + LOT - numbers.start) as u64;
            until("the upstream's messages are not taken", || {
                acked().sum::<u64>() >= so_far
            })
            .await;
        }
    }

    /// Sends at an even pace, and notes when.
    async fn send(&self, numbers: Range<usize>, sent: &[OnceLock<Instant>]) {
        let mut beat = tokio::time::interval(PACE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (number, sent) in numbers.zip(sent) {
            beat.tick().await;
            sent.set(Instant::now()).unwrap();
            TRAFFIC.push(&self.upstream, number..number + 1);
        }
    }
}

struct Reader {
    subscriber: Subscriber,
    count: usize,
}

impl Reader {
    /// Reads until so many messages have come in all, and notes when each came.
    async fn read(&mut self, count: usize, mut note: impl FnMut(usize, Instant)) {
        while self.count < count {
            let came = self.subscriber.batch().await;
            let at = Instant::now();
            assert_eq!(came.gaps, []);
            for message in &came.messages {
                let number = message.text.split(' ').next().unwrap_or_default();
                note(number.parse().unwrap(), at);
                self.count += 1;
            }
        }
    }
}

/// The memory of this process.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<f64>().unwrap() / 1024.0
}

fn print(plan: Plan, without: &[Round], with: &[Round]) {
    let Plan { pairs, messages } = plan;
    println!(
        "\n{LIVE} live subscribers, {messages} messages a round, one every {PACE:?}; medians of {pairs} rounds each\n"
    );
    println!("                   without  1 stalled  RATIO                 both without");
    for (index, name) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
        let delay = |round: &Round| round.delays[index];
        let (of_without, of_with) = (without.iter().map(delay), with.iter().map(delay));
        let neighbours = of_without.clone().zip(of_without.clone().skip(1));
        println!(
            "delay {name:<6} ms  {:>8.2}   {:>8.2}  {:<20}  {}",
            median(of_without.clone()),
            median(of_with.clone()),
            ratios(of_without.zip(of_with)),
            ratios(neighbours),
        );
    }
    let growth = |rounds: &[Round]| median(rounds.iter().map(|round| round.growth));
    println!(
        "memory grows, MiB  {:>7.2}   {:>8.2}",
        growth(without),
        growth(with)
    );
    let taken = median(with.iter().map(|round| round.taken as f64));
    let unread = (FILL + messages) as f64;
    // An event holds its text twice.
    let queue = (unread - taken) * 2.0 * TRAFFIC.bytes as f64 / f64::from(1 << 20);
    println!(
        "taken for it       {taken:.0} of {unread:.0} events; a queue of the rest would be {queue:.1} MiB"
    );
}
