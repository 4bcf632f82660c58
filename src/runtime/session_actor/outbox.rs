//! What a session has to store, and what waits until that is done: acknowledgements, answers and sends.
//!
//! The record goes with every append of events, so that the connector's position and the events up to it are stored in
//! one step. What could not be stored and is given up is told as a gap by the next append. While the partition's queue is
//! full one append waits here, further notices gather behind it up to a bound, and the connector leaves pushes out
//! unacknowledged: the upstream keeps them until they are fetched. So it is while the record cannot be sealed.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use crate::connectors::tencent::protocol::Protocol;
use crate::connectors::{Delivery, PushAck, RequestId};
use crate::events::encoded::Encoded;
use crate::events::log::{Append, AppendError, LogWriter, Record};
use crate::proto::v1;
use crate::runtime::metrics as names;
use crate::runtime::record;
use crate::runtime::sends::SendWrite;
use crate::runtime::session_actor::answers::{Deferred, Stored};
use crate::session::Session;
use crate::session::input::Now;
use crate::session::state::State;
use crate::store::seal::{SealError, Sealer};
use crate::types::{SessionKey, UnixMillis, WallClock};

/// How many notices of the session's own state may gather while nothing can be stored. Policy when full: the oldest is
/// given up, counted, and told as a gap. What the connector brings is bounded by the connector, which is told to stop;
/// what is remembered of sends is bounded by how many may be pending.
const MAX_NOTICES: usize = 256;
/// How many appends may be on their way before a session takes nothing more from its upstream. What comes meanwhile waits
/// in the socket, and becomes one append.
const IN_FLIGHT: usize = 2;
/// How long the upstream waits for that while the store is away. Then the session hears its upstream out, and leaves out
/// what it cannot store. While the store is only slow the upstream waits on, but for a frame now and then, and unless an
/// answer is waited for: were all read that is left out then, there would be no time for what is to be stored.
const PATIENCE: Duration = Duration::from_secs(1);
/// When a record that could not be sealed is tried again.
const SEAL_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Outbox {
    key: SessionKey,
    sealer: Arc<Sealer>,
    writer: LogWriter,
    /// What the next append holds.
    save: bool,
    /// It holds more than what the connector has brought: something that an answer may speak of.
    has_news: bool,
    /// An append has failed: what is stored is older than the session.
    unsaved: bool,
    /// The record could not be sealed.
    unsealed: bool,
    /// How often the keys had been replaced when the last whole record was sealed.
    keys: u64,
    /// Whether the session has ever had something to store.
    used: bool,
    /// Some of `sends` is waited for.
    prompt: bool,
    events: Vec<Gathered>,
    given_up: Option<Box<GivenUp>>,
    acks: Vec<PushAck>,
    sends: Vec<SendWrite>,
    deferred: Vec<Deferred>,
    /// Appends handed over, oldest first.
    in_flight: VecDeque<InFlight>,
    /// An append that waits for room in the queue, or the time until a record is sealed that could not be.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// An event that is to be appended.
struct Gathered {
    /// It tells of the session's own state.
    is_notice: bool,
    encoded: Vec<u8>,
}

/// Events that will not be stored.
struct GivenUp {
    /// Before which event of the next append they were.
    place: usize,
    count: u64,
    /// When the first of them was given up.
    since: UnixMillis,
}

/// What has become of something that was handed over.
pub(super) enum Progress {
    /// It is stored.
    Stored(Stored),
    /// It is not, and will not be. Those who waited for it have been told, but for these sends.
    Failed(AppendError, Vec<RequestId>),
    /// What waited for room has got it, or may be tried again.
    Room,
}

/// What has become of what there was to hand over.
pub(super) enum HandedOver {
    /// It is on its way, or there was nothing.
    All,
    /// It has to wait, and so has what comes after it.
    Waits,
    /// The record cannot be sealed. What there is waits until it can be; those who waited have been told, but for these
    /// sends.
    Unsealed(Vec<RequestId>),
}

struct InFlight {
    since: Instant,
    has_news: bool,
    /// How many events are in it, or are told by it as given up.
    events: u64,
    done: oneshot::Receiver<Result<(), AppendError>>,
    stored: Stored,
}

impl Outbox {
    pub(super) fn new(key: SessionKey, sealer: Arc<Sealer>, writer: LogWriter) -> Self {
        Self {
            key,
            sealer,
            writer,
            save: false,
            has_news: false,
            unsaved: false,
            unsealed: false,
            keys: 0,
            used: false,
            prompt: false,
            events: Vec::new(),
            given_up: None,
            acks: Vec::new(),
            sends: Vec::new(),
            deferred: Vec::new(),
            in_flight: VecDeque::new(),
            waiting: None,
        }
    }

    /// The record is to be stored.
    pub(super) const fn save(&mut self) {
        self.save = true;
        self.has_news = true;
    }

    /// The record is to be stored if the last attempt at that has failed.
    pub(super) const fn save_if_unsaved(&mut self) {
        if self.unsaved {
            self.save();
        }
    }

    /// Whether the session has ever had something to store.
    pub(super) const fn is_used(&self) -> bool {
        self.used
    }

    /// Subscribers are to be told.
    pub(super) fn tell(&mut self, kind: v1::event::Kind, now: Now) {
        if self.events.iter().filter(|event| event.is_notice).count() >= MAX_NOTICES
            && let Some(oldest) = self.events.iter().position(|event| event.is_notice)
        {
            self.events.remove(oldest);
            counter!(names::NOTICES_DROPPED).increment(1);
            self.give_up(oldest, 1, now.wall);
        }
        self.push(kind, now, true);
        self.save();
    }

    /// The connector has brought something; it moved its position.
    pub(super) fn deliver(&mut self, delivery: Delivery, now: Now) {
        if delivery.given_up > 0 {
            self.give_up(self.events.len(), delivery.given_up, now.wall);
        }
        for kind in delivery.events {
            self.push(kind, now, false);
        }
        self.acks.extend(delivery.acks);
        self.save = true;
    }

    /// What the store is to remember of a send.
    pub(super) fn remember(&mut self, write: SendWrite) {
        self.prompt |= write.prompt;
        self.sends.push(write);
    }

    /// An answer is to be given when all that was asked for before it is stored.
    pub(super) fn defer(&mut self, answer: Deferred) {
        self.deferred.push(answer);
    }

    /// Hands over what there is.
    pub(super) fn hand_over(&mut self, session: &Session, protocol: &mut Protocol) -> HandedOver {
        if self.waiting.is_some() || !(self.save || self.prompt) || self.can_wait() {
            return HandedOver::All;
        }
        let record = if self.save {
            match self.record(session, protocol) {
                Ok(record) => Some(record),
                Err(error) => return self.not_sealed(&error, *session.state() == State::Closed),
            }
        } else {
            None
        };
        if record.is_some() {
            self.save = false;
            self.unsaved = false;
            self.unsealed = false;
            self.used = true;
        }
        self.prompt = false;
        let (in_flight, append) = self.append(record);
        self.in_flight.push_back(in_flight);
        match self.writer.try_append(append) {
            Ok(()) => HandedOver::All,
            Err(refused) => {
                let writer = self.writer.clone();
                self.waiting = Some(Box::pin(
                    async move { writer.append(*refused.append).await },
                ));
                HandedOver::Waits
            }
        }
    }

    /// Whether what there is to store is the record alone, for which nobody waits, and one is on its way: several that come
    /// during a login become one. The end of that one brings it on.
    fn can_wait(&self) -> bool {
        let alone = self.events.is_empty()
            && self.acks.is_empty()
            && self.sends.is_empty()
            && self.deferred.is_empty()
            && self.given_up.is_none();
        alone && !self.in_flight.is_empty()
    }

    /// The record; where only the connector has read on, what that adds to the last one.
    fn record(&mut self, session: &Session, protocol: &mut Protocol) -> Result<Record, SealError> {
        let keys = self.sealer.replaced();
        let is_current = !self.has_news && !self.unsaved && !self.unsealed && keys == self.keys;
        if is_current && let Some(sync) = protocol.addition() {
            return Ok(Record::Addition(record::encode_addition(&sync)));
        }
        self.keys = keys;
        let record = record::encode(&self.sealer, &self.key, session, protocol)?;
        protocol.recorded();
        Ok(Record::Whole(record))
    }

    /// The record cannot be sealed, and without it nothing is stored. A closed session lets go of what it has: as after a
    /// kill, the next owner fetches what the upstream keeps.
    fn not_sealed(&mut self, error: &SealError, closed: bool) -> HandedOver {
        if !std::mem::replace(&mut self.unsealed, true) || closed {
            error!(%error, closed, "the session's record cannot be sealed");
        }
        self.prompt = false;
        let failed = Stored {
            acks: Vec::new(),
            sends: self.sends.iter().filter_map(|write| write.waits).collect(),
            deferred: std::mem::take(&mut self.deferred),
        };
        self.sends.retain(|write| write.waits.is_none());
        if closed {
            self.save = false;
            self.events.clear();
            self.acks.clear();
            self.sends.clear();
        } else {
            self.waiting = Some(Box::pin(tokio::time::sleep(SEAL_AGAIN)));
        }
        HandedOver::Unsealed(failed.fail(AppendError::Unsealed))
    }

    /// Gives the answers that wait for nothing. What has been handed over and is not stored yet may be what an answer
    /// says, so it waits for that.
    pub(super) fn answer_if_idle(&mut self, view: impl FnOnce() -> v1::Session) {
        if self.deferred.is_empty() || self.save || self.waiting.is_some() {
            return;
        }
        let mut newest_first = self.in_flight.iter_mut().rev();
        if let Some(newest) = newest_first.find(|append| append.has_news) {
            newest.stored.deferred.append(&mut self.deferred);
            return;
        }
        let view = view();
        for deferred in self.deferred.drain(..) {
            deferred.give(&view);
        }
    }

    /// Waits for the oldest append to be stored, or for room for the one that waits. Safe to cancel.
    pub(super) async fn progress(&mut self) -> Progress {
        let Self {
            in_flight, waiting, ..
        } = self;
        let room = async {
            match waiting {
                Some(waiting) => waiting.await,
                None => std::future::pending().await,
            }
        };
        let outcome = async {
            match in_flight.front_mut() {
                Some(oldest) => (&mut oldest.done).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = room => {
                self.waiting = None;
                return Progress::Room;
            }
            outcome = outcome => outcome.unwrap_or(Err(AppendError::Stopping)),
        };
        let Some(InFlight { stored, events, .. }) = self.in_flight.pop_front() else {
            return Progress::Failed(AppendError::Stopping, Vec::new());
        };
        match outcome {
            Ok(()) => Progress::Stored(stored),
            Err(error) => {
                self.unsaved = true;
                if events > 0 {
                    self.give_up(0, events, WallClock.now());
                }
                Progress::Failed(error, stored.fail(error))
            }
        }
    }

    /// Until when the upstream is to wait for what was handed over; `None` if it need not.
    pub(super) fn upstream_waits_until(&self) -> Option<Instant> {
        let oldest = self.in_flight.front()?;
        if self.in_flight.len() < IN_FLIGHT && self.waiting.is_none() {
            return None;
        }
        let is_slow = self.writer.accepts().is_ok();
        let since = if is_slow {
            Instant::now()
        } else {
            oldest.since
        };
        Some(since + PATIENCE)
    }

    /// Whether all that was handed over is stored or failed.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_none() && !self.save && !self.prompt
    }

    /// Whether the session is stored as it is.
    pub(super) fn is_stored(&self) -> bool {
        self.is_idle() && !self.unsaved
    }

    fn push(&mut self, kind: v1::event::Kind, now: Now, is_notice: bool) {
        let encoded = self.encode(kind, now.wall);
        self.events.push(Gathered { is_notice, encoded });
    }

    fn encode(&self, kind: v1::event::Kind, at: UnixMillis) -> Vec<u8> {
        let event = v1::Event {
            account: self.key.account.as_str().to_owned(),
            sequence: 0,
            received_at: Some(record::timestamp(at)),
            kind: Some(kind),
        };
        let mut encoded = Vec::with_capacity(event.encoded_len() + Encoded::ROOM);
        // There is enough room.
        let _ = event.encode(&mut encoded);
        encoded
    }

    /// Events that were before `place` of those that wait are not stored, and will not be.
    fn give_up(&mut self, place: usize, count: u64, now: UnixMillis) {
        let given_up = self.given_up.get_or_insert_with(|| {
            let (count, since) = (0, now);
            Box::new(GivenUp {
                place,
                count,
                since,
            })
        });
        given_up.place = given_up.place.min(place);
        given_up.count += count;
    }

    /// All that there is, as one append.
    fn append(&mut self, record: Option<Record>) -> (InFlight, Append) {
        let mut events: Vec<_> = self.events.drain(..).map(|event| event.encoded).collect();
        let mut count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if let Some(given_up) = self.given_up.take() {
            count += given_up.count;
            let gap = v1::event::Kind::Gap(v1::Gap {
                reason: v1::GapReason::NotStored.into(),
                from_sequence: 0,
                to_sequence: 0,
                count: given_up.count,
            });
            let gap = self.encode(gap, given_up.since);
            events.insert(given_up.place.min(events.len()), gap);
        }
        let waits = self.sends.iter().filter_map(|write| write.waits).collect();
        let sends = self.sends.drain(..);
        let sends = sends.map(|write| (write.client_message_id, write.record));
        let (done, outcome) = oneshot::channel();
        let append = Append {
            account: self.key.account.clone(),
            record,
            sends: sends.collect(),
            events,
            done,
        };
        let in_flight = InFlight {
            since: Instant::now(),
            has_news: std::mem::take(&mut self.has_news),
            events: count,
            done: outcome,
            stored: Stored {
                acks: std::mem::take(&mut self.acks),
                sends: waits,
                deferred: std::mem::take(&mut self.deferred),
            },
        };
        (in_flight, append)
    }
}
