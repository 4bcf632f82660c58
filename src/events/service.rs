//! The way in for the API: subscribe and acknowledge.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::cursor::Cursor;
use super::hub::Hub;
use super::place::Filter;
use super::source::Source;
use super::subscription::{Reader, Subscription};
use crate::error::{Classified, ErrorKind};
use crate::proto::v1;
use crate::runtime::supervisor::Tasks;
use crate::store::seal::Sealer;
use crate::store::{LogBounds, Position, Store, StoreError};
use crate::tenants::token::{TokenError, Tokens};
use crate::types::{AccountId, PartitionId, SessionKey, TenantId, WallClock};

/// The events of all tenants, for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    tokens: Tokens,
    hub: Hub,
    tasks: Tasks,
}

/// What a subscriber asks for, checked.
#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    /// Where to begin.
    pub start: Start,
    /// Only events of these accounts; all when empty.
    pub accounts: HashSet<AccountId>,
    /// Only events of these kinds; all when empty. Gaps always come.
    pub kinds: Vec<v1::EventKind>,
    /// The most events in one batch; at least 1.
    pub max_batch: usize,
    /// How long the subscription may be silent.
    pub heartbeat: Duration,
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    Latest,
    /// With all that is retained.
    Earliest,
    /// After this cursor, as the caller gave it.
    Cursor(String),
    /// Where the subscription of this name stands; it is made, at latest, if there is none.
    Named(String),
}

/// Why a subscription did not begin or has ended, or an acknowledgement was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The cursor cannot be read.
    #[error("the cursor {0}")]
    Cursor(#[from] TokenError),
    /// The cursor is not of this tenant's partitions.
    #[error("the cursor was made for another number of partitions; subscribe without it")]
    CursorPartitions,
    /// There is no such named subscription.
    #[error("there is no subscription of this name; Subscribe with it first")]
    UnknownSubscription,
    /// The store does not serve.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This replica is stopping.
    #[error("this replica is stopping; subscribe again with the last cursor")]
    Draining,
}

impl EventsError {
    /// The reason in ErrorInfo, part of the API.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Cursor(_) | Self::CursorPartitions => "INVALID_CURSOR",
            Self::UnknownSubscription => "UNKNOWN_SUBSCRIPTION",
            Self::Store(_) => "STORE_UNAVAILABLE",
            Self::Draining => "DRAINING",
        }
    }
}

impl Classified for EventsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Cursor(_) | Self::CursorPartitions => ErrorKind::InvalidInput,
            Self::UnknownSubscription => ErrorKind::NotFound,
            Self::Store(error) => error.kind(),
            Self::Draining => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Cursor(_) | Self::CursorPartitions | Self::UnknownSubscription => None,
            Self::Store(error) => error.retry_after(),
            Self::Draining => Some(Duration::from_secs(1)),
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Store(error) => error.public_text(),
            Self::Cursor(_)
            | Self::CursorPartitions
            | Self::UnknownSubscription
            | Self::Draining => self.to_string(),
        }
    }
}

impl Events {
    /// Reads from `store`, opens with `sealer` what is sealed there, makes cursors with `tokens`, is woken by `hub`,
    /// and ends every subscription when `tasks` are told to stop.
    pub fn new(
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        tokens: Tokens,
        hub: Hub,
        tasks: Tasks,
    ) -> Self {
        Self {
            store,
            sealer,
            tokens,
            hub,
            tasks,
        }
    }

    /// Begins a subscription of a tenant that has `partitions` partitions.
    pub async fn subscribe(
        &self,
        tenant: &TenantId,
        partitions: u16,
        options: SubscribeOptions,
    ) -> Result<Subscription, EventsError> {
        let start = match &options.start {
            Start::Latest => Cursor::at(self.latest(tenant, partitions).await?),
            Start::Earliest => Cursor::at(self.earliest(tenant, partitions).await?),
            Start::Cursor(text) => self.checked(tenant, partitions, text)?,
            Start::Named(name) => Cursor::at(self.named(tenant, partitions, name).await?),
        };
        let followed = followed(tenant, partitions, &options.accounts);
        let accounts = options.accounts.iter();
        Ok(Subscription::new(Reader {
            source: Source {
                store: Arc::clone(&self.store),
                sealer: Arc::clone(&self.sealer),
            },
            hub: self.hub.clone(),
            tokens: self.tokens.clone(),
            tenant: tenant.clone(),
            tasks: self.tasks.clone(),
            start,
            followed,
            filter: Filter {
                accounts: accounts.map(|account| account.as_str().into()).collect(),
                kinds: options.kinds,
            },
            max_batch: options.max_batch.max(1),
            heartbeat: options.heartbeat,
        }))
    }

    /// Moves a named subscription forward to a cursor.
    pub async fn acknowledge(
        &self,
        tenant: &TenantId,
        partitions: u16,
        name: &str,
        cursor: &str,
    ) -> Result<(), EventsError> {
        let positions = self.checked(tenant, partitions, cursor)?.positions();
        let stored = self.stored(tenant, partitions, name).await?;
        if stored.iter().all(Option::is_none) {
            return Err(EventsError::UnknownSubscription);
        }
        let moves = positions.iter().map(|(&number, position)| async move {
            let partition = partition(tenant, number);
            self.store
                .advance_subscription(&partition, name, position, WallClock.now())
                .await
        });
        try_join_all(moves).await?;
        Ok(())
    }

    async fn bounds(
        &self,
        tenant: &TenantId,
        partitions: u16,
    ) -> Result<Vec<LogBounds>, StoreError> {
        let all = (0..partitions).map(|number| async move {
            let partition = partition(tenant, number);
            self.store.log_bounds(&partition).await
        });
        try_join_all(all).await
    }

    async fn latest(
        &self,
        tenant: &TenantId,
        partitions: u16,
    ) -> Result<BTreeMap<u16, Position>, StoreError> {
        let bounds = self.bounds(tenant, partitions).await?;
        Ok((0..).zip(bounds.into_iter().map(end)).collect())
    }

    async fn earliest(
        &self,
        tenant: &TenantId,
        partitions: u16,
    ) -> Result<BTreeMap<u16, Position>, StoreError> {
        let begin = |bounds: LogBounds| Position {
            log: bounds.log,
            sequence: bounds.first_sequence.saturating_sub(1),
        };
        let bounds = self.bounds(tenant, partitions).await?;
        Ok((0..).zip(bounds.into_iter().map(begin)).collect())
    }

    /// A cursor that the tenant brings.
    fn checked(
        &self,
        tenant: &TenantId,
        partitions: u16,
        text: &str,
    ) -> Result<Cursor, EventsError> {
        let cursor = Cursor::decode(&self.tokens, tenant, text)?;
        if !cursor.marks.keys().copied().eq(0..partitions) {
            return Err(EventsError::CursorPartitions);
        }
        Ok(cursor)
    }

    async fn stored(
        &self,
        tenant: &TenantId,
        partitions: u16,
        name: &str,
    ) -> Result<Vec<Option<Position>>, StoreError> {
        let all = (0..partitions).map(|number| async move {
            let partition = partition(tenant, number);
            self.store.subscription(&partition, name).await
        });
        try_join_all(all).await
    }

    /// Where a named subscription stands; where it does not stand yet it is put at the end.
    async fn named(
        &self,
        tenant: &TenantId,
        partitions: u16,
        name: &str,
    ) -> Result<BTreeMap<u16, Position>, EventsError> {
        let stored = self.stored(tenant, partitions, name).await?;
        if let Some(all) = stored.iter().copied().collect::<Option<Vec<Position>>>() {
            return Ok((0..).zip(all).collect());
        }
        let ends = self.latest(tenant, partitions).await?;
        let mut positions = BTreeMap::new();
        for ((number, end), stored) in ends.into_iter().zip(stored) {
            if stored.is_none() {
                let partition = partition(tenant, number);
                self.store
                    .advance_subscription(&partition, name, &end, WallClock.now())
                    .await?;
            }
            positions.insert(number, stored.unwrap_or(end));
        }
        Ok(positions)
    }
}

fn end(bounds: LogBounds) -> Position {
    Position {
        log: bounds.log,
        sequence: bounds.last_sequence,
    }
}

fn partition(tenant: &TenantId, number: u16) -> PartitionId {
    PartitionId {
        tenant: tenant.clone(),
        number,
    }
}

/// The partitions in which the accounts live; all for no accounts.
fn followed(tenant: &TenantId, partitions: u16, accounts: &HashSet<AccountId>) -> HashSet<u16> {
    if accounts.is_empty() {
        return (0..partitions).collect();
    }
    let numbers = accounts.iter().map(|account| {
        let key = SessionKey {
            tenant: tenant.clone(),
            account: account.clone(),
        };
        key.partition(partitions).number
    });
    numbers.collect()
}
