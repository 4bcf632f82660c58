//! Brings together who writes the logs, here or on another replica, and who reads them: it keeps the tails of the
//! logs that have subscribers, and wakes these when a log has grown.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::entry::Entry;
use super::listeners::{Listener, News};
use super::tail::Tail;
use super::window::Budget;
use crate::store::Position;
use crate::types::{PartitionId, WallClock};

/// The tails of the logs that are read on this replica. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// As many as there are followed partitions.
    tails: HashMap<PartitionId, Followers>,
    /// The partitions whose logs are written on this replica, and nowhere else.
    written: HashSet<PartitionId>,
    /// How many followed logs are not.
    foreign: watch::Sender<usize>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Followers {
    tail: Arc<Tail>,
    count: usize,
}

impl Hub {
    /// A hub without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A hub whose tails have so many bytes together.
    #[cfg(test)]
    pub(super) fn with_budget(bytes: usize) -> Self {
        let hub = Self::new();
        hub.locked().budget = Arc::new(Budget::of(bytes));
        hub
    }

    /// How many logs are followed, and how many bytes their tails have together.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let shared = self.locked();
        (shared.tails.len(), shared.budget.used())
    }

    /// Tells that a log now ends at `end`, by an append of which no more is known here. Never waits. What is written here
    /// its writer tells itself, and better.
    pub fn publish(&self, partition: &PartitionId, end: Position) {
        let shared = self.locked();
        let tail = (!shared.written.contains(partition)).then(|| shared.tail(partition));
        drop(shared);
        if let Some(tail) = tail.flatten() {
            tail.grown(end);
        }
    }

    /// Tells that encoded events, as they are before they are sealed, were appended in this order to a log, which now
    /// ends with them at `end`. Never waits, and costs nothing while nobody reads the log.
    pub fn appended(&self, partition: &PartitionId, end: Position, events: Vec<Vec<u8>>) {
        let Some(tail) = self.tail(partition) else {
            return;
        };
        let now = WallClock.now();
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let first = end.sequence.saturating_sub(count) + 1;
        let entry = |(sequence, event)| Entry::appended(partition, sequence, now, event);
        let entries = (first..).zip(events).map(entry).map(Arc::new);
        tail.appended(end, entries.collect());
    }

    /// Has every subscriber look at the store once: logs may have grown without a word.
    pub fn look_again(&self) {
        let shared = self.locked();
        let tails: Vec<_> = shared
            .tails
            .values()
            .map(|followers| Arc::clone(&followers.tail))
            .collect();
        drop(shared);
        for tail in tails {
            tail.may_have_grown();
        }
    }

    /// Notes that a log is written on this replica and nowhere else, until the answer is dropped. What was written
    /// before may not have been told.
    pub(super) fn write(&self, partition: &PartitionId) -> Written {
        let mut shared = self.locked();
        let is_new = shared.written.insert(partition.clone());
        let tail = shared.tail(partition);
        if is_new && tail.is_some() {
            shared.foreign.send_modify(|foreign| *foreign -= 1);
        }
        drop(shared);
        if let Some(tail) = tail {
            tail.may_have_grown();
        }
        Written {
            partition: partition.clone(),
            hub: self.clone(),
        }
    }

    /// How many followed logs are written elsewhere: only of those does the store have to tell.
    pub(super) fn foreign(&self) -> watch::Receiver<usize> {
        self.locked().foreign.subscribe()
    }

    /// Follows a partition's log, until the answer is dropped, for the accounts with these fingerprints; for all when
    /// there are none.
    pub(super) fn follow(
        &self,
        partition: &PartitionId,
        accounts: Arc<[u32]>,
        news: &News,
    ) -> Followed {
        let mut shared = self.locked();
        let budget = Arc::clone(&shared.budget);
        if !shared.tails.contains_key(partition) && !shared.written.contains(partition) {
            shared.foreign.send_modify(|foreign| *foreign += 1);
        }
        let followers = shared
            .tails
            .entry(partition.clone())
            .or_insert_with(|| Followers {
                tail: Arc::new(Tail::new(partition.clone(), budget)),
                count: 0,
            });
        followers.count += 1;
        let tail = Arc::clone(&followers.tail);
        drop(shared);
        let listener = Arc::new(Listener::new(accounts, news.clone()));
        tail.join(&listener);
        Followed {
            tail,
            listener,
            partition: partition.clone(),
            hub: self.clone(),
        }
    }

    fn tail(&self, partition: &PartitionId) -> Option<Arc<Tail>> {
        self.locked().tail(partition)
    }

    fn locked(&self) -> MutexGuard<'_, Shared> {
        // A poisoned map is whole: nothing in here panics half-way through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn tail(&self, partition: &PartitionId) -> Option<Arc<Tail>> {
        let followers = self.tails.get(partition);
        followers.map(|followers| Arc::clone(&followers.tail))
    }
}

/// A followed log. With the last one of a partition its tail goes.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) tail: Arc<Tail>,
    /// What the follower is told.
    pub(super) listener: Arc<Listener>,
    pub(super) partition: PartitionId,
    hub: Hub,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tail.leave(&self.listener);
        let mut shared = self.hub.locked();
        let Some(followers) = shared.tails.get_mut(&self.partition) else {
            return;
        };
        followers.count -= 1;
        if followers.count > 0 {
            return;
        }
        shared.tails.remove(&self.partition);
        if !shared.written.contains(&self.partition) {
            shared.foreign.send_modify(|foreign| *foreign -= 1);
        }
    }
}

/// A log that is written on this replica.
#[derive(Debug)]
pub(super) struct Written {
    partition: PartitionId,
    hub: Hub,
}

impl Drop for Written {
    fn drop(&mut self) {
        let mut shared = self.hub.locked();
        let was_written = shared.written.remove(&self.partition);
        let Some(tail) = shared.tail(&self.partition).filter(|_| was_written) else {
            return;
        };
        shared.foreign.send_modify(|foreign| *foreign += 1);
        drop(shared);
        // What another has written by now was passed over.
        tail.may_have_grown();
    }
}

#[cfg(test)]
mod tests;
