//! One subscriber's way through the logs of its tenant.
//!
//! A subscription gets on only when its subscriber asks for the next batch: it holds one batch at the most, and a
//! subscriber that does not ask costs nothing. While the store is away it waits, and its heartbeats go on.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use metrics::Counter;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::DropGuard;

use logs::Logs;
use places::{Places, Step};

use super::cursor::Cursor;
use super::encoded::{Encoded, Kind};
use super::hub::Hub;
use super::listeners::News;
use super::metrics as names;
use super::place::Filter;
use super::service::EventsError;
use super::share::Share;
use super::source::Source;
use crate::proto::v1;
use crate::runtime::supervisor::Tasks;
use crate::tenants::token::Tokens;
use crate::types::TenantId;

pub(super) use logs::Homes;

mod logs;
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
    /// Ends with the silence, or before it.
    silence: Pin<Box<Sleep>>,
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
    pub(super) homes: Homes,
    /// What of a shared subscription is this one's; it follows what it gets of them, when it gets it.
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
        let (news, is_shared) = (News::default(), reader.share.is_some());
        let logs = Logs {
            hub: reader.hub,
            tenant: reader.tenant.clone(),
            homes: reader.homes,
            news: news.clone(),
        };
        let mut places = Places::new(
            reader.source,
            logs,
            reader.filter,
            reader.max_batch,
            reader.share,
            reader.start,
        );
        if !is_shared {
            places.follow_homes();
        }
        let counts = !reader.tenant.is_reserved();
        let heartbeat_at = Instant::now() + reader.heartbeat;
        Self {
            places,
            news,
            tenant: reader.tenant,
            tokens: reader.tokens,
            tasks: reader.tasks,
            heartbeat: reader.heartbeat,
            silence: Box::pin(tokio::time::sleep_until(heartbeat_at)),
            look_at: heartbeat_at,
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
                    Woken::News => Step::Nothing,
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
            () = over(&mut self.silence, silent_until) => Woken::Silent,
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

    fn deliver(&mut self, events: Vec<Encoded>) -> Delivery {
        if let Some(counted) = &self.counted {
            counted.count(&events);
        }
        self.places.pass();
        let cursor = self.places.cursor();
        Delivery {
            events,
            cursor: cursor.encode(&self.tokens, &self.tenant),
            made: false,
        }
    }
}

/// Resolves at `moment`. The timer may end earlier, and is set anew only then: a batch puts the end of the silence off, and
/// there are many batches to a heartbeat.
async fn over(timer: &mut Pin<Box<Sleep>>, moment: Instant) {
    loop {
        timer.as_mut().await;
        if Instant::now() >= moment {
            return;
        }
        timer.as_mut().reset(moment);
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
