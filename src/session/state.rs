//! The states of a session. What is only true in one state lives inside it.

use std::time::Instant;

use crate::session::keepalive::Keepalive;

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not held.
    LoggedOut,
    /// A socket is being opened.
    Connecting {
        /// Attempts before this one since the session was last proven online.
        attempt: u32,
    },
    /// The login is sent.
    LoggingIn {
        /// As above.
        attempt: u32,
        /// By ticket rather than by signature.
        resuming: bool,
        /// When the answer is not waited for any longer.
        give_up_at: Instant,
    },
    /// Logged in.
    Online {
        /// Attempts that it took; 0 once the connection has proven itself.
        attempt: u32,
        /// When the upstream accepted the login.
        accepted_at: Instant,
        /// Signs of life.
        keepalive: Keepalive,
    },
    /// Waiting before the next attempt.
    BackingOff {
        /// Attempts so far.
        attempt: u32,
        /// When the next one is due.
        until: Instant,
    },
    /// A fresh signature is awaited.
    RenewingSignature {
        /// When waiting ends.
        give_up_at: Instant,
    },
    /// The logout is sent.
    LoggingOut {
        /// When the answer is not waited for any longer.
        give_up_at: Instant,
    },
    /// Stopped until the bot acts.
    Parked {
        /// Why.
        reason: ParkReason,
        /// When to log in once more after a kick, if the policy says so.
        retake_at: Option<Instant>,
    },
    /// This replica has let go of the session. Nothing leads out of here.
    Closed,
}

/// Why a session is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// Another login took the account.
    Kicked,
    /// The upstream refuses the account, key or app.
    Refused,
    /// No signature that the upstream accepts could be had.
    Signature,
    /// The stored record cannot be read.
    CorruptRecord,
}

/// The states as others see them: what lasts only moments is folded into its neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not held.
    LoggedOut,
    /// On the way to online.
    Connecting,
    /// Logged in.
    Online,
    /// Waiting before the next attempt.
    BackingOff,
    /// A fresh signature is awaited.
    RenewingSignature,
    /// Stopped until the bot acts.
    Parked,
}

impl State {
    /// The state as others see it.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::LoggedOut | Self::LoggingOut { .. } | Self::Closed => Phase::LoggedOut,
            Self::Connecting { .. } | Self::LoggingIn { .. } => Phase::Connecting,
            Self::Online { .. } => Phase::Online,
            Self::BackingOff { .. } => Phase::BackingOff,
            Self::RenewingSignature { .. } => Phase::RenewingSignature,
            Self::Parked { .. } => Phase::Parked,
        }
    }
}

impl Phase {
    /// Every phase, for metrics that start at zero.
    pub const ALL: [Self; 6] = [
        Self::LoggedOut,
        Self::Connecting,
        Self::Online,
        Self::BackingOff,
        Self::RenewingSignature,
        Self::Parked,
    ];

    /// The metric label, and the word in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Connecting => "connecting",
            Self::Online => "online",
            Self::BackingOff => "backing_off",
            Self::RenewingSignature => "renewing_signature",
            Self::Parked => "parked",
        }
    }
}
