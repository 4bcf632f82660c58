//! What the server's answers mean: values taken apart without copying them, and errors sorted.

use redis::{RedisError, Value};

use super::keys::Part;
use crate::store::LogEntry;
use crate::types::UnixMillis;

/// What an error of the server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It cannot take more.
    Full,
    /// It, or the way to it, does not serve at present.
    Away,
    /// Some key holds a value of another type.
    WrongType,
    /// This key holds what a script cannot read.
    Unreadable(Part),
    /// A script failed on what it found.
    Unexpected,
}

impl Meaning {
    /// Sorts an error.
    pub(super) fn of(error: &RedisError) -> Self {
        let Some(code) = error.code() else {
            return Self::Away;
        };
        let detail = error.detail().unwrap_or_default();
        // Before version 7 an error within a script comes as ERR, with the code in its text.
        let code = match code {
            "ERR" => detail
                .split_whitespace()
                .filter_map(|word| word.strip_prefix('-'))
                .find(|word| {
                    matches!(
                        *word,
                        "OOM" | "MISCONF" | "READONLY" | "WRONGTYPE" | "CORRUPT"
                    )
                })
                .unwrap_or(code),
            code => code,
        };
        match code {
            // MISCONF: it cannot save, and therefore takes nothing; most often its disk is full.
            "OOM" | "MISCONF" => Self::Full,
            "WRONGTYPE" => Self::WrongType,
            "CORRUPT" => Part::ALL
                .into_iter()
                .find(|part| detail.split_whitespace().any(|word| word == part.name()))
                .map_or(Self::Unexpected, Self::Unreadable),
            "ERR" => Self::Unexpected,
            // READONLY, LOADING, MASTERDOWN, CLUSTERDOWN, BUSY, NOREPLICAS, NOAUTH, NOPERM ...
            _ => Self::Away,
        }
    }
}

/// Bytes, or none for anything else.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    if let Value::BulkString(bytes) = value {
        Some(bytes)
    } else {
        None
    }
}

/// UTF-8 text, or none for anything else.
pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

/// A number, also when it is written as text.
pub(super) fn number(value: Value) -> Option<u64> {
    if let Value::Int(number) = value {
        u64::try_from(number).ok()
    } else {
        text(value)?.parse().ok()
    }
}

/// The values of a list, or none for anything else.
pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(values) = value {
        Some(values)
    } else {
        None
    }
}

/// The pairs of a hash in either protocol.
pub(super) fn pairs(value: Value) -> Option<Vec<(Value, Value)>> {
    if let Value::Map(pairs) = value {
        return Some(pairs);
    }
    let mut values = list(value)?.into_iter();
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let Some(key) = values.next() {
        pairs.push((key, values.next()?));
    }
    Some(pairs)
}

/// The events in an entry of the log's stream.
pub(super) fn entries(value: Value) -> Option<Vec<LogEntry>> {
    let [id, fields] = <[Value; 2]>::try_from(list(value)?).ok()?;
    let last: u64 = text(id)?.strip_suffix("-0")?.parse().ok()?;
    let mut fields = list(fields)?.into_iter();
    if bytes(fields.next()?)? != b"t" {
        return None;
    }
    let appended_at = UnixMillis(number(fields.next()?)?);
    let count = u64::try_from(fields.len() / 2).ok()?;
    let mut sequence = last.checked_sub(count).filter(|_| count > 0)?;
    let mut entries = Vec::with_capacity(fields.len() / 2);
    while let Some(name) = fields.next() {
        if bytes(name)? != b"p" {
            return None;
        }
        sequence += 1;
        entries.push(LogEntry {
            sequence,
            appended_at,
            payload: bytes(fields.next()?)?,
        });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(line: &str) -> RedisError {
        let value = redis::parse_redis_value(line.as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn errors_of_real_servers_are_sorted() {
        for (line, meaning) in [
            (
                "-OOM command not allowed when used memory > 'maxmemory'. script: 5b, on @user_script:9.\r\n",
                Meaning::Full,
            ),
            (
                "-ERR Error running script (call to f_5b): @user_script:9: @user_script: 9: -OOM command not allowed when used memory > 'maxmemory'.\r\n",
                Meaning::Full,
            ),
            (
                "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n",
                Meaning::Full,
            ),
            (
                "-READONLY You can't write against a read only replica.\r\n",
                Meaning::Away,
            ),
            (
                "-LOADING Redis is loading the dataset in memory\r\n",
                Meaning::Away,
            ),
            ("-NOAUTH Authentication required.\r\n", Meaning::Away),
            (
                "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
                Meaning::Away,
            ),
            (
                "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
                Meaning::WrongType,
            ),
            ("-CORRUPT subs\r\n", Meaning::Unreadable(Part::Subs)),
            (
                "-CORRUPT meta script: 5b, on @user_script:9.\r\n",
                Meaning::Unreadable(Part::Meta),
            ),
            (
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n",
                Meaning::Unexpected,
            ),
        ] {
            assert_eq!(Meaning::of(&server(line)), meaning, "{line}");
        }
    }
}
