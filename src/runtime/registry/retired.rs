//! The records of sessions whose task has ended lately: what the store may lose yet, and nobody else could tell it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::Partition;
use crate::events::log::{Append, Record};
use crate::types::AccountId;

/// How long a record is kept: longer than a store takes to be replaced by one that lags behind it.
const KEPT_FOR: Duration = Duration::from_secs(180);
/// How many are kept. Policy when full: the oldest is forgotten, as it is after its time.
const KEPT: usize = 1024;

/// The records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Retired {
    records: VecDeque<(Instant, AccountId, Vec<u8>)>,
}

impl Retired {
    /// Keeps one.
    pub(super) fn add(&mut self, account: AccountId, record: Vec<u8>) {
        if self.records.len() >= KEPT {
            self.records.pop_front();
        }
        self.records.push_back((Instant::now(), account, record));
        let kept = self.recent().count();
        self.records.drain(..self.records.len() - kept);
    }

    /// Puts a newer record of an account in the place of the one that is kept, if there is one.
    pub(super) fn replace(&mut self, account: &AccountId, record: &[u8]) {
        let kept = self.records.iter_mut();
        for (_, _, kept) in kept.filter(|(_, kept, _)| kept == account) {
            kept.clear();
            kept.extend_from_slice(record);
        }
    }

    /// Forgets those of the accounts that do not stay.
    pub(super) fn retain(&mut self, stays: impl Fn(&AccountId) -> bool) {
        self.records.retain(|(_, account, _)| stays(account));
    }

    /// Those whose time is not over, oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = (&AccountId, &[u8])> {
        let recent = self.records.iter();
        recent
            .filter(|(since, ..)| since.elapsed() < KEPT_FOR)
            .map(|(_, account, record)| (account, record.as_slice()))
    }
}

/// Stores one again. False if it was not taken.
pub(super) fn again(partition: &Partition, account: &AccountId, record: &[u8]) -> bool {
    let append = Append {
        account: account.clone(),
        record: Some(Record::Whole(record.to_vec())),
        sends: Vec::new(),
        events: Vec::new(),
        done: oneshot::channel().0,
    };
    let taken = partition.writer.try_append(append);
    if let Err(refused) = &taken {
        warn!(%account, error = %refused.error, "the record of an ended session is not stored again yet");
    }
    taken.is_ok()
}
