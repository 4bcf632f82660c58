//! What a session's task waits for, and what it takes together.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::{Instant, Sleep};

use crate::connectors::Report;
use crate::connectors::websocket::{Connection, DialError, Ended};
use crate::runtime::session_actor::commands::Command;
use crate::runtime::session_actor::outbox::Progress;
use crate::runtime::session_actor::{Answer, Issuing, SessionActor, Socket};
use crate::session::input::{Input, Now};
use crate::session::state::State;

/// How much that has happened is taken together at the most, and how many bytes of frames: it becomes one append.
const TOGETHER: usize = 32;
const BYTES_TOGETHER: usize = 64 * 1024;

/// What a session always waits for: its end, and its timer. It is kept from turn to turn, for each beginning and end of
/// a wait takes locks that all sessions share.
pub(super) struct Waits<'a, L, S> {
    pub(super) lease_lost: Pin<&'a mut L>,
    pub(super) stopping: Pin<&'a mut S>,
    pub(super) timer: Pin<&'a mut Sleep>,
}

/// What a session's task goes on with.
pub(super) enum Happened {
    Command(Option<Box<Command>>),
    Dialled(Result<Connection, DialError>),
    Frame(Result<Bytes, Ended>),
    Issued(Answer),
    Timer,
    Outbox(Progress),
    Stop,
    LeaseLost,
}

impl Happened {
    /// How many bytes of a frame it is.
    pub(super) fn bytes(&self) -> usize {
        if let Self::Frame(Ok(frame)) = self {
            frame.len()
        } else {
            0
        }
    }
}

impl SessionActor {
    pub(super) async fn next<L, S>(&mut self, waits: Waits<'_, L, S>) -> Happened
    where
        L: Future<Output = ()>,
        S: Future<Output = ()>,
    {
        let closed = *self.session.state() == State::Closed;
        let wait = self.upstream_waits_until();
        let due = [self.due(), wait].into_iter().flatten().min();
        let happened = tokio::select! {
            biased;
            () = waits.lease_lost, if !closed => Happened::LeaseLost,
            () = waits.stopping, if !closed => Happened::Stop,
            progress = self.outbox.progress() => Happened::Outbox(progress),
            () = until(waits.timer, due), if !closed => Happened::Timer,
            command = self.mailbox.recv(), if !closed => Happened::Command(command),
            answer = issued(&mut self.issuing), if !closed => Happened::Issued(answer),
            happened = self.socket.next(), if wait.is_none() => happened,
        };
        // A process that was held up finds its timers due, and unread the answers that they wait for. One frame is
        // a sign of life; were it more, a busy upstream could keep the timers from ever being seen to.
        let unread = if matches!(happened, Happened::Timer) && !self.frame_went_first {
            // The runtime may have seen to its timers before it looked at its sockets.
            tokio::task::yield_now().await;
            self.socket.next().now_or_never()
        } else {
            None
        };
        self.frame_went_first = unread.is_some();
        unread.unwrap_or(happened)
    }

    /// When [`Happened::Timer`] is next due.
    fn due(&self) -> Option<Instant> {
        let session_due = self.session.poll_timeout().map(|(at, _)| at);
        [session_due, self.protocol.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
            .map(Instant::from_std)
    }

    /// Takes further appends that are stored and frames that are there already, as long as they bring nothing but events.
    /// `bytes`: how many there were in the frame that was taken before, if it was one.
    pub(super) fn take_what_goes_with_it(&mut self, now: Now, mut bytes: usize) {
        for _ in 1..TOGETHER {
            let is_plain = |report: &Report| matches!(report, Report::Events(_));
            let plain = self.inputs.iter().all(|input| *input == Input::Traffic)
                && self.protocol.out.reports.iter().all(is_plain);
            if !plain || bytes >= BYTES_TOGETHER {
                return;
            }
            let happened = match self.outbox.progress().now_or_never() {
                Some(progress) => Happened::Outbox(progress),
                None if self.upstream_waits_until().is_some() => return,
                None => match self.socket.next().now_or_never() {
                    Some(happened) => happened,
                    None => return,
                },
            };
            bytes += happened.bytes();
            self.take(now, happened);
        }
    }

    /// Until when nothing is taken from the upstream, if so.
    fn upstream_waits_until(&self) -> Option<Instant> {
        if !matches!(self.socket, Socket::Open(_)) {
            return None;
        }
        let mut until = self.outbox.upstream_waits_until()?;
        if let Some(at) = self.protocol.reads_by() {
            until = until.min(Instant::from_std(at));
        }
        (Instant::now() < until).then_some(until)
    }
}

/// Waits until something is due. A timer that is up before that is set anew: to move it whenever what is due is put off,
/// as it is by every frame, would cost more.
async fn until(mut timer: Pin<&mut Sleep>, due: Option<Instant>) {
    let Some(due) = due else {
        return std::future::pending().await;
    };
    loop {
        if timer.is_elapsed() || due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        timer.as_mut().await;
        if timer.deadline() >= due {
            return;
        }
    }
}

/// What the issuers answer to the question that is put to them, if one is. Safe to cancel.
async fn issued(issuing: &mut Option<Issuing>) -> Answer {
    match issuing {
        Some(issuing) => issuing.answering.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Socket {
    /// The next thing that happens on the socket. Safe to cancel.
    async fn next(&mut self) -> Happened {
        match self {
            Self::None => std::future::pending().await,
            Self::Dialling(dialling) => Happened::Dialled(dialling.await),
            Self::Open(connection) => Happened::Frame(connection.receive().await),
        }
    }
}
