//! The life of a session's signatures: when a fresh one is fetched, and what happens when one ends.

use std::sync::Arc;
use std::time::Instant;

use crate::session::effect::{Effect, LoginAnswer, Notice, RenewReason};
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
    in_flight: bool,
    /// Why it is, or will be, asked; `None` while the present signature is good.
    reason: Option<RenewReason>,
    /// Asked without success since the last success.
    attempts: u32,
    /// Not to be asked before this.
    retry_at: Option<Instant>,
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
        match &mut self.state {
            State::RenewingSignature { .. } if other_issuer && issues => self.ask_issuer(turn),
            State::RenewingSignature { .. } if other_issuer => self.ask_bot(turn),
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

    /// The bot is to bring a signature: nobody else makes one.
    fn ask_bot(&self, turn: &mut Turn<'_>) {
        let (code, desc) = (self.durable.code, &self.durable.desc);
        turn.tell.push(self.expired_notice(code, desc));
        turn.answer = Some(LoginAnswer::failure(code, desc));
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
        if self.policy.can_issue {
            self.ask_issuer(turn);
        } else {
            self.ask_bot(turn);
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
            self.renewal.retry_at = Some(turn.now.at + delay);
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

    fn is_in_use(&self, signature: &Signature) -> bool {
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

    /// The issuer answered. A signature that has ended, or is the very one to be replaced, is no answer: taken up,
    /// it would be asked for and dialled for again at once, for ever.
    pub(super) fn issuer_answered(&mut self, turn: &mut Turn<'_>, signature: Signature) {
        if signature.has_expired(turn.now.wall) || self.is_in_use(&signature) {
            self.issuer_failed(turn, std::time::Duration::ZERO);
            return;
        }
        self.renewal.in_flight = false;
        self.renewal.attempts = 0;
        self.renewal.retry_at = None;
        self.fresh_signature(turn, signature);
    }

    /// The issuer could not.
    pub(super) fn issuer_failed(&mut self, turn: &Turn<'_>, retry_after: std::time::Duration) {
        self.renewal.in_flight = false;
        self.renewal.attempts += 1;
        let delay = self
            .policy
            .renewal_backoff
            .delay(self.renewal.attempts, &mut self.jitter);
        // As with the upstream: more than ten times the greatest delay is not believed.
        let asked = retry_after.min(self.policy.renewal_backoff.max * 10);
        self.renewal.retry_at = Some(turn.now.at + delay.max(asked));
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
            if self.has_usable_signature(turn) {
                self.relogin(turn);
                return;
            }
            if !self.policy.can_issue {
                // The upstream has the last word: until it refuses something the session stays.
                let notice = self.expired_notice(CODE_SIGNATURE_EXPIRED, "the signature has ended");
                turn.tell.push(notice);
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
                if !self.renewal.ended {
                    turn.tell
                        .push(self.expired_notice(0, "the signature will end soon"));
                }
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

    /// When the issuer is to be asked again while a signature is awaited.
    pub(super) fn renewal_retry_at(&self) -> Option<Instant> {
        if self.policy.can_issue && !self.renewal.in_flight {
            self.renewal.retry_at
        } else {
            None
        }
    }

    fn ask_issuer(&mut self, turn: &mut Turn<'_>) {
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
