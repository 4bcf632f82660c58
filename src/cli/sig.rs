//! `imgate sig`: make and read login signatures.

use std::io::{Read as _, Write};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use humantime_serde::re::humantime;

use super::{CliError, read_secret};
use crate::connectors::tencent::usersig::{self, UserSig};
use crate::types::{AccountId, Secret, UnixMillis, WallClock};

/// More than any signature has.
const MAX_INPUT: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum SigCommand {
    /// Make a signature and print it.
    Mint(MintArgs),
    /// Say what a signature holds, and whether it is good.
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
pub(super) struct MintArgs {
    /// The upstream app's number.
    #[arg(long, value_name = "N")]
    sdk_app_id: u64,
    /// The file that holds the app's secret key.
    #[arg(long, value_name = "FILE")]
    secret_key_file: PathBuf,
    /// The user ID that the signature is for.
    #[arg(long, value_name = "ID")]
    account: String,
    /// How long the signature is good from now, as in `1d` or `30s`.
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = humantime::parse_duration)]
    lifetime: Duration,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The signature; `-` reads it from the standard input.
    #[arg(value_name = "SIG", default_value = "-", allow_hyphen_values = true)]
    signature: String,
    /// The file that holds the app's secret key, to check the signature with.
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
}

/// Runs the subcommand and prints to `out`.
pub(super) fn run(command: SigCommand, out: &mut impl Write) -> Result<(), CliError> {
    let now = WallClock.now();
    match command {
        SigCommand::Mint(args) => mint(&args, now, out),
        SigCommand::Inspect(args) => {
            let signature = if args.signature == "-" {
                read_stdin()?
            } else {
                Secret::new(args.signature)
            };
            let key = match &args.secret_key_file {
                Some(path) => Some(read_secret(path)?),
                None => None,
            };
            inspect(signature.expose(), key.as_ref(), now, out)
        }
    }
}

fn read_stdin() -> Result<Secret<String>, CliError> {
    let mut text = String::new();
    std::io::stdin().take(MAX_INPUT).read_to_string(&mut text)?;
    Ok(Secret::new(text))
}

fn mint(args: &MintArgs, now: UnixMillis, out: &mut impl Write) -> Result<(), CliError> {
    AccountId::parse(&args.account).map_err(|problem| CliError::Argument {
        argument: "--account",
        problem: problem.to_owned(),
    })?;
    if args.lifetime.as_secs() == 0 {
        return Err(CliError::Argument {
            argument: "--lifetime",
            problem: String::from("must be at least 1s"),
        });
    }
    let key = read_secret(&args.secret_key_file)?;
    let signature = usersig::mint(
        args.sdk_app_id,
        &key,
        &args.account,
        now,
        args.lifetime,
        None,
    );
    writeln!(out, "{}", signature.expose())?;
    Ok(())
}

fn inspect(
    signature: &str,
    key: Option<&Secret<String>>,
    now: UnixMillis,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let sig = UserSig::parse(signature.trim())?;
    let expires = sig.expires_at();
    writeln!(out, "account:   {}", sig.account.escape_debug())?;
    writeln!(out, "app:       {}", sig.sdk_app_id)?;
    writeln!(out, "issued:    {}", moment(sig.issued_at))?;
    writeln!(out, "expires:   {}", moment(expires))?;
    if expires > now {
        let left = Duration::from_secs(expires.since(now).as_secs());
        writeln!(out, "time left: {}", humantime::format_duration(left))?;
    } else {
        let ago = Duration::from_secs(now.since(expires).as_secs());
        let ago = humantime::format_duration(ago);
        writeln!(out, "time left: none, it expired {ago} ago")?;
    }
    if let Some(userbuf) = &sig.userbuf {
        writeln!(out, "userbuf:   {} bytes", userbuf.len())?;
    }
    match key.map(|key| sig.verify(key)) {
        Some(true) => writeln!(out, "signature: valid")?,
        Some(false) => {
            writeln!(out, "signature: invalid, made with another key")?;
            return Err(CliError::WrongKey);
        }
        None => writeln!(out, "signature: not checked (give --secret-key-file)")?,
    }
    Ok(())
}

/// A moment as RFC 3339 and in Unix seconds; the seconds alone where the calendar ends.
fn moment(at: UnixMillis) -> String {
    let seconds = at.as_secs();
    // The last second that RFC 3339 can write is the year 9999's.
    if seconds > 253_402_300_799 {
        return seconds.to_string();
    }
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    format!("{} ({seconds})", humantime::format_rfc3339_seconds(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: u64 = 1_400_000_001;

    fn key_file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    fn minted(
        file: &tempfile::NamedTempFile,
        account: &str,
        lifetime: u64,
    ) -> Result<String, String> {
        let args = MintArgs {
            sdk_app_id: APP,
            secret_key_file: file.path().to_owned(),
            account: account.to_owned(),
            lifetime: Duration::from_secs(lifetime),
        };
        let mut out = Vec::new();
        mint(&args, UnixMillis::from_secs(1_700_000_000), &mut out).map_err(|e| e.to_string())?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }

    fn inspected(signature: &str, key: Option<&str>, now: u64) -> (bool, String) {
        let key = key.map(|key| Secret::new(key.to_owned()));
        let mut out = Vec::new();
        let done = inspect(
            signature,
            key.as_ref(),
            UnixMillis::from_secs(now),
            &mut out,
        );
        (done.is_ok(), String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_minted_is_inspected() {
        let signature = minted(&key_file("the-key\n"), "bot1", 3600).unwrap();
        let (good, text) = inspected(&signature, Some("the-key"), 1_700_000_060);
        assert!(good);
        assert_eq!(
            text,
            "account:   bot1\napp:       1400000001\n\
             issued:    2023-11-14T22:13:20Z (1700000000)\n\
             expires:   2023-11-14T23:13:20Z (1700003600)\n\
             time left: 59m\nsignature: valid\n"
        );
        let (good, text) = inspected(&signature, None, 1_700_003_630);
        assert!(
            good && text.contains("it expired 30s ago") && text.contains("not checked"),
            "{text}"
        );
        let (good, text) = inspected(&signature, Some("other"), 1_700_000_060);
        assert!(!good && text.contains("invalid"), "{text}");
    }

    #[test]
    fn bad_arguments_are_named() {
        let key = key_file("k");
        for (account, lifetime, reason) in [
            ("", 1, "--account"),
            ("a\nb", 1, "--account"),
            ("a", 0, "--lifetime"),
        ] {
            let error = minted(&key, account, lifetime).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(
            minted(&key_file("\n"), "a", 1)
                .unwrap_err()
                .contains("is empty")
        );
        let gone = key_file("k");
        std::fs::remove_file(gone.path()).unwrap();
        assert!(minted(&gone, "a", 1).unwrap_err().contains("cannot read"));
        let (good, text) = inspected("garbage", None, 0);
        assert!(!good && text.is_empty());
    }

    #[test]
    fn far_moments_are_written_as_numbers() {
        assert_eq!(moment(UnixMillis(u64::MAX)), (u64::MAX / 1000).to_string());
    }
}
