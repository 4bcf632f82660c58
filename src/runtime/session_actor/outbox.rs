//! What a session has to store, and what waits until that is done: acknowledgements and answers.
//!
//! The record goes with every append, so that the connector's position and the events up to it are stored in one
//! step. While the partition's queue is full one append waits here, further notices gather behind it up to a bound,
//! and the connector leaves pushes out unacknowledged: the upstream keeps them until they are fetched.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use metrics::counter;
use prost::Message as _;
use tokio::sync::oneshot;
use tracing::error;

use crate::connectors::tencent::protocol::Protocol;
use crate::connectors::{Delivery, PushAck};
use crate::events::log::{Append, AppendError, LogWriter};
use crate::proto::v1;
use crate::runtime::handle::CallError;
use crate::runtime::metrics as names;
use crate::runtime::record;
use crate::runtime::sends::answer;
use crate::runtime::session_actor::commands::{LoginReply, ViewReply};
use crate::runtime::session_actor::login_result;
use crate::session::Session;
use crate::session::effect::LoginAnswer;
use crate::session::input::Now;
use crate::store::StoreError;
use crate::store::seal::Sealer;
use crate::types::SessionKey;

/// How many notices of the session's own state may gather while nothing can be stored. Policy when full: the oldest is
/// given up and counted. What the connector brings is bounded by the connector, which is told to stop.
const MAX_NOTICES: usize = 256;

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
    /// Whether the session has ever had something to store.
    used: bool,
    events: Vec<Gathered>,
    acks: Vec<PushAck>,
    deferred: Vec<Deferred>,
    /// Appends handed over, oldest first.
    in_flight: VecDeque<InFlight>,
    /// An append that waits for room in the queue.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// An event that is to be appended.
struct Gathered {
    /// It tells of the session's own state.
    is_notice: bool,
    encoded: Vec<u8>,
}

/// An answer that waits until what it says is stored.
pub(super) enum Deferred {
    Login(LoginAnswer, Vec<LoginReply>),
    View(Vec<ViewReply>),
}

/// What has become of something that was handed over.
pub(super) enum Progress {
    /// It is stored.
    Stored(Stored),
    /// It is not, and will not be; those who waited for it have been told.
    Failed(AppendError),
    /// What waited for room has got it.
    Room,
}

struct InFlight {
    has_news: bool,
    done: oneshot::Receiver<Result<(), AppendError>>,
    stored: Stored,
}

/// What an append's success sets free.
pub(super) struct Stored {
    pub(super) acks: Vec<PushAck>,
    deferred: Vec<Deferred>,
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
            used: false,
            events: Vec::new(),
            acks: Vec::new(),
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
        }
        self.push(kind, now, true);
        self.save();
    }

    /// The connector has brought something; it moved its position.
    pub(super) fn deliver(&mut self, delivery: Delivery, now: Now) {
        for kind in delivery.events {
            self.push(kind, now, false);
        }
        self.acks.extend(delivery.acks);
        self.save = true;
    }

    /// An answer is to be given when all that was asked for before it is stored.
    pub(super) fn defer(&mut self, answer: Deferred) {
        self.deferred.push(answer);
    }

    /// Hands over what there is. True if it has to wait for room from now on.
    pub(super) fn hand_over(&mut self, session: &Session, protocol: &Protocol) -> bool {
        if self.waiting.is_some() || !self.save {
            return false;
        }
        let record = match record::encode(&self.sealer, &self.key, session, protocol) {
            Ok(record) => record,
            Err(error) => {
                error!(%error, "the session's record cannot be sealed; trying again later");
                return false;
            }
        };
        self.save = false;
        self.unsaved = false;
        self.used = true;
        let (done, outcome) = oneshot::channel();
        let append = Append {
            account: self.key.account.clone(),
            record: Some(record),
            sends: Vec::new(),
            events: self.events.drain(..).map(|event| event.encoded).collect(),
            done,
        };
        let stored = Stored {
            acks: std::mem::take(&mut self.acks),
            deferred: std::mem::take(&mut self.deferred),
        };
        self.in_flight.push_back(InFlight {
            done: outcome,
            has_news: std::mem::take(&mut self.has_news),
            stored,
        });
        match self.writer.try_append(append) {
            Ok(()) => false,
            Err(refused) => {
                let writer = self.writer.clone();
                self.waiting = Some(Box::pin(
                    async move { writer.append(*refused.append).await },
                ));
                true
            }
        }
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
        match (self.in_flight.pop_front(), outcome) {
            (Some(InFlight { stored, .. }), Ok(())) => Progress::Stored(stored),
            (Some(InFlight { stored, .. }), Err(error)) => {
                self.unsaved = true;
                stored.fail(error);
                Progress::Failed(error)
            }
            (None, _) => Progress::Failed(AppendError::Stopping),
        }
    }

    /// Whether all that was handed over is stored or failed.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_none() && !self.save
    }

    /// Whether the session is stored as it is.
    pub(super) fn is_stored(&self) -> bool {
        self.is_idle() && !self.unsaved
    }

    fn push(&mut self, kind: v1::event::Kind, now: Now, is_notice: bool) {
        let event = v1::Event {
            account: self.key.account.as_str().to_owned(),
            sequence: 0,
            received_at: Some(record::timestamp(now.wall)),
            kind: Some(kind),
        };
        self.events.push(Gathered {
            is_notice,
            encoded: event.encode_to_vec(),
        });
    }
}

impl Stored {
    /// Gives the answers that waited.
    pub(super) fn answer(self, view: &v1::Session) {
        for deferred in self.deferred {
            deferred.give(view);
        }
    }

    fn fail(self, error: AppendError) {
        for deferred in self.deferred {
            match deferred {
                Deferred::Login(_, waiters) => {
                    waiters
                        .into_iter()
                        .for_each(|reply| answer(reply, Err(call_error(error))));
                }
                Deferred::View(waiters) => {
                    waiters
                        .into_iter()
                        .for_each(|reply| answer(reply, Err(call_error(error))));
                }
            }
        }
    }
}

impl Deferred {
    fn give(self, view: &v1::Session) {
        match self {
            Self::Login(login, waiters) => {
                for reply in waiters {
                    answer(reply, login_result(&login, view));
                }
            }
            Self::View(waiters) => {
                waiters
                    .into_iter()
                    .for_each(|reply| answer(reply, Ok(view.clone())));
            }
        }
    }
}

fn call_error(error: AppendError) -> CallError {
    match error {
        AppendError::Stopping => CallError::Stopping,
        AppendError::Full | AppendError::Fenced | AppendError::Corrupt | AppendError::Unsealed => {
            CallError::Store(StoreError::Unavailable(error.to_string()))
        }
    }
}
