//! The caller's deadline, from the `grpc-timeout` metadata.

use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;

/// How much earlier than the caller's own deadline the answer goes out. Client libraries have a timer for the same
/// metadata, and some of them then say CANCELLED; with some luck this answer, and its reason, comes first.
const HEAD_START: Duration = Duration::from_millis(5);

/// When a call must be answered; `None` for never. Found in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(pub(super) Option<Instant>);

impl Deadline {
    /// The caller's deadline, or the default.
    pub(super) fn of(headers: &HeaderMap, default: Option<Duration>) -> Self {
        let asked = headers
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok())
            .and_then(parse)
            .map(|timeout| timeout - HEAD_START.min(timeout / 10));
        let now = Instant::now();
        Self(
            asked
                .or(default)
                .and_then(|timeout| now.checked_add(timeout)),
        )
    }

    /// Resolves when it has passed.
    pub(super) async fn passed(self) {
        match self.0 {
            Some(moment) => tokio::time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }
}

/// At most eight digits and a unit. Anything else counts as no deadline, as in other servers.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_of_the_protocol_are_read() {
        for (text, expected) in [
            ("3H", Duration::from_secs(3 * 3600)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "S",
            "5",
            "5s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "5é",
            " 5S",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_default_holds_where_the_caller_says_nothing() {
        let in_time = async |header: Option<&'static str>, default| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("grpc-timeout", header.parse().unwrap());
            }
            let began = Instant::now();
            let deadline = Deadline::of(&headers, default);
            tokio::select! {
                biased;
                () = deadline.passed() => Some(began.elapsed()),
                () = tokio::time::sleep(Duration::from_secs(1_000_000)) => None,
            }
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(in_time(None, minute).await, minute);
        assert_eq!(in_time(Some("junk"), minute).await, minute);
        assert_eq!(in_time(None, None).await, None);
        let early = in_time(Some("2M"), minute).await.unwrap();
        let asked = Duration::from_secs(120);
        assert!(early < asked && early > asked - Duration::from_millis(10));
        assert_eq!(in_time(Some("0S"), minute).await, Some(Duration::ZERO));
    }
}
