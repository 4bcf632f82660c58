//! What a tenant that calls far more than it may costs another one: the delay of the quiet tenant's sends, without a noisy
//! tenant and with one, in rounds that take turns within one run.
//!
//! ```text
//! cargo bench --bench noisy_tenant              about two minutes
//! cargo bench --bench noisy_tenant -- --quick   a few short rounds: it shows that the benchmark works
//! ```
//!
//! How to read it:
//!
//! - A delay begins when the quiet tenant's client calls Send and ends when it has the answer of the simulated upstream. The
//!   simulator, the gateway with its store in memory and both tenants' clients are in this one process, over real sockets.
//! - The noisy tenant calls Send, Login and Subscribe [`NOISE_PER_SECOND`] times a second, some ten times as often as it may.
//!   So a delay with it also holds the work of its own client and of reading and refusing its calls, which an operator pays
//!   in CPU; on a machine of two cores that shows. What must not show is that a quiet call waits behind noisy ones.
//! - **The ratios are what counts**: of the delay with the noisy one by the delay without, of two rounds that follow each
//!   other. Shown are the median of all pairs and, in brackets, their middle half. 1.00 is no difference.
//! - The last column is the yardstick: the same of pairs of rounds that are both without. A ratio whose median lies within
//!   those brackets shows no difference.
//! - "refused" is how many of the noisy tenant's calls were, in a round. The benchmark fails when that are not most of them,
//!   and when any call of the quiet tenant is.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on fails, and it prints what it has measured"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use imgate::app::App;
use imgate::config::StoreKind;
use imgate::proto::v1;
use imgate::proto::v1::subscribe_request::Start;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::fixture::*;
use crate::ratios::{median, percentiles, ratios};

#[path = "../tests/trouble/client.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod client;
#[path = "../tests/trouble/fixture.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod fixture;
#[path = "support/ratios.rs"]
mod ratios;

/// Accounts of the quiet tenant.
const BOTS: usize = 10;
/// Between two sends of the quiet tenant.
const PACE: Duration = Duration::from_millis(5);
/// Calls of the noisy tenant, of each kind in turn.
const NOISE_PER_SECOND: u32 = 300;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Rounds without a noisy tenant and with one.
    pairs: usize,
    /// Sends measured in a round.
    sends: usize,
}

const FULL: Plan = Plan {
    pairs: 24,
    sends: 400,
};
const QUICK: Plan = Plan {
    pairs: 2,
    sends: 100,
};

/// What a round has shown.
struct Round {
    /// p50, p99 and p99.9 in milliseconds.
    delays: [f64; 3],
    /// Calls of the noisy tenant, and how many of them were refused.
    noise: usize,
    refused: usize,
}

/// The upstream and the gateway.
struct Stage {
    upstream: Upstream,
    app: App,
    metrics: PrometheusHandle,
    quiet: Client,
    noisy: Client,
    tasks: Tasks,
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let plan = if quick { QUICK } else { FULL };
    let stage = Stage::start().await;
    // The first rounds warm everything up.
    stage.round(plan.sends, false).await;
    stage.round(plan.sends, true).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..plan.pairs {
        // Each kind is first in every other pair, or a drift of the machine would look like a difference.
        for noisy in [pair % 2 == 1, pair % 2 == 0] {
            let round = stage.round(plan.sends, noisy).await;
            if noisy { &mut with } else { &mut without }.push(round);
        }
    }
    print(plan, &without, &with);
    stage.stop().await;
}

impl Stage {
    async fn start() -> Self {
        let metrics = imgate::observability::metrics::install().unwrap();
        let upstream = Upstream::start().await;
        let mut noisy = tenant("noisy", upstream.url());
        noisy.limits.sends_per_second = 10;
        noisy.limits.logins_per_minute = 60;
        noisy.limits.subscribers = 5;
        let quiet = tenant("quiet", upstream.url());
        let config = config(StoreKind::Memory, vec![noisy, quiet]);
        let app = App::start(config, metrics.clone()).await.unwrap();
        within(app.ready()).await;
        let quiet = Client::connect(app.grpc_address(), "quiet").await;
        let noisy = Client::connect(app.grpc_address(), "noisy").await;
        upstream.sim.account("friend").unwrap();
        for bot in numbered("calm", BOTS) {
            quiet.online(&bot).await;
        }
        noisy.online("loud").await;
        Self {
            upstream,
            app,
            metrics,
            quiet,
            noisy,
            tasks: Tasks::new(),
        }
    }

    async fn stop(self) {
        self.tasks.ended().await;
        assert!(self.app.stop().await, "it does not stop in time");
        drop(self.upstream);
    }

    fn refused(&self) -> usize {
        let name = "imgate_tenant_quota_refusals_total";
        sum_of(&self.metrics.render(), name, "") as usize
    }

    async fn round(&self, sends: usize, with_noise: bool) -> Round {
        let before = self.refused();
        let noise = Arc::new(AtomicUsize::new(0));
        let making = Tasks::new();
        if with_noise {
            self.make_noise(&making, &noise);
        }
        let (done, mut delays) = mpsc::channel(sends);
        let mut beat = tokio::time::interval(PACE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..sends {
            beat.tick().await;
            let (quiet, done) = (self.quiet.clone(), done.clone());
            let bot = format!("calm-{}", number % BOTS);
            self.tasks.spawn("send", TaskKind::Work, async move {
                let began = Instant::now();
                let sent = quiet.send(&bot, "friend", "hello", "").await;
                assert_eq!(sent.expect("a quiet send is refused").code, 0);
                done.send(began.elapsed()).await.unwrap();
            });
        }
        drop(done);
        let mut all = Vec::new();
        while let Some(delay) = within(delays.recv()).await {
            all.push(delay);
        }
        assert_eq!(all.len(), sends, "a quiet send has failed");
        making.stop();
        making.ended().await;
        let (noise, refused) = (noise.load(Ordering::Relaxed), self.refused() - before);
        if with_noise {
            assert!(refused * 3 > noise * 2, "{refused} of {noise} refused");
        } else {
            assert_eq!(refused, 0);
        }
        Round {
            delays: percentiles(all),
            noise,
            refused,
        }
    }

    /// Calls Send, Login and Subscribe in turn at an even pace, whether they are answered or not.
    fn make_noise(&self, tasks: &Tasks, count: &Arc<AtomicUsize>) {
        let (noisy, count, group) = (self.noisy.clone(), Arc::clone(count), tasks.clone());
        tasks.spawn("noise", TaskKind::Work, async move {
            let mut beat = tokio::time::interval(Duration::from_secs(1) / NOISE_PER_SECOND);
            loop {
                tokio::select! {
                    () = group.stopping() => return,
                    _ = beat.tick() => {}
                }
                let (noisy, stop) = (noisy.clone(), group.clone());
                let number = count.fetch_add(1, Ordering::Relaxed);
                group.spawn("noisy call", TaskKind::Work, async move {
                    let at = Start::At(v1::StartAt::Latest.into());
                    match number % 3 {
                        0 => drop(noisy.send("loud", "friend", "LOUD", "").await),
                        1 => drop(noisy.login(&format!("loud-{number}"), "no-good").await),
                        _ => {
                            let stream = noisy.subscribe_from(at).await;
                            if stream.is_ok() {
                                stop.stopping().await;
                            }
                        }
                    }
                });
            }
        });
    }
}

fn print(plan: Plan, without: &[Round], with: &[Round]) {
    let Plan { pairs, sends } = plan;
    println!(
        "\n{sends} sends a round by the quiet tenant, one every {PACE:?}; medians of {pairs} rounds each\n"
    );
    println!("                   without    1 noisy  RATIO                 both without");
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
    let refused = median(with.iter().map(|round| round.refused as f64));
    let noise = median(with.iter().map(|round| round.noise as f64));
    println!("refused            {refused:.0} of {noise:.0} calls of the noisy tenant");
}
