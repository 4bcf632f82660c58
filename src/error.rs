//! What every error of imgate can say of itself: what kind it is, whether waiting helps, and what may be
//! shown to a caller.

use std::time::Duration;

/// What an error means to whoever gets it. A short, closed list: each maps to one gRPC status and one metric
/// label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller's input is wrong; the same call fails again.
    InvalidInput,
    /// Nobody, or nobody known, is calling.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// What was named does not exist.
    NotFound,
    /// Something else must be done first.
    Precondition,
    /// A bound was reached.
    Exhausted,
    /// Something that imgate depends on is away.
    Unavailable,
    /// It took longer than the caller waits.
    TimedOut,
    /// A bug or a broken record.
    Internal,
}

impl ErrorKind {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Precondition => "precondition",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Internal => "internal",
        }
    }
}

/// An error with its causes: a library's own text often names the first only.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Implemented by every error type of imgate.
pub trait Classified: std::error::Error {
    /// What it means to whoever gets it.
    fn kind(&self) -> ErrorKind;

    /// How long to wait before the same thing may work; `None` when waiting does not help.
    fn retry_after(&self) -> Option<Duration>;

    /// The text that a caller may see: the remedy, and nothing of another tenant's or of the inside.
    fn public_text(&self) -> String;
}
