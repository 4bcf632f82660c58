//! The store in Redis, for production. One server; every decision on ownership is one script's, by the server's
//! own clock.

mod connection;
mod keys;
mod reply;
mod scripts;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use redis::{Cmd, RedisError, Script, Value};
use tracing::{info, warn};

pub use self::connection::RedisOptions;

use self::connection::Connection;
use self::keys::Part;
use self::reply::Meaning;
use self::scripts::{SCRIPTS, invocation};
use super::{
    Batch, Claim, Committed, Lease, LogBounds, LogEntry, LogId, LogRead, Position, Renewal,
    Retention, Store, StoreError, StoredSend, StoredSession, StoredSubscription, Trimmed,
};
use crate::types::{AccountId, Epoch, MemberId, PartitionId, ReplicaId, TenantId, UnixMillis};

/// A Redis server. Its `maxmemory-policy` must be `noeviction`: nothing of what is stored may be thrown away.
#[derive(Debug)]
pub struct RedisStore {
    connection: Connection,
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
        let store = Self { connection };
        match store.ping().await {
            Ok(()) => info!(address, "Redis answers"),
            Err(error) => warn!(address, %error, "Redis is away; trying again at each call"),
        }
        Ok(store)
    }

    async fn send(&self, command: &Cmd, place: &PartitionId) -> Result<Value, StoreError> {
        match self.connection.send(command).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.explain(error, place).await),
        }
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
        floor: Epoch,
    ) -> Result<Claim, StoreError> {
        let keys = [Part::Lease, Part::Epoch].map(|part| part.of(partition));
        let mut call = invocation(&SCRIPTS.claim, keys.each_ref().map(String::as_str));
        // The server counts epochs in 63 bits, and the new one is greater by one.
        let floor = floor.0.min(i64::MAX as u64 - 1);
        call.arg(owner.as_str()).arg(millis(ttl)).arg(floor);
        let answer = self.run(&SCRIPTS.claim, &call, partition).await?;
        claimed(answer, partition, owner)
            .ok_or_else(|| Part::Lease.corrupt(partition, "it cannot be read"))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewal, StoreError> {
        let keys = [Part::Lease, Part::Epoch].map(|part| part.of(&lease.partition));
        let mut call = invocation(&SCRIPTS.renew, keys.each_ref().map(String::as_str));
        call.arg(stored(lease)).arg(lease.epoch.0).arg(millis(ttl));
        let answer = self.run(&SCRIPTS.renew, &call, &lease.partition).await?;
        Ok(match reply::number(answer) {
            Some(1) => Renewal::Renewed,
            Some(3) => Renewal::Missing,
            _ => Renewal::Lost,
        })
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let key = Part::Lease.of(&lease.partition);
        let mut call = invocation(&SCRIPTS.release, [&key]);
        call.arg(stored(lease));
        self.run(&SCRIPTS.release, &call, &lease.partition).await?;
        Ok(())
    }

    async fn commit(&self, lease: &Lease, batch: &Batch) -> Result<Committed, StoreError> {
        let parts = [Part::Epoch, Part::Meta, Part::Log, Part::Sessions];
        let keys = parts.map(|part| part.of(&lease.partition));
        let mut call = invocation(&SCRIPTS.commit, keys.each_ref().map(String::as_str));
        call.arg(lease.epoch.0)
            .arg(batch.now.0)
            .arg(LogId::random().0)
            .arg(batch.records.len());
        for session in &batch.records {
            call.arg(session.account.as_str())
                .arg(session.record.as_slice());
        }
        for payload in &batch.events {
            call.arg(payload.as_slice());
        }
        let answer = self.run_fenced(&SCRIPTS.commit, &call, lease).await?;
        let mut numbers = answer.into_iter().map(reply::number);
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(log), Some(last_sequence)) => Ok(Committed {
                log: LogId(log),
                last_sequence,
            }),
            _ => Err(Part::Meta.corrupt(&lease.partition, "it does not hold numbers")),
        }
    }

    async fn session(
        &self,
        partition: &PartitionId,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("HGET");
        command
            .arg(Part::Sessions.of(partition))
            .arg(account.as_str());
        Ok(reply::bytes(self.send(&command, partition).await?))
    }

    async fn sessions(&self, partition: &PartitionId) -> Result<Vec<StoredSession>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(Part::Sessions.of(partition));
        let answer = self.send(&command, partition).await?;
        let session = |(account, record)| {
            Some(StoredSession {
                account: AccountId::new(reply::text(account)?),
                record: reply::bytes(record)?,
            })
        };
        let mut sessions: Vec<_> = reply::pairs(answer)
            .and_then(|pairs| pairs.into_iter().map(session).collect())
            .ok_or_else(|| Part::Sessions.corrupt(partition, "an account is not UTF-8"))?;
        sessions.sort_unstable_by(|a, b| a.account.cmp(&b.account));
        Ok(sessions)
    }

    async fn log_bounds(&self, partition: &PartitionId) -> Result<LogBounds, StoreError> {
        let mut command = redis::cmd("HMGET");
        command
            .arg(Part::Meta.of(partition))
            .arg(&["log", "last", "first"]);
        let answer = self.send(&command, partition).await?;
        bounds(answer).ok_or_else(|| Part::Meta.corrupt(partition, "it does not hold numbers"))
    }

    async fn read(
        &self,
        partition: &PartitionId,
        after: u64,
        limit: usize,
    ) -> Result<LogRead, StoreError> {
        let first = after.saturating_add(1);
        let mut command = redis::cmd("XRANGE");
        command
            .arg(Part::Log.of(partition))
            .arg(format!("{first}-0"))
            .arg("+")
            .arg("COUNT")
            .arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let answer = self.send(&command, partition).await?;
        let entries: Vec<LogEntry> = reply::list(answer)
            .and_then(|entries| entries.into_iter().map(reply::entry).collect())
            .ok_or_else(|| {
                Part::Log.corrupt(partition, "an entry has other fields than t and p")
            })?;
        let bounds = self.log_bounds(partition).await?;
        Ok(LogRead { entries, bounds })
    }

    async fn trim(&self, lease: &Lease, retention: &Retention) -> Result<Trimmed, StoreError> {
        let last = self.log_bounds(&lease.partition).await?.last_sequence;
        let first_kept = last.saturating_sub(retention.events).saturating_add(1);
        let keys = [Part::Epoch, Part::Meta, Part::Log].map(|part| part.of(&lease.partition));
        let mut call = invocation(&SCRIPTS.trim, keys.each_ref().map(String::as_str));
        call.arg(lease.epoch.0).arg(first_kept);
        self.run_fenced(&SCRIPTS.trim, &call, lease).await?;
        Ok(Trimmed {
            dropped: 0,
            more: false,
        })
    }

    async fn subscription(
        &self,
        partition: &PartitionId,
        name: &str,
    ) -> Result<Option<Position>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(Part::Subs.of(partition)).arg(name);
        let answer = self.send(&command, partition).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        position(answer)
            .map(Some)
            .ok_or_else(|| Part::Subs.corrupt(partition, "a position is not two numbers"))
    }

    async fn advance_subscription(
        &self,
        partition: &PartitionId,
        name: &str,
        position: &Position,
        _now: UnixMillis,
    ) -> Result<(), StoreError> {
        let keys = [Part::Subs, Part::Meta].map(|part| part.of(partition));
        let mut call = invocation(&SCRIPTS.advance, keys.each_ref().map(String::as_str));
        call.arg(name).arg(position.log.0).arg(position.sequence);
        self.run(&SCRIPTS.advance, &call, partition).await?;
        Ok(())
    }

    async fn sends(&self, _partition: &PartitionId) -> Result<Vec<StoredSend>, StoreError> {
        Ok(Vec::new())
    }

    async fn growth(&self) -> Result<BoxStream<'static, (PartitionId, Position)>, StoreError> {
        Ok(stream::pending().boxed())
    }

    async fn subscriptions(
        &self,
        _partition: &PartitionId,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }

    async fn remove_subscription(
        &self,
        _partition: &PartitionId,
        _name: &str,
        _unused_since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }

    async fn attend(
        &self,
        _tenant: &TenantId,
        _subscription: &str,
        _member: &MemberId,
        _ttl: Option<Duration>,
    ) -> Result<Vec<MemberId>, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }

    async fn members(
        &self,
        _tenant: &TenantId,
        _subscription: &str,
    ) -> Result<Vec<MemberId>, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }

    async fn claim_share(
        &self,
        _partition: &PartitionId,
        _subscription: &str,
        _member: &MemberId,
        _ttl: Duration,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }

    async fn release_share(
        &self,
        _partition: &PartitionId,
        _subscription: &str,
        _member: &MemberId,
    ) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.connection.send(&redis::cmd("PING")).await {
            Ok(_pong) => Ok(()),
            Err(error) => Err(StoreError::Unavailable(format!(
                "Redis at {}: {error}",
                self.connection.address()
            ))),
        }
    }
}

/// A lease as its key holds it.
fn stored(lease: &Lease) -> String {
    format!("{} {}", lease.epoch, lease.owner)
}

/// Whole milliseconds, at least one: the server knows no shorter time to live.
fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis())
        .unwrap_or(i64::MAX / 2)
        .clamp(1, i64::MAX / 2)
}

fn claimed(answer: Value, partition: &PartitionId, owner: &ReplicaId) -> Option<Claim> {
    let mut values = reply::list(answer)?.into_iter();
    if values.next()? == Value::Int(1) {
        return Some(Claim::Granted(Lease {
            partition: partition.clone(),
            owner: owner.clone(),
            epoch: Epoch(reply::number(values.next()?)?),
        }));
    }
    Some(Claim::Held {
        owner: ReplicaId::new(reply::text(values.next()?)?),
        remaining: Duration::from_millis(reply::number(values.next()?)?),
    })
}

fn bounds(answer: Value) -> Option<LogBounds> {
    let or = |value, default| {
        if value == Value::Nil {
            Some(default)
        } else {
            reply::number(value)
        }
    };
    let [log, last, first] = <[Value; 3]>::try_from(reply::list(answer)?).ok()?;
    Some(LogBounds {
        log: LogId(or(log, 0)?),
        first_sequence: or(first, 1)?,
        last_sequence: or(last, 0)?,
    })
}

fn position(answer: Value) -> Option<Position> {
    let text = reply::text(answer)?;
    let (log, sequence) = text.split_once(' ')?;
    Some(Position {
        log: LogId(log.parse().ok()?),
        sequence: sequence.parse().ok()?,
    })
}
