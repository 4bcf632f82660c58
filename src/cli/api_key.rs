//! `imgate api-key`: make a key for a caller, and the lines of the configuration for it.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::CliError;
use crate::tenants::keys::KeyDigest;
use crate::types::Secret;

/// By which keys are told from other secrets, also by scanners of repositories.
const MARK: &str = "imgate_";
/// How much of a key is random, in bytes.
const RANDOM: usize = 32;
/// How many characters of a key are its prefix: the mark and 60 bits, which leaves 196 that are secret.
const PREFIX: usize = MARK.len() + 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum KeyScope {
    Sessions,
    Events,
    Messages,
}

impl KeyScope {
    const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Events => "events",
            Self::Messages => "messages",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ApiKeyArgs {
    /// The key's name in the configuration and in logs: small letters, digits and dashes.
    #[arg(long, value_name = "ID", default_value = "new-key", value_parser = identifier)]
    id: String,
    /// What it may do.
    #[arg(
        long,
        value_name = "SCOPE",
        value_delimiter = ',',
        default_values_t = [KeyScope::Sessions, KeyScope::Events, KeyScope::Messages]
    )]
    scopes: Vec<KeyScope>,
    /// Make an operator's key, which is for AdminService and has no scopes.
    #[arg(long, conflicts_with = "scopes")]
    operator: bool,
}

impl std::fmt::Display for KeyScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn identifier(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !text.is_empty() && text.len() <= 63 && !text.starts_with('-');
    if good && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("must be small letters, digits and dashes, at most 63, without a dash at the front")
    }
}

/// Prints a fresh key, and what to paste. The key is not to be had again.
pub(super) fn run(args: &ApiKeyArgs, out: &mut impl Write) -> Result<(), CliError> {
    let key = generate()?;
    let text = key.expose();
    let table = if args.operator {
        "operators"
    } else {
        "tenants.api_keys"
    };
    writeln!(out, "# The key, for the caller. It is shown this once:")?;
    writeln!(out, "# {text}")?;
    writeln!(out, "[[{table}]]")?;
    writeln!(out, "id = \"{}\"", args.id)?;
    writeln!(out, "prefix = \"{}\"", text.get(..PREFIX).unwrap_or(text))?;
    writeln!(out, "sha256 = \"{}\"", KeyDigest::of(text).to_hex())?;
    if !args.operator {
        let mut scopes = args.scopes.clone();
        scopes.sort_unstable();
        scopes.dedup();
        let scopes: Vec<String> = scopes.iter().map(|scope| format!("\"{scope}\"")).collect();
        writeln!(out, "scopes = [{}]", scopes.join(", "))?;
    }
    Ok(out.flush()?)
}

/// A key of the system's randomness.
fn generate() -> Result<Secret<String>, CliError> {
    let mut random = Zeroizing::new([0; RANDOM]);
    aws_lc_rs::rand::fill(random.as_mut_slice())
        .map_err(|_| CliError::Failed("the system gives no random bytes"))?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
    Ok(Secret::new(format!("{MARK}{}", text.as_str())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ApiKeyArgs,
    }

    fn printed(arguments: &[&str]) -> Result<String, String> {
        let line = ["api-key"].iter().chain(arguments);
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        run(&line.args, &mut out).map_err(|error| error.to_string())?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }

    /// The key that is shown, and the configuration with what is to be pasted.
    fn pasted(printed: &str) -> (String, crate::config::Config) {
        let key = printed.lines().nth(1).unwrap().strip_prefix("# ").unwrap();
        let tenant = "[[tenants]]\nid = \"acme\"\nsdk_app_id = 1\n";
        // As it is printed, the key included: a file that still has the comment is a good file as well.
        let file = if printed.contains("[[operators]]") {
            format!("{printed}\n{tenant}")
        } else {
            format!("{tenant}\n{printed}")
        };
        let config = crate::config::Config::parse(&file, "".as_ref(), &|_| None).unwrap();
        (key.to_owned(), config)
    }

    #[test]
    fn what_is_printed_can_be_pasted() {
        let text = printed(&["--id", "bots", "--scopes", "messages,events,events"]).unwrap();
        let (key, config) = pasted(&text);
        let [api_key] = &config.tenants[0].api_keys[..] else {
            panic!("{text}");
        };
        assert_eq!(api_key.key.id, "bots");
        assert_eq!(api_key.key.sha256, KeyDigest::of(&key).to_hex());
        let prefix = api_key.key.prefix.as_deref().unwrap();
        assert!(key.starts_with(prefix) && key.len() >= prefix.len() + 32);
        let scopes: Vec<_> = api_key.scopes.iter().map(|scope| scope.as_str()).collect();
        assert_eq!(scopes, ["events", "messages"]);

        let text = printed(&["--operator"]).unwrap();
        let (key, config) = pasted(&text);
        assert_eq!(config.operators[0].sha256, KeyDigest::of(&key).to_hex());
        assert!(config.tenants[0].api_keys.is_empty());
    }

    #[test]
    fn no_two_keys_are_the_same() {
        let keys: std::collections::BTreeSet<String> =
            (0..100).map(|_| pasted(&printed(&[]).unwrap()).0).collect();
        assert_eq!(keys.len(), 100);
        for key in keys {
            let random = key.strip_prefix(MARK).unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(random).unwrap().len(), RANDOM);
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        for arguments in [
            &["--id", "Bots"][..],
            &["--id", ""],
            &["--scopes", "admin"],
            &["--scopes", "events", "--operator"],
        ] {
            assert!(printed(arguments).is_err(), "{arguments:?}");
        }
    }
}
