//! Answers that wait until what they say is stored.

use crate::connectors::{PushAck, RequestId};
use crate::events::log::AppendError;
use crate::proto::v1;
use crate::runtime::handle::{CallError, Outcome};
use crate::runtime::sends::answer;
use crate::runtime::session_actor::commands::{LoginReply, ViewReply};
use crate::session::effect::LoginAnswer;
use crate::store::StoreError;

/// An answer that waits until what it says is stored.
pub(super) enum Deferred {
    Login(LoginAnswer, Vec<LoginReply>),
    View(Vec<ViewReply>),
}

/// What an append's success sets free.
pub(super) struct Stored {
    pub(super) acks: Vec<PushAck>,
    /// Sends that waited for it.
    pub(super) sends: Vec<RequestId>,
    pub(super) deferred: Vec<Deferred>,
}

impl Stored {
    /// Gives the answers that waited, if there are any.
    pub(super) fn answer(self, view: impl FnOnce() -> v1::Session) {
        if self.deferred.is_empty() {
            return;
        }
        let view = view();
        for deferred in self.deferred {
            deferred.give(&view);
        }
    }

    /// Tells those who waited. Answers which sends did, too.
    pub(super) fn fail(self, error: AppendError) -> Vec<RequestId> {
        for deferred in self.deferred {
            match deferred {
                Deferred::Login(_, waiters) => {
                    waiters
                        .into_iter()
                        .for_each(|reply| answer(reply, Err(call_error(error))));
                }
                Deferred::View(waiters) => {
                    waiters
                        .into_iter()
                        .for_each(|reply| answer(reply, Err(call_error(error))));
                }
            }
        }
        self.sends
    }
}

impl Deferred {
    pub(super) fn give(self, view: &v1::Session) {
        match self {
            Self::Login(login, waiters) => {
                for reply in waiters {
                    answer(reply, login_result(&login, view));
                }
            }
            Self::View(waiters) => {
                waiters
                    .into_iter()
                    .for_each(|reply| answer(reply, Ok(view.clone())));
            }
        }
    }
}

pub(super) fn call_error(error: AppendError) -> CallError {
    match error {
        AppendError::Stopping => CallError::Stopping,
        AppendError::Full | AppendError::Fenced | AppendError::Corrupt | AppendError::Unsealed => {
            CallError::Store(StoreError::Unavailable(error.to_string()))
        }
    }
}

/// How a login's answer reads for its callers.
fn login_result(
    login: &LoginAnswer,
    view: &v1::Session,
) -> Result<(Outcome, v1::Session), CallError> {
    match login {
        LoginAnswer::Upstream { code, desc } => Ok((
            Outcome {
                code: *code,
                desc: desc.clone(),
            },
            view.clone(),
        )),
        LoginAnswer::SignatureRequired => Err(CallError::SignatureRequired),
        LoginAnswer::IssuerUnavailable {
            reason,
            retry_after,
        } => Err(CallError::IssuerUnavailable {
            reason,
            retry_after: *retry_after,
        }),
        LoginAnswer::IssuerRefused { reason } => Err(CallError::IssuerRefused(reason)),
        LoginAnswer::Ended => Err(CallError::Ended),
    }
}
