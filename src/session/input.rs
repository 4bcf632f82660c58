//! Everything that can happen to a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::disposition::Refusal;
use crate::session::policy::Policy;
use crate::types::{Secret, UnixMillis};

/// The present moment, on both clocks. Timers run on `at`, which never jumps; `wall` is read only to learn how
/// much of a signature's life is left, and to date what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The steady clock.
    pub at: Instant,
    /// The wall clock.
    pub wall: UnixMillis,
}

/// A login credential, with what could be read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The credential itself.
    pub text: Secret<String>,
    /// When it was made and when it ends; `None` if that cannot be read from it.
    pub life: Option<Life>,
}

/// The life of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was made.
    pub issued_at: UnixMillis,
    /// When it ends.
    pub expires_at: UnixMillis,
}

impl Signature {
    /// Whether the wall clock says that it has ended.
    pub fn has_expired(&self, wall: UnixMillis) -> bool {
        self.life.is_some_and(|life| life.expires_at <= wall)
    }
}

/// Why there is no fresh signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalFailure {
    /// In words: one of a closed list, so that nothing of the issuer's own text is in it.
    pub reason: &'static str,
    /// The issuer works and does not want to: it does not know the account, or may not.
    pub refused: bool,
    /// The issuer is not to be asked again before this has passed.
    pub retry_after: Duration,
}

/// Everything that can happen to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The bot wants the account kept logged in.
    Login(Option<Signature>),
    /// The bot brings a fresh signature.
    RenewSignature(Signature),
    /// The bot wants the account out.
    Logout,

    /// The socket that `Effect::Connect` asked for is open.
    Connected,
    /// The upstream accepted the login.
    Accepted,
    /// The upstream answered the login with a code.
    Refused(Refusal),
    /// The upstream answered the logout.
    LoggedOut,
    /// A frame came.
    Traffic,
    /// The connection, or the attempt at one, has failed.
    Lost(String),
    /// The upstream says that the credential of the online session has ended.
    Expired(Refusal),
    /// Another login took the account.
    Kicked {
        /// The upstream's kind of kick.
        kick_type: i32,
        /// In words.
        desc: String,
    },

    /// The issuer answered `Effect::RenewSignature`.
    Renewed(Signature),
    /// The issuer could not, and may be asked again later.
    RenewalFailed(RenewalFailure),

    /// The operator has set how the tenant's sessions behave from now on.
    Policy(Arc<Policy>),

    /// The moment that `Session::poll_timeout` named has come, or may have.
    Timeout,
    /// This replica stops: the session lives on in the store.
    Stop,
    /// Another replica owns the session now.
    LeaseLost,
}
