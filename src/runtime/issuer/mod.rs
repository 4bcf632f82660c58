//! Where signatures come from when the bot brings none: the tenant's issuers, asked in the order that it chose.
//!
//! A session asks for one signature at a time, paces itself and asks again: [`crate::session`] decides that. This
//! room puts the question, and lets nothing through that the upstream would refuse.

mod answer;
mod breaker;
mod callback;
mod client;
pub mod metrics;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ::metrics::counter;

use self::answer::Expected;
use self::callback::Callback;
use crate::connectors::tencent::usersig;
use crate::error::{Classified, ErrorKind};
use crate::runtime::record;
use crate::session::effect::RenewReason;
use crate::session::input::{Life, RenewalFailure, Signature};
use crate::types::{AccountId, Secret, UnixMillis, WallClock};

/// How long the bot has, where it is asked before an issuer.
const BOT_FIRST: Duration = Duration::from_secs(30);
/// A signature that ends sooner is of no use, however close logins may be.
const LEAST_LIFE: Duration = Duration::from_secs(2);

/// One issuer of a tenant.
#[derive(Debug)]
pub enum IssuerOptions {
    /// The tenant's own service is called.
    Callback(CallbackOptions),
    /// The tenant's key makes signatures on the spot.
    Local {
        /// How long a signature is to be good.
        lifetime: Duration,
    },
    /// The bot is asked by an event, and brings a signature or not.
    Manual,
}

/// How a tenant's service is called.
#[derive(Debug)]
pub struct CallbackOptions {
    /// Where it is: `https://HOST[:PORT]`, or `http://` without TLS.
    pub url: String,
    /// The authorities that its certificate must come from, PEM; `None` for the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The gateway's own certificate chain and key, PEM, for a service that asks for one.
    pub identity: Option<(Vec<u8>, Secret<Vec<u8>>)>,
    /// What the gateway shows as its bearer token.
    pub token: Option<Secret<String>>,
    /// How long an answer may take, connecting included.
    pub timeout: Duration,
    /// The most calls that are begun per second; 0 counts as 1.
    pub calls_per_second: u32,
    /// The most calls in flight; 0 counts as 1.
    pub concurrency: u32,
}

/// What a tenant's issuers are to know of it.
#[derive(Debug)]
pub struct IssuedFor {
    /// The upstream app.
    pub sdk_app_id: u64,
    /// The app's secret key: `Local` signs with it, and what a callback answers must be made with it.
    pub secret_key: Option<Secret<String>>,
    /// The least distance between two logins of an account: a signature that ends sooner is refused.
    pub login_spacing: Duration,
}

/// Why there are no issuers.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The callback cannot be called like this.
    #[error("callback: {0}")]
    Callback(String),
}

impl Classified for IssuerError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the tenant's issuer cannot be used; ask the operator".into()
    }
}

/// What is asked of issuers.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) account: AccountId,
    pub(super) reason: RenewReason,
    /// Which attempt of this renewal, from 1.
    pub(super) attempt: u32,
}

/// A tenant's issuers, in order.
#[derive(Debug)]
pub struct Issuers {
    order: Vec<Issuer>,
    expected: Expected,
}

#[derive(Debug)]
enum Issuer {
    Callback(Box<Callback>),
    Local {
        key: Secret<String>,
        lifetime: Duration,
    },
    Manual,
}

impl Issuers {
    /// The issuers of a tenant in the order in which they are asked. Connections are made when there is something to
    /// ask; within a Tokio runtime only.
    pub fn new(order: Vec<IssuerOptions>, issued_for: IssuedFor) -> Result<Self, IssuerError> {
        let mut issuers = Vec::with_capacity(order.len());
        for options in order {
            issuers.push(match options {
                IssuerOptions::Callback(options) => {
                    Issuer::Callback(Box::new(Callback::new(options)?))
                }
                IssuerOptions::Local { lifetime } => match &issued_for.secret_key {
                    Some(key) => Issuer::Local {
                        key: key.clone(),
                        lifetime,
                    },
                    None => continue,
                },
                IssuerOptions::Manual => Issuer::Manual,
            });
        }
        Ok(Self {
            order: issuers,
            expected: Expected {
                sdk_app_id: issued_for.sdk_app_id,
                key: issued_for.secret_key,
                least_life: issued_for.login_spacing.max(LEAST_LIFE),
            },
        })
    }

    /// Whether any makes signatures without the bot.
    pub fn can_issue(&self) -> bool {
        self.order.iter().any(Issuer::makes_signatures)
    }

    /// Whether the bot is asked, too.
    pub fn asks_bot(&self) -> bool {
        self.order
            .iter()
            .any(|issuer| matches!(issuer, Issuer::Manual))
    }

    /// Asks one after the other until one answers. A refusal is an answer: nobody is asked after it. The bot is asked
    /// by the session, which hears here of a failure, and has its time: those after it have their turn in the next
    /// attempt. A first login has come without a signature, so there the bot has been asked already. May be dropped.
    pub(super) async fn issue(&self, ask: &Ask) -> Result<Signature, RenewalFailure> {
        let bot_has_its_time = ask.attempt <= 1 && ask.reason != RenewReason::FirstLogin;
        let mut failure = RenewalFailure {
            reason: "the bot is asked for a signature first",
            refused: false,
            retry_after: Duration::ZERO,
        };
        for (place, issuer) in self.order.iter().enumerate() {
            match issuer {
                Issuer::Manual if bot_has_its_time => {
                    let behind = self.order.iter().skip(place);
                    if behind.clone().any(Issuer::makes_signatures) {
                        failure.retry_after = failure.retry_after.max(BOT_FIRST);
                    }
                    return Err(failure);
                }
                Issuer::Manual => {}
                Issuer::Local { key, lifetime } => {
                    counter!(metrics::CALLS, "issuer" => "local", "outcome" => "ok").increment(1);
                    let (app, account) = (self.expected.sdk_app_id, ask.account.as_str());
                    // In whole seconds, as the signature says it: there is no need to read that out of it.
                    let issued_at = UnixMillis::from_secs(WallClock.now().as_secs());
                    let lifetime = Duration::from_secs(lifetime.as_secs());
                    let expires_at = issued_at.plus(lifetime);
                    return Ok(Signature {
                        text: usersig::mint(app, key, account, issued_at, lifetime, None),
                        life: Some(Life {
                            issued_at,
                            expires_at,
                        }),
                    });
                }
                Issuer::Callback(callback) => match callback.issue(ask, &self.expected).await {
                    Ok(text) => return Ok(record::signature(text)),
                    Err(refusal) if refusal.refused => return Err(refusal),
                    Err(failed) => failure = failed,
                },
            }
        }
        Err(failure)
    }
}

impl Issuer {
    const fn makes_signatures(&self) -> bool {
        match self {
            Self::Callback(_) | Self::Local { .. } => true,
            Self::Manual => false,
        }
    }
}
