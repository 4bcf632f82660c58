//! The command line: one file per subcommand. The only place that writes to the terminal.

mod api_key;
mod dev;
mod keys;
mod operator;
mod serve;
mod sig;
mod sim;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use tokio::signal::unix::{SignalKind, signal};

use crate::app::AppError;
use crate::config::ConfigErrors;
use crate::connectors::tencent::usersig::UserSigError;
use crate::error::{Classified, ErrorKind};
use crate::observability::logging::LoggingError;
use crate::observability::metrics::MetricsError;
use crate::sim::SimError;
use crate::types::Secret;

#[derive(Debug, Parser)]
#[command(name = "imgate", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(serve::ConfigArgs),
    /// Read a configuration and say what is wrong with it.
    CheckConfig(serve::ConfigArgs),
    /// Print every key of the configuration with its meaning and default.
    ConfigReference,
    /// Make an API key: prints it once, and the lines of the configuration for it.
    ApiKey(api_key::ApiKeyArgs),
    /// Make and read login signatures (UserSig).
    #[command(subcommand)]
    Sig(sig::SigCommand),
    /// Delete all that the store has of a tenant that was removed from the configuration. It cannot be undone.
    PurgeTenant(operator::PurgeArgs),
    /// Make sealing keys, and have a gateway seal anew what earlier ones have sealed.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Run everything at once on this machine, with demo bots, to see what imgate does.
    ///
    /// Starts a gateway, an embedded store and a simulated upstream in one process, prints what to try, and shows on demo
    /// bots how sessions come through trouble. Ctrl-C ends it with a table and a verdict; the exit code is 0 if all was
    /// as it should be, else 1.
    Dev(dev::DevArgs),
    /// Run a simulated upstream that speaks the real wire.
    Sim(sim::SimArgs),
}

/// Why a subcommand fails. The text is for the person at the terminal: it names what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; give a file that this user may read", path.display())]
    ReadFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A secret file is empty.
    #[error("{} is empty; it must hold a secret key", .0.display())]
    EmptySecret(PathBuf),
    /// An argument has no sense.
    #[error("{argument} {problem}")]
    Argument {
        /// Which.
        argument: &'static str,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A text is no signature.
    #[error(transparent)]
    UserSig(#[from] UserSigError),
    /// A signature was made with another key.
    #[error("the signature was not made with this key")]
    WrongKey,
    /// The gateway refuses what was asked of it.
    #[error("the gateway refuses: {1} ({0:?})")]
    Refused(tonic::Code, String),
    /// The simulator does not start, or has failed.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The log cannot be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The gateway does not start.
    #[error(transparent)]
    App(#[from] AppError),
    /// It did not end as it should.
    #[error("{0}")]
    Failed(&'static str),
    /// The terminal, or the system, fails.
    #[error("cannot go on: {0}")]
    Io(#[from] std::io::Error),
}

impl Classified for CliError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ReadFile { .. }
            | Self::EmptySecret(_)
            | Self::Argument { .. }
            | Self::UserSig(_)
            | Self::Config(_)
            | Self::Logging(_)
            | Self::WrongKey => ErrorKind::InvalidInput,
            Self::Sim(error) => error.kind(),
            Self::App(error) => error.kind(),
            Self::Metrics(_) | Self::Failed(_) => ErrorKind::Internal,
            Self::Refused(..) => ErrorKind::Forbidden,
            Self::Io(_) => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// Runs what the command line asks for. The exit code is 0 for success, 1 for a failure (said on the error output), 2 for a command
/// line that cannot be read.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(args) => serve::serve(&args),
        Command::CheckConfig(args) => serve::check_config(&args, &mut std::io::stdout().lock()),
        Command::ConfigReference => serve::config_reference(&mut std::io::stdout().lock()),
        Command::ApiKey(args) => api_key::run(&args, &mut std::io::stdout().lock()),
        Command::Sig(command) => sig::run(command, &mut std::io::stdout().lock()),
        Command::PurgeTenant(args) => operator::purge_tenant(&args, &mut std::io::stdout().lock()),
        Command::Keys(command) => keys::run(command, &mut std::io::stdout().lock()),
        Command::Dev(args) => dev::run(&args),
        Command::Sim(args) => sim::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime of a long-running subcommand.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal() -> Result<(), CliError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Reads a secret from a file, without the line end that editors add.
fn read_secret(path: &Path) -> Result<Secret<String>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::ReadFile {
        path: path.to_owned(),
        source,
    })?;
    let text = Secret::new(text);
    let secret = text.expose().trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(CliError::EmptySecret(path.to_owned()));
    }
    Ok(Secret::new(secret.to_owned()))
}
