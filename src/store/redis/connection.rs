//! The connection to one server: commands with time-outs, and a new connection after a failure.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, Script, ServerErrorKind, Value};

use crate::store::StoreError;
use crate::types::Secret;

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, or `redis+unix:///path`.
    pub url: Secret<String>,
    /// How long making a connection may take, with its greeting. Default 1 s.
    pub connect_timeout: Duration,
    /// How long an answer may take. Default 2 s; shorter than half of a lease.
    pub response_timeout: Duration,
}

impl RedisOptions {
    /// The defaults for a server.
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
    client: Client,
    config: ConnectionManagerConfig,
    /// Where the server is, without credentials.
    address: String,
    current: Mutex<Current>,
}

struct Current {
    /// Counts the replacements, so that of many who saw one failure only the first replaces.
    generation: u64,
    manager: ConnectionManager,
}

impl Connection {
    /// Prepares the connection; fails only on options that cannot work. Must be called within a runtime.
    pub(super) fn new(options: &RedisOptions) -> Result<Self, StoreError> {
        // The error's own text may quote the URL, and the URL may hold a password.
        let refused = |error: RedisError| {
            StoreError::Unavailable(format!(
                "the Redis URL cannot be used ({}); give redis://[user:password@]host[:port][/database]",
                error.category()
            ))
        };
        let client = Client::open(options.url.expose().as_str()).map_err(refused)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout))
            // A call says at once that the server is away; the next one tries again.
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())
            .map_err(refused)?;
        Ok(Self {
            address: client.get_connection_info().addr().to_string(),
            client,
            config,
            current: Mutex::new(Current {
                generation: 0,
                manager,
            }),
        })
    }

    /// Where the server is, without credentials.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let (generation, mut manager) = self.current();
        let result = command.query_async(&mut manager).await;
        self.noticed(generation, result)
    }

    /// Runs a script by `invocation`; hands the server the script's text when it does not know it yet.
    pub(super) async fn run(&self, script: &Script, invocation: &Cmd) -> Result<Value, RedisError> {
        let (generation, mut manager) = self.current();
        let mut result = invocation.query_async(&mut manager).await;
        if let Err(error) = &result
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            result = match script.load_async(&mut manager).await {
                Ok(_hash) => invocation.query_async(&mut manager).await,
                Err(error) => Err(error),
            };
        }
        self.noticed(generation, result)
    }

    /// Sends several commands at once.
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let (generation, mut manager) = self.current();
        let result = commands.query_async(&mut manager).await;
        self.noticed(generation, result)
    }

    /// A client of the server, for a connection of another kind.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    fn current(&self) -> (u64, ConnectionManager) {
        let current = self.locked();
        (current.generation, current.manager.clone())
    }

    /// Replaces the connection after a result that says it is of no use. The manager does so too, but neither
    /// after a time-out (a connection that died silently answers nothing for many minutes) nor when it talks to
    /// a server that is no longer the primary, and it answers the next call with its last failure.
    fn noticed<T>(&self, generation: u64, result: Result<T, RedisError>) -> Result<T, RedisError> {
        let Err(error) = &result else {
            return result;
        };
        if error.is_io_error()
            || error.is_unrecoverable_error()
            || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        {
            let mut current = self.locked();
            if current.generation == generation
                && let Ok(manager) = ConnectionManager::new_lazy_with_config(
                    self.client.clone(),
                    self.config.clone(),
                )
            {
                current.manager = manager;
                current.generation += 1;
            }
        }
        result
    }

    fn locked(&self) -> MutexGuard<'_, Current> {
        // Nothing panics while it is held.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
