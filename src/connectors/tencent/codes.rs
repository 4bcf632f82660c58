//! The upstream's codes, and what each means: the one place where that is decided.
//!
//! Sources: the vendor's error list and login documentation, and what its own SDKs were seen to do.

use std::time::Duration;

use crate::session::disposition::{Disposition, Refusal};

/// The signature has ended (the upstream's word for it; the native SDK's own is 6206).
pub const SIGNATURE_EXPIRED: i32 = 70001;
/// The A2 ticket has ended.
pub const TICKET_EXPIRED: i32 = 20002;
/// The session is not the account's any more (in an answer to hello).
pub const KICKED: i32 = 1002;
/// A command was announced as overloaded and is refused here until the delay has passed.
pub const OVERLOADED: i32 = 60022;

/// The least wait after "failed verification too often" (70050).
const VERIFICATION_PAUSE: Duration = Duration::from_secs(60);
/// The least wait after two logins in too short a time (70402).
const LOGIN_PAUSE: Duration = Duration::from_secs(15);
/// The least wait after "too many requests" (60018, 60019).
const RATE_PAUSE: Duration = Duration::from_secs(5);

/// What a code means at a login. A code that is not known may pass: it is tried again with a growing delay.
pub const fn disposition(code: i32) -> Disposition {
    match code {
        // The signature has ended, was made invalid, is cut off or damaged: a fresh one may do.
        6206 | SIGNATURE_EXPIRED | 70002 | 70003 | 70005 | 70052 => Disposition::Renew,
        TICKET_EXPIRED => Disposition::ForgetTicket,
        KICKED | 6208 => Disposition::Kicked,
        // The key does not match, there is none, or the app is unknown (also: the wrong data centre).
        70009 | 70016 | 70020 => Disposition::Park,
        // The signature is another account's, or another app's.
        70013 | 70014 => Disposition::Park,
        // The account is black-listed, or not imported.
        70051 | 70107 => Disposition::Park,
        // The app is invalid, missing, disabled, or its package not bought.
        60006 | 60012 | 60016 | 60020 => Disposition::Park,
        70050 => Disposition::Throttle(VERIFICATION_PAUSE),
        70402 => Disposition::Throttle(LOGIN_PAUSE),
        60018 | 60019 | OVERLOADED => Disposition::Throttle(RATE_PAUSE),
        _ => Disposition::Retry,
    }
}

/// A login's refusal, with what it means.
pub fn refusal(code: i32, desc: String) -> Refusal {
    Refusal {
        code,
        desc,
        disposition: disposition(code),
    }
}

/// Whether a code in the answer to any request says that the online session's credential has ended.
pub const fn ends_session(code: i32) -> bool {
    matches!(code, SIGNATURE_EXPIRED | TICKET_EXPIRED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_means_what_the_documentation_says() {
        use Disposition::{ForgetTicket, Kicked, Park, Renew, Retry, Throttle};
        let table = [
            (6206, Renew),
            (70001, Renew),
            (70002, Renew),
            (70003, Renew),
            (70005, Renew),
            (70052, Renew),
            (20002, ForgetTicket),
            (1002, Kicked),
            (6208, Kicked),
            (70009, Park),
            (70013, Park),
            (70014, Park),
            (70016, Park),
            (70020, Park),
            (70051, Park),
            (70107, Park),
            (60006, Park),
            (60012, Park),
            (60016, Park),
            (60020, Park),
            (70050, Throttle(Duration::from_secs(60))),
            (70402, Throttle(Duration::from_secs(15))),
            (60018, Throttle(Duration::from_secs(5))),
            (60019, Throttle(Duration::from_secs(5))),
            (60022, Throttle(Duration::from_secs(5))),
            (50001, Retry),
            (99999, Retry),
            (-1, Retry),
        ];
        for (code, wanted) in table {
            assert_eq!(disposition(code), wanted, "{code}");
        }
    }
}
