//! What each input does in each state.

use crate::session::disposition::{Disposition, Refusal};
use crate::session::effect::{Credential, Effect, LoginAnswer, Notice, RenewReason};
use crate::session::input::Input;
use crate::session::keepalive::{Keepalive, KeepaliveDue};
use crate::session::policy::KickPolicy;
use crate::session::state::{ParkReason, State};
use crate::session::{CODE_KICKED, CODE_SIGNATURE_EXPIRED, Session, Turn};

impl Session {
    pub(super) fn step(&mut self, turn: &mut Turn<'_>, input: Input) {
        match input {
            Input::Login(signature) => self.login(turn, signature),
            Input::RenewSignature(signature) => self.bot_brought(turn, signature),
            Input::Logout => self.logout(turn),
            Input::Connected => self.connected(turn),
            Input::Accepted => self.accepted(turn),
            Input::Refused(refusal) => self.refused(turn, &refusal),
            Input::LoggedOut => self.logged_out(turn),
            Input::Traffic => self.traffic(turn),
            Input::Lost(_) => self.lost(turn),
            Input::Expired(refusal) => self.expired(turn, &refusal),
            Input::Kicked { kick_type, desc } => self.kicked(turn, kick_type, &desc),
            Input::Renewed(signature) => self.issuer_answered(turn, signature),
            Input::RenewalFailed(failure) => self.issuer_failed(turn, failure),
            Input::Policy(policy) => self.policy_set(turn, policy),
            Input::Timeout => self.timeout(turn),
            Input::Stop => {
                turn.answer = Some(LoginAnswer::Ended);
                // What a logout promises is stored already: the session stays out.
                turn.answer_logout = matches!(self.state, State::LoggingOut { .. });
                self.close(turn);
            }
            Input::LeaseLost => self.close(turn),
        }
    }

    /// Logs in by what there is, or gets a signature first.
    pub(super) fn come_online(&mut self, turn: &mut Turn<'_>) {
        if self.durable.has_ticket || self.has_usable_signature(turn) {
            self.connect_or_wait(turn, 0);
        } else if self.durable.signature.is_none() {
            self.signature_ended(turn, RenewReason::FirstLogin, 0, "");
        } else if self.durable.signature_refused {
            let (code, desc) = (self.durable.code, self.durable.desc.clone());
            self.signature_ended(turn, RenewReason::Refused, code, &desc);
        } else {
            let desc = "the signature has ended by the gateway's clock";
            self.signature_ended(turn, RenewReason::Expired, CODE_SIGNATURE_EXPIRED, desc);
        }
    }

    /// Opens a socket now, or when the upstream's least distance between logins allows.
    pub(super) fn connect_or_wait(&mut self, turn: &mut Turn<'_>, attempt: u32) {
        match self.login_not_before {
            Some(until) if !self.durable.has_ticket && turn.now.at < until => {
                self.state = State::BackingOff { attempt, until };
            }
            Some(_) | None => {
                self.state = State::Connecting { attempt };
                turn.out.push(Effect::Connect);
            }
        }
    }

    /// Leaves the present connection for a login with the signature in use.
    pub(super) fn relogin(&mut self, turn: &mut Turn<'_>) {
        turn.out.push(Effect::CloseSocket);
        self.forget_ticket(turn);
        self.connect_or_wait(turn, 0);
    }

    fn connected(&mut self, turn: &mut Turn<'_>) {
        let State::Connecting { attempt } = self.state else {
            return;
        };
        let give_up_at = turn.now.at + self.policy.login_timeout;
        let resuming = self.durable.has_ticket;
        let credential = if resuming {
            Credential::Ticket
        } else if self.has_usable_signature(turn)
            && let Some(signature) = &self.durable.signature
        {
            self.login_not_before = Some(turn.now.at + self.policy.login_spacing);
            self.durable.last_login = Some(turn.now.wall);
            // A login that ends without an answer counts too, after a restart as well.
            turn.save = true;
            Credential::Signature(signature.text.clone())
        } else {
            turn.out.push(Effect::CloseSocket);
            self.come_online(turn);
            return;
        };
        self.state = State::LoggingIn {
            attempt,
            resuming,
            give_up_at,
        };
        turn.out.push(Effect::LogIn(credential));
    }

    fn accepted(&mut self, turn: &mut Turn<'_>) {
        let State::LoggingIn {
            attempt, resuming, ..
        } = self.state
        else {
            return;
        };
        if resuming {
            self.durable.resumes = self.durable.resumes.saturating_add(1);
        } else {
            self.durable.logins = self.durable.logins.saturating_add(1);
            self.durable.last_accepted = Some(turn.now.wall);
        }
        self.refused_resumes = 0;
        self.durable.has_ticket = true;
        self.durable.code = 0;
        self.durable.desc.clear();
        self.state = State::Online {
            attempt,
            accepted_at: turn.now.at,
            keepalive: Keepalive::new(turn.now.at),
        };
        turn.save = true;
        turn.answer = Some(LoginAnswer::success());
    }

    fn refused(&mut self, turn: &mut Turn<'_>, refusal: &Refusal) {
        let State::LoggingIn {
            attempt, resuming, ..
        } = self.state
        else {
            return;
        };
        let Refusal {
            code,
            desc,
            disposition,
        } = refusal;
        self.durable.code = *code;
        self.durable.desc.clone_from(desc);
        turn.out.push(Effect::CloseSocket);
        match disposition {
            Disposition::Renew => {
                self.forget_ticket(turn);
                self.signature_refused(turn, *code, desc);
            }
            Disposition::ForgetTicket if resuming => {
                self.forget_ticket(turn);
                self.back_off(turn, attempt, None);
            }
            Disposition::ForgetTicket => self.signature_refused(turn, *code, desc),
            Disposition::Retry => self.refused_for_now(turn, attempt, resuming, None),
            Disposition::Throttle(at_least) => {
                self.refused_for_now(turn, attempt, resuming, Some(*at_least));
            }
            Disposition::Park => self.park(turn, ParkReason::Refused, *code, desc),
            Disposition::Kicked => self.taken(turn, 0, desc),
        }
    }

    fn refused_for_now(
        &mut self,
        turn: &mut Turn<'_>,
        attempt: u32,
        resuming: bool,
        at_least: Option<std::time::Duration>,
    ) {
        if resuming {
            self.refused_resumes += 1;
            if self.refused_resumes >= self.policy.max_refused_resumes {
                self.forget_ticket(turn);
            }
        }
        turn.answer = Some(LoginAnswer::failure(self.durable.code, &self.durable.desc));
        turn.save = true;
        self.back_off(turn, attempt, at_least);
    }

    fn back_off(&mut self, turn: &Turn<'_>, attempt: u32, at_least: Option<std::time::Duration>) {
        let attempt = attempt.saturating_add(1);
        let mut delay = self.policy.backoff.delay(attempt, &mut self.jitter);
        if let Some(at_least) = at_least {
            // An upstream that asks for more than ten times the greatest delay is not taken at its word.
            delay += at_least.min(self.policy.backoff.max * 10);
        }
        self.state = State::BackingOff {
            attempt,
            until: turn.now.at + delay,
        };
    }

    fn traffic(&mut self, turn: &Turn<'_>) {
        if let State::Online {
            attempt,
            accepted_at,
            keepalive,
        } = &mut self.state
        {
            keepalive.received(turn.now.at);
            if turn.now.at >= *accepted_at + self.policy.proven_after {
                *attempt = 0;
                self.forget_refused_signatures();
            }
        }
    }

    fn lost(&mut self, turn: &mut Turn<'_>) {
        match &self.state {
            State::Connecting { attempt }
            | State::LoggingIn { attempt, .. }
            | State::Online { attempt, .. } => {
                let attempt = *attempt;
                turn.out.push(Effect::CloseSocket);
                self.back_off(turn, attempt, None);
            }
            State::LoggingOut { .. } => self.logged_out(turn),
            State::LoggedOut
            | State::BackingOff { .. }
            | State::RenewingSignature { .. }
            | State::Parked { .. }
            | State::Closed => {}
        }
    }

    fn expired(&mut self, turn: &mut Turn<'_>, refusal: &Refusal) {
        // The word of the end is traffic too.
        self.traffic(turn);
        let State::Online {
            attempt,
            accepted_at,
            ..
        } = self.state
        else {
            return;
        };
        turn.out.push(Effect::CloseSocket);
        self.forget_ticket(turn);
        if refusal.disposition == Disposition::ForgetTicket && self.has_usable_signature(turn) {
            self.back_off(turn, attempt, None);
        } else if turn.now.at < accepted_at + self.policy.proven_after {
            // Accepted and ended at once is as good as refused: it is counted and paced.
            self.signature_refused(turn, refusal.code, &refusal.desc);
        } else {
            self.signature_ended(turn, RenewReason::Expired, refusal.code, &refusal.desc);
        }
    }

    fn kicked(&mut self, turn: &mut Turn<'_>, kick_type: i32, desc: &str) {
        if matches!(self.state, State::Online { .. } | State::LoggingIn { .. }) {
            turn.out.push(Effect::CloseSocket);
            self.taken(turn, kick_type, desc);
        }
    }

    /// Another login took the account: the policy decides.
    fn taken(&mut self, turn: &mut Turn<'_>, kick_type: i32, desc: &str) {
        let retake_at = match self.policy.kick {
            KickPolicy::Retake { delay } if !self.durable.retaken => Some(turn.now.at + delay),
            KickPolicy::Retake { .. } | KickPolicy::Yield => None,
        };
        turn.tell.push(Notice::Kicked {
            kick_type,
            desc: desc.to_owned(),
            retaking: retake_at.is_some(),
        });
        self.park(turn, ParkReason::Kicked, CODE_KICKED, desc);
        if retake_at.is_some() {
            self.durable.retaken = true;
            self.state = State::Parked {
                reason: ParkReason::Kicked,
                retake_at,
            };
        }
    }

    /// Stops until the bot acts.
    pub(super) fn park(&mut self, turn: &mut Turn<'_>, reason: ParkReason, code: i32, desc: &str) {
        self.forget_ticket(turn);
        self.durable.parked = Some(reason);
        self.durable.code = code;
        desc.clone_into(&mut self.durable.desc);
        self.state = State::Parked {
            reason,
            retake_at: None,
        };
        turn.save = true;
        turn.answer = Some(LoginAnswer::failure(code, desc));
    }

    fn timeout(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.at;
        match &mut self.state {
            State::LoggingIn { give_up_at, .. } if now >= *give_up_at => self.lost(turn),
            State::LoggingOut { give_up_at } if now >= *give_up_at => self.logged_out(turn),
            State::BackingOff { attempt, until } if now >= *until => {
                let attempt = *attempt;
                if self.durable.has_ticket || self.has_usable_signature(turn) {
                    self.connect_or_wait(turn, attempt);
                } else {
                    self.come_online(turn);
                }
            }
            State::RenewingSignature { give_up_at } => {
                let give_up_at = *give_up_at;
                self.renewing_timeout(turn, give_up_at);
            }
            State::Parked {
                retake_at: Some(at),
                ..
            } if now >= *at => {
                self.durable.parked = None;
                turn.save = true;
                self.come_online(turn);
            }
            State::Online { keepalive, .. } => match keepalive.due(now, &self.policy.keepalive) {
                KeepaliveDue::GiveUp => self.lost(turn),
                KeepaliveDue::Ask => {
                    turn.out.push(Effect::Heartbeat);
                    self.signature_timeout_online(turn);
                }
                KeepaliveDue::Nothing => self.signature_timeout_online(turn),
            },
            State::LoggingIn { .. }
            | State::LoggingOut { .. }
            | State::BackingOff { .. }
            | State::Parked { .. }
            | State::LoggedOut
            | State::Connecting { .. }
            | State::Closed => {}
        }
    }

    pub(super) fn forget_ticket(&mut self, turn: &mut Turn<'_>) {
        if self.durable.has_ticket {
            self.durable.has_ticket = false;
            turn.out.push(Effect::ForgetTicket);
            turn.save = true;
        }
    }

    fn close(&mut self, turn: &mut Turn<'_>) {
        turn.out.push(Effect::CloseSocket);
        self.state = State::Closed;
    }
}
