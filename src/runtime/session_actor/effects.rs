//! What the session asks for, done.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::counter;
use tracing::debug;

use crate::proto::v1;
use crate::runtime::issuer::Ask;
use crate::runtime::metrics as names;
use crate::runtime::record;
use crate::runtime::session_actor::answers::Deferred;
use crate::runtime::session_actor::{Answer, Answering, Issuing, SessionActor, Socket};
use crate::session::effect::{Credential, Effect, Notice, RenewReason};
use crate::session::input::{Input, Now};
use crate::session::state::State;

impl SessionActor {
    pub(super) async fn perform(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Connect => {
                let tenant = Arc::clone(&self.tenant);
                let path = self.protocol.path();
                let dialling = async move { tenant.connect(&path).await };
                self.socket = Socket::Dialling(Box::pin(dialling));
            }
            Effect::LogIn(credential) => {
                self.resuming = credential == Credential::Ticket;
                self.protocol.log_in(now, &credential);
            }
            Effect::LogOut => self.protocol.log_out(now),
            Effect::CloseSocket => self.close_socket().await,
            Effect::Heartbeat => self.protocol.heartbeat(now),
            Effect::RenewSignature { reason, attempt } => self.ask_issuers(reason, attempt),
            Effect::ForgetRenewal => self.issuing = None,
            Effect::ForgetTicket => self.protocol.forget_ticket(),
            Effect::Save => self.outbox.save(),
            Effect::Tell(notice) => {
                let view = record::view(&self.key, &self.session);
                self.outbox.tell(tell(notice, view), now);
            }
            Effect::AnswerLogin(login) => {
                let waiters = std::mem::take(&mut self.login_waiters);
                // The end of the session is no outcome of the login: the gateway, which sees its call unanswered,
                // knows whether it is stopping or has given the partition away.
                if *self.session.state() != State::Closed {
                    self.outbox.defer(Deferred::Login(login, waiters));
                }
            }
            Effect::AnswerLogout => {
                // With a login that came meanwhile they go on. The end of the task is told by the gateway.
                if *self.session.state() == State::LoggedOut {
                    self.protocol.end_sends();
                }
                let waiters = std::mem::take(&mut self.logout_waiters);
                self.outbox.defer(Deferred::View(waiters));
            }
        }
    }

    /// Asks the tenant's issuers. The session goes on meanwhile; an issuer that need not wait has answered at once.
    fn ask_issuers(&mut self, reason: RenewReason, attempt: u32) {
        debug!(?reason, attempt, "a fresh signature is needed");
        let issuers = Arc::clone(&self.tenant.settings().issuers);
        let ask = Ask {
            account: self.key.account.clone(),
            reason,
            attempt,
        };
        let mut answering: Answering = Box::pin(async move { issuers.issue(&ask).await });
        let answered = answering.as_mut().now_or_never();
        self.issuing = Some(Issuing { answering, reason });
        if let Some(answer) = answered {
            self.issuers_answered(answer);
        }
    }

    pub(super) fn issuers_answered(&mut self, answer: Answer) {
        let Some(issuing) = self.issuing.take() else {
            return;
        };
        let outcome = if answer.is_ok() { "ok" } else { "failed" };
        // The first signature is no renewal.
        if issuing.reason != RenewReason::FirstLogin {
            counter!(names::RENEWALS, "outcome" => outcome).increment(1);
        }
        self.inputs
            .push_back(answer.map_or_else(Input::RenewalFailed, Input::Renewed));
    }

    async fn close_socket(&mut self) {
        if let Socket::Open(mut connection) = std::mem::replace(&mut self.socket, Socket::None) {
            // A peer that does not read is not waited for.
            let _late = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
        }
        self.protocol.disconnected();
    }
}

fn tell(notice: Notice, view: v1::Session) -> v1::event::Kind {
    use v1::event::Kind;
    match notice {
        Notice::Changed => Kind::SessionChanged(v1::SessionChanged {
            session: Some(view),
        }),
        Notice::SignatureExpired {
            code,
            desc,
            expires_at,
        } => {
            let expires_at = expires_at.map(record::timestamp);
            Kind::SignatureExpired(v1::SignatureExpired {
                code,
                desc,
                expires_at,
            })
        }
        Notice::Kicked {
            kick_type,
            desc,
            retaking,
        } => Kind::KickedOffline(v1::KickedOffline {
            kick_type,
            desc,
            retaking,
        }),
    }
}
