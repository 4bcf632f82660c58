//! What a refusal by the upstream means: decided once, in the connector's table of codes, and acted on here.

use std::time::Duration;

/// What to do about an upstream code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The credential has ended or is not accepted: get a fresh signature, then log in.
    Renew,
    /// The ticket has ended; the signature may still be good: log in with that.
    ForgetTicket,
    /// It may work later: back off.
    Retry,
    /// It may work after at least this long: back off.
    Throttle(Duration),
    /// It will not work until somebody mends it: stop.
    Park,
    /// Another login took the account: the kick policy decides.
    Kicked,
}

/// A login that the upstream answered with a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The upstream's number.
    pub code: i32,
    /// The upstream's words.
    pub desc: String,
    /// What it means.
    pub disposition: Disposition,
}
