//! A simulated upstream: the server's side of the real wire, for any number of accounts, with a control port to make trouble. It shares the
//! codec and the signature with the connector, and none of its behaviour.

mod accounts;
mod commands;
mod connection;
mod control;
mod groups;
mod load;
mod login;
mod mailbox;
mod operate;
mod stats;
mod tls;
mod wire;
mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use self::load::{LoadOptions, LoadOutcome};
pub use self::operate::ControlError;
pub use self::stats::{SimStats, UserStats};
pub use self::tls::SimTls;
use self::world::World;
use crate::error::{Classified, ErrorKind};
use crate::net;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::types::{Secret, WallClock};

/// How long the listener rests when the system has no socket left for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Which frames go out compressed, and how. Only to clients that ask for it with `compress=gzip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CompressionMode {
    /// Frames above 1 KiB, as gzip.
    #[default]
    Auto,
    /// None.
    None,
    /// All, as gzip.
    Gzip,
    /// All, as zlib.
    Zlib,
    /// All, as gzip that ends in a sync flush without a trailer, like the real service's.
    SyncFlush,
}

/// What the simulator is to be like.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where clients connect. Default: a free port of loopback.
    pub listen: SocketAddr,
    /// Where the HTTP control port is. Default: a free port of loopback.
    pub control: SocketAddr,
    /// The one app that exists.
    pub sdk_app_id: u64,
    /// The app's key, which signatures must be made with.
    pub secret_key: Secret<String>,
    /// The least time between two logins (by signature) of one account; sooner ones get 70402. Default: none.
    pub login_spacing: Duration,
    /// The `HelloInterval` that clients are told. Default: 120 s.
    pub hello_interval: Duration,
    /// After how long without a frame a connection is closed. Default: 120 s.
    pub heartbeat_timeout: Duration,
    /// After how long an unacknowledged push is repeated. Default: 5 s.
    pub ack_timeout: Duration,
    /// Which frames are compressed. Default: large ones.
    pub compression: CompressionMode,
    /// The most messages in an answer to `openim.getmsg`, at least 1. Default: 20.
    pub page_size: usize,
    /// With it clients connect by `wss://`. Default: none, `ws://`.
    pub tls: Option<SimTls>,
}

impl SimOptions {
    /// The defaults, for an app and its key.
    pub fn new(sdk_app_id: u64, secret_key: Secret<String>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: loopback,
            control: loopback,
            sdk_app_id,
            secret_key,
            login_spacing: Duration::ZERO,
            hello_interval: Duration::from_secs(120),
            heartbeat_timeout: Duration::from_secs(120),
            ack_timeout: Duration::from_secs(5),
            compression: CompressionMode::default(),
            page_size: 20,
            tls: None,
        }
    }
}

/// Why the simulator does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; give another address, or port 0 for a free one")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its certificate and key cannot be used.
    #[error("the certificate and its key are not usable ({0}): give both in PEM")]
    Tls(String),
    /// It has stopped by itself.
    #[error("the simulator has stopped by itself; its log says why")]
    Stopped,
}

impl Classified for SimError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } | Self::Tls(_) => ErrorKind::InvalidInput,
            Self::Stopped => ErrorKind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// The simulator; see [`Sim::start`].
#[derive(Debug)]
pub struct Sim;

impl Sim {
    /// Binds both ports and serves them, in a child group of `tasks`, until that is stopped.
    ///
    /// # Errors
    ///
    /// [`SimError::Listen`] when an address cannot be bound, [`SimError::Tls`] when the certificate cannot be used.
    #[expect(
        clippy::unused_async,
        reason = "its sockets belong to a runtime, without which there would be a panic"
    )]
    pub async fn start(options: SimOptions, tasks: &Tasks) -> Result<SimHandle, SimError> {
        let tls = options.tls.as_ref().map(tls::server_config).transpose()?;
        let (listener, listen_addr) = bind(options.listen)?;
        let (control, control_addr) = bind(options.control)?;
        let tasks = tasks.child();
        let world = Arc::new(World::new(options, tls));
        tasks.spawn(
            "sim_listener",
            TaskKind::Critical,
            accept(listener, Arc::clone(&world), tasks.clone()),
        );
        tasks.spawn(
            "sim_control",
            TaskKind::Critical,
            control::serve(control, Arc::clone(&world), tasks.clone()),
        );
        Ok(SimHandle {
            world,
            listen_addr,
            control_addr,
            tasks,
        })
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SimError> {
    let failed = |source| SimError::Listen { address, source };
    let listener = net::listen(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn accept(listener: TcpListener, world: Arc<World>, tasks: Tasks) {
    loop {
        let accepted = tokio::select! {
            () = tasks.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Taken here and not in the task, so that no connection slips through when all are cut.
                let cut = world.connection_token();
                let serving = connection::serve(Arc::clone(&world), stream, cut);
                tasks.spawn("sim_connection", TaskKind::Work, serving);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = tasks.stopping() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    world.cut_all();
}

/// A running simulator. Clones are handles on the same one. Its methods do what the control port's requests of the same name do.
#[derive(Clone)]
pub struct SimHandle {
    world: Arc<World>,
    listen_addr: SocketAddr,
    control_addr: SocketAddr,
    tasks: Tasks,
}

impl std::fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimHandle")
            .field("listen_addr", &self.listen_addr)
            .field("control_addr", &self.control_addr)
            .finish_non_exhaustive()
    }
}

impl SimHandle {
    /// Where clients connect, by `ws://` or, with [`SimOptions::tls`], by `wss://`.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    /// Where the control port is, by `http://`.
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// Waits until the simulator is asked to stop, or stops because a listener has failed.
    pub async fn stopping(&self) {
        self.tasks.stopping().await;
    }

    /// Cuts every connection, closes the ports, and waits until all has ended.
    pub async fn stop(&self) {
        self.tasks.stop();
        self.tasks.ended().await;
    }

    /// Makes an account that has not logged in yet, so that it can send and be sent to. No error if it exists.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when it is no user ID.
    pub fn account(&self, user_id: &str) -> Result<(), ControlError> {
        self.world.import(user_id)
    }

    /// Kicks the account's connected clients and ends their tickets. `kick_type` is 1 (another login), 2 (another device) or 3 (by the
    /// REST API).
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or not online, or the type is none of these.
    pub fn kick(&self, user_id: &str, kick_type: u8) -> Result<(), ControlError> {
        self.world.kick(user_id, kick_type)
    }

    /// Ends the account's signatures now: the next request gets 70001.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or not logged in.
    pub fn expire(&self, user_id: &str) -> Result<(), ControlError> {
        self.world.expire(user_id, WallClock.now())
    }

    /// Cuts the TCP connections of an account, or with `None` every one. Answers how many.
    ///
    /// # Errors
    ///
    /// [`ControlError::UnknownUser`].
    pub fn drop_connections(&self, user_id: Option<&str>) -> Result<u64, ControlError> {
        self.world.drop_connections(user_id)
    }

    /// Has the account's present connections read nothing and send nothing for so long. A new connection is not concerned.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or not connected.
    pub fn stall(&self, user_id: &str, duration: Duration) -> Result<(), ControlError> {
        self.world.stall(user_id, duration)
    }

    /// Answers the next `times` logins or resumes, of an account or of anybody, with `code`.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or the code is 0.
    pub fn refuse(&self, user_id: Option<&str>, code: u32, times: u32) -> Result<(), ControlError> {
        self.world.refuse(user_id, code, times)
    }

    /// Sends a text from one account to another.
    ///
    /// # Errors
    ///
    /// [`ControlError::UnknownUser`].
    pub fn message(&self, from: &str, to: &str, text: &str) -> Result<(), ControlError> {
        self.world.message(from, to, text, WallClock.now())
    }

    /// Sends a text from a member to its group.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when one is unknown or `from` is no member.
    pub fn group_message(&self, from: &str, group: &str, text: &str) -> Result<(), ControlError> {
        self.world.group_message(from, group, text, WallClock.now())
    }

    /// Makes a group, or changes its members to these.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when a member is unknown or the group has no name.
    pub fn group(&self, group: &str, members: &[String]) -> Result<(), ControlError> {
        self.world.set_group(group, members, WallClock.now())
    }

    /// Tells the account's connections that a command is overloaded.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or not connected.
    pub fn overload(&self, user_id: &str, command: &str, seconds: u64) -> Result<(), ControlError> {
        self.world.overload(user_id, command, seconds)
    }

    /// Pushes any JSON under any name.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or not connected.
    pub fn push(&self, user_id: &str, servcmd: &str, body: String) -> Result<(), ControlError> {
        self.world.push(user_id, servcmd, body)
    }

    /// Sends any bytes as a binary WebSocket message.
    ///
    /// # Errors
    ///
    /// [`ControlError`] when the account is unknown or not connected.
    pub fn raw(&self, user_id: &str, frame: &[u8]) -> Result<(), ControlError> {
        self.world.raw(user_id, frame)
    }

    /// Sends one-to-one texts to whoever is online, at a pace or as fast as they are taken, until the time is over.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when an option is out of its range, or nobody is online.
    pub async fn load(&self, options: LoadOptions) -> Result<LoadOutcome, ControlError> {
        self.world.load(options).await
    }

    /// What has happened so far.
    pub fn stats(&self) -> SimStats {
        self.world.stats(WallClock.now())
    }
}
