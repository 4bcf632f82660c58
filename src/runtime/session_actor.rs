//! One task per session: the socket, the mailbox and the timer around the pure parts.
//!
//! - [`Session`] decides, [`Protocol`] translates, [`Outbox`] stores; this file only carries between them.
//! - One event at a time: a command, a frame, a timer, a stored append. Each is run to its end, frames are written
//!   and what is to be stored is handed over, before the next is taken. Only events to store go together, with what else
//!   is there already: one append for all of them, and one write for their acknowledgements.

mod answers;
pub(super) mod audit;
mod commands;
mod effects;
mod outbox;
mod reports;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connectors::RequestId;
use crate::connectors::tencent::protocol::Protocol;
use crate::connectors::websocket::{Connection, DialError};
use crate::events::log::{AppendError, LogWriter};
use crate::proto::v1;
use crate::runtime::metrics as names;
use crate::runtime::metrics::SessionGauge;
use crate::runtime::record::{self, Restored};
use crate::runtime::sends::Sends;
use crate::runtime::session_actor::answers::{Stored, call_error};
pub(super) use crate::runtime::session_actor::commands::{Command, Commands, Mailbox};
use crate::runtime::session_actor::commands::{LoginReply, ViewReply};
use crate::runtime::session_actor::outbox::{HandedOver, Outbox, Progress};
use crate::runtime::session_actor::waiting::{Happened, Waits};
use crate::runtime::supervisor::Tasks;
use crate::runtime::tenant::Tenant;
use crate::session::Session;
use crate::session::effect::{Durable, RenewReason};
use crate::session::input::{Input, Now, RenewalFailure, Signature};
use crate::session::policy::Policy;
use crate::session::state::{Phase, State};
use crate::tenants::quotas::Admitted;
use crate::types::{SessionKey, UnixMillis, WallClock};

/// How long a frame may take to leave. An upstream that reads nothing for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The session as others see it, kept up to date by its task.
pub(super) type View = Arc<Mutex<v1::Session>>;

/// What a session's task is made of.
pub(super) struct SessionActor {
    key: SessionKey,
    tenant: Arc<Tenant>,
    session: Session,
    /// What the session goes by.
    policy: Arc<Policy>,
    protocol: Protocol,
    socket: Socket,
    /// The question put to the tenant's issuers.
    issuing: Option<Issuing>,
    mailbox: Commands,
    lease_lost: CancellationToken,
    stop: Tasks,
    view: View,
    inputs: VecDeque<Input>,
    outbox: Outbox,
    sends: Sends,
    login_waiters: Vec<LoginReply>,
    logout_waiters: Vec<ViewReply>,
    gauge: SessionGauge,
    resuming: bool,
    /// The account is new today and on its way to its login.
    admitted: Option<Admitted>,
    /// What others see is older than what is.
    changed: bool,
    /// There was a record of the session before.
    known: bool,
    /// The login that is on its way takes the account back after a kick.
    retaking: bool,
    /// A frame has just been taken before a timer that was due.
    frame_went_first: bool,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Connection, DialError>> + Send>>;

/// What issuers answer.
type Answer = Result<Signature, RenewalFailure>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A question that is put to the tenant's issuers. Dropping it takes it back.
struct Issuing {
    answering: Answering,
    reason: RenewReason,
}

enum Socket {
    None,
    Dialling(Dialling),
    Open(Box<Connection>),
}

/// What a session's task leaves behind in the store.
pub(super) struct Left {
    /// There is a record.
    pub(super) known: bool,
    /// The record, if there is one and it can be sealed.
    pub(super) record: Option<Vec<u8>>,
    /// Until when sends are remembered, if any are.
    pub(super) sends_until: Option<UnixMillis>,
}

/// Where a session's task comes from.
pub(super) struct Origin {
    pub(super) key: SessionKey,
    pub(super) tenant: Arc<Tenant>,
    pub(super) restored: Restored,
    /// How long a session that is to be online waits before it comes back.
    pub(super) delay: Duration,
    pub(super) writer: LogWriter,
    pub(super) mailbox: Commands,
    pub(super) lease_lost: CancellationToken,
    pub(super) stop: Tasks,
    pub(super) view: View,
}

impl SessionActor {
    /// In a box: a task's future holds what it is given more than once.
    pub(super) fn new(origin: Origin) -> Box<Self> {
        let Origin {
            key,
            tenant,
            restored,
            delay,
            writer,
            mailbox,
            lease_lost,
            stop,
            view,
        } = origin;
        let seed = rand::random();
        let who = tenant.identification(&key.account);
        let protocol = record::protocol(who, seed, &restored);
        let settings = tenant.settings();
        let policy = Arc::clone(&settings.policy);
        let known = restored.durable != Durable::default();
        let begins = now();
        let session = Session::restore(Arc::clone(&policy), seed, restored.durable, begins, delay);
        let sends = Sends::new(
            tenant.id.clone(),
            settings.max_pending_sends,
            restored.sends,
            begins.wall,
        );
        Box::new(Self {
            gauge: SessionGauge::new(Arc::clone(&tenant.gauges), session.state().phase()),
            sends,
            outbox: Outbox::new(key.clone(), Arc::clone(&tenant.sealer), writer),
            socket: Socket::None,
            issuing: None,
            inputs: VecDeque::new(),
            login_waiters: Vec::new(),
            logout_waiters: Vec::new(),
            resuming: false,
            admitted: None,
            changed: false,
            known,
            retaking: false,
            frame_went_first: false,
            key,
            tenant,
            session,
            policy,
            protocol,
            mailbox,
            lease_lost,
            stop,
            view,
        })
    }

    /// Runs until the session is closed, or logged out with nothing left to do. `retire` says whether the task may
    /// end: it may not while commands are on their way to it. It is told what there is to remember.
    pub(super) async fn run(mut self: Box<Self>, retire: impl Fn(&Commands, Left) -> bool) {
        self.publish();
        let (lease_lost, stop) = (self.lease_lost.clone(), self.stop.clone());
        let mut lease_lost = std::pin::pin!(lease_lost.cancelled().fuse());
        let mut stopping = std::pin::pin!(stop.stopping().fuse());
        let mut timer = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
        loop {
            let waits = Waits {
                lease_lost: lease_lost.as_mut(),
                stopping: stopping.as_mut(),
                timer: timer.as_mut(),
            };
            let happened = self.next(waits).await;
            self.look_at_settings();
            let now = now();
            let bytes = happened.bytes();
            self.take(now, happened);
            self.take_what_goes_with_it(now, bytes);
            self.work(now).await;
            let done = match self.session.state() {
                State::Closed => self.outbox.is_idle(),
                State::LoggedOut => self.outbox.is_stored() && retire(&self.mailbox, self.left()),
                State::Connecting { .. }
                | State::LoggingIn { .. }
                | State::Online { .. }
                | State::BackingOff { .. }
                | State::RenewingSignature { .. }
                | State::LoggingOut { .. }
                | State::Parked { .. } => false,
            };
            if done {
                return;
            }
        }
    }

    fn left(&self) -> Left {
        let known = self.known || self.outbox.is_used();
        let (sealer, key) = (&self.tenant.sealer, &self.key);
        let record = known.then(|| record::encode(sealer, key, &self.session, &self.protocol));
        Left {
            known,
            // Without it all is as well as long as the store loses nothing.
            record: record.and_then(Result::ok),
            sends_until: self.sends.remembered_until(),
        }
    }

    fn look_at_settings(&mut self) {
        let policy = &self.tenant.settings().policy;
        if !Arc::ptr_eq(policy, &self.policy) {
            self.policy = Arc::clone(policy);
            self.inputs.push_back(Input::Policy(Arc::clone(policy)));
        }
    }

    fn take(&mut self, now: Now, happened: Happened) {
        match happened {
            Happened::Command(Some(command)) => self.command(now, *command),
            // Nobody can reach the session any more; it is let go as in a stop.
            Happened::Command(None) | Happened::Stop => self.inputs.push_back(Input::Stop),
            Happened::LeaseLost => self.inputs.push_back(Input::LeaseLost),
            Happened::Dialled(Ok(connection)) => {
                self.socket = Socket::Open(Box::new(connection));
                self.inputs.push_back(Input::Connected);
            }
            Happened::Dialled(Err(error)) => {
                self.socket = Socket::None;
                self.lose(error.to_string());
            }
            Happened::Frame(Ok(frame)) => {
                if self.inputs.back() != Some(&Input::Traffic) {
                    self.inputs.push_back(Input::Traffic);
                }
                self.protocol.receive(now, &frame);
            }
            Happened::Frame(Err(ended)) => {
                self.socket = Socket::None;
                if ended.too_large {
                    self.protocol.cut_by_a_frame(now);
                }
                self.lose(ended.reason);
            }
            Happened::Issued(answer) => self.issuers_answered(answer),
            Happened::Timer => {
                self.inputs.push_back(Input::Timeout);
                self.protocol.timeout(now);
            }
            Happened::Outbox(Progress::Stored(stored)) => self.stored(now, stored),
            Happened::Outbox(Progress::Failed(error, sends)) => {
                warn!(%error, "something could not be stored");
                self.not_stored(error, sends);
                self.protocol.not_stored(now);
            }
            Happened::Outbox(Progress::Room) => self.protocol.set_stalled(now, false),
        }
    }

    /// Runs what has happened to its end.
    async fn work(&mut self, mut now: Now) {
        self.sends.expire(now.wall);
        loop {
            self.take_reports(now);
            while let Some(input) = self.inputs.pop_front() {
                self.advance(now, input).await;
                self.take_reports(now);
            }
            if !self.see_to_sends(now) && self.write_frames().await {
                break;
            }
            // An upstream that does not read has taken its time.
            now = self::now();
        }
        match self.outbox.hand_over(&self.session, &mut self.protocol) {
            HandedOver::All => {}
            HandedOver::Waits => self.protocol.set_stalled(now, true),
            HandedOver::Unsealed(sends) => {
                self.not_stored(AppendError::Unsealed, sends);
                self.protocol.set_stalled(now, true);
            }
        }
        if self.changed {
            self.changed = false;
            self.publish();
        }
        self.outbox
            .answer_if_idle(|| record::view(&self.key, &self.session));
    }

    async fn advance(&mut self, now: Now, input: Input) {
        let before = self.session.state().phase();
        let attempt = self.session.attempt();
        let timed_out = input == Input::Timeout;
        self.audit_input(&input);
        let mut effects = Vec::new();
        self.session.handle(now, input, &mut effects);
        // Whatever others can see of a session comes with an effect, but for the proof of a connection.
        self.changed |= !effects.is_empty() || attempt != self.session.attempt();
        for effect in effects {
            self.perform(now, effect).await;
        }
        let after = self.session.state().phase();
        self.gauge.move_to(after);
        if *self.session.state() == State::Closed {
            self.issuing = None;
        }
        let had_connection = matches!(before, Phase::Online | Phase::Connecting);
        // A login with a fresh signature also leaves the connection, but is no attempt that has failed.
        if timed_out && had_connection && after == Phase::BackingOff && self.session.attempt() > 0 {
            count_loss("the upstream does not answer");
        }
        // Whoever is refused or logged out does not log in today, until the bot asks for it.
        if matches!(
            self.session.state(),
            State::LoggedOut | State::Parked { .. }
        ) {
            self.admitted = None;
        }
        // A session that is only let go by this process does not move.
        if before != after && *self.session.state() != State::Closed {
            let durable = self.session.durable();
            info!(
                from = before.label(),
                to = after.label(),
                code = durable.code,
                "session"
            );
            self.audit_move(before, after, timed_out);
            if after == Phase::Parked {
                counter!(names::PARKED).increment(1);
            }
        }
    }

    /// Writes what is to be sent. False if that failed and there is more to do.
    async fn write_frames(&mut self) -> bool {
        let frames = std::mem::take(&mut self.protocol.out.frames);
        let Socket::Open(connection) = &mut self.socket else {
            return true;
        };
        if frames.is_empty() {
            return true;
        }
        let reason = match tokio::time::timeout(WRITE_TIMEOUT, connection.send(frames)).await {
            Ok(Ok(())) => return true,
            Ok(Err(ended)) => ended.reason,
            Err(_) => "the upstream does not read".to_owned(),
        };
        self.socket = Socket::None;
        self.lose(reason);
        false
    }

    fn stored(&mut self, now: Now, stored: Stored) {
        self.protocol.stored(now, &stored.acks);
        for id in &stored.sends {
            self.sends.stored(now, *id);
        }
        stored.answer(|| record::view(&self.key, &self.session));
    }

    fn not_stored(&mut self, error: AppendError, sends: Vec<RequestId>) {
        for id in sends {
            self.sends.not_stored(id, || call_error(error));
        }
    }

    fn publish(&self) {
        let view = record::view(&self.key, &self.session);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

fn count_loss(reason: &str) {
    counter!(names::CONNECTIONS_LOST).increment(1);
    info!(reason, "connection lost");
}

fn now() -> Now {
    Now {
        at: Instant::now().into_std(),
        wall: WallClock.now(),
    }
}
