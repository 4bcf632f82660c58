//! What `GET /stats` answers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::accounts::Account;
use super::world::World;
use crate::types::UnixMillis;

/// What has happened at the simulator. All but `online` and `connections` only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimStats {
    /// The accounts that are online now.
    pub online: u64,
    /// The connections that are open now, logged in or not.
    pub connections: u64,
    /// Logins by signature that were accepted.
    pub logins: u64,
    /// Logins by ticket that were accepted.
    pub resumes: u64,
    /// Logins of both kinds that were refused, also of accounts that do not exist.
    pub refused: u64,
    /// Each account.
    pub users: BTreeMap<String, UserStats>,
}

/// What has happened to an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStats {
    /// Whether it is connected by a ticket that is still good.
    pub online: bool,
    /// Logins by signature that were accepted.
    pub logins: u64,
    /// Logins by ticket that were accepted.
    pub resumes: u64,
    /// Logins of both kinds that were refused, since the account exists.
    pub refused: u64,
    /// How often a connection came to belong to it: `logins` and `resumes` together.
    pub connections: u64,
    /// Messages that it sent; a repeated send of the same one is not counted.
    pub sent: u64,
    /// Messages that were pushed to it; a repeated push is not counted.
    pub delivered: u64,
    /// Pushes that it acknowledged.
    pub acked: u64,
    /// How often its ticket was ended by another login or by a kick.
    pub kicked: u64,
}

impl UserStats {
    fn of(account: &Account, now: UnixMillis) -> Self {
        let counters = &account.counters;
        Self {
            online: account.is_online(now),
            logins: counters.logins.load(Ordering::Relaxed),
            resumes: counters.resumes.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            connections: counters.connections.load(Ordering::Relaxed),
            sent: counters.sent.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            acked: counters.acked.load(Ordering::Relaxed),
            kicked: counters.kicked.load(Ordering::Relaxed),
        }
    }
}

impl World {
    /// What has happened so far.
    pub(super) fn stats(&self, now: UnixMillis) -> SimStats {
        let mut stats = SimStats {
            connections: self.open_connections.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            ..SimStats::default()
        };
        for account in self.accounts() {
            let user = UserStats::of(&account, now);
            stats.online += u64::from(user.online);
            stats.logins += user.logins;
            stats.resumes += user.resumes;
            stats.users.insert(account.id.to_string(), user);
        }
        stats
    }
}
