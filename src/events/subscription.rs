//! One subscriber's way through the logs of its tenant.
//!
//! A subscription gets on only when its subscriber asks for the next batch: it holds one batch at the most, and a
//! subscriber that does not ask costs nothing. While the store is away it waits, and its heartbeats go on.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use places::{Places, Step};

use super::cursor::Cursor;
use super::encoded::{Encoded, Kind};
use super::hub::{Hub, News};
use super::metrics as names;
use super::place::Filter;
use super::service::EventsError;
use super::share::Share;
use super::source::Source;
use crate::proto::v1;
use crate::runtime::supervisor::Tasks;
use crate::tenants::token::Tokens;
use crate::types::TenantId;

mod places;
mod reading;

/// A running subscription.
pub struct Subscription {
    places: Places,
    news: News,
    tenant: TenantId,
    tokens: Tokens,
    tasks: Tasks,
    heartbeat: Duration,
    /// When to look for growth that nobody told of.
    look_at: Instant,
    /// Whether the first response is still to be sent.
    fresh: bool,
    /// Whether it is to say that the named subscription was made.
    made: bool,
    /// None for the gateway's own, which is no traffic.
    counted: Option<Counted>,
    /// Keeps a named subscription from expiring.
    _keeper: Option<DropGuard>,
}

/// What a subscription is made of.
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) hub: Hub,
    pub(super) tokens: Tokens,
    pub(super) tenant: TenantId,
    pub(super) tasks: Tasks,
    /// Where to begin, in every partition.
    pub(super) start: Cursor,
    /// The partitions that are read; the others keep their positions.
    pub(super) followed: HashSet<u16>,
    /// What of a shared subscription is this one's.
    pub(super) share: Option<Share>,
    /// Keeps a named subscription from expiring.
    pub(super) keeper: Option<DropGuard>,
    /// Whether the named subscription was made for this one.
    pub(super) made: bool,
    pub(super) filter: Filter,
    pub(super) max_batch: usize,
    pub(super) heartbeat: Duration,
}

/// What a subscriber gets: a batch, or a heartbeat when it has no events.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The events, in order per account.
    pub events: Vec<Encoded>,
    /// The place after them.
    pub cursor: String,
    /// The first of a named subscription that there was not before.
    pub made: bool,
}

/// What [`Subscription::next`] was woken by.
enum Woken {
    Stopping,
    Silent,
    Step(Step),
    News,
}

impl Subscription {
    pub(super) fn new(reader: Reader) -> Self {
        // Watching begins before any place is looked at, so that nothing falls in between.
        let news = reader.hub.watch(&reader.tenant);
        let mut places = Places::new(
            reader.source,
            reader.hub,
            reader.tenant.clone(),
            reader.filter,
            reader.max_batch,
            reader.share,
            reader.start.clone(),
        );
        for (number, mark) in reader.start.marks {
            if reader.followed.contains(&number) {
                places.follow(number, mark);
            }
        }
        let counts = !reader.tenant.is_reserved();
        Self {
            places,
            news,
            tenant: reader.tenant,
            tokens: reader.tokens,
            tasks: reader.tasks,
            heartbeat: reader.heartbeat,
            look_at: Instant::now() + reader.heartbeat,
            fresh: true,
            made: reader.made,
            counted: counts.then(Counted::new),
            _keeper: reader.keeper,
        }
    }

    /// The next batch or heartbeat; the first comes at once and is empty. After an error there is nothing more.
    ///
    /// Dropping the future loses nothing; the time of silence begins anew with the next call.
    pub async fn next(&mut self) -> Result<Delivery, EventsError> {
        if self.tasks.is_stopping() {
            return Err(EventsError::Draining);
        }
        if std::mem::take(&mut self.fresh) {
            let made = self.made;
            return Ok(Delivery {
                made,
                ..self.deliver(Vec::new())
            });
        }
        let silent_until = Instant::now() + self.heartbeat;
        loop {
            self.places.reassign();
            self.look_if_due();
            let step = match self.places.step() {
                Step::Nothing => match self.wake(silent_until).await {
                    Woken::Stopping => return Err(EventsError::Draining),
                    Woken::Silent => return Ok(self.deliver(Vec::new())),
                    Woken::Step(step) => step,
                    Woken::News => {
                        let places = &mut self.places;
                        self.news.look(|news| places.hear(news));
                        Step::Nothing
                    }
                },
                step @ (Step::Events(_) | Step::Moved) => step,
            };
            match step {
                Step::Events(events) => return Ok(self.deliver(events)),
                Step::Nothing => {}
                Step::Moved => {
                    // A filter that lets little through must silence neither the heartbeats nor the other tasks.
                    if self.tasks.is_stopping() {
                        return Err(EventsError::Draining);
                    }
                    if Instant::now() >= silent_until {
                        return Ok(self.deliver(Vec::new()));
                    }
                    tokio::task::consume_budget().await;
                }
            }
        }
    }

    async fn wake(&mut self, silent_until: Instant) -> Woken {
        tokio::select! {
            biased;
            () = self.tasks.stopping() => Woken::Stopping,
            () = tokio::time::sleep_until(silent_until) => Woken::Silent,
            step = self.places.wait() => Woken::Step(step),
            () = self.news.changed() => Woken::News,
        }
    }

    /// Logs may grow without a word: what tells of them is not certain to.
    fn look_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + self.heartbeat;
            self.places.look(now);
        }
    }

    fn deliver(&self, events: Vec<Encoded>) -> Delivery {
        if let Some(counted) = &self.counted {
            counted.count(&events);
        }
        let cursor = self.places.cursor();
        Delivery {
            events,
            cursor: cursor.encode(&self.tokens, &self.tenant),
            made: false,
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("tenant", &self.tenant)
            .field("cursor", &self.places.cursor())
            .finish_non_exhaustive()
    }
}

const fn reason_label(reason: v1::GapReason) -> &'static str {
    match reason {
        v1::GapReason::Unspecified => "unspecified",
        v1::GapReason::Retention => "retention",
        v1::GapReason::LogReset => "log_reset",
        v1::GapReason::Upstream => "upstream",
        v1::GapReason::Corrupt => "corrupt",
        v1::GapReason::NotStored => "not_stored",
    }
}

/// What is counted of a subscription, which counts itself for as long as it lives.
struct Counted {
    delivered: Counter,
}

impl Counted {
    fn new() -> Self {
        metrics::gauge!(names::SUBSCRIBERS).increment(1);
        Self {
            delivered: metrics::counter!(names::DELIVERED),
        }
    }

    fn count(&self, events: &[Encoded]) {
        let mut delivered = 0;
        for event in events {
            match event.kind() {
                Kind::Gap(reason) => {
                    let reason = reason_label(reason);
                    metrics::counter!(names::GAPS, "reason" => reason).increment(1);
                }
                Kind::Of(_) => delivered += 1,
            }
        }
        self.delivered.increment(delivered);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(names::SUBSCRIBERS).decrement(1);
    }
}

#[cfg(test)]
mod tests;
