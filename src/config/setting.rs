//! How single values are written in the file: durations, sizes, addresses, choices, references to secrets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use humantime::parse_duration;
use toml::Value;
use toml::value::{Datetime, Offset};

use crate::types::UnixMillis;

/// A type that one key of the file can have.
pub(super) trait Setting: Sized {
    /// Whether the value may be a secret, and so is never shown.
    const SECRET: bool = false;

    /// Reads what the file has. The error is the remedy.
    fn from_toml(value: &Value) -> Result<Self, String>;

    /// The value as it is written in a file.
    fn to_toml(&self) -> String;
}

/// Text in the quotes of TOML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl Setting for String {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err("must be text in quotes, not empty".into()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

/// Implements [`Setting`] for an unsigned integer type.
macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn from_toml(value: &Value) -> Result<Self, String> {
                value
                    .as_integer()
                    .and_then(|number| Self::try_from(number).ok())
                    .ok_or_else(|| format!("must be a whole number from 0 to {}", Self::MAX))
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number!(u16, u32, usize);

impl Setting for bool {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| "must be true or false".into())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Setting for f64 {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value
            .as_float()
            .filter(|number| number.is_finite())
            .ok_or_else(|| "must be a number with a decimal point, such as 0.5".into())
    }

    fn to_toml(&self) -> String {
        Value::from(*self).to_string()
    }
}

impl Setting for Duration {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value
            .as_str()
            .and_then(|text| parse_duration(text).ok())
            .ok_or_else(|| {
                "must be a duration in quotes, such as \"500ms\", \"30s\" or \"7d\"".into()
            })
    }

    fn to_toml(&self) -> String {
        const UNITS: [(&str, u128); 4] = [
            ("d", 24 * 60 * 60 * 1000),
            ("h", 60 * 60 * 1000),
            ("m", 60 * 1000),
            ("s", 1000),
        ];
        let millis = self.as_millis();
        let whole = UNITS
            .iter()
            .find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
        quoted(&match whole {
            Some((name, unit)) => format!("{}{name}", millis / unit),
            None => format!("{millis}ms"),
        })
    }
}

impl Setting for SocketAddr {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                "must be an IP address and a port in quotes, such as \"127.0.0.1:50051\" or \"[::]:50051\"".into()
            })
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for PathBuf {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if !text.is_empty() => Ok(Self::from(text)),
            _ => Err(
                "must be a path in quotes; a relative one starts at the folder of this file".into(),
            ),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

/// A moment of the calendar, to the second.
impl Setting for UnixMillis {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_datetime().and_then(moment).ok_or_else(|| {
            "must be a moment with its offset and without quotes, such as 2030-01-01T00:00:00Z"
                .into()
        })
    }

    fn to_toml(&self) -> String {
        let since = Duration::from_secs(self.as_secs());
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
    }
}

/// A moment after 1970. One without an offset is a different one at each place, and so is none.
fn moment(written: &Datetime) -> Option<UnixMillis> {
    let (date, time) = (written.date?, written.time?);
    let east = match written.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let second = time.second.unwrap_or(0);
    let utc = format!("{date}T{:02}:{:02}:{second:02}Z", time.hour, time.minute);
    let local = humantime::parse_rfc3339(&utc).ok()?;
    let seconds = local.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let seconds = i64::try_from(seconds).ok()?.checked_sub(east * 60)?;
    u64::try_from(seconds).ok().map(UnixMillis::from_secs)
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

impl ByteSize {
    /// The units that a file may use, greatest first.
    const UNITS: [(&'static str, usize); 3] =
        [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    /// A number of mebibytes.
    pub const fn mib(number: usize) -> Self {
        Self(number << 20)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::UNITS.iter().find_map(|(unit, bytes)| {
            let number: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            number.checked_mul(*bytes).map(Self)
        })
    }
}

impl Setting for ByteSize {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let parsed = match value.as_integer() {
            Some(number) => usize::try_from(number).ok().map(Self),
            None => value.as_str().and_then(Self::parse),
        };
        parsed.ok_or_else(|| {
            "must be a size, such as \"4MiB\" (KiB, MiB, GiB) or a number of bytes".into()
        })
    }

    fn to_toml(&self) -> String {
        Self::UNITS
            .iter()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .map_or_else(
                || self.0.to_string(),
                |(unit, bytes)| quoted(&format!("{}{unit}", self.0 / bytes)),
            )
    }
}

/// Declares an enum that is written as one of a few words.
macro_rules! choice {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word in the file.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err(format!("must be one of {}", [$(concat!("\"", $word, "\"")),*].join(", "))),
                }
            }

            fn to_toml(&self) -> String {
                format!("\"{}\"", self.as_str())
            }
        }
    };
}
pub(super) use choice;

impl<T: Setting> Setting for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn from_toml(value: &Value) -> Result<Self, String> {
        let list = value
            .as_array()
            .ok_or("must be a list in square brackets")?;
        list.iter()
            .map(|item| T::from_toml(item).map_err(|remedy| format!("each of the list {remedy}")))
            .collect()
    }

    fn to_toml(&self) -> String {
        let items: Vec<_> = self.iter().map(Setting::to_toml).collect();
        format!("[{}]", items.join(", "))
    }
}

/// Where a secret is kept, so that it need not stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretRef {
    /// In a file; white space at its end does not count.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

impl SecretRef {
    const FORM: &'static str =
        "must say where the secret is kept: { file = \"PATH\" } or { env = \"VARIABLE\" }";
}

impl Setting for SecretRef {
    // Whoever writes the secret itself here must not find it in a log.
    const SECRET: bool = true;

    fn from_toml(value: &Value) -> Result<Self, String> {
        let table = value.as_table().ok_or(Self::FORM)?;
        let mut entries = table.iter();
        match (entries.next(), entries.next()) {
            (Some((key, place)), None) if key == "file" => {
                PathBuf::from_toml(place).map(Self::File)
            }
            (Some((key, place)), None) if key == "env" => String::from_toml(place).map(Self::Env),
            _ => Err(Self::FORM.into()),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::File(path) => format!("{{ file = {} }}", path.to_toml()),
            Self::Env(name) => format!("{{ env = {} }}", name.to_toml()),
        }
    }
}

/// The SHA-256 of a key in hexadecimal. It is no secret; but what stands there by mistake may be the key itself, so nothing
/// of it is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeySha256(pub(super) String);

impl std::fmt::Debug for KeySha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Setting for KeySha256 {
    const SECRET: bool = true;

    fn from_toml(value: &Value) -> Result<Self, String> {
        String::from_toml(value).map(Self)
    }

    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

/// A value that may hold a secret: given in the file, or by reference.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum MaybeSecret {
    /// The value itself.
    Plain(crate::types::Secret<String>),
    /// Where it is kept.
    Reference(SecretRef),
}

impl std::fmt::Debug for MaybeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(secret) => secret.fmt(f),
            Self::Reference(place) => place.fmt(f),
        }
    }
}

impl Setting for MaybeSecret {
    const SECRET: bool = true;

    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(_) => {
                String::from_toml(value).map(|text| Self::Plain(crate::types::Secret::new(text)))
            }
            None => SecretRef::from_toml(value)
                .map(Self::Reference)
                .map_err(|remedy| format!("must be text in quotes, or {remedy}")),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Plain(text) => quoted(text.expose()),
            Self::Reference(place) => place.to_toml(),
        }
    }
}

impl Setting for BTreeMap<String, SecretRef> {
    const SECRET: bool = true;

    fn from_toml(value: &Value) -> Result<Self, String> {
        let table = value.as_table().ok_or(
            "must be a table of names, each with { file = \"PATH\" } or { env = \"VARIABLE\" }",
        )?;
        table
            .iter()
            .map(|(name, place)| {
                SecretRef::from_toml(place)
                    .map(|place| (name.clone(), place))
                    .map_err(|remedy| format!("{name} {remedy}"))
            })
            .collect()
    }

    fn to_toml(&self) -> String {
        let items: Vec<_> = self
            .iter()
            .map(|(name, place)| format!("{name} = {}", place.to_toml()))
            .collect();
        format!("{{ {} }}", items.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, String> {
        let table: toml::Table = format!("key = {text}")
            .parse()
            .map_err(|error: toml::de::Error| error.to_string())?;
        T::from_toml(&table["key"])
    }

    #[test]
    fn values_come_back_as_they_are_written() {
        for text in ["\"500ms\"", "\"7d\"", "\"90s\"", "\"0ms\""] {
            assert_eq!(read::<Duration>(text).unwrap().to_toml(), text);
        }
        for text in ["\"4MiB\"", "\"1GiB\"", "1025"] {
            assert_eq!(read::<ByteSize>(text).unwrap().to_toml(), text);
        }
        assert_eq!(read::<ByteSize>("\"64 KiB\""), Ok(ByteSize(65536)));
        assert_eq!(
            read::<SecretRef>("{ env = \"KEY\" }").unwrap().to_toml(),
            "{ env = \"KEY\" }"
        );
    }

    #[test]
    fn moments_are_read_with_their_offset() {
        let utc = "2030-01-01T00:00:00Z";
        let moment: UnixMillis = read(utc).unwrap();
        assert_eq!(moment, UnixMillis::from_secs(1_893_456_000));
        assert_eq!(moment.to_toml(), utc);
        for same in [
            "2030-01-01 00:00:00Z",
            "2030-01-01T01:30:00+01:30",
            "2029-12-31T19:00:00-05:00",
            "2030-01-01T00:00:00.25Z",
        ] {
            assert_eq!(read(same), Ok(moment), "{same}");
        }
        for bad in [
            "2030-01-01",
            "2030-01-01T00:00:00",
            "00:00:00",
            "1969-12-31T23:59:59Z",
            "\"2030-01-01T00:00:00Z\"",
            "1893456000",
        ] {
            assert!(read::<UnixMillis>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        assert!(read::<Duration>("30").is_err());
        assert!(read::<Duration>("\"-1s\"").is_err());
        assert!(read::<u16>("70000").is_err());
        assert!(read::<u32>("-1").is_err());
        assert!(read::<f64>("nan").is_err());
        assert!(read::<ByteSize>("\"99999999999999GiB\"").is_err());
        assert!(read::<SocketAddr>("\"localhost:1\"").is_err());
        assert!(read::<SecretRef>("{ env = \"A\", file = \"B\" }").is_err());
        assert!(read::<SecretRef>("\"hunter2\"").is_err());
        assert!(read::<String>("\"\"").is_err());
    }

    #[test]
    fn a_secret_in_the_file_does_not_show() {
        let plain: MaybeSecret = read("\"redis://:hunter2@host\"").unwrap();
        assert_eq!(format!("{plain:?}"), "***");
    }
}
