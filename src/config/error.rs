//! What is wrong with a configuration: every problem at once, each with its key, its value and the remedy.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Classified, ErrorKind};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The full name of the key, such as `store.lease_ttl` or `tenants[acme].renew_at`.
    pub key: String,
    /// The value as it would stand in the file; `None` for a missing key, and always for a secret.
    pub value: Option<String>,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&on_one_line(&self.key))?;
        if let Some(value) = &self.value {
            write!(f, " = {}", on_one_line(value))?;
        }
        write!(f, ": {}", on_one_line(&self.remedy))
    }
}

/// Escapes control characters, so that a key or value of the file cannot look like another problem or command a terminal.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// All problems of one configuration, in the order of the keys' first reading. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, if it came from one.
    pub file: Option<PathBuf>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "the configuration {} ", file.display())?,
            None => f.write_str("the configuration ")?,
        }
        match self.problems.len() {
            1 => f.write_str("has a problem:")?,
            several => write!(f, "has {several} problems:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Classified for ConfigErrors {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        // The full text names files and keys of the operator, which no caller of the API may see.
        "the gateway's configuration is not valid; ask the operator".into()
    }
}

/// Collects problems. Once a key has a problem, later rules that involve the key stay silent, for their verdict
/// would rest on a stand-in value.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem of `keys[0]`, unless one of `keys` has one already.
    pub(super) fn report(
        &mut self,
        keys: &[&str],
        value: Option<String>,
        remedy: impl Into<String>,
    ) {
        if keys.iter().any(|key| self.has(key)) {
            return;
        }
        if let Some(key) = keys.first() {
            self.0.push(Problem {
                key: (*key).to_owned(),
                value,
                remedy: remedy.into(),
            });
        }
    }

    /// Whether the key has a problem.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|problem| problem.key == key)
    }

    /// The value if nothing was reported, else everything that was.
    pub(super) fn into_result<T>(self, value: T, file: Option<PathBuf>) -> Result<T, ConfigErrors> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(ConfigErrors {
                file,
                problems: self.0,
            })
        }
    }
}
