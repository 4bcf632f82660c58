//! When the issuer is asked for a signature, and what its answers lead to: the bot is told where it fails.

use std::time::{Duration, Instant};

use crate::session::effect::{Effect, LoginAnswer, Notice, RenewReason};
use crate::session::input::{Now, RenewalFailure, Signature};
use crate::session::state::State;
use crate::session::{CODE_SIGNATURE_EXPIRED, Session, Turn};

/// An answer of the issuer's that cannot be used.
const OF_NO_USE: RenewalFailure = RenewalFailure {
    reason: "the issuer answers a signature that has ended or does not replace the present one",
    refused: false,
    retry_after: Duration::ZERO,
};

/// How finely signatures are dated.
const DATED_BY: Duration = Duration::from_secs(1);

impl Session {
    /// The issuer answered. A signature that has ended, or is the very one to be replaced, is no answer: taken up,
    /// it would be asked for and dialled for again at once, for ever.
    pub(super) fn issuer_answered(&mut self, turn: &mut Turn<'_>, signature: Signature) {
        let repeated = self.is_in_use(&signature);
        if signature.has_expired(turn.now.wall) || (repeated && self.renewal.attempts > 0) {
            self.issuer_failed(turn, OF_NO_USE);
            return;
        }
        if repeated {
            // Not held against the issuer: signatures are dated by whole seconds, and one that is made in the second of
            // the present one is the same.
            self.put_off(turn, DATED_BY);
            return;
        }
        self.renewal.in_flight = false;
        self.renewal.failure = None;
        self.renewal.attempts = 0;
        self.renewal.retry_at = None;
        self.fresh_signature(turn, signature);
    }

    /// The issuer could not.
    pub(super) fn issuer_failed(&mut self, turn: &mut Turn<'_>, failure: RenewalFailure) {
        if !self.put_off(turn, failure.retry_after) {
            return;
        }
        self.renewal.failure = Some(failure.reason);
        match &self.state {
            State::RenewingSignature { .. }
                if failure.refused && self.durable.signature.is_none() =>
            {
                self.end_first_login(turn, failure.reason);
            }
            State::RenewingSignature { .. } => self.turn_to_bot(turn),
            State::Online { .. } if self.durable.next_signature.is_none() => self.ask_bot(turn),
            State::Online { .. }
            | State::LoggedOut
            | State::Connecting { .. }
            | State::LoggingIn { .. }
            | State::BackingOff { .. }
            | State::LoggingOut { .. }
            | State::Parked { .. }
            | State::Closed => {}
        }
    }

    /// The attempt that is out has failed: plans the next one. False if none is out.
    fn put_off(&mut self, turn: &Turn<'_>, at_least: Duration) -> bool {
        if !std::mem::take(&mut self.renewal.in_flight) {
            return false;
        }
        self.renewal.attempts += 1;
        let backoff = self.policy.renewal_backoff;
        let delay = backoff.delay(self.renewal.attempts, &mut self.jitter);
        // As with the upstream: more than ten times the greatest delay is not believed. All that are told the same
        // time do not come back at the same moment.
        self.renewal.retry_at = Some(turn.now.at + at_least.min(backoff.max * 10) + delay);
        true
    }

    /// The issuer does not want the account to have its first signature: whoever asked for the login is told, and
    /// nothing goes on for an account that may not exist.
    fn end_first_login(&mut self, turn: &mut Turn<'_>, reason: &'static str) {
        self.durable.desired = false;
        reason.clone_into(&mut self.durable.desc);
        self.state = State::LoggedOut;
        turn.save = true;
        turn.answer = Some(LoginAnswer::IssuerRefused { reason });
    }

    /// Whether a signature may come without the bot, and soon: the issuer is being asked, or has not failed.
    pub(super) fn awaits_issuer(&self) -> bool {
        self.policy.can_issue && (self.renewal.in_flight || self.renewal.failure.is_none())
    }

    /// Whether the issuer makes the first signature, as far as is known. That is no renewal, and nothing that
    /// subscribers need to hear of.
    pub(super) fn comes_by_its_first_signature(&self) -> bool {
        let first = self.durable.signature.is_none();
        first && self.policy.can_issue && self.renewal.failure.is_none()
    }

    /// No signature comes soon unless the bot brings one: whoever waits for a login hears it.
    pub(super) fn turn_to_bot(&mut self, turn: &mut Turn<'_>) {
        self.ask_bot(turn);
        turn.answer = Some(self.no_signature(turn.now));
    }

    /// Asks the bot for the signature that is needed, once for each.
    pub(super) fn ask_bot(&mut self, turn: &mut Turn<'_>) {
        let asks = self.policy.asks_bot || !self.policy.can_issue;
        if !asks || std::mem::replace(&mut self.renewal.bot_asked, true) {
            return;
        }
        let notice = match &self.state {
            State::Online { .. } if !self.renewal.ended => {
                self.expired_notice(0, "the signature will end soon")
            }
            State::Online { .. } => {
                self.expired_notice(CODE_SIGNATURE_EXPIRED, "the signature has ended")
            }
            State::LoggedOut
            | State::Connecting { .. }
            | State::LoggingIn { .. }
            | State::BackingOff { .. }
            | State::RenewingSignature { .. }
            | State::LoggingOut { .. }
            | State::Parked { .. }
            | State::Closed => {
                let (code, desc) = (self.durable.code, self.durable.desc.clone());
                match &self.durable.signature {
                    Some(_) => self.expired_notice(code, &desc),
                    None => self.expired_notice(code, "there is no signature yet"),
                }
            }
        };
        turn.tell.push(notice);
    }

    /// What a login is answered for which there is no signature now.
    pub(super) fn no_signature(&self, now: Now) -> LoginAnswer {
        match self.renewal.failure {
            Some(reason) if self.policy.can_issue => LoginAnswer::IssuerUnavailable {
                reason,
                retry_after: self
                    .renewal
                    .retry_at
                    .map_or(Duration::ZERO, |at| at.saturating_duration_since(now.at)),
            },
            Some(_) | None => LoginAnswer::failure(self.durable.code, &self.durable.desc),
        }
    }

    /// Nobody waits for the issuer any more.
    pub(super) fn forget_renewal(&mut self, turn: &mut Turn<'_>) {
        if std::mem::take(&mut self.renewal.in_flight) {
            turn.out.push(Effect::ForgetRenewal);
        }
    }

    /// When the issuer is to be asked again while a signature is awaited.
    pub(super) fn renewal_retry_at(&self) -> Option<Instant> {
        if self.policy.can_issue && !self.renewal.in_flight {
            self.renewal.retry_at
        } else {
            None
        }
    }

    pub(super) fn ask_issuer(&mut self, turn: &mut Turn<'_>) {
        let too_early = self.renewal.retry_at.is_some_and(|at| at > turn.now.at);
        if self.renewal.in_flight || too_early {
            return;
        }
        self.renewal.in_flight = true;
        self.renewal.retry_at = None;
        turn.out.push(Effect::RenewSignature {
            reason: self.renewal.reason.unwrap_or(RenewReason::Expiring),
            attempt: self.renewal.attempts + 1,
        });
    }

    fn expired_notice(&self, code: i32, desc: &str) -> Notice {
        let life = self
            .durable
            .signature
            .as_ref()
            .and_then(|signature| signature.life);
        Notice::SignatureExpired {
            code,
            desc: desc.to_owned(),
            expires_at: life.map(|life| life.expires_at),
        }
    }
}
