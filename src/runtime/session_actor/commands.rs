//! What can be asked of a running session, and what it does about it.

use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::connectors::OutgoingMessage;
use crate::proto::v1;
use crate::runtime::handle::{CallError, Outcome};
use crate::runtime::metrics as names;
use crate::runtime::sends::{InvokeReply, SendReply, Step, answer};
use crate::runtime::session_actor::SessionActor;
use crate::runtime::session_actor::answers::Deferred;
use crate::session::input::{Input, Now, Signature};
use crate::session::state::{Phase, State};
use crate::tenants::quotas::Exceeded;
use crate::types::UnixMillis;

/// Who waits for the outcome of a login.
pub(in crate::runtime) type LoginReply = oneshot::Sender<Result<(Outcome, v1::Session), CallError>>;
/// Who waits for a session's new state.
pub(in crate::runtime) type ViewReply = oneshot::Sender<Result<v1::Session, CallError>>;

/// The way to a session's task. A channel sets aside 32 places at a time, which for commands as they are would be more than
/// all the rest of an idle session.
pub(in crate::runtime) type Mailbox = mpsc::Sender<Box<Command>>;
/// The end of a [`Mailbox`] that the task holds.
pub(in crate::runtime) type Commands = mpsc::Receiver<Box<Command>>;

/// What can be asked of a running session.
#[derive(Debug)]
pub(in crate::runtime) enum Command {
    /// Keep it logged in.
    Login(Option<Signature>, LoginReply),
    /// Log it out.
    Logout(ViewReply),
    /// A fresh signature.
    RenewSignature(Signature, ViewReply),
    /// Send a message before the deadline.
    Send(OutgoingMessage, Instant, SendReply),
    /// Send a raw command with its body.
    Invoke(String, String, InvokeReply),
    /// Store the record again: the store has lost it.
    Save,
    /// Store the record again, which seals it under the present key; answered when that is done.
    Reseal(ViewReply),
    /// The tenant's settings are others now.
    Settings,
}

impl SessionActor {
    pub(super) fn command(&mut self, now: Now, command: Command) {
        self.outbox.save_if_unsaved();
        match command {
            Command::Login(signature, reply) => {
                if let Err(refused) = self.admit_login(now) {
                    return answer(reply, Err(refused.into()));
                }
                // Callers whose deadline has passed are not kept for a login that may take long.
                self.login_waiters.retain(|reply| !reply.is_closed());
                self.login_waiters.push(reply);
                self.inputs.push_back(Input::Login(signature));
            }
            Command::Logout(reply) => {
                self.logout_waiters.push(reply);
                self.inputs.push_back(Input::Logout);
            }
            Command::RenewSignature(signature, reply) => {
                if self.session.state().phase() == Phase::LoggedOut {
                    answer(reply, Err(self.not_logged_in()));
                } else {
                    counter!(names::RENEWALS, "outcome" => "ok").increment(1);
                    self.outbox.defer(Deferred::View(vec![reply]));
                    self.inputs.push_back(Input::RenewSignature(signature));
                }
            }
            Command::Send(message, deadline, reply) => {
                if self.may_send() {
                    self.sends.admit(now, message, deadline, reply);
                } else {
                    answer(reply, Err(self.not_logged_in()));
                }
            }
            Command::Invoke(command, body, reply) => {
                if self.may_send() {
                    if let Some(id) = self.sends.admit_invoke(reply) {
                        self.protocol.invoke(now, id, &command, body);
                    }
                } else {
                    answer(reply, Err(self.not_logged_in()));
                }
            }
            Command::Save => {
                self.outbox.save();
                self.sends.store_again();
            }
            Command::Reseal(reply) => {
                self.outbox.save();
                self.outbox.defer(Deferred::View(vec![reply]));
            }
            // They are looked at whenever anything happens.
            Command::Settings => {}
        }
    }

    /// Does what the sends ask for. True if there was anything.
    pub(super) fn see_to_sends(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(step) = self.sends.out.pop_front() {
            any = true;
            match step {
                Step::Store(write) => self.outbox.remember(write),
                Step::Extend { id, until } => self.protocol.extend(now, id, until.into_std()),
                // The end of the session is told by the gateway, which sees its call unanswered.
                Step::Send { id, .. } if *self.session.state() == State::Closed => {
                    self.sends.abandon(id);
                }
                Step::Send { id, .. } if !self.may_send() => {
                    let refused = self.not_logged_in_text();
                    let error = || CallError::NotLoggedIn(refused.clone());
                    self.sends.not_sent(id, error);
                }
                Step::Send {
                    id,
                    message,
                    client_time,
                    until,
                } => {
                    let until = until.into_std();
                    self.protocol.send(now, id, &message, client_time, until);
                }
            }
        }
        any
    }

    /// Whether the account may log in by signature today, where the login of a bot leads to that. A session that is
    /// logged in already, or on its way, goes on whatever the day's count.
    fn admit_login(&mut self, now: Now) -> Result<(), Exceeded> {
        let begins = matches!(
            self.session.state(),
            State::LoggedOut | State::Parked { .. } | State::LoggingOut { .. }
        );
        if begins && self.admitted.is_none() {
            let last = self.session.durable().last_accepted.map(UnixMillis::day);
            self.admitted = self.tenant.quotas.admit_active(now.wall, last)?;
        }
        Ok(())
    }

    pub(super) fn may_send(&self) -> bool {
        match self.session.state().phase() {
            Phase::Connecting | Phase::Online | Phase::BackingOff | Phase::RenewingSignature => {
                true
            }
            Phase::LoggedOut | Phase::Parked => false,
        }
    }

    fn not_logged_in(&self) -> CallError {
        CallError::NotLoggedIn(self.not_logged_in_text())
    }

    pub(super) fn not_logged_in_text(&self) -> String {
        let durable = self.session.durable();
        let phase = self.session.state().phase().label();
        match durable.code {
            0 => phase.to_owned(),
            code => format!("{phase}, code {code}: {}", durable.desc),
        }
    }
}
