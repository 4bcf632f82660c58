//! All that the simulator's connections share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::SimOptions;
use super::accounts::Account;
use super::groups::Group;
use crate::types::AccountId;

/// The first `TinyId`; they are beyond what a JavaScript number can hold, as the real ones are.
const FIRST_TINY_ID: u64 = 144_115_200_000_000_001;

/// Logins that are to be refused.
#[derive(Debug)]
struct Refusal {
    /// Whose; `None` is anybody's.
    account: Option<AccountId>,
    code: u32,
    times: u32,
}

#[derive(Debug, Default)]
struct Directory {
    by_id: HashMap<AccountId, Arc<Account>>,
    /// In the order of their `TinyId`s, which have no gaps.
    in_order: Vec<Arc<Account>>,
}

/// The simulator's state. Its locks are held for a look-up at most.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: SimOptions,
    /// If connections speak TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) open_connections: AtomicU64,
    pub(super) refused: AtomicU64,
    directory: RwLock<Directory>,
    groups: RwLock<HashMap<String, Arc<Group>>>,
    refusals: Mutex<Vec<Refusal>>,
    /// The parent of every connection's token.
    connections: Mutex<CancellationToken>,
    last_number: AtomicU64,
}

impl World {
    pub(super) fn new(options: SimOptions, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            options,
            tls,
            open_connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            directory: RwLock::default(),
            groups: RwLock::default(),
            refusals: Mutex::default(),
            connections: Mutex::default(),
            last_number: AtomicU64::new(0),
        }
    }

    /// A number that was not given out before, greater than all that were.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The account of this user ID.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Account>> {
        let directory = self
            .directory
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        directory.by_id.get(&AccountId::new(id)).cloned()
    }

    /// The account of this `TinyId`.
    pub(super) fn find_tiny(&self, tiny_id: u64) -> Option<Arc<Account>> {
        let index = usize::try_from(tiny_id.checked_sub(FIRST_TINY_ID)?).ok()?;
        let directory = self
            .directory
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        directory.in_order.get(index).cloned()
    }

    /// The account of this user ID, made if it does not exist.
    pub(super) fn find_or_create(&self, id: &AccountId) -> Arc<Account> {
        if let Some(account) = self.find(id.as_str()) {
            return account;
        }
        let mut directory = self
            .directory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = directory.by_id.get(id) {
            return Arc::clone(account);
        }
        let tiny_id = FIRST_TINY_ID + directory.in_order.len() as u64;
        let account = Arc::new(Account::new(id.clone(), tiny_id));
        directory.by_id.insert(id.clone(), Arc::clone(&account));
        directory.in_order.push(Arc::clone(&account));
        account
    }

    /// Every account.
    pub(super) fn accounts(&self) -> Vec<Arc<Account>> {
        let directory = self
            .directory
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        directory.in_order.clone()
    }

    /// The group of this name.
    pub(super) fn find_group(&self, id: &str) -> Option<Arc<Group>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(id).cloned()
    }

    /// The group of this name, made if it does not exist.
    pub(super) fn find_or_create_group(&self, id: &str, created: u64) -> Arc<Group> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let group = groups
            .entry(id.to_owned())
            .or_insert_with(|| Arc::new(Group::new(id, created)));
        Arc::clone(group)
    }

    /// Has the next logins refused.
    pub(super) fn add_refusal(&self, account: Option<AccountId>, code: u32, times: u32) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.push(Refusal {
            account,
            code,
            times,
        });
    }

    /// The code that this login of the account is to be refused with, if it is. Uses one refusal up.
    pub(super) fn take_refusal(&self, account: &str) -> Option<u32> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let found = refusals.iter_mut().find(|refusal| {
            let whose = refusal.account.as_ref();
            whose.is_none_or(|id| id.as_str() == account)
        })?;
        found.times = found.times.saturating_sub(1);
        let code = found.code;
        refusals.retain(|refusal| refusal.times > 0);
        Some(code)
    }

    /// A token for a new connection, which [`World::cut_all`] cancels too.
    pub(super) fn connection_token(&self) -> CancellationToken {
        let parent = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        parent.child_token()
    }

    /// Cuts every connection that there is now, and answers how many.
    pub(super) fn cut_all(&self) -> u64 {
        let mut parent = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *parent);
        drop(parent);
        let count = self.open_connections.load(Ordering::Relaxed);
        old.cancel();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Secret;

    fn world() -> World {
        World::new(SimOptions::new(1, Secret::new(String::from("k"))), None)
    }

    #[test]
    fn accounts_are_found_by_both_names() {
        let world = world();
        let a = world.find_or_create(&AccountId::new("a"));
        let b = world.find_or_create(&AccountId::new("b"));
        assert_ne!(a.tiny_id, b.tiny_id);
        assert_eq!(
            world.find_or_create(&AccountId::new("a")).tiny_id,
            a.tiny_id
        );
        assert_eq!(world.find_tiny(b.tiny_id).unwrap().id, b.id);
        assert!(world.find_tiny(0).is_none() && world.find_tiny(u64::MAX).is_none());
        assert!(world.find("c").is_none());
    }

    #[test]
    fn refusals_are_used_up_in_order() {
        let world = world();
        world.add_refusal(Some(AccountId::new("a")), 70003, 2);
        world.add_refusal(None, 50001, 1);
        let codes: Vec<_> = ["a", "b", "b", "a", "a"]
            .map(|id| world.take_refusal(id))
            .into();
        assert_eq!(codes, [Some(70003), Some(50001), None, Some(70003), None]);
    }

    #[test]
    fn cutting_all_spares_who_comes_later() {
        let world = world();
        let before = world.connection_token();
        world.cut_all();
        assert!(before.is_cancelled() && !world.connection_token().is_cancelled());
    }
}
