//! What the connector reports, as inputs, events and answers.

use metrics::counter;
use tracing::{info, warn};

use crate::connectors::Report;
use crate::runtime::handle::CallError;
use crate::runtime::metrics as names;
use crate::runtime::session_actor::{SessionActor, count_loss};
use crate::session::input::{Input, Now};
use crate::tenants::metrics::DAILY_ACTIVE_FAILURES;

impl SessionActor {
    /// Turns what the connector reports into inputs, events and answers.
    pub(super) fn take_reports(&mut self, now: Now) {
        let mut events = 0;
        while let Some(report) = self.protocol.out.reports.pop_front() {
            match report {
                Report::Accepted => {
                    self.count_login("accepted");
                    self.note_active(now);
                    self.inputs.push_back(Input::Accepted);
                }
                Report::Refused(refusal) => {
                    self.count_login("refused");
                    info!(code = refusal.code, desc = %refusal.desc, "login refused");
                    self.inputs.push_back(Input::Refused(refusal));
                }
                Report::LoggedOut => self.inputs.push_back(Input::LoggedOut),
                Report::Expired(refusal) => self.inputs.push_back(Input::Expired(refusal)),
                Report::Kicked { kick_type, desc } => {
                    counter!(names::KICKS).increment(1);
                    self.inputs.push_back(Input::Kicked { kick_type, desc });
                }
                Report::Dead(reason) => self.lose(reason.to_owned()),
                Report::Events(delivery) => {
                    events += delivery.events.len();
                    self.outbox.deliver(delivery, now);
                }
                Report::Answered(id, reply) => {
                    let outcome = if reply.code == 0 { "ok" } else { "refused" };
                    counter!(names::COMMANDS, "outcome" => outcome).increment(1);
                    self.sends.answered(id, reply);
                }
                Report::Unsent(id) => {
                    counter!(names::COMMANDS, "outcome" => "unanswered").increment(1);
                    let not_logged_in = (!self.may_send()).then(|| self.not_logged_in_text());
                    self.sends.not_sent(id, || match &not_logged_in {
                        Some(why) => CallError::NotLoggedIn(why.clone()),
                        None => CallError::UpstreamUnanswered,
                    });
                }
                Report::Unanswered(id) => {
                    counter!(names::COMMANDS, "outcome" => "unanswered").increment(1);
                    self.sends.unanswered(id);
                }
                Report::BadFrame(error) => {
                    counter!(names::BAD_FRAMES).increment(1);
                    warn!(%error, "an upstream frame was left out");
                }
            }
        }
        if events > 0 {
            let events = u64::try_from(events).unwrap_or(u64::MAX);
            self.tenant.events_in.increment(events);
        }
    }

    fn note_active(&mut self, now: Now) {
        if !self.resuming {
            let (quotas, admitted) = (&self.tenant.quotas, self.admitted.take());
            if !quotas.note_active(&self.key.account, now.wall, admitted) {
                counter!(DAILY_ACTIVE_FAILURES, "reason" => "queue_full").increment(1);
            }
        }
    }

    pub(super) fn lose(&mut self, reason: String) {
        count_loss(&reason);
        self.inputs.push_back(Input::Lost(reason));
    }

    fn count_login(&self, outcome: &'static str) {
        let credential = if self.resuming { "ticket" } else { "signature" };
        counter!(names::LOGINS, "credential" => credential, "outcome" => outcome).increment(1);
    }
}
