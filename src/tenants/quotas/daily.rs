//! Who was active today: what the store knows, and what is on its way to it.
//!
//! An account that is new today counts from its admission on: as admitted, then as to be noted, then as one of those
//! that the store knows. So of many logins at once no more go through than may. Other replicas' count when the store
//! knows them, a second or two after their login.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Quotas;
use crate::types::{AccountId, Day, UnixMillis};

/// How many accounts of a tenant may wait to be noted, while the store is away. Those beyond are not noted.
const WAITING: usize = 100_000;
/// At which part of the limit there is a warning, in percent.
const WARN_AT: u64 = 80;

/// What the tenant has used of today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daily {
    /// How many accounts there were, as far as is known.
    pub used: u64,
    /// How many there may be.
    pub limit: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    day: Day,
    /// How many the store knows of `day`.
    known: u64,
    /// Accounts that are new today and that the store does not know yet: admitted, waiting or being noted.
    unsettled: usize,
    /// Whom to note, and whether the account counts as unsettled.
    waiting: BTreeMap<(Day, AccountId), bool>,
    warned: Option<Day>,
}

impl State {
    /// How many accounts count today.
    pub(super) fn used(&mut self, today: Day) -> u64 {
        self.turn_to(today);
        let unsettled = u64::try_from(self.unsettled).unwrap_or(u64::MAX);
        self.known.saturating_add(unsettled)
    }

    pub(super) const fn admit(&mut self) {
        self.unsettled += 1;
    }

    const fn settle(&mut self, count: usize) {
        self.unsettled = self.unsettled.saturating_sub(count);
    }

    fn turn_to(&mut self, today: Day) {
        if self.day != today {
            self.day = today;
            self.known = 0;
        }
    }
}

/// An account that is new today and on its way to its login. Dropped, it does not count any more.
#[derive(Debug)]
pub struct Admitted(Option<Arc<Quotas>>);

impl Admitted {
    pub(super) const fn new(quotas: Arc<Quotas>) -> Self {
        Self(Some(quotas))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(quotas) = &self.0 {
            quotas.daily().settle(1);
        }
    }
}

/// Accounts that the store is to note.
#[derive(Debug)]
pub struct Noted {
    /// When they were active.
    pub day: Day,
    /// Who.
    pub accounts: Vec<AccountId>,
    unsettled: Vec<bool>,
}

impl Quotas {
    /// Notes that an account's login by signature was accepted. False if too many wait to be noted.
    pub fn note_active(
        &self,
        account: &AccountId,
        now: UnixMillis,
        admitted: Option<Admitted>,
    ) -> bool {
        // From now on it counts as one that waits.
        let new = admitted.is_some_and(|mut admitted| admitted.0.take().is_some());
        let mut daily = self.daily();
        if daily.waiting.len() >= WAITING {
            daily.settle(usize::from(new));
            return false;
        }
        let key = (now.day(), account.clone());
        let before = daily.waiting.get(&key).copied().unwrap_or_default();
        daily.settle(usize::from(before && new));
        daily.waiting.insert(key, before || new);
        true
    }

    /// At most `most` accounts that wait to be noted, of one day. They go to [`Quotas::noted`] or
    /// [`Quotas::not_noted`].
    pub fn to_note(&self, most: usize) -> Option<Noted> {
        let mut daily = self.daily();
        let day = daily.waiting.first_key_value()?.0.0;
        let mut noted = Noted {
            day,
            accounts: Vec::new(),
            unsettled: Vec::new(),
        };
        while noted.accounts.len() < most
            && let Some(first) = daily.waiting.first_entry()
            && first.key().0 == day
        {
            let ((_, account), unsettled) = first.remove_entry();
            noted.accounts.push(account);
            noted.unsettled.push(unsettled);
        }
        Some(noted)
    }

    /// The store has noted them.
    pub fn noted(&self, noted: &Noted) {
        let unsettled = noted.unsettled.iter().filter(|unsettled| **unsettled);
        let count = unsettled.count();
        self.daily().settle(count);
    }

    /// The store has not noted them: they wait again.
    pub fn not_noted(&self, noted: Noted) {
        let mut daily = self.daily();
        for (account, unsettled) in noted.accounts.into_iter().zip(noted.unsettled) {
            let key = (noted.day, account);
            let before = daily.waiting.get(&key).copied().unwrap_or_default();
            daily.settle(usize::from(before && unsettled));
            daily.waiting.insert(key, before || unsettled);
        }
    }

    /// The store says how many there were on a day. True the first time that this is much of what the tenant may have
    /// today: somebody should know.
    pub fn active_known(&self, day: Day, count: u64, today: Day) -> bool {
        let limit = self.limits().daily_active_users;
        let mut daily = self.daily();
        daily.turn_to(today);
        if day != today {
            return false;
        }
        daily.known = count;
        let much =
            limit.is_some_and(|limit| count.saturating_mul(100) >= limit.saturating_mul(WARN_AT));
        much && daily.warned.replace(today) != Some(today)
    }

    /// What the tenant has used of today.
    pub fn daily_active(&self, today: Day) -> Daily {
        let limit = self.limits().daily_active_users;
        let used = self.daily().used(today);
        Daily { used, limit }
    }
}
