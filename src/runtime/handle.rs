//! What the rest of the program holds of the running sessions: verbs, no channels.

use std::time::Duration;

use crate::error::{Classified, ErrorKind};
use crate::proto::v1;
use crate::types::{Secret, SessionKey, TenantId};

/// The running gateway, as the API sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {}

/// What the upstream said: 0 is success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The upstream's number.
    pub code: i32,
    /// The upstream's words; empty on success.
    pub desc: String,
}

/// A message to send, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingMessage {
    /// Where to.
    pub conversation: Conversation,
    /// Its parts.
    pub elements: Vec<v1::Element>,
    /// The caller's own ID; empty for none.
    pub client_message_id: String,
    /// The application's own data.
    pub cloud_custom_data: String,
    /// Not stored upstream.
    pub online_only: bool,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// To a user.
    User(String),
    /// To a group.
    Group(String),
}

/// What became of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// What the upstream said.
    pub outcome: Outcome,
    /// The identity that receivers see; empty unless it was sent.
    pub message_id: String,
    /// The upstream's time in Unix seconds; 0 unless it was sent.
    pub sent_at: u64,
    /// The group's sequence; 0 for one-to-one.
    pub upstream_sequence: u64,
}

/// What a raw command was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invoked {
    /// What the upstream said.
    pub outcome: Outcome,
    /// The body, a JSON object.
    pub body_json: String,
}

/// Why the gateway did not do what it was asked. What the upstream refused is an [`Outcome`], not this.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A field is wrong.
    #[error("{field}: {remedy}")]
    Invalid {
        /// Which, by its name in the proto.
        field: &'static str,
        /// What to do about it.
        remedy: String,
    },
    /// No signature was given and none can be made.
    #[error("no signature was given and the tenant has no issuer that makes one")]
    SignatureRequired,
    /// The account was never logged in.
    #[error("no session for this account")]
    UnknownAccount,
    /// The session is logged out or parked.
    #[error("the account is not logged in: {0}")]
    NotLoggedIn(String),
    /// Too many messages wait for the session to come back.
    #[error("too many sends are waiting for this session")]
    SendsPending,
    /// The upstream did not answer. Whether it did what was asked is not known.
    #[error("the upstream did not answer")]
    UpstreamUnanswered,
    /// The durable store is away, or this replica does not own the account's partition now.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The gateway is stopping.
    #[error("this replica is stopping")]
    Stopping,
    /// The upstream's outcome was not known within the gateway's own time limit; the operation goes on.
    #[error("no outcome within the time limit")]
    TimedOut,
}

impl CallError {
    /// The reason in ErrorInfo, part of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::SignatureRequired => "SIGNATURE_REQUIRED",
            Self::UnknownAccount => "UNKNOWN_ACCOUNT",
            Self::NotLoggedIn(_) => "NOT_LOGGED_IN",
            Self::SendsPending => "SENDS_PENDING",
            Self::UpstreamUnanswered => "UPSTREAM_UNANSWERED",
            Self::Store(_) => "STORE_UNAVAILABLE",
            Self::Stopping => "DRAINING",
            Self::TimedOut => "LOGIN_PENDING",
        }
    }
}

impl Classified for CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::SignatureRequired | Self::NotLoggedIn(_) => ErrorKind::Precondition,
            Self::UnknownAccount => ErrorKind::NotFound,
            Self::SendsPending => ErrorKind::Exhausted,
            Self::UpstreamUnanswered | Self::Stopping => ErrorKind::Unavailable,
            Self::Store(error) => error.kind(),
            Self::TimedOut => ErrorKind::TimedOut,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Invalid { .. }
            | Self::SignatureRequired
            | Self::UnknownAccount
            | Self::NotLoggedIn(_) => None,
            Self::SendsPending | Self::UpstreamUnanswered | Self::Stopping | Self::TimedOut => {
                Some(Duration::from_secs(1))
            }
            Self::Store(error) => error.retry_after(),
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Store(error) => error.public_text(),
            Self::Invalid { .. }
            | Self::SignatureRequired
            | Self::UnknownAccount
            | Self::NotLoggedIn(_)
            | Self::SendsPending
            | Self::UpstreamUnanswered
            | Self::Stopping
            | Self::TimedOut => self.to_string(),
        }
    }
}

#[expect(
    clippy::unused_async,
    clippy::todo,
    unused_variables,
    reason = "bodies follow in the next commit"
)]
impl Gateway {
    /// Keeps an account logged in; answers when the login in flight, or the present state, has an outcome.
    /// Dropping the future leaves the login going.
    pub async fn login(
        &self,
        key: &SessionKey,
        signature: Option<Secret<String>>,
    ) -> Result<(Outcome, v1::Session), CallError> {
        todo!()
    }

    /// Logs an account out and keeps it out.
    pub async fn logout(&self, key: &SessionKey) -> Result<v1::Session, CallError> {
        todo!()
    }

    /// Hands a session a fresh signature.
    pub async fn renew_signature(
        &self,
        key: &SessionKey,
        signature: Secret<String>,
    ) -> Result<v1::Session, CallError> {
        todo!()
    }

    /// One session.
    pub async fn session(&self, key: &SessionKey) -> Result<v1::Session, CallError> {
        todo!()
    }

    /// At most `limit` sessions of a tenant with accounts after `after`, in order.
    pub async fn sessions(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<v1::Session>, CallError> {
        todo!()
    }

    /// Sends a message; waits for a session that is reconnecting.
    pub async fn send(
        &self,
        key: &SessionKey,
        message: OutgoingMessage,
    ) -> Result<Sent, CallError> {
        todo!()
    }

    /// Sends a raw command and answers its raw body.
    pub async fn invoke(
        &self,
        key: &SessionKey,
        command: String,
        body_json: String,
    ) -> Result<Invoked, CallError> {
        todo!()
    }
}
