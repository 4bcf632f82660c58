//! One subscriber's way through the logs of its tenant.
//!
//! A subscription reads one log at a time, in turn, and only when its subscriber asks for the next batch: it
//! holds one batch at the most, and a subscriber that does not ask costs nothing. While the store is away it
//! waits, and its heartbeats go on.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::{debug, error};

use super::cursor::Cursor;
use super::hub::Tails;
use super::metrics as names;
use super::place::{self, Filter, MAX_BATCH_BYTES};
use super::service::EventsError;
use super::share::{Change, Share};
use crate::proto::v1;
use crate::runtime::supervisor::Tasks;
use crate::store::{LogRead, Position, Store, StoreError};
use crate::types::{PartitionId, TenantId};

/// How many entries are read at once where a filter leaves most of them out.
const FILTERED_READ: usize = 256;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A running subscription.
pub struct Subscription {
    reader: Reader,
    places: Vec<Place>,
    /// The index of the place whose turn is next.
    turn: usize,
    /// The read under way; it outlives a heartbeat.
    reading: Option<Reading>,
    /// What an event takes in the log, on average.
    average_bytes: usize,
    /// Whether the first response is still to be sent.
    fresh: bool,
    /// None for the gateway's own, which is no traffic.
    counted: Option<Counted>,
}

/// What a subscription is made of.
pub(super) struct Reader {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: TenantId,
    pub(super) tails: Tails,
    pub(super) tasks: Tasks,
    /// Where to begin, in every partition.
    pub(super) positions: BTreeMap<u16, Position>,
    /// The partitions that are read; the others keep their positions.
    pub(super) followed: HashSet<u16>,
    /// What of a shared subscription is this one's.
    pub(super) share: Option<Share>,
    /// Keeps a named subscription from expiring.
    pub(super) _keeper: Option<DropGuard>,
    pub(super) filter: Filter,
    pub(super) max_batch: usize,
    pub(super) heartbeat: Duration,
}

/// A followed partition.
struct Place {
    number: u16,
    /// Whether there is, or may be, more to read.
    behind: bool,
    /// Failed reads in a row.
    failures: u32,
    /// Not to be read before.
    not_before: Instant,
}

struct Reading {
    number: u16,
    answer: Pin<Box<dyn Future<Output = Result<LogRead, StoreError>> + Send>>,
}

/// What a subscriber gets: a batch, or a heartbeat when it has no events.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The events, in order per account.
    pub events: Vec<v1::Event>,
    /// The place after them.
    pub cursor: String,
}

/// What [`Subscription::next`] was woken by.
enum Woken {
    Stopping,
    Silent,
    Read(Result<LogRead, StoreError>),
    Grown,
    Retry,
    Reassigned,
}

impl Subscription {
    pub(super) fn new(reader: Reader) -> Self {
        let numbers = reader.positions.keys();
        let followed = numbers.filter(|number| reader.followed.contains(number));
        let counts = !reader.tenant.is_reserved();
        Self {
            places: followed.copied().map(Place::new).collect(),
            reader,
            turn: 0,
            reading: None,
            average_bytes: 1024,
            fresh: true,
            counted: counts.then(Counted::new),
        }
    }

    /// The next batch or heartbeat; the first comes at once and is empty. After an error there is nothing more.
    ///
    /// Dropping the future loses nothing; the time of silence begins anew with the next call.
    pub async fn next(&mut self) -> Result<Delivery, EventsError> {
        if self.reader.tasks.is_stopping() {
            return Err(EventsError::Draining);
        }
        if std::mem::take(&mut self.fresh) {
            return Ok(self.deliver(Vec::new()));
        }
        let silent_until = Instant::now() + self.reader.heartbeat;
        loop {
            self.reassign();
            self.start_reading();
            match self.wake(silent_until).await {
                Woken::Stopping => return Err(EventsError::Draining),
                Woken::Silent => {
                    // Logs that other replicas write grow without a word here.
                    self.places.iter_mut().for_each(|place| place.behind = true);
                    return Ok(self.deliver(Vec::new()));
                }
                Woken::Read(answer) => {
                    let events = self.take(answer);
                    if !events.is_empty() {
                        return Ok(self.deliver(events));
                    }
                }
                Woken::Grown => self.note_growth(),
                Woken::Retry | Woken::Reassigned => {}
            }
        }
    }

    async fn wake(&mut self, silent_until: Instant) -> Woken {
        let retry_at = self.retry_at();
        let idle = self.reading.is_none();
        tokio::select! {
            biased;
            () = self.reader.tasks.stopping() => Woken::Stopping,
            // Before the read: a filter that lets little through must not silence the heartbeats.
            () = tokio::time::sleep_until(silent_until) => Woken::Silent,
            answer = finished(&mut self.reading) => Woken::Read(answer),
            () = reassigned(&mut self.reader.share) => Woken::Reassigned,
            () = self.reader.tails.grown(), if idle => Woken::Grown,
            () = sleep_until(retry_at), if idle => Woken::Retry,
        }
    }

    /// Starts a read of the next place, in turn, that has more.
    fn start_reading(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let now = Instant::now();
        let count = self.places.len();
        let due = |index: &usize| {
            self.places
                .get(*index)
                .is_some_and(|place| place.behind && place.not_before <= now)
        };
        let Some(index) = (self.turn..count).chain(0..self.turn).find(due) else {
            return;
        };
        let Some(number) = self.places.get(index).map(|place| place.number) else {
            return;
        };
        self.turn = (index + 1) % count;
        let store = Arc::clone(&self.reader.store);
        let partition = PartitionId {
            tenant: self.reader.tenant.clone(),
            number,
        };
        let after = self.position(number).sequence;
        let limit = self.read_limit();
        let answer = Box::pin(async move { store.read(&partition, after, limit).await });
        self.reading = Some(Reading { number, answer });
    }

    /// Begins and ends reading partitions of a shared subscription.
    fn reassign(&mut self) {
        let share = self.reader.share.as_mut();
        for change in share.map(Share::changes).unwrap_or_default() {
            match change {
                Change::Follow(number, position) => self.follow(number, position),
                Change::Unfollow(number) => self.unfollow(number),
            }
        }
    }

    /// Reads a partition from there on.
    fn follow(&mut self, number: u16, position: Position) {
        self.unfollow(number);
        self.reader.positions.insert(number, position);
        self.places.push(Place::new(number));
    }

    /// Does not read a partition any more. It keeps its position.
    fn unfollow(&mut self, number: u16) {
        self.places.retain(|place| place.number != number);
        self.reading.take_if(|reading| reading.number == number);
    }

    /// Whether what was read may be delivered; if not, all is as before the read.
    fn confirm(&mut self, number: u16, before: Position, has_events: bool) -> bool {
        let position = self.position(number);
        let share = self.reader.share.as_ref();
        let confirmed = share.is_none_or(|share| share.confirm(number, position, has_events));
        if !confirmed {
            self.reader.positions.insert(number, before);
        }
        confirmed
    }

    /// As many entries as will probably fit into a batch.
    fn read_limit(&self) -> usize {
        let most = if self.reader.filter.lets_all_through() {
            self.reader.max_batch
        } else {
            self.reader.max_batch.max(FILTERED_READ)
        };
        (MAX_BATCH_BYTES / self.average_bytes.max(1)).clamp(1, most)
    }

    fn take(&mut self, answer: Result<LogRead, StoreError>) -> Vec<v1::Event> {
        let Some(Reading { number, .. }) = self.reading.take() else {
            return Vec::new();
        };
        let before = self.position(number);
        let mut places = self.places.iter_mut();
        let Some(place) = places.find(|place| place.number == number) else {
            return Vec::new();
        };
        let read = match answer {
            Ok(read) => read,
            Err(refusal) => {
                place.fail(&refusal);
                return Vec::new();
            }
        };
        place.failures = 0;
        let bytes: usize = read.entries.iter().map(|entry| entry.payload.len()).sum();
        if let Some(average) = bytes.checked_div(read.entries.len()) {
            self.average_bytes = (3 * self.average_bytes + average) / 4;
        }
        let position = self.reader.positions.entry(number);
        let position = position.or_insert(place::ORIGIN);
        let taken = place::take(position, read, &self.reader.filter, self.reader.max_batch);
        place.behind = taken.more;
        if !self.confirm(number, before, !taken.events.is_empty()) {
            return Vec::new();
        }
        taken.events
    }

    fn note_growth(&mut self) {
        let (places, positions) = (&mut self.places, &self.reader.positions);
        self.reader.tails.look(|ends| {
            for place in places {
                let (end, stand) = (ends.get(&place.number), positions.get(&place.number));
                place.behind |= match (end, stand) {
                    (Some(end), Some(stand)) => {
                        end.log != stand.log || end.sequence > stand.sequence
                    }
                    (Some(_), None) => true,
                    (None, _) => false,
                };
            }
        });
    }

    fn retry_at(&self) -> Option<Instant> {
        let behind = self.places.iter().filter(|place| place.behind);
        behind.map(|place| place.not_before).min()
    }

    fn position(&self, number: u16) -> Position {
        let positions = &self.reader.positions;
        positions.get(&number).copied().unwrap_or(place::ORIGIN)
    }

    fn deliver(&self, events: Vec<v1::Event>) -> Delivery {
        if self.counted.is_some() {
            count(&events);
        }
        let cursor = Cursor {
            positions: self.reader.positions.clone(),
        };
        Delivery {
            events,
            cursor: cursor.encode(&self.reader.tenant),
        }
    }
}

impl Place {
    fn new(number: u16) -> Self {
        Self {
            number,
            behind: true,
            failures: 0,
            not_before: Instant::now(),
        }
    }

    /// Puts the next read off: each time longer, with jitter.
    fn fail(&mut self, refusal: &StoreError) {
        let partition = self.number;
        match refusal {
            StoreError::Corrupt { .. } if self.failures == 0 => {
                error!(partition, error = %refusal, "a log cannot be read; trying again");
            }
            // The writer of the log warns; every subscriber doing so would be a flood.
            StoreError::Corrupt { .. }
            | StoreError::Unavailable(_)
            | StoreError::Fenced { .. }
            | StoreError::Full(_) => {
                debug!(partition, error = %refusal, "a log cannot be read; trying again");
            }
        }
        metrics::counter!(names::READ_RETRIES).increment(1);
        let bound = RETRY_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + bound.mul_f64(rand::random_range(0.5..=1.0));
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("tenant", &self.reader.tenant)
            .field("positions", &self.reader.positions)
            .finish_non_exhaustive()
    }
}

/// The answer to the read under way; never, when there is none.
async fn finished(reading: &mut Option<Reading>) -> Result<LogRead, StoreError> {
    match reading {
        Some(reading) => reading.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn reassigned(share: &mut Option<Share>) {
    match share {
        Some(share) => share.changed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
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

fn count(events: &[v1::Event]) {
    let mut delivered = 0;
    for event in events {
        match event.kind.as_ref() {
            Some(v1::event::Kind::Gap(gap)) => {
                metrics::counter!(names::GAPS, "reason" => reason_label(gap.reason())).increment(1);
            }
            Some(
                v1::event::Kind::Message(_)
                | v1::event::Kind::SessionChanged(_)
                | v1::event::Kind::SignatureExpired(_)
                | v1::event::Kind::KickedOffline(_)
                | v1::event::Kind::UpstreamNotice(_),
            )
            | None => delivered += 1,
        }
    }
    metrics::counter!(names::DELIVERED).increment(delivered);
}

/// Counts a subscription for as long as it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!(names::SUBSCRIBERS).increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(names::SUBSCRIBERS).decrement(1);
    }
}

#[cfg(test)]
mod tests;
