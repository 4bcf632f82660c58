//! The connection that calls share: commands with time-outs, and a new connection after a failure.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use redis::aio::ConnectionLike;
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, Script, ServerErrorKind, Value};
use tokio::time::Instant;
use tracing::warn;

use super::servers::{Connected, Servers};
use crate::store::StoreError;
use crate::types::Secret;

/// How long an answer of the sentinels holds for a ping.
const NAMED_FOR: Duration = Duration::from_secs(1);

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Where it is, in one of the forms of [`RedisUrl`](crate::store::redis_url::RedisUrl).
    pub url: Secret<String>,
    /// How long making a connection may take, with its greeting. Sentinels may take as long again to say where the
    /// master is. Default 1 s.
    pub connect_timeout: Duration,
    /// How long an answer may take. Default 2 s; shorter than half of a lease.
    pub response_timeout: Duration,
}

impl RedisOptions {
    /// The defaults for a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url.into()),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
        }
    }
}

/// A connection that all calls share. It is made when the first call needs it.
pub(super) struct Connection {
    servers: Arc<Servers>,
    current: Mutex<Current>,
}

/// A connection in the making, which everybody who needs it waits for, and then the connection.
type Line = Shared<BoxFuture<'static, Result<Connected, RedisError>>>;

struct Current {
    /// Counts the replacements, so that of many who saw one failure only the first replaces.
    generation: u64,
    line: Line,
    /// When the sentinels were last asked whether the master is still theirs.
    asked: Option<Instant>,
    /// The last ping, and the generation that it asks.
    ping: Option<(u64, WeakShared<Pinging>)>,
}

type Pinging = BoxFuture<'static, Result<(), RedisError>>;

impl Connection {
    /// Prepares the connection; fails only on options that cannot work.
    pub(super) fn new(options: &RedisOptions) -> Result<Self, StoreError> {
        let servers = Servers::new(options).map_err(|remedy| {
            StoreError::Unavailable(format!("the Redis URL cannot be used: it {remedy}"))
        })?;
        let servers = Arc::new(servers);
        Ok(Self {
            current: Mutex::new(Current {
                generation: 0,
                line: line(&servers),
                asked: None,
                ping: None,
            }),
            servers,
        })
    }

    /// Where the server is, or who its sentinels are, without credentials.
    pub(super) fn address(&self) -> &str {
        self.servers.address()
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let (generation, mut connection) = self.connection().await?;
        let result = command.query_async(&mut connection).await;
        self.noticed(generation, result)
    }

    /// Runs a script by `invocation`; hands the server the script's text when it does not know it yet.
    pub(super) async fn run(&self, script: &Script, invocation: &Cmd) -> Result<Value, RedisError> {
        let (generation, mut connection) = self.connection().await?;
        let mut result = invocation.query_async(&mut connection).await;
        if let Err(error) = &result
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            result = match script.load_async(&mut connection).await {
                Ok(_hash) => invocation.query_async(&mut connection).await,
                Err(error) => Err(error),
            };
        }
        self.noticed(generation, result)
    }

    /// Sends several commands at once.
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let (generation, mut connection) = self.connection().await?;
        let result = commands.query_async(&mut connection).await;
        self.noticed(generation, result)
    }

    /// Asks the server whether it answers; before that, and not too often, the sentinels whether it is still the
    /// master. A master that was replaced goes on taking writes until it hears of it, and all of them are lost.
    pub(super) async fn ping(&self) -> Result<(), RedisError> {
        self.leave_a_former_master().await;
        let (generation, connection) = self.connection().await?;
        let answer = self.ping_on_its_way(generation, connection).await;
        self.noticed(generation, answer)
    }

    /// A ping whose answer somebody waits for: many that log in at once ask once.
    fn ping_on_its_way(
        &self,
        generation: u64,
        mut connection: impl ConnectionLike + Send + 'static,
    ) -> Shared<Pinging> {
        let mut current = self.locked();
        let last = current.ping.take();
        let last = last.filter(|(asked, _)| *asked == generation);
        let last = last.and_then(|(_, ping)| ping.upgrade());
        let ping = last
            .filter(|ping| ping.peek().is_none())
            .unwrap_or_else(|| {
                let ask = async move { redis::cmd("PING").query_async(&mut connection).await };
                ask.boxed().shared()
            });
        current.ping = ping.downgrade().map(|ping| (generation, ping));
        ping
    }

    /// A client of the server, for a connection of another kind. Sentinels cut such a one when they demote the
    /// server.
    pub(super) async fn client(&self) -> Result<Client, RedisError> {
        self.servers.client().await
    }

    async fn leave_a_former_master(&self) {
        let (generation, server) = {
            let mut current = self.locked();
            let recent = |asked: Instant| asked.elapsed() < NAMED_FOR;
            let Some(Ok(connected)) = current.line.peek() else {
                return;
            };
            let server = connected.server.clone();
            if current.asked.is_some_and(recent) {
                return;
            }
            current.asked = Some(Instant::now());
            (current.generation, server)
        };
        if let Some(named) = self.servers.named().await
            && named != server
        {
            warn!(
                former = server,
                master = named,
                "the sentinels name another master"
            );
            self.replace(generation);
        }
    }

    /// The present connection, when it is there.
    async fn connection(&self) -> Result<(u64, impl ConnectionLike + use<>), RedisError> {
        let (generation, line) = {
            let current = self.locked();
            (current.generation, current.line.clone())
        };
        match line.await {
            Ok(connected) => Ok((generation, connected.connection)),
            // A call says at once that the server is away; the next one tries again.
            Err(error) => {
                self.replace(generation);
                Err(error)
            }
        }
    }

    /// Replaces the connection after a result that says that it is of no use: it broke, or died silently and
    /// answers nothing for many minutes, or is to a server that is no longer the master.
    fn noticed<T>(&self, generation: u64, result: Result<T, RedisError>) -> Result<T, RedisError> {
        if let Err(error) = &result
            && (error.is_io_error() || error.is_unrecoverable_error() || self.is_former(error))
        {
            self.replace(generation);
        }
        result
    }

    /// Whether an error is that of a server whose place another may have taken.
    fn is_former(&self, error: &RedisError) -> bool {
        match error.code() {
            Some("READONLY") => true,
            // Its replicas follow another, or it does; or they are gone and there is none.
            Some("NOREPLICAS" | "MASTERDOWN") => self.servers.are_watched(),
            Some(_) | None => false,
        }
    }

    fn replace(&self, generation: u64) {
        let mut current = self.locked();
        if current.generation == generation {
            current.line = line(&self.servers);
            current.generation += 1;
        }
    }

    fn locked(&self) -> MutexGuard<'_, Current> {
        // Nothing panics while it is held.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is made when somebody waits for it.
fn line(servers: &Arc<Servers>) -> Line {
    let servers = Arc::clone(servers);
    async move { servers.connect().await }.boxed().shared()
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}
