//! The life of a session's signatures: when a fresh one is fetched, and what happens when one ends.

use std::sync::Arc;
use std::time::Instant;

use crate::session::effect::RenewReason;
use crate::session::input::{Life, Now, Signature};
use crate::session::policy::{KickPolicy, Policy};
use crate::session::state::{ParkReason, State};
use crate::session::{CODE_SIGNATURE_EXPIRED, Session, Turn};

/// How much the moment of fetching ahead of time is spread, as a share of the time until then.
const RENEWAL_JITTER: f64 = 0.05;

/// Where the session is with its signatures.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// When the next signature is to be fetched (or asked of the bot), while the present one is good.
    pub(super) due_at: Option<Instant>,
    /// When the present signature ends; `None` when that is unknown or has happened.
    pub(super) ends_at: Option<Instant>,
    /// The present signature has ended.
    pub(super) ended: bool,
    /// The issuer has been asked and has not answered.
    pub(super) in_flight: bool,
    /// Why it is, or will be, asked; `None` while the present signature is good.
    pub(super) reason: Option<RenewReason>,
    /// Asked without success since the last success.
    pub(super) attempts: u32,
    /// Why the last of these attempts failed; `None` after a success.
    pub(super) failure: Option<&'static str>,
    /// The bot has been asked for the signature that is needed.
    pub(super) bot_asked: bool,
    /// Not to be asked before this.
    pub(super) retry_at: Option<Instant>,
    /// Signatures refused by the upstream since a login last proved itself.
    refused: u32,
}

impl Session {
    /// Makes `signature` the one in use.
    pub(super) fn adopt(&mut self, turn: &mut Turn<'_>, signature: Signature) {
        self.durable.signature = Some(signature);
        self.durable.signature_refused = false;
        self.durable.next_signature = None;
        self.read_signature_life(turn.now);
        turn.save = true;
    }

    /// Reads once, on the wall clock, how long the signature in use is good; from then on the steady clock counts.
    pub(super) fn read_signature_life(&mut self, now: Now) {
        self.renewal.ended = false;
        self.renewal.ends_at = None;
        self.renewal.due_at = None;
        self.renewal.reason = None;
        self.renewal.bot_asked = false;
        let Some(signature) = &self.durable.signature else {
            return;
        };
        self.renewal.ended = self.durable.signature_refused || signature.has_expired(now.wall);
        if let (Some(life), false) = (signature.life, self.renewal.ended) {
            self.plan_renewal(now, life);
            self.renewal.ends_at = Some(now.at + life.expires_at.since(now.wall));
        }
    }

    fn plan_renewal(&mut self, now: Now, life: Life) {
        let whole = life.expires_at.since(life.issued_at);
        let due = life.issued_at.plus(whole.mul_f64(self.policy.renew_at));
        let until_due = self.jitter.around(due.since(now.wall), RENEWAL_JITTER);
        self.renewal.due_at = Some(now.at + until_due);
    }

    /// The operator has set another policy. It holds from now on. Timers that run already are not moved, but for the next
    /// renewal and a retake that is not to be any more.
    pub(super) fn policy_set(&mut self, turn: &mut Turn<'_>, policy: Arc<Policy>) {
        let before = std::mem::replace(&mut self.policy, policy);
        let issues = self.policy.can_issue;
        let other_issuer = issues != before.can_issue;
        let signature = self.durable.signature.as_ref();
        if let Some(life) = signature.and_then(|signature| signature.life)
            && (self.policy.renew_at.to_bits() != before.renew_at.to_bits()
                || (other_issuer && issues))
        {
            self.plan_renewal(turn.now, life);
        }
        if other_issuer {
            self.renewal.failure = None;
            self.forget_renewal(turn);
        }
        match &mut self.state {
            State::RenewingSignature { .. } if other_issuer && issues => self.ask_issuer(turn),
            State::RenewingSignature { .. } if other_issuer => self.turn_to_bot(turn),
            State::Online { .. } if other_issuer && !issues && self.renewal.ended => {
                self.ask_bot(turn);
            }
            // A kick that was to be taken back is not any more.
            State::Parked { retake_at, .. } if self.policy.kick == KickPolicy::Yield => {
                *retake_at = None;
            }
            State::LoggedOut
            | State::Connecting { .. }
            | State::LoggingIn { .. }
            | State::Online { .. }
            | State::BackingOff { .. }
            | State::RenewingSignature { .. }
            | State::LoggingOut { .. }
            | State::Parked { .. }
            | State::Closed => {}
        }
    }

    /// Whether there is a signature to log in with, taking up the next one if the present one has ended.
    pub(super) fn has_usable_signature(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.renewal.ends_at.is_some_and(|at| at <= turn.now.at) {
            self.renewal.ended = true;
        }
        if self.durable.signature.is_some() && !self.renewal.ended {
            return true;
        }
        match self.durable.next_signature.take() {
            Some(next) if !next.has_expired(turn.now.wall) => {
                self.adopt(turn, next);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The signature in use is of no more use: log in with the next one, or get one.
    pub(super) fn signature_ended(
        &mut self,
        turn: &mut Turn<'_>,
        reason: RenewReason,
        code: i32,
        desc: &str,
    ) {
        self.renewal.ended = true;
        self.renewal.ends_at = None;
        self.renewal.due_at = None;
        if self.has_usable_signature(turn) {
            self.connect_or_wait(turn, 0);
            return;
        }
        self.durable.code = code;
        desc.clone_into(&mut self.durable.desc);
        self.state = State::RenewingSignature {
            give_up_at: turn.now.at + self.policy.renewal_patience,
        };
        turn.save = true;
        self.renewal.reason = Some(reason);
        self.renewal.bot_asked = false;
        if self.policy.can_issue {
            self.ask_issuer(turn);
        }
        if !self.awaits_issuer() {
            self.turn_to_bot(turn);
        }
        if reason != RenewReason::FirstLogin && code != CODE_SIGNATURE_EXPIRED {
            // The upstream's word outlives a restart: what it refused is not tried again.
            self.durable.signature_refused = true;
        }
    }

    /// The upstream did not accept the signature in use at a login.
    pub(super) fn signature_refused(&mut self, turn: &mut Turn<'_>, code: i32, desc: &str) {
        self.renewal.refused += 1;
        if self.renewal.refused > self.policy.max_refused_signatures {
            self.park(turn, ParkReason::Signature, code, desc);
            return;
        }
        // The first refusal may be the plain end of a signature; later ones are paced.
        if self.renewal.refused > 1 {
            let delay = self
                .policy
                .renewal_backoff
                .delay(self.renewal.refused, &mut self.jitter);
            // What the issuer asked for may be longer.
            self.renewal.retry_at = self.renewal.retry_at.max(Some(turn.now.at + delay));
        }
        self.signature_ended(turn, RenewReason::Refused, code, desc);
    }

    /// The bot begins anew.
    pub(super) const fn forget_refusals(&mut self) {
        self.forget_refused_signatures();
        self.refused_resumes = 0;
    }

    /// A login has proven itself, or the bot begins anew.
    pub(super) const fn forget_refused_signatures(&mut self) {
        self.renewal.refused = 0;
    }

    /// The bot brings a signature. One that has ended changes nothing.
    pub(super) fn bot_brought(&mut self, turn: &mut Turn<'_>, signature: Signature) {
        if !signature.has_expired(turn.now.wall) {
            self.forget_refusals();
            self.fresh_signature(turn, signature);
        }
    }

    pub(super) fn is_in_use(&self, signature: &Signature) -> bool {
        self.durable
            .signature
            .as_ref()
            .is_some_and(|in_use| in_use.text == signature.text)
    }

    /// A signature from the issuer or from the bot, not ended.
    pub(super) fn fresh_signature(&mut self, turn: &mut Turn<'_>, signature: Signature) {
        match &self.state {
            State::RenewingSignature { .. }
            | State::Parked {
                reason: ParkReason::Signature,
                ..
            } => {
                self.adopt(turn, signature);
                self.durable.parked = None;
                self.connect_or_wait(turn, 0);
            }
            State::Online { .. } if self.renewal.ended => {
                self.adopt(turn, signature);
                self.relogin(turn);
            }
            State::Online { .. }
            | State::Connecting { .. }
            | State::LoggingIn { .. }
            | State::BackingOff { .. }
                if self.is_in_use(&signature) => {}
            State::Online { .. }
            | State::Connecting { .. }
            | State::LoggingIn { .. }
            | State::BackingOff { .. } => {
                self.durable.next_signature = Some(signature);
                turn.save = true;
            }
            State::Parked { .. } => self.adopt(turn, signature),
            // A login waits for the end of the logout.
            State::LoggingOut { .. } if self.durable.desired => self.adopt(turn, signature),
            State::LoggedOut | State::LoggingOut { .. } | State::Closed => {}
        }
    }

    /// Time passed while a signature is awaited.
    pub(super) fn renewing_timeout(&mut self, turn: &mut Turn<'_>, give_up_at: Instant) {
        if turn.now.at >= give_up_at {
            let (code, desc) = (self.durable.code, self.durable.desc.clone());
            self.park(turn, ParkReason::Signature, code, &desc);
        } else if self.policy.can_issue {
            self.ask_issuer(turn);
        }
    }

    /// Time passed while online: fetches the next signature, and takes it up when the present one ends.
    pub(super) fn signature_timeout_online(&mut self, turn: &mut Turn<'_>) {
        if self.renewal.ends_at.is_some_and(|at| at <= turn.now.at) {
            self.renewal.ends_at = None;
            self.renewal.ended = true;
            self.renewal.reason = Some(RenewReason::Expired);
            self.renewal.bot_asked = false;
            if self.has_usable_signature(turn) {
                self.relogin(turn);
                return;
            }
            // The upstream has the last word: until it refuses something the session stays.
            if !self.awaits_issuer() {
                self.ask_bot(turn);
            }
        }
        if self
            .renewal_due_online()
            .is_some_and(|at| at <= turn.now.at)
        {
            if self.policy.can_issue {
                self.ask_issuer(turn);
            } else {
                self.renewal.due_at = None;
                self.ask_bot(turn);
            }
        }
    }

    /// When the next signature is to be fetched while online.
    pub(super) fn renewal_due_online(&self) -> Option<Instant> {
        if self.durable.next_signature.is_some() || self.renewal.in_flight {
            return None;
        }
        let due_at = self.renewal.due_at?;
        Some(
            self.renewal
                .retry_at
                .map_or(due_at, |retry_at| retry_at.max(due_at)),
        )
    }
}
