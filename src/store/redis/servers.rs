//! Which server to talk to: the one that was configured, or the master that the sentinels name at present.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError,
    Role,
};
use tracing::info;

use super::RedisOptions;
use crate::store::redis_url::{RedisUrl, Sentinels};

/// Where Redis is. Every connection, of whatever kind, is made to what [`Servers::client`] gives at that moment:
/// the sentinels may name another master by the next.
pub(super) struct Servers {
    url: RedisUrl,
    /// Where the server or who its sentinels are, without credentials.
    address: String,
    /// How long one sentinel may take.
    patience: Duration,
    config: AsyncConnectionConfig,
    /// The master of the last connection, to say when it is another.
    master: Mutex<String>,
}

/// A connection, and the server that it is to.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: String,
}

/// What one sentinel says.
struct Named {
    master: ConnectionInfo,
    /// Grows with each failover: of two sentinels that differ, the greater one's knows better.
    config_epoch: u64,
}

impl Servers {
    /// The error is the remedy, without credentials.
    pub(super) fn new(options: &RedisOptions) -> Result<Self, &'static str> {
        let url = RedisUrl::parse(options.url.expose())?;
        let address = match &url {
            RedisUrl::Server(server) => {
                // What this build cannot do, such as TLS, it says here.
                Client::open(server.clone()).map_err(|_| "names what this client cannot reach")?;
                server.addr().to_string()
            }
            RedisUrl::Sentinels(Sentinels {
                sentinels, master, ..
            }) => {
                let asked: Vec<_> = sentinels.iter().map(|one| one.addr().to_string()).collect();
                format!("{master} by the sentinels {}", asked.join(", "))
            }
        };
        Ok(Self {
            url,
            address,
            patience: options.connect_timeout,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.connect_timeout))
                .set_response_timeout(Some(options.response_timeout)),
            master: Mutex::default(),
        })
    }

    /// Where the server or who its sentinels are, without credentials.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A client of the server that takes the writes at present. With sentinels they are asked each time; whether
    /// the one they name knows of it is for its connection to find out, see [`Servers::connect`].
    pub(super) async fn client(&self) -> Result<Client, RedisError> {
        match &self.url {
            RedisUrl::Server(server) => Client::open(server.clone()),
            RedisUrl::Sentinels(sentinels) => Client::open(self.ask_all(sentinels).await?),
        }
    }

    /// The address of the master that the sentinels name at present, as in [`Connected::server`]. `None` without
    /// sentinels, and when none of them answers.
    pub(super) async fn named(&self) -> Option<String> {
        match &self.url {
            RedisUrl::Server(_) => None,
            RedisUrl::Sentinels(sentinels) => {
                let master = self.ask_all(sentinels).await.ok()?;
                Some(master.addr().to_string())
            }
        }
    }

    /// Whether another server may take this one's place.
    pub(super) fn are_watched(&self) -> bool {
        match self.url {
            RedisUrl::Server(_) => false,
            RedisUrl::Sentinels(_) => true,
        }
    }

    /// Makes a connection to the server that takes the writes at present.
    pub(super) async fn connect(&self) -> Result<Connected, RedisError> {
        let client = self.client().await?;
        let server = client.get_connection_info().addr().to_string();
        let explain = |error| self.explain_master(&server, error);
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await
            .map_err(explain)?;
        if self.are_watched() {
            let role: Role = redis::cmd("ROLE")
                .query_async(&mut connection)
                .await
                .map_err(explain)?;
            if !matches!(role, Role::Primary { .. }) {
                return Err(no_master(format!("{server} says that it is none")));
            }
            let mut last = self.master.lock().unwrap_or_else(PoisonError::into_inner);
            if *last != server {
                info!(master = server, before = *last, "Redis has a master");
                last.clone_from(&server);
            }
        }
        Ok(Connected { connection, server })
    }

    /// With sentinels the error says which server it is about, for the address that the operator knows does not.
    fn explain_master(&self, server: &str, error: RedisError) -> RedisError {
        if self.are_watched() {
            no_master(format!("{server}: {error}"))
        } else {
            error
        }
    }

    /// Asks all sentinels at once; half of them are enough. A silent one then holds nobody up, and one that has not
    /// heard of the last failover does not decide.
    async fn ask_all(&self, sentinels: &Sentinels) -> Result<ConnectionInfo, RedisError> {
        let enough = sentinels.sentinels.len().div_ceil(2);
        let mut asked: FuturesUnordered<_> = sentinels
            .sentinels
            .iter()
            .map(|sentinel| self.ask(sentinel, sentinels))
            .collect();
        let (mut answers, mut newest, mut failures) = (0, None::<Named>, Vec::new());
        while answers < enough
            && let Some(answer) = asked.next().await
        {
            match answer {
                Ok(named) => {
                    answers += 1;
                    if newest
                        .as_ref()
                        .is_none_or(|best| named.config_epoch > best.config_epoch)
                    {
                        newest = Some(named);
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        newest
            .map(|named| named.master)
            .ok_or_else(|| no_master(failures.join("; ")))
    }

    /// Asks one sentinel. The error says which.
    async fn ask(&self, sentinel: &ConnectionInfo, about: &Sentinels) -> Result<Named, String> {
        let asked = async {
            match self.ask_as(sentinel.clone(), about).await {
                // The credentials are the master's in the first place; most sentinels want none, and refuse any.
                Err(error) if error.code() == Some("NOAUTH") => {
                    let credentials = about.settings.clone().set_db(0);
                    let sentinel = sentinel.clone().set_redis_settings(credentials);
                    self.ask_as(sentinel, about).await
                }
                answer => answer,
            }
        };
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(named)) => Ok(named),
            Ok(Err(error)) => Err(format!("{}: {error}", sentinel.addr())),
            Err(_) => Err(format!("{}: timed out", sentinel.addr())),
        }
    }

    async fn ask_as(
        &self,
        sentinel: ConnectionInfo,
        about: &Sentinels,
    ) -> Result<Named, RedisError> {
        let client = Client::open(sentinel)?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await?;
        let question = |about_it: &str| {
            let mut question = redis::cmd("SENTINEL");
            question.arg(about_it).arg(&about.master);
            question
        };
        // This knows of a failover that is not complete yet, and the other gives its number.
        let address: Option<(String, u16)> = question("GET-MASTER-ADDR-BY-NAME")
            .query_async(&mut connection)
            .await?;
        let address = address.ok_or((ErrorKind::Io, "it knows no such master"))?;
        let state: HashMap<String, String> =
            question("MASTER").query_async(&mut connection).await?;
        Ok(Named {
            master: address
                .into_connection_info()?
                .set_redis_settings(about.settings.clone()),
            config_epoch: state
                .get("config-epoch")
                .and_then(|epoch| epoch.parse().ok())
                .unwrap_or_default(),
        })
    }
}

/// Every failure to find the master is one of the way to it, whatever code a server gave it.
fn no_master(detail: String) -> RedisError {
    RedisError::from((ErrorKind::Io, "no master", detail))
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
