//! One session's conversation with the upstream: frames in, reports out, and the other way round. Pure.

mod answers;
mod commands;
mod fetching;
mod oversize;
mod pushes;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::connectors::tencent::catchup::{CatchUp, Trouble};
use crate::connectors::tencent::frame::{self, Frame, FrameError};
use crate::connectors::tencent::left_out::LeftOut;
use crate::connectors::tencent::outgoing;
use crate::connectors::tencent::push::{self, Push};
use crate::connectors::tencent::requests::{Purpose, Requests};
use crate::connectors::tencent::sync::Position;
use crate::connectors::tencent::ticket::Ticket;
use crate::connectors::{Output, Report, greatest_frame};
use crate::proto::record::{TencentSync, TencentTicket};
use crate::session::backoff::Jitter;
use crate::session::input::Now;

/// How often the session says hello where the upstream names no interval.
const HELLO_INTERVAL: u32 = 120;
/// How long it may take to read what came before an answer.
const TO_READ: Duration = Duration::from_secs(10);
/// Where request numbers start, at random below this.
const FIRST_SEQ_BELOW: f64 = 100_000_000.0;

/// Which account of which app.
#[derive(Clone, Debug)]
pub struct Identification {
    /// The upstream user ID.
    pub account: String,
    /// The upstream app.
    pub sdk_app_id: u64,
    /// The tenant's limit of a frame, in bytes, packed and unpacked; see [`greatest_frame`].
    pub max_frame_bytes: usize,
}

/// One session's conversation with the upstream. It outlives its connections.
#[derive(Debug)]
pub struct Protocol {
    who: Identification,
    jitter: Jitter,
    instance_id: String,
    ticket: Option<Ticket>,
    position: Position,
    phase: Phase,
    trouble: Trouble,
    requests: Requests,
    /// Requests are numbered from after this.
    first_seq: u64,
    next_seq: u64,
    next_message: u32,
    hello_at: Option<Instant>,
    /// When to log in once more on this connection, because the upstream asked for it.
    reassert_at: Option<Instant>,
    /// And not before this.
    reassert_not_before: Option<Instant>,
    messages_since_sync: u32,
    overloads: BTreeMap<String, Instant>,
    /// Nothing more can be stored for the moment.
    stalled: bool,
    /// How many pages have been reported.
    pages: u64,
    /// The last page that is in the log.
    pages_stored: u64,
    left_out: LeftOut,
    /// Something may be missing before what is told next, nobody knows how much.
    owes_gap: bool,
    /// What is to be sent and what has happened.
    pub out: Output,
}

/// Where the conversation stands.
#[derive(Debug)]
enum Phase {
    Offline,
    LoggingIn,
    CatchingUp(CatchUp),
    Live,
}

impl Protocol {
    /// A session's conversation, from what its record holds.
    pub fn new(who: Identification, seed: u64, ticket: &TencentTicket, position: Position) -> Self {
        let mut jitter = Jitter::new(seed);
        let instance_id = if ticket.instance_id.is_empty() {
            (0..4)
                .map(|_| format!("{:08x}", below(&mut jitter, f64::from(u32::MAX))))
                .collect()
        } else {
            ticket.instance_id.clone()
        };
        let first_seq = below(&mut jitter, FIRST_SEQ_BELOW);
        Self {
            first_seq,
            next_seq: first_seq,
            next_message: u32::try_from(below(&mut jitter, f64::from(i32::MAX))).unwrap_or(1),
            who,
            jitter,
            instance_id,
            ticket: Ticket::from_record(ticket),
            position,
            phase: Phase::Offline,
            trouble: Trouble::default(),
            requests: Requests::default(),
            hello_at: None,
            reassert_at: None,
            reassert_not_before: None,
            messages_since_sync: 0,
            overloads: BTreeMap::new(),
            stalled: false,
            pages: 0,
            pages_stored: 0,
            left_out: LeftOut::default(),
            owes_gap: false,
            out: Output::default(),
        }
    }

    /// The path and query of a new connection.
    pub fn path(&mut self) -> String {
        format!(
            "/binfo?sdkappid={}&instanceid={}&random={}&platform=7&host=unknown&version=-1\
             &sdkversion=3.6.6&compress=gzip",
            self.who.sdk_app_id,
            self.instance_id,
            self.jitter.fraction(),
        )
    }

    /// Whether there is a ticket to resume with.
    pub const fn has_ticket(&self) -> bool {
        self.ticket.is_some()
    }

    /// The ticket is of no use any more.
    pub fn forget_ticket(&mut self) {
        self.ticket = None;
    }

    /// The ticket, for the record. The connection's instance ID is kept even without one.
    pub fn ticket_record(&self) -> TencentTicket {
        let mut record = TencentTicket::default();
        record.instance_id.clone_from(&self.instance_id);
        if let Some(ticket) = &self.ticket {
            record.a2.clone_from(ticket.a2.expose());
            record.tiny_id.clone_from(&ticket.tiny_id);
            record.inst_id = ticket.inst_id;
            record.hello_interval = ticket.hello_interval;
        }
        record
    }

    /// How far the session has read, for the record.
    pub const fn position(&self) -> &Position {
        &self.position
    }

    /// How far the session has read since its record was last taken as a whole, if that is little.
    pub fn addition(&self) -> Option<TencentSync> {
        self.position.addition()
    }

    /// The session's record was taken as a whole.
    pub fn recorded(&mut self) {
        self.position.recorded();
    }

    /// While stalled, pushes are left out unacknowledged; afterwards they are fetched.
    pub fn set_stalled(&mut self, now: Now, stalled: bool) {
        self.stalled = stalled;
        self.go_on(now);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        let held = match std::mem::replace(&mut self.phase, Phase::Offline) {
            Phase::CatchingUp(round) => round.finish(),
            Phase::Offline | Phase::LoggingIn | Phase::Live => VecDeque::new(),
        };
        let gone = self.left_out.disconnected(held);
        self.give_up(gone);
        self.hello_at = None;
        self.reassert_at = None;
        let lost = self.requests.disconnected();
        self.out.frames.clear();
        self.out
            .reports
            .extend(lost.into_iter().map(Report::Unanswered));
    }

    /// When [`Protocol::timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.hello_at,
            self.reassert_at,
            self.requests.next_deadline(),
            self.retry_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When what comes is to be read at the latest, for there may be an answer in it that is waited for.
    pub fn reads_by(&self) -> Option<Instant> {
        self.requests.next_deadline()?.checked_sub(TO_READ)
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Now) {
        for pending in self.requests.overdue(now.at) {
            match pending.purpose {
                Purpose::Send(sending) if sending.out || sending.in_doubt => {
                    self.out.reports.push_back(Report::Unanswered(sending.id));
                }
                Purpose::Send(sending) => {
                    self.out.reports.push_back(Report::Unsent(sending.id));
                }
                Purpose::Invoke(id) => {
                    self.out.reports.push_back(Report::Unanswered(id));
                }
                Purpose::CatchUp => self.catch_up_unanswered(now),
                Purpose::Reassert => {
                    self.out.reports.push_back(Report::Dead("login unanswered"));
                }
                Purpose::Login | Purpose::Logout | Purpose::Heartbeat | Purpose::Hello => {}
            }
        }
        if self.hello_at.is_some_and(|at| at <= now.at) {
            self.request(
                now,
                "im_open_status.wshello",
                outgoing::HELLO.into(),
                Purpose::Hello,
            );
            self.schedule_hello(now);
        }
        self.reassert_if_due(now);
        if self.retry_at().is_some_and(|at| at <= now.at) {
            self.catch_up(now, CatchUp::retry());
        }
    }

    /// Takes in one frame.
    pub fn receive(&mut self, now: Now, bytes: &[u8]) {
        let max_bytes = greatest_frame(self.who.max_frame_bytes);
        let taken = frame::unpack(bytes, max_bytes).and_then(|json| self.read(now, &json));
        if let Err(error) = taken {
            self.out
                .reports
                .push_back(Report::BadFrame(error.to_string()));
            self.unreadable(now, bytes, error);
        }
    }

    fn read(&mut self, now: Now, json: &[u8]) -> Result<(), FrameError> {
        match Push::of_events(json) {
            // Without a number it answers nothing.
            Some(push) => self.pushed(now, push),
            None => self.received(now, &Frame::read(json)?),
        }
        Ok(())
    }

    fn received(&mut self, now: Now, frame: &Frame<'_>) {
        if let Some(pending) = self.requests.answered(frame.seq, &frame.servcmd) {
            self.answered(now, frame.seq, pending, frame.body);
        } else if !self.was_asked(frame.seq) || push::is_push(&frame.servcmd) {
            // Some pushes carry a number of their own.
            self.pushed(now, Push::of(frame));
        }
        // Else it answers something that is not waited for any longer.
    }

    const fn was_asked(&self, seq: u64) -> bool {
        self.first_seq < seq && seq <= self.next_seq
    }

    const fn is_online(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp(_) | Phase::Live)
    }

    fn schedule_hello(&mut self, now: Now) {
        let seconds = match &self.ticket {
            Some(ticket) if ticket.hello_interval > 0 => ticket.hello_interval,
            Some(_) | None => HELLO_INTERVAL,
        };
        self.hello_at = Some(now.at + Duration::from_secs(seconds.into()));
    }
}

/// A random whole number below `bound`.
fn below(jitter: &mut Jitter, bound: f64) -> u64 {
    // Within 2^53 by its callers, and never negative.
    Duration::from_secs_f64(jitter.fraction() * bound).as_secs()
}

#[cfg(test)]
mod tests;
