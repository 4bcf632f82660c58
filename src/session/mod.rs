//! One upstream session as a pure state machine: no clock, socket, task or store.
//!
//! ```text
//!              Login                      Connected               Accepted
//!  LoggedOut ────────▶ Connecting ────────────────▶ LoggingIn ──────────────▶ Online
//!      ▲                  ▲   │ Lost                │  │  │                  │ │ │ │
//!      │ Logout           │   ▼                     │  │  │ Lost, Retry      │ │ │ │ Lost
//!  LoggingOut             └─ BackingOff ◀───────────┘──┼──┼──────────────────┼─┼─┼─┘
//!      ▲                  │                            │  │ Renew            │ │ │ Expired
//!      │                  └─ RenewingSignature ◀───────┼──┘◀─────────────────┼─┼─┘
//!      │                          │ given up           ▼ Park                │ │ Kicked
//!      │                          └──────────────▶ Parked ◀──────────────────┼─┘
//!      └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Session::handle`] takes one [`Input`] and appends [`Effect`]s in the order in which they are to be run;
//! [`Session::poll_timeout`] says when [`Input::Timeout`] is next due, and why. What holds always:
//!
//! - at most one login is in flight, and none is sent within `login_spacing` of the one before by signature;
//! - a socket is opened only after a back-off, on a bot's command, or for a fresh signature;
//! - the issuer is asked for one signature at a time;
//! - after `LeaseLost` nothing but `CloseSocket` is emitted, after `Logout` nothing but the logout and close;
//! - a kick never leads to a login under [`KickPolicy::Yield`], and to one at most under `Retake`.

pub mod backoff;
mod commands;
pub mod disposition;
pub mod effect;
pub mod input;
mod issuing;
pub mod keepalive;
pub mod policy;
mod signatures;
pub mod state;
#[cfg(test)]
mod tests;
mod transitions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::backoff::Jitter;
use crate::session::effect::{Durable, Effect, LoginAnswer, Notice};
use crate::session::input::{Input, Now};
use crate::session::policy::Policy;
use crate::session::signatures::Renewal;
use crate::session::state::{ParkReason, Phase, State};

pub use crate::session::policy::KickPolicy;

/// The code that the vendor's native SDK reports for a signature that has ended by its own clock.
pub const CODE_SIGNATURE_EXPIRED: i32 = 6206;
/// The code that the vendor's native SDK reports for a session that another login kicked.
pub const CODE_KICKED: i32 = 6208;

/// One upstream session.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    jitter: Jitter,
    state: State,
    durable: Durable,
    renewal: Renewal,
    /// When the next login by signature may be sent.
    login_not_before: Option<Instant>,
    /// Resumes refused in a row.
    refused_resumes: u32,
    told: Told,
}

/// Where subscribers last heard that the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Out,
    Away,
    Online,
    Renewing,
    Parked(ParkReason),
}

/// One call of [`Session::handle`]: what it has asked for so far.
struct Turn<'a> {
    now: Now,
    out: &'a mut Vec<Effect>,
    save: bool,
    tell: Vec<Notice>,
    answer: Option<LoginAnswer>,
    answer_logout: bool,
}

impl Session {
    /// A session that has never been logged in.
    pub fn new(policy: Arc<Policy>, seed: u64) -> Self {
        Self {
            policy,
            jitter: Jitter::new(seed),
            state: State::LoggedOut,
            durable: Durable::default(),
            renewal: Renewal::default(),
            login_not_before: None,
            refused_resumes: 0,
            told: Told::Out,
        }
    }

    /// A session from its record. One that is to be online comes back `delay` from now, so that a restart does
    /// not bring all at once.
    pub fn restore(
        policy: Arc<Policy>,
        seed: u64,
        durable: Durable,
        now: Now,
        delay: Duration,
    ) -> Self {
        let mut session = Self::new(policy, seed);
        if let Some(last_login) = durable.last_login {
            let since = now.wall.since(last_login);
            session.login_not_before =
                Some(now.at + session.policy.login_spacing.saturating_sub(since));
        }
        session.told = Told::Away;
        session.state = match (durable.desired, durable.parked) {
            (false, _) => {
                session.told = Told::Out;
                State::LoggedOut
            }
            (true, Some(reason)) => {
                session.told = Told::Parked(reason);
                State::Parked {
                    reason,
                    retake_at: None,
                }
            }
            (true, None) => State::BackingOff {
                attempt: 0,
                until: now.at + delay,
            },
        };
        session.durable = durable;
        // The ticket of a logout that the process did not see the end of.
        session.durable.has_ticket &= session.durable.desired;
        session.read_signature_life(now);
        session
    }

    /// Advances the machine by one input.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        if self.state == State::Closed {
            return;
        }
        let mut turn = Turn {
            now,
            out,
            save: false,
            tell: Vec::new(),
            answer: None,
            answer_logout: false,
        };
        self.step(&mut turn, input);
        self.settle(turn);
    }

    /// When `Input::Timeout` is next due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match &self.state {
            State::LoggedOut | State::Connecting { .. } | State::Closed => None,
            State::LoggingIn { give_up_at, .. } => Some((*give_up_at, "login unanswered")),
            State::LoggingOut { give_up_at } => Some((*give_up_at, "logout unanswered")),
            State::BackingOff { until, .. } => Some((*until, "next attempt")),
            State::Parked { retake_at, .. } => retake_at.map(|at| (at, "retake after a kick")),
            State::RenewingSignature { give_up_at } => {
                let retry = self
                    .renewal_retry_at()
                    .map(|at| (at, "ask the issuer again"));
                earliest([Some((*give_up_at, "signature given up")), retry])
            }
            State::Online { keepalive, .. } => earliest([
                Some((keepalive.next_due(&self.policy.keepalive), "heartbeat")),
                self.renewal_due_online()
                    .map(|at| (at, "fetch the next signature")),
                self.renewal.ends_at.map(|at| (at, "signature ends")),
            ]),
        }
    }

    /// Where the session stands.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What is to be stored of it.
    pub const fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Attempts since the session was last proven online.
    pub const fn attempt(&self) -> u32 {
        match &self.state {
            State::Connecting { attempt }
            | State::LoggingIn { attempt, .. }
            | State::Online { attempt, .. }
            | State::BackingOff { attempt, .. } => *attempt,
            State::LoggedOut
            | State::RenewingSignature { .. }
            | State::LoggingOut { .. }
            | State::Parked { .. }
            | State::Closed => 0,
        }
    }

    /// Ends a turn: stores and tells what has changed, then answers, so that an answer is true when it is given.
    fn settle(&mut self, mut turn: Turn<'_>) {
        let told = self.standing();
        // Being on the way is news only to those who think that the session is online.
        let news = told != self.told
            && !(told == Told::Away && matches!(self.told, Told::Out | Told::Parked(_)));
        if told != self.told {
            self.durable.since = turn.now.wall;
            self.told = told;
        }
        if news {
            turn.save = true;
            turn.tell.push(Notice::Changed);
        }
        if turn.save {
            turn.out.push(Effect::Save);
        }
        turn.out.extend(turn.tell.into_iter().map(Effect::Tell));
        turn.out.extend(turn.answer.map(Effect::AnswerLogin));
        if turn.answer_logout {
            turn.out.push(Effect::AnswerLogout);
        }
    }

    fn standing(&self) -> Told {
        match &self.state {
            State::Parked { reason, .. } => Told::Parked(*reason),
            State::Closed => self.told,
            State::RenewingSignature { .. } if self.comes_by_its_first_signature() => Told::Away,
            State::RenewingSignature { .. } => Told::Renewing,
            State::LoggedOut
            | State::LoggingOut { .. }
            | State::Connecting { .. }
            | State::LoggingIn { .. }
            | State::BackingOff { .. }
            | State::Online { .. } => match self.state.phase() {
                Phase::Online => Told::Online,
                Phase::Connecting | Phase::BackingOff => Told::Away,
                Phase::RenewingSignature => Told::Renewing,
                Phase::LoggedOut | Phase::Parked => Told::Out,
            },
        }
    }
}

/// The earliest of several timers.
fn earliest<const N: usize>(
    timers: [Option<(Instant, &'static str)>; N],
) -> Option<(Instant, &'static str)> {
    timers.into_iter().flatten().min_by_key(|(at, _)| *at)
}
