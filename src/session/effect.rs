//! Everything a session can ask for.

use std::time::Duration;

use crate::session::input::Signature;
use crate::session::state::ParkReason;
use crate::types::{Secret, UnixMillis};

/// Everything a session can ask for. Effects are run in the order in which they are emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a socket. Answered by `Connected` or `Lost`.
    Connect,
    /// Log in on the open socket. Answered by `Accepted`, `Refused` or `Lost`.
    LogIn(Credential),
    /// Log out on the open socket. Answered by `LoggedOut` or `Lost`.
    LogOut,
    /// Close the socket, or give up opening one. What comes from it afterwards is not to be passed on.
    CloseSocket,
    /// Ask the upstream for a sign of life.
    Heartbeat,
    /// Ask the issuer for a fresh signature. Answered by `Renewed` or `RenewalFailed`. There is never a second one
    /// before that, or before `ForgetRenewal`.
    RenewSignature {
        /// Why.
        reason: RenewReason,
        /// Which attempt of this renewal, from 1.
        attempt: u32,
    },
    /// Give up what `RenewSignature` asked for: its answer is not to be passed on.
    ForgetRenewal,
    /// Forget the upstream's ticket: it is of no use any more.
    ForgetTicket,
    /// Store what [`crate::session::Session::durable`] says now.
    Save,
    /// Tell the subscribers.
    Tell(Notice),
    /// Answer everybody who waits for the outcome of a login.
    AnswerLogin(LoginAnswer),
    /// Answer everybody who waits for the logout.
    AnswerLogout,
}

/// What a login is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The upstream's ticket of an earlier login. It costs nothing.
    Ticket,
    /// A signature. It counts as a daily active user.
    Signature(Secret<String>),
}

/// Why a fresh signature is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewReason {
    /// There is none.
    FirstLogin,
    /// The present one will end soon.
    Expiring,
    /// The present one has ended.
    Expired,
    /// The upstream did not accept the present one.
    Refused,
}

/// What subscribers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The session stands somewhere else now.
    Changed,
    /// The bot is to bring a fresh signature.
    SignatureExpired {
        /// 0 when the end is near, else the code that told of the end.
        code: i32,
        /// In words.
        desc: String,
        /// When it ends or ended, where that can be read from it.
        expires_at: Option<UnixMillis>,
    },
    /// Another login took the account.
    Kicked {
        /// The upstream's kind of kick.
        kick_type: i32,
        /// In words.
        desc: String,
        /// Whether the session will log in once more by itself.
        retaking: bool,
    },
}

/// The outcome of a login, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    /// What the upstream said; 0 is success.
    Upstream {
        /// Its number.
        code: i32,
        /// Its words.
        desc: String,
    },
    /// There is no signature, and nobody who makes one.
    SignatureRequired,
    /// The issuer makes none now. It is asked again; the login goes on.
    IssuerUnavailable {
        /// Why, in words.
        reason: &'static str,
        /// When it is asked again, from now.
        retry_after: Duration,
    },
    /// The issuer does not want to make the first one. The login has ended.
    IssuerRefused {
        /// Why, in words.
        reason: &'static str,
    },
    /// The account was logged out, or the gateway stopped, before there was an outcome.
    Ended,
}

impl LoginAnswer {
    /// Success.
    pub const fn success() -> Self {
        Self::Upstream {
            code: 0,
            desc: String::new(),
        }
    }

    /// What keeps the session from being online: the upstream's last code, or, when there is none, that the first
    /// signature is missing.
    pub fn failure(code: i32, desc: &str) -> Self {
        if code == 0 {
            return Self::SignatureRequired;
        }
        Self::Upstream {
            code,
            desc: desc.to_owned(),
        }
    }
}

/// What of a session outlives the process. The ticket and the catch-up position are the connector's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Whether the account is to be kept logged in.
    pub desired: bool,
    /// Why it is parked.
    pub parked: Option<ParkReason>,
    /// The signature in use.
    pub signature: Option<Signature>,
    /// Whether the upstream does not accept it any more.
    pub signature_refused: bool,
    /// A fresh one that waits for its moment.
    pub next_signature: Option<Signature>,
    /// Whether the upstream gave a ticket that is still good as far as is known.
    pub has_ticket: bool,
    /// The upstream's last code; 0 for none.
    pub code: i32,
    /// Its words.
    pub desc: String,
    /// When the reported state last changed.
    pub since: UnixMillis,
    /// When the last login by signature was sent.
    pub last_login: Option<UnixMillis>,
    /// When the last login by signature was accepted.
    pub last_accepted: Option<UnixMillis>,
    /// How many there were.
    pub logins: u64,
    /// How many logins by ticket there were.
    pub resumes: u64,
    /// Whether the one retake after a kick is used up.
    pub retaken: bool,
}
