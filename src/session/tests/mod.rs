//! Tests of the session machine. The clock is turned by hand, and the test plays the shell.
//!
//! `stories` tells what happens to a bot, `tables` lists every cell of state and input, `properties` drives random
//! lives against the reference in `model`.

mod model;
mod properties;
mod stories;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::session::disposition::{Disposition, Refusal};
use crate::session::effect::Credential;
use crate::session::input::{Life, RenewalFailure, Signature};
use crate::types::{Secret, UnixMillis};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A session, the two clocks, and what a store would hold of the session.
#[derive(Debug)]
struct Harness {
    session: Session,
    policy: Arc<Policy>,
    now: Now,
    record: Durable,
}

impl Harness {
    fn new(policy: Policy) -> Self {
        let policy = Arc::new(policy);
        Self {
            session: Session::new(Arc::clone(&policy), 1),
            policy,
            now: Now {
                at: tokio::time::Instant::now().into_std(),
                wall: UnixMillis::from_secs(1_790_000_000),
            },
            record: Durable::default(),
        }
    }

    /// A tenant that brings every signature itself.
    fn manual() -> Self {
        Self::new(Policy::default())
    }

    /// A tenant with an issuer.
    fn issuing() -> Self {
        Self::new(Policy {
            can_issue: true,
            ..Policy::default()
        })
    }

    /// Logged in with the signature "one", proven, and out of the upstream's login spacing.
    fn online(mut self) -> Self {
        let one = self.signature("one", 10 * DAY);
        self.input(Input::Login(Some(one)));
        self.input(Input::Connected);
        self.input(Input::Accepted);
        for _ in 0..4 {
            self.skip(5 * SECOND);
            self.input(Input::Traffic);
        }
        assert_eq!(self.state(), "Online 0");
        self
    }

    /// A signature that is made now and lives for `life`. Its text is its name.
    fn signature(&self, name: &str, life: Duration) -> Signature {
        Signature {
            text: Secret::new(name.to_owned()),
            life: Some(Life {
                issued_at: self.now.wall,
                expires_at: self.now.wall.plus(life),
            }),
        }
    }

    /// A signature that has ended a second ago.
    fn ended_signature(&self, name: &str) -> Signature {
        Signature {
            text: Secret::new(name.to_owned()),
            life: Some(Life {
                issued_at: UnixMillis(self.now.wall.0 - 86_400_000),
                expires_at: UnixMillis(self.now.wall.0 - 1000),
            }),
        }
    }

    /// Hands the machine an input; says what it asks for.
    fn input(&mut self, input: Input) -> String {
        let mut effects = Vec::new();
        self.session.handle(self.now, input, &mut effects);
        if effects.contains(&Effect::Save) {
            self.record = self.session.durable().clone();
        }
        show(&effects)
    }

    /// Hands the machine an input, which asks for exactly this.
    #[track_caller]
    fn on(&mut self, input: Input, effects: &str) {
        let what = format!("{input:?} in {}", self.state());
        assert_eq!(self.input(input), effects, "{what}");
    }

    /// Turns both clocks to the next timer, which is of this kind and asks for exactly this.
    #[track_caller]
    fn due(&mut self, why: &str, effects: &str) {
        let what = format!("in {}", self.state());
        let (at, due) = self.session.poll_timeout().expect("a timer");
        assert_eq!(due, why, "{what}");
        self.skip(at.saturating_duration_since(self.now.at));
        assert_eq!(self.input(Input::Timeout), effects, "{what}: {why}");
    }

    /// Turns both clocks. Timers do not fire.
    fn skip(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall = self.now.wall.plus(time);
    }

    /// How long until the next timer.
    #[track_caller]
    fn until_due(&self) -> Duration {
        let (at, _) = self.session.poll_timeout().expect("a timer");
        at.saturating_duration_since(self.now.at)
    }

    /// The process dies, and another takes the session up from what was stored.
    fn restart(&mut self, delay: Duration) {
        let policy = Arc::clone(&self.policy);
        self.session = Session::restore(policy, 2, self.record.clone(), self.now, delay);
    }

    fn state(&self) -> String {
        show_state(self.session.state())
    }

    #[track_caller]
    fn is(&self, state: &str) {
        assert_eq!(self.state(), state);
    }
}

fn show_state(state: &State) -> String {
    match state {
        State::LoggedOut => "LoggedOut".into(),
        State::Connecting { attempt } => format!("Connecting {attempt}"),
        State::LoggingIn {
            attempt, resuming, ..
        } => {
            let by = if *resuming { "ticket" } else { "signature" };
            format!("LoggingIn {attempt} by {by}")
        }
        State::Online { attempt, .. } => format!("Online {attempt}"),
        State::BackingOff { attempt, .. } => format!("BackingOff {attempt}"),
        State::RenewingSignature { .. } => "RenewingSignature".into(),
        State::LoggingOut { .. } => "LoggingOut".into(),
        State::Parked {
            reason,
            retake_at: None,
        } => format!("Parked {reason:?}"),
        State::Parked {
            reason,
            retake_at: Some(_),
        } => format!("Parked {reason:?} retaking"),
        State::Closed => "Closed".into(),
    }
}

fn show(effects: &[Effect]) -> String {
    let shown: Vec<String> = effects.iter().map(show_effect).collect();
    shown.join(", ")
}

fn show_effect(effect: &Effect) -> String {
    match effect {
        Effect::Connect => "Connect".into(),
        Effect::LogIn(Credential::Ticket) => "LogIn(ticket)".into(),
        Effect::LogIn(Credential::Signature(text)) => format!("LogIn({})", text.expose()),
        Effect::LogOut => "LogOut".into(),
        Effect::CloseSocket => "Close".into(),
        Effect::Heartbeat => "Heartbeat".into(),
        Effect::RenewSignature { reason, attempt } => format!("Issue({reason:?} {attempt})"),
        Effect::ForgetRenewal => "ForgetRenewal".into(),
        Effect::ForgetTicket => "ForgetTicket".into(),
        Effect::Save => "Save".into(),
        Effect::Tell(Notice::Changed) => "Changed".into(),
        Effect::Tell(Notice::SignatureExpired { code, .. }) => format!("SignatureExpired({code})"),
        Effect::Tell(Notice::Kicked { retaking, .. }) => {
            let then = if *retaking { "retaking" } else { "yielding" };
            format!("Kicked({then})")
        }
        Effect::AnswerLogin(LoginAnswer::Upstream { code, .. }) => format!("Answer({code})"),
        Effect::AnswerLogin(LoginAnswer::SignatureRequired) => "Answer(no signature)".into(),
        Effect::AnswerLogin(LoginAnswer::IssuerUnavailable { .. }) => "Answer(issuer away)".into(),
        Effect::AnswerLogin(LoginAnswer::IssuerRefused { .. }) => "Answer(issuer refuses)".into(),
        Effect::AnswerLogin(LoginAnswer::Ended) => "Answer(ended)".into(),
        Effect::AnswerLogout => "AnswerLogout".into(),
    }
}

fn refusal(code: i32, disposition: Disposition) -> Refusal {
    Refusal {
        code,
        desc: "said the upstream".into(),
        disposition,
    }
}

/// The upstream answers the login: the signature has ended.
fn refused_70001() -> Input {
    Input::Refused(refusal(70001, Disposition::Renew))
}

/// The upstream answers the login: the ticket has ended.
fn refused_20002() -> Input {
    Input::Refused(refusal(20002, Disposition::ForgetTicket))
}

/// The upstream answers the login: not now.
fn refused_for_now() -> Input {
    Input::Refused(refusal(50001, Disposition::Retry))
}

/// The upstream says that the signature of the online session has ended.
fn expired_70001() -> Input {
    Input::Expired(refusal(70001, Disposition::Renew))
}

/// The upstream says that the ticket of the online session has ended.
fn expired_20002() -> Input {
    Input::Expired(refusal(20002, Disposition::ForgetTicket))
}

fn lost() -> Input {
    Input::Lost("reset".into())
}

fn kicked() -> Input {
    Input::Kicked {
        kick_type: 1,
        desc: "elsewhere".into(),
    }
}

fn issuer_failed(retry_after: Duration) -> Input {
    Input::RenewalFailed(RenewalFailure {
        reason: "away",
        refused: false,
        retry_after,
    })
}

/// The issuer does not want to.
fn issuer_refuses() -> Input {
    Input::RenewalFailed(RenewalFailure {
        reason: "unknown account",
        refused: true,
        retry_after: Duration::ZERO,
    })
}
