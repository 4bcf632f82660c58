//! What the bot's commands do in each state: login and logout.

use crate::session::effect::{Effect, LoginAnswer};
use crate::session::input::Signature;
use crate::session::state::State;
use crate::session::{Session, Turn};

impl Session {
    pub(super) fn login(&mut self, turn: &mut Turn<'_>, signature: Option<Signature>) {
        let signature = signature.filter(|given| self.durable.signature.as_ref() != Some(given));
        let live = signature
            .clone()
            .filter(|given| !given.has_expired(turn.now.wall));
        match &self.state {
            State::Online { .. } => {
                if let Some(signature) = live {
                    self.fresh_signature(turn, signature);
                }
                if matches!(self.state, State::Online { .. }) {
                    turn.answer = Some(LoginAnswer::success());
                }
            }
            // Joins the login in flight; a signature is kept for the case that it needs one.
            State::Connecting { .. } | State::LoggingIn { .. } | State::BackingOff { .. } => {
                if let Some(signature) = live {
                    self.fresh_signature(turn, signature);
                }
            }
            State::RenewingSignature { .. } => match live {
                Some(signature) => {
                    self.forget_refusals();
                    self.fresh_signature(turn, signature);
                }
                None if self.awaits_issuer() => {}
                None => turn.answer = Some(self.no_signature(turn.now)),
            },
            State::LoggedOut | State::Parked { .. } => self.begin_login(turn, signature),
            // The logout runs to its end first.
            State::LoggingOut { .. } => {
                if self.lacks_signature(signature.as_ref()) {
                    turn.answer = Some(LoginAnswer::SignatureRequired);
                    return;
                }
                self.durable.desired = true;
                if let Some(signature) = signature {
                    self.adopt(turn, signature);
                }
                turn.save = true;
            }
            State::Closed => {}
        }
    }

    /// Starts a login on the bot's command, if there is or can be a signature for it.
    fn begin_login(&mut self, turn: &mut Turn<'_>, signature: Option<Signature>) {
        if self.lacks_signature(signature.as_ref()) {
            turn.answer = Some(LoginAnswer::SignatureRequired);
            return;
        }
        self.forget_refusals();
        self.durable.desired = true;
        self.durable.parked = None;
        self.durable.retaken = false;
        turn.save = true;
        if let Some(signature) = signature {
            self.adopt(turn, signature);
        }
        if !self.durable.signature_refused {
            self.durable.code = 0;
            self.durable.desc.clear();
        }
        self.come_online(turn);
    }

    /// Whether there neither is nor can be a signature.
    fn lacks_signature(&self, given: Option<&Signature>) -> bool {
        given.or(self.durable.signature.as_ref()).is_none() && !self.policy.can_issue
    }

    pub(super) fn logout(&mut self, turn: &mut Turn<'_>) {
        let online = matches!(self.state, State::Online { .. });
        let connected = matches!(
            self.state,
            State::Connecting { .. } | State::LoggingIn { .. }
        );
        if matches!(self.state, State::LoggingOut { .. }) {
            // A login that came meanwhile is taken back.
            turn.answer = Some(LoginAnswer::Ended);
            turn.save = self.durable.desired;
            self.durable.desired = false;
            return;
        }
        turn.save = self.durable.desired;
        self.durable.desired = false;
        self.durable.parked = None;
        turn.answer = Some(LoginAnswer::Ended);
        self.forget_renewal(turn);
        if online {
            self.state = State::LoggingOut {
                give_up_at: turn.now.at + self.policy.logout_timeout,
            };
            turn.out.push(Effect::LogOut);
            return;
        }
        if connected {
            turn.out.push(Effect::CloseSocket);
        }
        self.forget_ticket(turn);
        self.state = State::LoggedOut;
        turn.answer_logout = true;
    }

    pub(super) fn logged_out(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::LoggingOut { .. }) {
            turn.out.push(Effect::CloseSocket);
            self.forget_ticket(turn);
            self.state = State::LoggedOut;
            turn.save = true;
            turn.answer_logout = true;
            // A login came while the logout ran.
            if self.durable.desired {
                self.begin_login(turn, None);
            }
        }
    }
}
