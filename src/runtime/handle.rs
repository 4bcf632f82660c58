//! What the rest of the program holds of the running sessions: verbs, no channels.

use std::time::Duration;

use crate::error::{Classified, ErrorKind};
use crate::tenants::quotas::Exceeded;

pub use crate::connectors::invoke::is_name as is_command;
pub use crate::connectors::{Conversation, OutgoingMessage};
pub use crate::runtime::gateway::Gateway;
pub use crate::runtime::purge::PurgeError;
pub use crate::runtime::reseal::{
    PartitionRotation, RotationReport, RotationState, RotationSummary, RotationWatch,
};
use crate::store::Lease;

/// What the upstream said: 0 is success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The upstream's number.
    pub code: i32,
    /// The upstream's words; empty on success.
    pub desc: String,
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

/// A partition that this replica owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPartition {
    /// The ownership.
    pub lease: Lease,
    /// The last sequence of its log; 0 for an empty one.
    pub last_sequence: u64,
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
    /// The tenant's issuer makes no signature now. The login goes on.
    #[error(
        "{reason}; the login goes on, and calling Login again, with a signature or without, joins it"
    )]
    IssuerUnavailable {
        /// Why, in words.
        reason: &'static str,
        /// When the issuer is asked again, from now.
        retry_after: Duration,
    },
    /// The tenant's issuer does not want to make a signature for the account.
    #[error("{0}; mend that, or call Login with a signature")]
    IssuerRefused(&'static str),
    /// The account was never logged in.
    #[error("no session for this account")]
    UnknownAccount,
    /// The session is logged out or parked.
    #[error("the account is not logged in: {0}")]
    NotLoggedIn(String),
    /// The upstream did not answer. Whether it did what was asked is not known.
    #[error("the upstream did not answer")]
    UpstreamUnanswered,
    /// The message was sent earlier, what became of it is not known, and the upstream would not know a double any more.
    #[error(
        "it is not known whether this message was sent, and to send it once more could double it: \
         look whether it has arrived; to send it again, use a new client_message_id"
    )]
    SendOutcomeUnknown,
    /// The durable store is away, or this replica does not own the account's partition now.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The account was logged out before there was an outcome.
    #[error("the account was logged out before there was an outcome")]
    Ended,
    /// The tenant may not send this upstream command by itself.
    #[error("this tenant may not invoke {0}: have it listed in tenants.invoke_commands")]
    CommandNotAllowed(String),
    /// The tenant is at a limit.
    #[error(transparent)]
    Quota(#[from] Exceeded),
    /// The gateway is stopping.
    #[error("this replica is stopping")]
    Stopping,
}

impl CallError {
    /// The reason in ErrorInfo, part of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::SignatureRequired => "SIGNATURE_REQUIRED",
            Self::IssuerUnavailable { .. } => "ISSUER_UNAVAILABLE",
            Self::IssuerRefused(_) => "ISSUER_REFUSED",
            Self::UnknownAccount => "UNKNOWN_ACCOUNT",
            Self::NotLoggedIn(_) => "NOT_LOGGED_IN",
            Self::UpstreamUnanswered => "UPSTREAM_UNANSWERED",
            Self::SendOutcomeUnknown => "SEND_OUTCOME_UNKNOWN",
            Self::Store(_) => "STORE_UNAVAILABLE",
            Self::Ended => "LOGGED_OUT",
            Self::CommandNotAllowed(_) => "COMMAND_NOT_ALLOWED",
            Self::Quota(exceeded) => exceeded.quota.reason(),
            Self::Stopping => "DRAINING",
        }
    }
}

impl Classified for CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::SignatureRequired
            | Self::IssuerRefused(_)
            | Self::NotLoggedIn(_)
            | Self::SendOutcomeUnknown
            | Self::Ended => ErrorKind::Precondition,
            Self::UnknownAccount => ErrorKind::NotFound,
            Self::CommandNotAllowed(_) => ErrorKind::Forbidden,
            Self::Quota(exceeded) => exceeded.kind(),
            Self::IssuerUnavailable { .. } | Self::UpstreamUnanswered | Self::Stopping => {
                ErrorKind::Unavailable
            }
            Self::Store(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::IssuerUnavailable { retry_after, .. } => Some(*retry_after),
            Self::Invalid { .. }
            | Self::SignatureRequired
            | Self::IssuerRefused(_)
            | Self::UnknownAccount
            | Self::SendOutcomeUnknown
            | Self::Ended
            | Self::CommandNotAllowed(_)
            | Self::NotLoggedIn(_) => None,
            Self::UpstreamUnanswered | Self::Stopping => Some(Duration::from_secs(1)),
            Self::Quota(exceeded) => exceeded.retry_after(),
            Self::Store(error) => error.retry_after(),
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Store(error) => error.public_text(),
            Self::Quota(exceeded) => exceeded.public_text(),
            Self::Invalid { .. }
            | Self::SignatureRequired
            | Self::IssuerUnavailable { .. }
            | Self::IssuerRefused(_)
            | Self::UnknownAccount
            | Self::NotLoggedIn(_)
            | Self::UpstreamUnanswered
            | Self::SendOutcomeUnknown
            | Self::Ended
            | Self::CommandNotAllowed(_)
            | Self::Stopping => self.to_string(),
        }
    }
}
