//! What commits tell of the logs' growth, on a connection that does nothing but listen.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, PushKind, RedisError, Value,
};
use tokio::sync::Notify;
use tracing::warn;

use super::{RedisOptions, keys, reply};
use crate::store::{LogId, Position};
use crate::types::{PartitionId, TenantId};

/// What was heard and not passed on yet. Of a log that grew several times only the last is kept, so it is bounded by
/// the number of partitions however slowly it is passed on.
#[derive(Default)]
struct Heard {
    grown: Mutex<Grown>,
    news: Notify,
}

#[derive(Default)]
struct Grown {
    ends: HashMap<PartitionId, Position>,
    /// The connection has ended.
    over: bool,
}

struct Listener {
    heard: Arc<Heard>,
    /// Closed when it is dropped.
    connection: MultiplexedConnection,
    /// After so long a silence the server is asked whether it is still there: a connection can end without a word.
    patience: Duration,
    next: Vec<(PartitionId, Position)>,
}

/// [`crate::store::Store::growth`].
pub(super) async fn listen(
    client: &Client,
    options: &RedisOptions,
) -> Result<BoxStream<'static, (PartitionId, Position)>, RedisError> {
    let heard = Arc::new(Heard::default());
    let ear = Arc::clone(&heard);
    let on_push = move |push| {
        ear.hear(push);
        Ok::<_, Infallible>(())
    };
    let mut connection = connect(client, options, on_push).await?;
    connection.subscribe(keys::GROWN).await?;
    let listener = Listener {
        heard,
        connection,
        patience: options.response_timeout,
        next: Vec::new(),
    };
    let told = stream::unfold(listener, |mut listener| async move {
        let next = listener.next().await?;
        Some((next, listener))
    });
    Ok(told.boxed())
}

async fn connect(
    client: &Client,
    options: &RedisOptions,
    on_push: impl AsyncPushSender,
) -> Result<MultiplexedConnection, RedisError> {
    let server = client.get_connection_info().clone();
    // In the older protocol the client would queue what is said unasked, without bound.
    let settings = server.redis_settings().clone();
    let server = server.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.response_timeout))
        .set_push_sender(on_push);
    Client::open(server)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

impl Listener {
    async fn next(&mut self) -> Option<(PartitionId, Position)> {
        loop {
            if let Some(next) = self.next.pop() {
                return Some(next);
            }
            let over = {
                let mut grown = self.heard.locked();
                self.next.extend(grown.ends.drain());
                grown.over
            };
            if !self.next.is_empty() {
                continue;
            }
            if over {
                return None;
            }
            let silence = tokio::time::timeout(self.patience, self.heard.news.notified());
            if silence.await.is_err() {
                let pong: Result<Value, _> =
                    redis::cmd("PING").query_async(&mut self.connection).await;
                pong.ok()?;
            }
        }
    }
}

impl Heard {
    fn hear(&self, push: PushInfo) {
        if push.kind == PushKind::Message {
            let Some((partition, end)) = message(push.data) else {
                warn!(channel = keys::GROWN, "a message cannot be read");
                return;
            };
            self.locked().ends.insert(partition, end);
        } else if push.kind == PushKind::Disconnection {
            self.locked().over = true;
        } else {
            return;
        }
        self.news.notify_one();
    }

    fn locked(&self) -> MutexGuard<'_, Grown> {
        // Nothing panics while it is held.
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a message says, of its channel and its text.
fn message(data: Vec<Value>) -> Option<(PartitionId, Position)> {
    let [_channel, text] = <[Value; 2]>::try_from(data).ok()?;
    let text = reply::text(text)?;
    let mut words = text.splitn(4, ' ');
    let position = Position {
        log: LogId(words.next()?.parse().ok()?),
        sequence: words.next()?.parse().ok()?,
    };
    let number = words.next()?.parse().ok()?;
    let tenant = TenantId::new(words.next()?);
    Some((PartitionId { tenant, number }, position))
}
