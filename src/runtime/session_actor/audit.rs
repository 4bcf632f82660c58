//! What the gateway does by itself, written down: renewals, accounts taken back, sessions stopped.

use crate::runtime::session_actor::SessionActor;
use crate::session::input::Input;
use crate::session::state::{ParkReason, Phase};
use crate::tenants::audit::{Action, By, Event, Outcome};
use crate::types::SessionKey;

/// The gateway has stopped a session.
pub(in crate::runtime) fn parked(key: &SessionKey, reason: ParkReason, code: i32) {
    let reason = match reason {
        ParkReason::Kicked => "KICKED",
        ParkReason::Refused => "REFUSED",
        ParkReason::Signature => "SIGNATURE",
        ParkReason::CorruptRecord => "CORRUPT_RECORD",
    };
    begin(Action::Park, key).ended(Outcome {
        upstream_code: (code != 0).then_some(code),
        reason: Some(reason),
        ..Outcome::OK
    });
}

fn begin(action: Action, key: &SessionKey) -> Event {
    let event = Event::new(action, By::Gateway);
    event.tenant(&key.tenant).account(Some(&key.account))
}

impl SessionActor {
    /// Before an input has its effect.
    pub(super) fn audit_input(&mut self, input: &Input) {
        match input {
            Input::Renewed(_) => begin(Action::Renew, &self.key).ended(Outcome::OK),
            // Why is the issuer's own text, which may say anything.
            Input::RenewalFailed { .. } => begin(Action::Renew, &self.key).ended(Outcome {
                code: "UNAVAILABLE",
                ..Outcome::default()
            }),
            Input::Accepted => self.retaken(0),
            Input::Refused(refusal) => self.retaken(refusal.code),
            // From now on it is the bot's doing.
            Input::Login(_) | Input::Logout => self.retaking = false,
            Input::RenewSignature(_)
            | Input::Connected
            | Input::LoggedOut
            | Input::Traffic
            | Input::Lost(_)
            | Input::Expired(_)
            | Input::Kicked { .. }
            | Input::Policy(_)
            | Input::Timeout
            | Input::Stop
            | Input::LeaseLost => {}
        }
    }

    /// After it; `timed_out` if it was the timer.
    pub(super) fn audit_move(&mut self, before: Phase, after: Phase, timed_out: bool) {
        if before == Phase::Parked && timed_out {
            self.retaking = true;
        }
        let durable = self.session.durable();
        if after == Phase::Parked
            && let Some(reason) = durable.parked
        {
            parked(&self.key, reason, durable.code);
        }
    }

    /// The login after a kick is answered, if this is one.
    fn retaken(&mut self, code: i32) {
        if std::mem::take(&mut self.retaking) {
            begin(Action::Retake, &self.key).ended(Outcome {
                upstream_code: Some(code),
                ..Outcome::OK
            });
        }
    }
}
