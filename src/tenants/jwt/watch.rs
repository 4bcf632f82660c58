//! Keeps the keys of each issuer fresh: one task an issuer, which lives as long as the issuer is configured.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{Instrument as _, info, info_span, warn};

use super::metrics::{JWKS_AGE, JWKS_READS};
use super::{Issuer, IssuerOptions, source};
use crate::runtime::supervisor::{TaskKind, Tasks};

/// How soon a reading that failed is tried again, unless `refresh` is shorter.
const RETRY: Duration = Duration::from_secs(10);
/// How often at most an unknown key leads to a reading.
const WANTED_EVERY: Duration = Duration::from_secs(10);
/// How often the age is measured.
const AGE_EVERY: Duration = Duration::from_secs(5);

/// The issuers of the configuration, each with the task that keeps its keys.
#[derive(Debug)]
pub struct Issuers {
    running: Vec<(Arc<Issuer>, Tasks)>,
    tasks: Tasks,
}

impl Issuers {
    /// None yet. Their tasks stop with `tasks`.
    pub fn new(tasks: &Tasks) -> Self {
        Self {
            running: Vec::new(),
            tasks: tasks.clone(),
        }
    }

    /// The issuers of these options, for [`Issuers::run`]. One that runs with the same options already is that one, with its keys.
    pub fn prepare(&self, options: Vec<IssuerOptions>) -> Vec<Arc<Issuer>> {
        let prepared = options.into_iter().map(|options| {
            let same = self
                .running
                .iter()
                .find(|(issuer, _)| issuer.options == options);
            same.map_or_else(
                || Arc::new(Issuer::new(options)),
                |(issuer, _)| Arc::clone(issuer),
            )
        });
        prepared.collect()
    }

    /// Makes these the issuers that run: what runs already goes on, what is new starts, what is not among them stops.
    pub fn run(&mut self, issuers: &[Arc<Issuer>]) {
        self.running.retain(|(running, tasks)| {
            let stays = issuers.iter().any(|issuer| Arc::ptr_eq(issuer, running));
            if !stays {
                tasks.stop();
            }
            stays
        });
        for issuer in issuers {
            let runs = |(running, _): &(Arc<Issuer>, Tasks)| Arc::ptr_eq(running, issuer);
            if self.running.iter().any(runs) {
                continue;
            }
            let tasks = self.tasks.child();
            let span = info_span!("jwt_issuer", issuer = %issuer.options.id);
            let keeping = keep(Arc::clone(issuer), tasks.clone()).instrument(span);
            tasks.spawn("jwt issuer", TaskKind::Work, keeping);
            self.running.push((Arc::clone(issuer), tasks));
        }
    }
}

async fn keep(issuer: Arc<Issuer>, tasks: Tasks) {
    let mut keeper = Keeper {
        issuer,
        fresh_at: Instant::now(),
        has_keys: false,
        wanted_at: None,
        failing: false,
    };
    loop {
        let turn = async {
            let pause = keeper.read().await;
            keeper.wait(pause).await;
        };
        tokio::select! {
            () = turn => {}
            () = tasks.stopping() => break,
        }
    }
    // The series stays for as long as the process, and nobody is to be woken by it.
    keeper.age().set(0.0);
}

struct Keeper {
    issuer: Arc<Issuer>,
    /// When the keys in use were read; before that, when this began.
    fresh_at: Instant,
    has_keys: bool,
    /// When an unknown key last led to a reading.
    wanted_at: Option<Instant>,
    failing: bool,
}

impl Keeper {
    /// Reads the keys; the last good ones stay if that fails. Answers when to read again.
    async fn read(&mut self) -> Duration {
        let options = &self.issuer.options;
        let read = source::read(&options.source).await;
        let outcome = if read.is_ok() { "ok" } else { "failed" };
        counter!(JWKS_READS, "issuer" => options.id.clone(), "outcome" => outcome).increment(1);
        let pause = match read {
            Ok(keys) => {
                if self.failing || !self.has_keys {
                    info!(keys = keys.len(), "the issuer's keys are read");
                }
                self.failing = false;
                self.has_keys = true;
                self.fresh_at = Instant::now();
                self.issuer.keys.store(Some(Arc::new(keys)));
                options.refresh
            }
            Err(error) => {
                if !self.failing {
                    warn!(%error, "the issuer's keys cannot be read; the last ones stay in use");
                }
                self.failing = true;
                options.refresh.min(RETRY)
            }
        };
        self.measure();
        pause
    }

    /// Waits until the time has passed, or until a key is wanted that is not there: at once for the first, then seldom, for
    /// anybody can name keys that there are not.
    async fn wait(&mut self, pause: Duration) {
        let due = Instant::now() + pause;
        let mut ticks = interval(AGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.issuer.wanted.notified() => {
                    if let Some(before) = self.wanted_at {
                        sleep_until(due.min(before + WANTED_EVERY)).await;
                    }
                    self.wanted_at = Some(Instant::now());
                    return;
                }
                _ = ticks.tick() => self.measure(),
            }
        }
    }

    fn measure(&self) {
        self.age().set(self.fresh_at.elapsed().as_secs_f64());
    }

    fn age(&self) -> metrics::Gauge {
        gauge!(JWKS_AGE, "issuer" => self.issuer.options.id.clone())
    }
}

#[cfg(test)]
mod tests;
