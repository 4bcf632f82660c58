//! What an operator may set about how sessions behave.

use std::time::Duration;

use crate::session::backoff::Backoff;
use crate::session::keepalive::KeepalivePolicy;

/// How the sessions of a tenant behave. Shared by all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Delays between attempts to come online.
    pub backoff: Backoff,
    /// Signs of life while online.
    pub keepalive: KeepalivePolicy,
    /// How long the answer to a login may take.
    pub login_timeout: Duration,
    /// How long the answer to a logout may take.
    pub logout_timeout: Duration,
    /// The least distance between two logins of one account by signature (the upstream's rule).
    pub login_spacing: Duration,
    /// How long after an accepted login traffic proves the connection, so that the back-off and the count of refused
    /// signatures start anew.
    pub proven_after: Duration,
    /// Whether the tenant has an issuer that makes signatures without the bot.
    pub can_issue: bool,
    /// Whether the bot is asked where such an issuer fails. It always is where there is none.
    pub asks_bot: bool,
    /// When a fresh signature is fetched, as a share of the present one's life.
    pub renew_at: f64,
    /// Delays between attempts to get a signature, and between signatures that are refused.
    pub renewal_backoff: Backoff,
    /// How many fresh signatures in a row the upstream may refuse before the session is parked.
    pub max_refused_signatures: u32,
    /// How long a session waits for a fresh signature before it is parked.
    pub renewal_patience: Duration,
    /// How often in a row a resume by ticket may be refused before the signature is used instead.
    pub max_refused_resumes: u32,
    /// What to do when another login takes the account.
    pub kick: KickPolicy,
}

/// What to do when another login takes the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KickPolicy {
    /// Stop, and tell the bot.
    Yield,
    /// Log in once more after a delay; a second kick stops the session until the bot logs in.
    Retake {
        /// How long to wait.
        delay: Duration,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backoff: Backoff {
                first: Duration::from_millis(500),
                max: Duration::from_secs(60),
            },
            keepalive: KeepalivePolicy {
                idle: Duration::from_secs(10),
                answer_timeout: Duration::from_secs(3),
            },
            login_timeout: Duration::from_secs(30),
            logout_timeout: Duration::from_secs(3),
            login_spacing: Duration::from_secs(15),
            proven_after: Duration::from_secs(5),
            can_issue: false,
            asks_bot: true,
            renew_at: 0.8,
            renewal_backoff: Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            max_refused_signatures: 5,
            renewal_patience: Duration::from_secs(24 * 3600),
            max_refused_resumes: 3,
            kick: KickPolicy::Yield,
        }
    }
}
