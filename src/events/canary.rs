//! An event that a replica sends itself, again and again, on the way that all events go: through a writer into the
//! store, and out again by a subscription. While it comes through, so do the others.
//!
//! Each replica has a partition of its own for it, of a tenant that no customer can be. Of its log nothing is counted
//! as traffic.

use std::collections::HashSet;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{Instrument as _, debug, info_span, warn};

use super::log::{Append, AppendError, LogOptions, LogWriter};
use super::metrics as names;
use super::service::{Events, EventsError, Start, SubscribeOptions, TenantLogs};
use super::subscription::{Delivery, Subscription};
use crate::proto::v1;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::Lease;
use crate::types::{AccountId, PartitionId, ReplicaId, TenantId};

/// The pause after a subscription that did not begin, or that ended.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// So seldom that a canary which is not told of is late, and seen to be, and is not found by a look at the log.
const HEARTBEAT: Duration = Duration::from_secs(24 * 3600);
/// It is delivered by itself, or with a few that waited with it.
const MAX_BATCH: usize = 16;

/// The partition of a replica's canary, under the name that the replica keeps over restarts.
pub fn partition(replica: &ReplicaId) -> PartitionId {
    PartitionId {
        tenant: TenantId::new(format!("-canary-{replica}")),
        number: 0,
    }
}

/// How its log is written: a few are kept, and a stop waits for none.
pub fn log_options() -> LogOptions {
    LogOptions {
        queue: 1,
        retain_events: 16,
        stop_within: Duration::ZERO,
        ..LogOptions::default()
    }
}

/// What sends and receives the canary of a replica.
#[derive(Debug)]
pub struct Canary {
    /// Its [`partition`].
    pub partition: PartitionId,
    /// Its lease; nothing is sent without one.
    pub lease: watch::Receiver<Option<Lease>>,
    /// Its writer.
    pub writer: LogWriter,
    /// Where it is received.
    pub events: Events,
    /// How often one is sent. The next waits until the last one is stored.
    pub every: Duration,
}

/// How the canary is.
#[derive(Debug)]
pub struct CanaryHandle {
    began: Instant,
    lease: watch::Receiver<Option<Lease>>,
    health: watch::Receiver<Health>,
}

/// How far the canary has come.
#[derive(Clone, Debug)]
struct Health {
    /// When the youngest one was sent that came through.
    youngest: Option<Instant>,
    /// What it waits for now, for an operator.
    waits_for: String,
}

/// What was handed to the writer, and when.
struct Storing {
    sent: Instant,
    outcome: oneshot::Receiver<Result<(), AppendError>>,
}

struct Actor {
    canary: Canary,
    began: Instant,
    /// Tells what this process sends from what an earlier one has sent.
    run: String,
    turns: Interval,
    /// The one on its way into the store.
    storing: Option<Storing>,
    health: watch::Sender<Health>,
}

impl Canary {
    /// Starts it; it ends when `tasks` are told to stop.
    pub fn start(self, tasks: &Tasks) -> CanaryHandle {
        let mut turns = tokio::time::interval(self.every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (health, seen) = watch::channel(Health {
            youngest: None,
            waits_for: String::new(),
        });
        let lease = self.lease.clone();
        let actor = Actor {
            canary: self,
            began: Instant::now(),
            run: format!("{:016x}", rand::random::<u64>()),
            turns,
            storing: None,
            health,
        };
        let handle = CanaryHandle {
            began: actor.began,
            lease,
            health: seen,
        };
        let stop = tasks.clone();
        let living = async move {
            tokio::select! {
                biased;
                () = stop.stopping() => {}
                () = actor.live() => {}
            }
        };
        let span = info_span!("canary");
        tasks.spawn("canary", TaskKind::Work, living.instrument(span));
        handle
    }
}

impl CanaryHandle {
    /// The time since the youngest canary was sent that came through, or since the start while none has.
    pub fn age(&mut self) -> Duration {
        let health = self.health.borrow_and_update();
        health.youngest.unwrap_or(self.began).elapsed()
    }

    /// Why the canary is not well: `None` while one came through that was sent no longer ago than `grace`.
    pub fn complaint(&mut self, grace: Duration) -> Option<String> {
        let age = self.age();
        let health = self.health.borrow();
        let late = match health.youngest {
            Some(_) if age <= grace => return None,
            Some(_) => "the last event that came through was sent",
            None => "no event has come through since the start",
        };
        let waits = if self.lease.borrow().is_some() {
            &health.waits_for
        } else {
            "for the lease of its partition"
        };
        let ago = age.as_secs();
        Some(format!("{late} {ago} s ago; the canary waits {waits}"))
    }

    /// Waits until there is something new to say since the last look.
    pub async fn changed(&mut self) {
        if self.health.changed().await.is_err() {
            // The canary has ended, and its age alone goes on.
            std::future::pending::<()>().await;
        }
    }
}

impl Actor {
    async fn live(mut self) {
        loop {
            // Without one nobody here writes the log, and whoever follows it has the store tell of all logs.
            if self.canary.lease.wait_for(Option::is_some).await.is_err() {
                return;
            }
            // The writer has been woken by the same lease, and goes first.
            tokio::task::yield_now().await;
            self.note("for its subscription");
            match self.subscribe().await {
                Ok(subscription) => {
                    let error = self.follow(subscription).await;
                    warn!(%error, "the canary's subscription has ended");
                }
                Err(error) => self.note(format!("for its subscription: {error}")),
            }
            tokio::time::sleep(SUBSCRIBE_AGAIN).await;
        }
    }

    async fn subscribe(&self) -> Result<Subscription, EventsError> {
        let options = SubscribeOptions {
            start: Start::Latest,
            accounts: HashSet::new(),
            kinds: Vec::new(),
            max_batch: MAX_BATCH,
            heartbeat: HEARTBEAT,
        };
        let logs = TenantLogs {
            tenant: self.canary.partition.tenant.clone(),
            partitions: 1,
            max_subscriptions: 0,
        };
        self.canary.events.subscribe(&logs, options).await
    }

    /// Sends, and receives, until the subscription ends.
    async fn follow(&mut self, mut subscription: Subscription) -> EventsError {
        loop {
            tokio::select! {
                biased;
                delivery = subscription.next() => match delivery {
                    Ok(delivery) => self.receive(&delivery),
                    Err(error) => return error,
                },
                stored = stored(&mut self.storing) => {
                    self.storing = None;
                    self.stored(stored);
                }
                () = turn(&mut self.canary.lease, &mut self.turns), if self.storing.is_none() => self.send(),
            }
        }
    }

    fn send(&mut self) {
        let sent = Instant::now();
        let after = u64::try_from((sent - self.began).as_micros()).unwrap_or(u64::MAX);
        let event = v1::Event {
            account: "canary".into(),
            kind: Some(v1::event::Kind::UpstreamNotice(v1::UpstreamNotice {
                command: self.run.clone(),
                json: after.to_string(),
            })),
            ..v1::Event::default()
        };
        let (done, outcome) = oneshot::channel();
        let append = Append {
            account: AccountId::new("canary"),
            record: None,
            sends: Vec::new(),
            events: vec![event.encode_to_vec()],
            done,
        };
        self.note("to be stored");
        match self.canary.writer.try_append(append) {
            Ok(()) => self.storing = Some(Storing { sent, outcome }),
            Err(refused) => self.note(format!("for its next turn, as {}", refused.error)),
        }
    }

    fn stored(&self, (sent, stored): (Instant, Result<(), AppendError>)) {
        match stored {
            Ok(()) if self.health.borrow().youngest < Some(sent) => self.note("to be delivered"),
            // It was delivered before its writer said so.
            Ok(()) => {}
            Err(error) => self.note(format!("for its next turn, as {error}")),
        }
    }

    fn receive(&self, delivery: &Delivery) {
        for event in &delivery.events {
            let event = event.decode().unwrap_or_default();
            match event.kind {
                Some(v1::event::Kind::UpstreamNotice(notice)) if notice.command == self.run => {
                    let Ok(after) = notice.json.parse() else {
                        continue;
                    };
                    let sent = self.began + Duration::from_micros(after);
                    metrics::histogram!(names::CANARY_DELAY).record(sent.elapsed());
                    self.health.send_modify(|health| {
                        health.youngest = health.youngest.max(Some(sent));
                        "for its next turn".clone_into(&mut health.waits_for);
                    });
                }
                // Of an earlier process.
                Some(v1::event::Kind::UpstreamNotice(_)) => {}
                Some(
                    v1::event::Kind::Message(_)
                    | v1::event::Kind::SessionChanged(_)
                    | v1::event::Kind::SignatureExpired(_)
                    | v1::event::Kind::KickedOffline(_)
                    | v1::event::Kind::Gap(_),
                )
                | None => debug!("the canary's log has a gap"),
            }
        }
    }

    fn note(&self, waits_for: impl Into<String>) {
        let waits_for = waits_for.into();
        self.health
            .send_modify(|health| health.waits_for = waits_for);
    }
}

/// What became of what is on its way into the store; never, when nothing is.
async fn stored(storing: &mut Option<Storing>) -> (Instant, Result<(), AppendError>) {
    match storing {
        Some(Storing { sent, outcome }) => {
            let outcome = outcome.await.unwrap_or(Err(AppendError::Stopping));
            (*sent, outcome)
        }
        None => std::future::pending().await,
    }
}

/// The next turn to send, as soon as there is a lease.
async fn turn(lease: &mut watch::Receiver<Option<Lease>>, turns: &mut Interval) {
    if lease.wait_for(Option::is_some).await.is_err() {
        // Whoever keeps the lease is gone, and no other will come.
        std::future::pending::<()>().await;
    }
    turns.tick().await;
}

#[cfg(test)]
mod tests;
