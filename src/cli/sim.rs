//! `imgate sim`: the simulated upstream as a process of its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{CliError, read_secret, runtime, stop_signal};
use crate::runtime::supervisor::Tasks;
use crate::sim::{CompressionMode, Sim, SimError, SimOptions, SimTls};
use crate::types::Secret;

#[derive(Debug, Args)]
pub(super) struct SimArgs {
    /// Where clients connect; port 0 is a free one.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where the HTTP control port is; port 0 is a free one.
    #[arg(long, value_name = "ADDR")]
    control: SocketAddr,
    /// The one app that exists.
    #[arg(long, value_name = "N")]
    sdk_app_id: u64,
    /// The file that holds the app's secret key.
    #[arg(long, value_name = "FILE")]
    secret_key_file: PathBuf,
    /// The least time between two logins of one account; sooner ones get 70402.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    login_spacing: Duration,
    /// How often clients are told to say hello.
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = some_seconds)]
    hello_interval: Duration,
    /// After how long without a frame a connection is closed.
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = some_seconds)]
    heartbeat_timeout: Duration,
    /// After how long an unacknowledged push is repeated.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = some_seconds)]
    ack_timeout: Duration,
    /// Which frames are compressed, for clients that ask for it: `auto` is gzip above 1 KiB.
    #[arg(long, value_enum, default_value = "auto")]
    compress: CompressionMode,
    /// The most messages in one answer of catch-up.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..))]
    page_size: u16,
    /// The file that holds a certificate and its chain, PEM: clients then connect by wss.
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// The file that holds the certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
}

impl SimArgs {
    fn tls(&self) -> Result<Option<SimTls>, CliError> {
        let (Some(certificate), Some(key)) = (&self.tls_cert_file, &self.tls_key_file) else {
            return Ok(None);
        };
        Ok(Some(SimTls {
            certificate: read(certificate)?,
            key: Secret::new(read(key)?),
        }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|source| CliError::ReadFile {
        path: path.to_owned(),
        source,
    })
}

/// Seconds, with decimals if need be.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| String::from("give a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err(String::from("must be more than 0")),
        some => Ok(some),
    }
}

/// Runs the simulator until SIGINT or SIGTERM.
pub(super) fn run(args: SimArgs) -> Result<(), CliError> {
    let tls = args.tls()?;
    let options = SimOptions {
        listen: args.listen,
        control: args.control,
        sdk_app_id: args.sdk_app_id,
        secret_key: read_secret(&args.secret_key_file)?,
        login_spacing: args.login_spacing,
        hello_interval: args.hello_interval,
        heartbeat_timeout: args.heartbeat_timeout,
        ack_timeout: args.ack_timeout,
        compression: args.compress,
        page_size: usize::from(args.page_size),
        tls,
    };
    runtime()?.block_on(serve(options))
}

async fn serve(options: SimOptions) -> Result<(), CliError> {
    let tasks = Tasks::new();
    let sim = Sim::start(options, &tasks).await?;
    {
        // One line each, at once: whoever started it on port 0 reads the addresses here.
        let mut out = std::io::stdout().lock();
        writeln!(out, "sim listening on {}", sim.listen_addr())?;
        writeln!(out, "sim control on http://{}", sim.control_addr())?;
        out.flush()?;
    }
    tokio::select! {
        stopped = stop_signal() => stopped?,
        () = sim.stopping() => return Err(SimError::Stopped.into()),
    }
    sim.stop().await;
    Ok(())
}
