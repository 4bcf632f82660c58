//! The way in for the API: subscribe, acknowledge, and the named subscriptions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::cursor::Cursor;
use super::encoded::account_print;
use super::hub::Hub;
use super::named::{self, Named};
use super::place::Filter;
use super::share::Share;
use super::source::Source;
use super::subscription::{Homes, Reader, Subscription};
use crate::error::{Classified, ErrorKind};
use crate::proto::v1;
use crate::runtime::supervisor::Tasks;
use crate::store::seal::Sealer;
use crate::store::{LogBounds, LogRead, Position, Store, StoreError};
use crate::tenants::quotas::Exceeded;
use crate::tenants::token::{TokenError, Tokens};
use crate::types::{AccountId, PartitionId, SessionKey, TenantId};

pub use super::named::SubscriptionStatus;

/// The events of all tenants, for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    tokens: Tokens,
    hub: Hub,
    tasks: Tasks,
}

/// The logs of a tenant, and what it may do with them.
#[derive(Clone, Debug)]
pub struct TenantLogs {
    /// Whose.
    pub tenant: TenantId,
    /// How many there are: one for each of the tenant's partitions.
    pub partitions: u16,
    /// How many named subscriptions the tenant may have.
    pub max_subscriptions: usize,
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
    /// The same, and the partitions are split among all who share it.
    Shared(String),
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
    /// The tenant is at a limit.
    #[error(transparent)]
    Quota(#[from] Exceeded),
    /// The store does not serve.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This replica is stopping.
    #[error("this replica is stopping; subscribe again with the last cursor")]
    Draining,
}

impl EventsError {
    /// The reason in ErrorInfo, part of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Cursor(_) | Self::CursorPartitions => "INVALID_CURSOR",
            Self::UnknownSubscription => "UNKNOWN_SUBSCRIPTION",
            Self::Quota(exceeded) => exceeded.quota.reason(),
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
            Self::Quota(exceeded) => exceeded.kind(),
            Self::Store(error) => error.kind(),
            Self::Draining => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Cursor(_) | Self::CursorPartitions | Self::UnknownSubscription => None,
            Self::Quota(exceeded) => exceeded.retry_after(),
            Self::Store(error) => error.retry_after(),
            Self::Draining => Some(Duration::from_secs(1)),
        }
    }

    fn public_text(&self) -> String {
        match self {
            Self::Store(error) => error.public_text(),
            Self::Quota(exceeded) => exceeded.public_text(),
            Self::Cursor(_)
            | Self::CursorPartitions
            | Self::UnknownSubscription
            | Self::Draining => self.to_string(),
        }
    }
}

impl TenantLogs {
    /// The numbers of the partitions.
    pub(super) fn numbers(&self) -> std::ops::Range<u16> {
        0..self.partitions
    }

    /// One of the partitions.
    pub(super) fn partition(&self, number: u16) -> PartitionId {
        PartitionId {
            tenant: self.tenant.clone(),
            number,
        }
    }

    /// The partitions in which the accounts live; all for no accounts.
    fn homes(&self, accounts: &HashSet<AccountId>) -> Homes {
        if accounts.is_empty() {
            return self.numbers().map(|number| (number, [].into())).collect();
        }
        let mut homes: HashMap<u16, Vec<u32>> = HashMap::new();
        for account in accounts {
            let key = SessionKey {
                tenant: self.tenant.clone(),
                account: account.clone(),
            };
            let home = key.partition(self.partitions).number;
            let print = account_print(account.as_str().as_bytes());
            homes.entry(home).or_default().push(print);
        }
        homes
            .into_iter()
            .map(|(home, mut prints)| {
                // Two accounts may have one.
                prints.sort_unstable();
                prints.dedup();
                (home, prints.into())
            })
            .collect()
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

    /// Begins a subscription.
    pub async fn subscribe(
        &self,
        logs: &TenantLogs,
        options: SubscribeOptions,
    ) -> Result<Subscription, EventsError> {
        let homes = logs.homes(&options.accounts);
        let (mut keeper, mut share, mut made) = (None, None, false);
        let start = match options.start {
            Start::Latest => Cursor::at(self.latest(logs).await?),
            Start::Earliest => Cursor::at(self.earliest(logs).await?),
            Start::Cursor(text) => self.checked(logs, &text)?,
            Start::Named(name) => {
                let named = self.named(logs, name);
                let positions;
                (positions, made) = named.open(async || self.latest(logs).await).await?;
                keeper = Some(named.keep(positions.clone(), &self.tasks));
                Cursor::at(positions)
            }
            Start::Shared(name) => {
                let named = self.named(logs, name);
                let positions;
                (positions, made) = named.open(async || self.latest(logs).await).await?;
                keeper = Some(named.clone().keep(positions.clone(), &self.tasks));
                let wanted = homes.keys().copied().collect();
                share = Some(Share::join(named, wanted, positions.clone(), &self.tasks));
                Cursor::at(positions)
            }
        };
        let accounts = options.accounts.iter();
        Ok(Subscription::new(Reader {
            source: Source {
                store: Arc::clone(&self.store),
                sealer: Arc::clone(&self.sealer),
            },
            hub: self.hub.clone(),
            tokens: self.tokens.clone(),
            tenant: logs.tenant.clone(),
            tasks: self.tasks.clone(),
            start,
            homes,
            share,
            keeper,
            made,
            filter: Filter::new(
                accounts.map(|account| account.as_str().into()).collect(),
                options.kinds,
            ),
            max_batch: options.max_batch.max(1),
            heartbeat: options.heartbeat,
        }))
    }

    /// Moves a named subscription forward to a cursor.
    pub async fn acknowledge(
        &self,
        logs: &TenantLogs,
        name: &str,
        cursor: &str,
    ) -> Result<(), EventsError> {
        let positions = self.checked(logs, cursor)?.positions();
        let named = self.named(logs, name.to_owned());
        // It is not made: one that is being deleted at this moment would be back.
        if named.advance(&positions).await? {
            Ok(())
        } else {
            Err(EventsError::UnknownSubscription)
        }
    }

    /// The tenant's named subscriptions, in the order of their names.
    pub async fn subscriptions(
        &self,
        logs: &TenantLogs,
    ) -> Result<Vec<SubscriptionStatus>, EventsError> {
        Ok(named::list(&self.store, logs).await?)
    }

    /// Forgets a named subscription. Streams that read it go on.
    pub async fn delete_subscription(
        &self,
        logs: &TenantLogs,
        name: &str,
    ) -> Result<(), EventsError> {
        if self.named(logs, name.to_owned()).remove().await? {
            Ok(())
        } else {
            Err(EventsError::UnknownSubscription)
        }
    }

    fn named(&self, logs: &TenantLogs, name: String) -> Named {
        Named {
            store: Arc::clone(&self.store),
            logs: logs.clone(),
            name,
        }
    }

    async fn bounds(&self, logs: &TenantLogs) -> Result<Vec<LogBounds>, StoreError> {
        let all = logs.numbers().map(|number| {
            let partition = logs.partition(number);
            async move { self.store.log_bounds(&partition).await }
        });
        try_join_all(all).await
    }

    async fn latest(&self, logs: &TenantLogs) -> Result<BTreeMap<u16, Position>, StoreError> {
        let end = |bounds: LogBounds| Position {
            log: bounds.log,
            sequence: bounds.last_sequence,
        };
        let bounds = self.bounds(logs).await?;
        Ok(logs.numbers().zip(bounds.into_iter().map(end)).collect())
    }

    /// Before the oldest entries that there are. What was lost before them is not asked for.
    async fn earliest(&self, logs: &TenantLogs) -> Result<BTreeMap<u16, Position>, StoreError> {
        let all = logs.numbers().map(|number| {
            let partition = logs.partition(number);
            async move { self.store.read(&partition, 0, 1).await }
        });
        let begin = |read: LogRead| {
            let oldest = read.entries.first();
            let before = oldest.map(|oldest| oldest.sequence.saturating_sub(1));
            Position {
                log: read.bounds.log,
                sequence: before.unwrap_or(read.bounds.last_sequence),
            }
        };
        let reads = try_join_all(all).await?;
        Ok(logs.numbers().zip(reads.into_iter().map(begin)).collect())
    }

    /// A cursor that the tenant brings.
    fn checked(&self, logs: &TenantLogs, text: &str) -> Result<Cursor, EventsError> {
        let cursor = Cursor::decode(&self.tokens, &logs.tenant, text)?;
        if cursor.marks.keys().copied().eq(logs.numbers()) {
            Ok(cursor)
        } else {
            Err(EventsError::CursorPartitions)
        }
    }
}
