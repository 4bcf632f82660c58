//! `imgate serve`, `imgate check-config` and `imgate config-reference`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, runtime, stop_signal};
use crate::app::App;
use crate::config::Files;
use crate::observability::{logging, metrics};

/// The arguments of `imgate serve` and `imgate check-config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration, in TOML: a file, or a folder of which all .toml files are taken. Given several times, all of it
    /// together is the configuration. See `imgate config-reference`.
    #[arg(long, value_name = "PATH", required = true)]
    config: Vec<PathBuf>,
}

/// Runs the gateway until SIGTERM or SIGINT. SIGHUP has it read its configuration again, which it does by itself when that
/// changes.
pub(super) fn serve(args: &ConfigArgs) -> Result<(), CliError> {
    let files = Files::new(args.config.clone());
    let (config, seen) = files.load();
    let config = config?;
    logging::install(&config.log)?;
    let metrics = metrics::install()?;
    runtime()?.block_on(async {
        let mut hang_up = signal(SignalKind::hangup())?;
        let app = App::start_and_follow(config, (files, seen), metrics).await?;
        say_where(&app, &mut std::io::stdout().lock())?;
        let reloading = async {
            while hang_up.recv().await.is_some() {
                // What becomes of it is in the log.
                let _logged = app.reload().await;
            }
        };
        let failed = tokio::select! {
            stopped = stop_signal() => stopped.is_err(),
            () = app.failed() => true,
            () = reloading => true,
        };
        // A second signal does not wait for the order of things.
        let in_time = tokio::select! {
            in_time = app.stop() => in_time,
            _again = stop_signal() => false,
        };
        match (failed, in_time) {
            (false, true) => Ok(()),
            (true, _) => Err(CliError::Failed(
                "a part that must not end has ended; see the log",
            )),
            (false, false) => Err(CliError::Failed("not everything was stopped in time")),
        }
    })
}

/// One line for each address, at once: whoever started it on port 0 reads them here.
fn say_where(app: &App, out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "imgate grpc on {}", app.grpc_address())?;
    writeln!(out, "imgate ops on http://{}", app.ops_address())?;
    Ok(out.flush()?)
}

/// Reads a configuration and says what is wrong with it.
pub(super) fn check_config(args: &ConfigArgs, out: &mut impl Write) -> Result<(), CliError> {
    let config = Files::new(args.config.clone()).load().0?;
    for warning in config.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    let shown: Vec<_> = args
        .config
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    writeln!(
        out,
        "{}: good, with {} tenants",
        shown.join(", "),
        config.tenants.len()
    )?;
    Ok(())
}

/// Prints every key with its meaning and default.
pub(super) fn config_reference(out: &mut impl Write) -> Result<(), CliError> {
    Ok(out.write_all(crate::config::reference().as_bytes())?)
}
