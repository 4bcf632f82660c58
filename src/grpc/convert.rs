//! What callers send, checked: every field that is wrong is named, with the remedy.

use std::collections::HashSet;
use std::time::Duration;

use crate::error::{Classified, ErrorKind};
use crate::events::service::{Start, SubscribeOptions, SubscriptionStatus};
use crate::proto::{time, v1};
use crate::tenants::token::{Tokens, Use};
use crate::types::{AccountId, Secret, TenantId, UnixMillis};

mod admin;
mod message;

pub(super) use admin::{partition, rotation, sessions_page};
pub(super) use message::{invocation, outgoing};

/// The longest signature, in bytes.
const MAX_SIGNATURE: usize = 8 * 1024;
/// The most accounts in a filter.
const MAX_ACCOUNTS: usize = 1000;
/// The longest name of a subscription, in bytes.
const MAX_NAME: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(15);
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);
const MAX_HEARTBEAT: Duration = Duration::from_secs(300);

/// A field is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {remedy}")]
pub(super) struct Invalid {
    /// Which, by its path in the message.
    pub(super) field: String,
    /// What to do about it.
    pub(super) remedy: String,
}

impl Invalid {
    pub(super) fn new(field: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            remedy: remedy.into(),
        }
    }
}

impl Classified for Invalid {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// An account.
pub(super) fn account(id: &str) -> Result<AccountId, Invalid> {
    AccountId::parse(id).map_err(|remedy| Invalid::new("account", remedy))
}

/// A signature that may be left out.
pub(super) fn optional_signature(text: String) -> Result<Option<Secret<String>>, Invalid> {
    // Inside the wrapper at once, so that a refused one is wiped too.
    let signature = Secret::new(text);
    let text = signature.expose();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_SIGNATURE {
        return Err(Invalid::new("signature", "must be at most 8 KiB"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let remedy = "must be as it was issued: ASCII without spaces and line breaks";
        return Err(Invalid::new("signature", remedy));
    }
    Ok(Some(signature))
}

/// A signature that must be there.
pub(super) fn signature(text: String) -> Result<Secret<String>, Invalid> {
    let signature = optional_signature(text)?;
    signature.ok_or_else(|| Invalid::new("signature", "must not be empty: give a fresh signature"))
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// After this account; from the beginning when `None`.
    pub(super) after: Option<String>,
    /// At most so many.
    pub(super) size: usize,
}

/// Which page is asked for.
pub(super) fn page(
    tokens: &Tokens,
    tenant: &TenantId,
    size: i32,
    token: &str,
) -> Result<Page, Invalid> {
    let size = bounded("page_size", size)?;
    if token.is_empty() {
        return Ok(Page { after: None, size });
    }
    let body = tokens
        .open(Use::Page, tenant, token, AccountId::MAX_BYTES)
        .map_err(|error| Invalid::new("page_token", error.to_string()))?;
    let after = String::from_utf8(body)
        .map_err(|_| Invalid::new("page_token", "was not made by this gateway"))?;
    Ok(Page {
        after: Some(after),
        size,
    })
}

/// The token of the page after `last`.
pub(super) fn next_page_token(tokens: &Tokens, tenant: &TenantId, last: &str) -> String {
    tokens.seal(Use::Page, tenant, last.as_bytes())
}

/// The name of a subscription.
pub(super) fn subscription(name: String) -> Result<String, Invalid> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(known) {
        let remedy = "must be 1 to 64 letters, digits, dots, dashes and underscores";
        return Err(Invalid::new("subscription", remedy));
    }
    Ok(name)
}

/// A subscription.
pub(super) fn subscribe(request: v1::SubscribeRequest) -> Result<SubscribeOptions, Invalid> {
    Ok(SubscribeOptions {
        start: start(request.start, request.shared)?,
        accounts: accounts(&request.accounts)?,
        kinds: kinds(&request.kinds)?,
        max_batch: bounded("max_batch_size", request.max_batch_size)?,
        heartbeat: heartbeat(request.heartbeat)?,
    })
}

fn start(start: Option<v1::subscribe_request::Start>, shared: bool) -> Result<Start, Invalid> {
    use v1::subscribe_request::Start as Asked;
    Ok(match start {
        Some(Asked::Subscription(name)) if shared => Start::Shared(subscription(name)?),
        None | Some(Asked::Cursor(_) | Asked::At(_)) if shared => {
            let remedy = "only a named subscription is shared: set subscription as well";
            return Err(Invalid::new("shared", remedy));
        }
        None => Start::Latest,
        Some(Asked::Cursor(cursor)) => Start::Cursor(cursor),
        Some(Asked::Subscription(name)) => Start::Named(subscription(name)?),
        Some(Asked::At(at)) => match v1::StartAt::try_from(at) {
            Ok(v1::StartAt::Unspecified | v1::StartAt::Latest) => Start::Latest,
            Ok(v1::StartAt::Earliest) => Start::Earliest,
            Err(_) => {
                let remedy = format!("{at} is not a value of StartAt");
                return Err(Invalid::new("at", remedy));
            }
        },
    })
}

/// What is known of a named subscription.
pub(super) fn subscription_status(status: SubscriptionStatus) -> v1::Subscription {
    v1::Subscription {
        name: status.name,
        lag_events: status.lag_events,
        oldest_pending_at: status.oldest_pending_at.map(timestamp),
        last_used_at: Some(timestamp(status.last_used_at)),
        members: i32::try_from(status.members).unwrap_or(i32::MAX),
    }
}

fn timestamp(at: UnixMillis) -> prost_types::Timestamp {
    time::timestamp(at.0)
}

fn accounts(ids: &[String]) -> Result<HashSet<AccountId>, Invalid> {
    if ids.len() > MAX_ACCOUNTS {
        let remedy = "must be at most 1000; leave it empty for all accounts";
        return Err(Invalid::new("accounts", remedy));
    }
    let checked = ids.iter().enumerate().map(|(index, id)| {
        AccountId::parse(id).map_err(|remedy| Invalid::new(format!("accounts[{index}]"), remedy))
    });
    checked.collect()
}

fn kinds(kinds: &[i32]) -> Result<Vec<v1::EventKind>, Invalid> {
    let mut known = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let kind = match v1::EventKind::try_from(*kind) {
            Ok(v1::EventKind::Unspecified) | Err(_) => {
                let remedy = format!("{kind} is not a kind that can be asked for");
                return Err(Invalid::new(format!("kinds[{index}]"), remedy));
            }
            Ok(
                kind @ (v1::EventKind::Message | v1::EventKind::Session | v1::EventKind::Notice),
            ) => kind,
        };
        if !known.contains(&kind) {
            known.push(kind);
        }
    }
    Ok(known)
}

fn heartbeat(asked: Option<prost_types::Duration>) -> Result<Duration, Invalid> {
    let Some(asked) = asked else {
        return Ok(HEARTBEAT);
    };
    match Duration::try_from(asked) {
        Ok(heartbeat) if (MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&heartbeat) => Ok(heartbeat),
        Ok(_) | Err(_) => Err(Invalid::new("heartbeat", "must be 1 s to 300 s")),
    }
}

/// 1 to 1000, 100 for 0.
fn bounded(field: &str, value: i32) -> Result<usize, Invalid> {
    match usize::try_from(value) {
        Ok(0) => Ok(100),
        Ok(value @ 1..=1000) => Ok(value),
        Ok(_) | Err(_) => Err(Invalid::new(
            field,
            "must be 1 to 1000, or 0 for the default of 100",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T>(result: Result<T, Invalid>) -> String {
        result.err().map(|error| error.field).unwrap_or_default()
    }

    #[test]
    fn signatures_are_bounded_and_plain() {
        assert_eq!(optional_signature(String::new()), Ok(None));
        let good = "x".repeat(MAX_SIGNATURE);
        assert!(optional_signature(good).is_ok_and(|signature| signature.is_some()));
        for bad in [
            "x".repeat(MAX_SIGNATURE + 1),
            "a b".into(),
            "a\n".into(),
            "ä".into(),
        ] {
            assert_eq!(field(optional_signature(bad)), "signature");
        }
        assert_eq!(field(signature(String::new())), "signature");
    }

    #[test]
    fn a_page_token_is_good_for_its_tenant_alone() {
        let tokens = Tokens::for_tests();
        let (own, other) = (TenantId::new("a"), TenantId::new("b"));
        let token = next_page_token(&tokens, &own, "bot7");
        let second = page(&tokens, &own, 7, &token).unwrap();
        assert_eq!((second.after.as_deref(), second.size), (Some("bot7"), 7));
        assert_eq!(page(&tokens, &own, 0, "").unwrap().size, 100);
        for bad in [&token[1..], "junk", "ü"] {
            assert_eq!(field(page(&tokens, &own, 0, bad)), "page_token");
        }
        assert_eq!(field(page(&tokens, &other, 0, &token)), "page_token");
        for bad in [-1, 1001, i32::MIN] {
            assert_eq!(field(page(&tokens, &own, bad, "")), "page_size");
        }
    }

    #[test]
    fn a_subscription_is_checked_field_by_field() {
        use v1::subscribe_request::Start as Asked;
        let request = v1::SubscribeRequest::default;
        let options = subscribe(request()).unwrap();
        assert_eq!(options.start, Start::Latest);
        assert_eq!((options.max_batch, options.heartbeat), (100, HEARTBEAT));
        for (shared, expected) in [
            (false, Start::Named("a".into())),
            (true, Start::Shared("a".into())),
        ] {
            let start = Some(Asked::Subscription("a".into()));
            let options = subscribe(v1::SubscribeRequest {
                start,
                shared,
                ..request()
            });
            assert_eq!(options.unwrap().start, expected);
        }

        let heartbeat = |seconds, nanos| v1::SubscribeRequest {
            heartbeat: Some(prost_types::Duration { seconds, nanos }),
            ..request()
        };
        let starting = |start| v1::SubscribeRequest {
            start: Some(start),
            ..request()
        };
        let accounts = |accounts| v1::SubscribeRequest {
            accounts,
            ..request()
        };
        let kinds = |kinds| v1::SubscribeRequest { kinds, ..request() };
        let shared = |start| v1::SubscribeRequest {
            start,
            shared: true,
            ..request()
        };
        let batch = |max_batch_size| v1::SubscribeRequest {
            max_batch_size,
            ..request()
        };
        for (request, expected) in [
            (heartbeat(0, 999_999_999), "heartbeat"),
            (heartbeat(300, 1), "heartbeat"),
            (heartbeat(-5, 0), "heartbeat"),
            (heartbeat(i64::MAX, i32::MAX), "heartbeat"),
            (heartbeat(300, 0), ""),
            (starting(Asked::At(9)), "at"),
            (starting(Asked::At(2)), ""),
            (starting(Asked::Subscription(String::new())), "subscription"),
            (starting(Asked::Subscription("a b".into())), "subscription"),
            (
                starting(Asked::Subscription("x".repeat(65))),
                "subscription",
            ),
            (starting(Asked::Subscription("a.B-1_".into())), ""),
            (accounts(vec!["a".into(), "b\0".into()]), "accounts[1]"),
            (accounts(vec!["a".into(); 1001]), "accounts"),
            (accounts(vec!["a".into(); 1000]), ""),
            (kinds(vec![1, 0]), "kinds[1]"),
            (kinds(vec![77]), "kinds[0]"),
            (kinds(vec![1, 2, 3, 1]), ""),
            (shared(None), "shared"),
            (shared(Some(Asked::At(2))), "shared"),
            (shared(Some(Asked::Cursor(String::new()))), "shared"),
            (
                shared(Some(Asked::Subscription(String::new()))),
                "subscription",
            ),
            (shared(Some(Asked::Subscription("a".into()))), ""),
            (batch(-1), "max_batch_size"),
            (batch(1001), "max_batch_size"),
            (batch(1), ""),
        ] {
            let shown = format!("{request:?}");
            assert_eq!(field(subscribe(request)), expected, "{shown}");
        }
    }
}
