//! The store in Redis, for production. One server at a time, given or found through sentinels; every decision on
//! ownership is one script's, by the server's own clock.

mod connection;
mod fleet;
mod growth;
mod keys;
mod leases;
mod log;
mod reply;
mod scripts;
mod servers;
mod subscriptions;
mod tenants;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use redis::{Cmd, RedisError, Script, Value};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{info, warn};

pub use self::connection::RedisOptions;

use self::connection::Connection;
use self::keys::Part;
use self::reply::Meaning;
use super::{
    Batch, BatchId, Claim, Committed, Lease, LogBounds, LogRead, Position, Renewal, Retention,
    Store, StoreError, StoredSend, StoredSession, StoredSubscription, TenantLayout, Trimmed, Turns,
};
use crate::types::{
    AccountId, AppId, Day, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis,
};

/// How many bytes of batches are on their way to the server at a time at the most. All calls share a connection: leases,
/// turns and pings wait behind what was sent before them, and no answer may take longer than
/// [`RedisOptions::response_timeout`]. Policy when full: a batch waits for those before it, and is not timed meanwhile.
const COMMITTING: u32 = 4 << 20;

/// A Redis server. Its `maxmemory-policy` must be `noeviction`: nothing of what is stored may be thrown away.
#[derive(Debug)]
pub struct RedisStore {
    connection: Connection,
    options: RedisOptions,
    /// One for each byte of a batch that may be sent.
    committing: Semaphore,
    /// Changes when a batch was not answered.
    unanswered: watch::Sender<()>,
}

impl RedisStore {
    /// Prepares the connection and tries it once. A server that is away is not an error: until it is there,
    /// calls answer [`StoreError::Unavailable`], and each tries anew to reach it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the options can never work.
    pub async fn connect(options: &RedisOptions) -> Result<Self, StoreError> {
        let connection = Connection::new(options)?;
        let address = connection.address().to_owned();
        let store = Self {
            connection,
            options: options.clone(),
            committing: Semaphore::new(COMMITTING as usize),
            unanswered: watch::Sender::new(()),
        };
        match store.ping().await {
            Ok(()) => info!(address, "Redis answers"),
            Err(error) => warn!(address, %error, "Redis is away; trying again at each call"),
        }
        Ok(store)
    }

    /// Room for a batch. One of more bytes than there is room for goes alone. Fails with those that are on their way when
    /// the server does not answer them, or the last in line would hear of that last.
    async fn room(&self, batch: &Batch) -> Result<SemaphorePermit<'_>, StoreError> {
        let bytes = u32::try_from(batch.bytes()).unwrap_or(COMMITTING);
        let bytes = bytes.min(COMMITTING);
        if let Ok(room) = self.committing.try_acquire_many(bytes) {
            return Ok(room);
        }
        let mut unanswered = self.unanswered.subscribe();
        tokio::select! {
            biased;
            _ = unanswered.changed() => Err(StoreError::Unavailable(format!(
                "Redis at {} does not answer those before",
                self.connection.address()
            ))),
            // The semaphore is never closed.
            Ok(room) = self.committing.acquire_many(bytes) => Ok(room),
        }
    }

    async fn send(&self, command: &Cmd, place: &PartitionId) -> Result<Value, StoreError> {
        match self.connection.send(command).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.explain(error, place).await),
        }
    }

    /// A whole hash.
    async fn pairs(
        &self,
        part: Part,
        place: &PartitionId,
    ) -> Result<Vec<(Value, Value)>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(part.of(place));
        reply::pairs(self.send(&command, place).await?)
            .ok_or_else(|| part.corrupt(place, "it cannot be read"))
    }

    async fn run(
        &self,
        script: &Script,
        invocation: &Cmd,
        place: &PartitionId,
    ) -> Result<Value, StoreError> {
        match self.connection.run(script, invocation).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.explain(error, place).await),
        }
    }

    /// Runs a script on one key that is no partition's.
    async fn run_on(
        &self,
        script: &Script,
        invocation: &Cmd,
        key: &str,
    ) -> Result<Value, StoreError> {
        let answer = self.connection.run(script, invocation).await;
        answer.map_err(|error| {
            let text = format!("Redis at {}: {error}", self.connection.address());
            match Meaning::of(&error) {
                Meaning::Full => StoreError::Full(text),
                Meaning::Away => StoreError::Unavailable(text),
                Meaning::Unreadable(_) | Meaning::Unexpected | Meaning::WrongType => {
                    keys::unreadable(key, error.to_string())
                }
            }
        })
    }

    /// Runs a script that may be fenced; gives what it answers besides.
    async fn run_fenced(
        &self,
        script: &Script,
        invocation: &Cmd,
        lease: &Lease,
    ) -> Result<Vec<Value>, StoreError> {
        let answer = self.run(script, invocation, &lease.partition).await?;
        let unreadable = || Part::Epoch.corrupt(&lease.partition, "it is not a number");
        let mut values = reply::list(answer).ok_or_else(unreadable)?.into_iter();
        if values.next() == Some(Value::Int(1)) {
            return Ok(values.collect());
        }
        let current = match values.next() {
            None | Some(Value::Nil) => None,
            Some(epoch) => Some(Epoch(reply::number(epoch).ok_or_else(unreadable)?)),
        };
        Err(StoreError::fenced(lease, current))
    }

    /// The error for a server that does not answer.
    fn away(&self, error: &RedisError) -> StoreError {
        StoreError::Unavailable(format!("Redis at {}: {error}", self.connection.address()))
    }

    async fn explain(&self, error: RedisError, place: &PartitionId) -> StoreError {
        let text = format!("Redis at {}: {error}", self.connection.address());
        match Meaning::of(&error) {
            Meaning::Full => StoreError::Full(text),
            Meaning::Away => StoreError::Unavailable(text),
            Meaning::Unreadable(part) => part.corrupt(place, "it is not of the form it should be"),
            Meaning::Unexpected => Part::Meta.corrupt(place, error.to_string()),
            Meaning::WrongType => self.wrong_type(text, place).await,
        }
    }

    /// Finds the key whose value is of another type than it should be.
    async fn wrong_type(&self, text: String, place: &PartitionId) -> StoreError {
        let mut types = redis::pipe();
        for part in Part::ALL {
            types.cmd("TYPE").arg(part.of(place));
        }
        let types = self.connection.send_all(&types).await.unwrap_or_default();
        for (part, found) in Part::ALL.into_iter().zip(types) {
            if let Value::SimpleString(found) = found
                && found != part.type_name()
                && found != "none"
            {
                let detail = format!("it is a {found} and should be a {}", part.type_name());
                return part.corrupt(place, detail);
            }
        }
        StoreError::Unavailable(text)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn claim(
        &self,
        partition: &PartitionId,
        owner: &ReplicaId,
        ttl: Duration,
        floor: Option<Epoch>,
    ) -> Result<Claim, StoreError> {
        leases::claim(self, partition, owner, ttl, floor).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError> {
        leases::renew(self, lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        leases::release(self, lease).await
    }

    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError> {
        let _room = self.room(batch).await?;
        let committed = log::commit(self, lease, batch).await;
        if let Err(StoreError::Unavailable(_)) = committed {
            self.unanswered.send_replace(());
        }
        committed
    }

    async fn last_batch(&self, partition: &PartitionId) -> Result<BatchId, StoreError> {
        log::last_batch(self, partition).await
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        log::session(self, partition, account).await
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        log::sessions(self, partition).await
    }

    async fn sends(&self, partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError> {
        log::sends(self, partition).await
    }

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        log::bounds(self, partition).await
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<LogRead, StoreError> {
        log::read(self, partition, after, limit).await
    }

    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError> {
        log::trim(self, lease, retention).await
    }

    async fn growth(&self) -> Result<BoxStream<'static, (PartitionId, Position)>, StoreError> {
        let client = self.connection.client().await;
        let client = client.map_err(|error| self.away(&error))?;
        growth::listen(&client, &self.options)
            .await
            .map_err(|error| self.away(&error))
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        subscriptions::position(self, partition, name).await
    }

    async fn subscriptions(
        &self,
        partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        subscriptions::all(self, partition).await
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        now: UnixMillis,
        only_if_there: bool,
    ) -> Result<bool, StoreError> {
        subscriptions::advance(self, partition, name, position, now, only_if_there).await
    }

    async fn remove_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        subscriptions::remove(self, partition, name, unused_since).await
    }

    async fn attend(
        &self,
        tenant: &TenantId,
        subscription: &str,
        member: &MemberId,
        ttl: Option<Duration>,
    ) -> Result<Vec<MemberId>, StoreError> {
        subscriptions::attend(self, tenant, subscription, member, ttl).await
    }

    async fn members(
        &self,
        tenant: &TenantId,
        subscription: &str,
    ) -> Result<Vec<MemberId>, StoreError> {
        subscriptions::members(self, tenant, subscription).await
    }

    async fn claim_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        subscriptions::claim_share(self, partition, subscription, member, ttl).await
    }

    async fn release_share(
        &self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
    ) -> Result<(), StoreError> {
        subscriptions::release_share(self, partition, subscription, member).await
    }

    async fn take_turns(
        &self,
        app: &AppId,
        per_second: u32,
        most: u32,
    ) -> Result<Turns, StoreError> {
        fleet::take_turns(self, app, per_second, most).await
    }

    async fn note_active(
        &self,
        tenant: &TenantId,
        day: Day,
        accounts: &[AccountId],
    ) -> Result<u64, StoreError> {
        fleet::note_active(self, tenant, day, accounts).await
    }

    async fn enrol(
        &self,
        tenant: &TenantId,
        layout: TenantLayout,
    ) -> Result<TenantLayout, StoreError> {
        tenants::enrol(self, tenant, layout).await
    }

    async fn enrolled(&self) -> Result<Vec<(TenantId, TenantLayout)>, StoreError> {
        tenants::enrolled(self).await
    }

    async fn strike(&self, tenant: &TenantId) -> Result<(), StoreError> {
        tenants::strike(self, tenant).await
    }

    async fn purge(&self, lease: &Lease) -> Result<(), StoreError> {
        tenants::purge(self, lease).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.connection.ping().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.away(&error)),
        }
    }
}

/// Whole milliseconds, at least one: the server knows no shorter time to live.
fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis())
        .unwrap_or(i64::MAX / 2)
        .clamp(1, i64::MAX / 2)
}
