//! The processes that `imgate dev` puts into one: a simulated upstream, a store in a folder, and the gateway.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DevArgs;
use crate::app::{App, AppError};
use crate::cli::{CliError, read_secret};
use crate::config::{CommandList, Config, Keepalive, StoreKind, Tenant};
use crate::observability::metrics;
use crate::runtime::supervisor::Tasks;
use crate::sim::{Sim, SimError, SimHandle, SimOptions};
use crate::types::{Secret, TenantId};

/// The app of the simulated upstream.
pub(super) const SDK_APP_ID: u32 = 1_400_000_001;
/// The tenant that everybody on this machine is.
pub(super) const TENANT: &str = "dev";
/// Trouble comes every few seconds here, so that what is rare elsewhere may follow closer.
pub(super) const LOGIN_SPACING: Duration = Duration::from_secs(2);
/// A dead connection is found sooner than by default, for somebody is waiting to see it.
pub(super) const KEEPALIVE: Keepalive = Keepalive {
    heartbeat: Duration::from_secs(5),
    answer_timeout: Duration::from_secs(2),
};

const GRPC_PORT: u16 = 50051;
const OPS_PORT: u16 = 9090;

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) sim: SimHandle,
    pub(super) app: App,
    /// The upstream app's key.
    pub(super) key: Secret<String>,
    /// What is not as asked for by default.
    pub(super) remarks: Vec<String>,
    // Goes last, after the store in it is closed.
    pub(super) folder: Folder,
}

impl Stack {
    /// Starts the simulator, then the gateway that is to hold sessions at it.
    pub(super) async fn start(args: &DevArgs) -> Result<Self, CliError> {
        let folder = Folder::open(args.data.as_deref())?;
        let key = folder.app_key()?;
        let sim = Sim::start(
            SimOptions {
                listen: args.sim,
                control: args.sim_control,
                ..SimOptions::new(SDK_APP_ID.into(), key.clone())
            },
            &Tasks::new(),
        )
        .await
        .map_err(|error| name_argument(error, args))?;
        let upstream = format!("ws://{}", sim.listen_addr());
        let tenant = Tenant {
            login_spacing: LOGIN_SPACING,
            // Whoever tries things here tries them on nobody.
            invoke_commands: CommandList::every(),
            ..Tenant::new(TenantId::new(TENANT), SDK_APP_ID, upstream)
        };
        let store = StoreKind::Embedded {
            path: folder.path.join("imgate.redb"),
        };
        let mut config = Config::new(store, vec![tenant.with_secret_key(key.clone())]);
        config.keepalive = KEEPALIVE;
        let (app, remarks) = start_gateway(config, args).await?;
        Ok(Self {
            sim,
            app,
            key,
            remarks,
            folder,
        })
    }

    /// Stops the gateway, then the upstream. True if the gateway was in time.
    pub(super) async fn stop(self) -> bool {
        let in_time = self.app.stop().await;
        self.sim.stop().await;
        in_time
    }
}

/// Starts the gateway where it was asked to listen; instead of a default address that is taken, on a free port.
async fn start_gateway(mut config: Config, args: &DevArgs) -> Result<(App, Vec<String>), CliError> {
    let default = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    config.grpc.listen = args.grpc.unwrap_or_else(|| default(GRPC_PORT));
    config.ops.listen = args.ops.unwrap_or_else(|| default(OPS_PORT));
    let metrics = metrics::install()?;
    let mut remarks = Vec::new();
    loop {
        let (key, address, error) = match App::start(config.clone(), metrics.clone()).await {
            Ok(app) => return Ok((app, remarks)),
            Err(AppError::Listen {
                key,
                address,
                error,
            }) => (key, address, error),
            Err(error) => return Err(error.into()),
        };
        let (argument, given, listen) = if key == "ops.listen" {
            ("--ops", args.ops, &mut config.ops.listen)
        } else {
            ("--grpc", args.grpc, &mut config.grpc.listen)
        };
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        if given.is_some() || !taken || address.port() == 0 {
            return Err(CliError::Argument {
                argument,
                problem: format!(
                    "{address}: {error}; give an address that is free, or 127.0.0.1:0 for any"
                ),
            });
        }
        remarks.push(format!(
            "{address} is taken, so a free port is used instead; {argument} ADDR chooses one"
        ));
        listen.set_port(0);
    }
}

/// Where the store is.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Whether it goes when the process ends.
    pub(super) passing: bool,
}

impl Folder {
    /// The folder that was asked for, or one that goes with this process.
    fn open(asked: Option<&Path>) -> Result<Self, CliError> {
        let passing = asked.is_none();
        let path = asked.map_or_else(
            || std::env::temp_dir().join(format!("imgate-dev-{:08x}", rand::random::<u32>())),
            Path::to_owned,
        );
        let made = DirBuilder::new()
            .recursive(!passing)
            .mode(0o700)
            .create(&path);
        made.map_err(|error| CliError::Argument {
            argument: "--data",
            problem: format!(
                "{}: {error}; give a folder that this user may write to",
                path.display()
            ),
        })?;
        Ok(Self { path, passing })
    }

    /// The upstream app's key. It is as old as the store, whose signatures were made with it.
    fn app_key(&self) -> Result<Secret<String>, CliError> {
        let path = self.path.join("sim.key");
        if path.exists() {
            return read_secret(&path);
        }
        let key = format!(
            "{:032x}{:032x}",
            rand::random::<u128>(),
            rand::random::<u128>()
        );
        if !self.passing {
            write_private(&path, &key)?;
        }
        Ok(Secret::new(key))
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), io::Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.passing {
            // What stays behind is in the folder for such things.
            let _left = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Nothing here asks who calls, so nothing here is reachable from other machines.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| String::from("give IP:PORT, such as 127.0.0.1:0 for any free port"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(String::from(
            "must be a loopback address such as 127.0.0.1, for nobody is asked for a key here; `imgate serve` is for \
             other machines",
        ))
    }
}

/// A busy simulator port, said in the words of the argument.
fn name_argument(error: SimError, args: &DevArgs) -> CliError {
    match error {
        SimError::Listen { address, source } => CliError::Argument {
            argument: if address == args.sim {
                "--sim"
            } else {
                "--sim-control"
            },
            problem: format!(
                "{address}: {source}; give an address that is free, or 127.0.0.1:0 for any"
            ),
        },
        SimError::Tls(_) | SimError::Stopped => error.into(),
    }
}
