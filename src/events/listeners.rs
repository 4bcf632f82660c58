//! Who listens to a log. Each is told which entries may be for it, and is woken once for all that it is told of before it
//! asks: many subscribers that have a few accounts each neither wake for the others' events nor look at them.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::entry::Entry;

/// Of how many entries a listener is told one by one. One with more than that behind looks at all that follow.
const MAX_TOLD: usize = 64;

/// What wakes a subscriber, whichever of its logs has something for it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct News(Arc<Notify>);

/// A subscriber at one log.
#[derive(Debug)]
pub(super) struct Listener {
    /// The fingerprints of its accounts; all when empty.
    accounts: Arc<[u32]>,
    told: Mutex<Told>,
    /// Whether it was told of anything.
    is_told: AtomicBool,
    news: News,
}

/// Which entries may be for a subscriber.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The numbers of some, in order.
    pub(super) some: Vec<u64>,
    /// All from this one on.
    pub(super) rest: Option<u64>,
}

/// All that listen to one log.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Who takes whatever comes.
    to_all: Vec<Arc<Listener>>,
    /// Who takes the events of an account, by its fingerprint.
    to_account: HashMap<u32, Vec<Arc<Listener>>>,
}

impl News {
    /// Waits until there is something that was not told of before.
    pub(super) async fn changed(&self) {
        self.0.notified().await;
    }
}

impl Listener {
    /// To the accounts with these fingerprints; to all when there are none.
    pub(super) fn new(accounts: Arc<[u32]>, news: News) -> Self {
        Self {
            accounts,
            told: Mutex::default(),
            is_told: AtomicBool::new(false),
            news,
        }
    }

    /// Whether there is nothing in the log that is not for it.
    pub(super) fn takes_all(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether there may be something for it.
    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }

    /// What it was told of since this was last asked.
    pub(super) fn ask(&self) -> Told {
        let mut told = self.locked();
        self.is_told.store(false, Ordering::Release);
        std::mem::take(&mut told)
    }

    fn tell(&self, sequence: u64) {
        let mut told = self.locked();
        if self.takes_all() {
            told.rest.get_or_insert(sequence);
        } else {
            told.add(sequence);
        }
        self.wake(told);
    }

    /// Tells it to see for itself what there is.
    fn tell_all(&self) {
        let mut told = self.locked();
        *told = Told::after(0);
        self.wake(told);
    }

    fn wake(&self, told: MutexGuard<'_, Told>) {
        let before = self.is_told.swap(true, Ordering::AcqRel);
        drop(told);
        if !before {
            self.news.0.notify_one();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Told> {
        // Nothing in here panics half-way through a change.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// All that follow an entry.
    pub(super) const fn after(sequence: u64) -> Self {
        Self {
            some: Vec::new(),
            rest: Some(sequence + 1),
        }
    }

    /// The first of them.
    pub(super) fn first(&self) -> Option<u64> {
        self.some.first().copied().or(self.rest)
    }

    /// One may be told of an entry more than once.
    fn add(&mut self, sequence: u64) {
        if self.rest.is_some() || self.some.last().is_some_and(|&last| last >= sequence) {
            return;
        }
        if self.some.len() < MAX_TOLD {
            self.some.push(sequence);
        } else {
            self.rest = Some(sequence);
        }
    }
}

impl Listeners {
    pub(super) fn join(&mut self, listener: &Arc<Listener>) {
        if listener.takes_all() {
            self.to_all.push(Arc::clone(listener));
        }
        for &account in &*listener.accounts {
            let listeners = self.to_account.entry(account).or_default();
            listeners.push(Arc::clone(listener));
        }
    }

    pub(super) fn leave(&mut self, listener: &Arc<Listener>) {
        let stays = |other: &Arc<Listener>| !Arc::ptr_eq(other, listener);
        if listener.takes_all() {
            self.to_all.retain(stays);
        }
        for &account in &*listener.accounts {
            if let Slot::Occupied(mut listeners) = self.to_account.entry(account) {
                listeners.get_mut().retain(stays);
                if listeners.get().is_empty() {
                    listeners.remove();
                }
            }
        }
    }

    /// Tells those of an entry whom it may concern.
    pub(super) fn tell_of(&self, entry: &Entry) {
        let sequence = entry.sequence;
        match &entry.event {
            Some(event) if event.has_account() => {
                let to_account = self.to_account.get(&event.account_print());
                for listener in self.to_all.iter().chain(to_account.into_iter().flatten()) {
                    listener.tell(sequence);
                }
            }
            // What is missing is everybody's.
            Some(_) | None => {
                for listener in self.everybody() {
                    listener.tell(sequence);
                }
            }
        }
    }

    /// Tells all to see for themselves what there is.
    pub(super) fn tell_all(&self) {
        for listener in self.everybody() {
            listener.tell_all();
        }
    }

    /// One that has several accounts comes several times.
    fn everybody(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.to_all.iter().chain(self.to_account.values().flatten())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::events::encoded::account_print;
    use crate::events::testing::{message, partition};
    use crate::proto::v1;
    use crate::types::UnixMillis;
    use prost::Message as _;

    fn entry(sequence: u64, event: &v1::Event) -> Entry {
        Entry::appended(
            &partition(0),
            sequence,
            UnixMillis(0),
            event.encode_to_vec(),
        )
    }

    fn listener(accounts: &[&str], news: &News) -> Arc<Listener> {
        let prints = accounts
            .iter()
            .map(|account| account_print(account.as_bytes()));
        Arc::new(Listener::new(prints.collect(), news.clone()))
    }

    fn some(sequences: &[u64]) -> Told {
        Told {
            some: sequences.to_vec(),
            rest: None,
        }
    }

    fn woken(news: &News) -> bool {
        news.changed().now_or_never().is_some()
    }

    #[test]
    fn each_is_told_of_its_own_and_all_of_what_is_missing() {
        let (news, others) = (News::default(), News::default());
        let (one, all) = (listener(&["a", "b"], &news), listener(&[], &others));
        let mut listeners = Listeners::default();
        listeners.join(&one);
        listeners.join(&all);
        listeners.tell_of(&entry(5, &message("c", "for others")));
        assert!(!one.is_told() && !woken(&news));
        assert!(all.is_told() && woken(&others));
        listeners.tell_of(&entry(6, &message("b", "for both")));
        listeners.tell_of(&entry(7, &message("a", "for both")));
        assert!(one.is_told() && woken(&news) && !woken(&news));
        assert!(!woken(&others), "it has not asked since");
        assert_eq!((one.ask(), all.ask()), (some(&[6, 7]), Told::after(4)));
        assert_eq!((one.ask(), all.ask()), (some(&[]), some(&[])));
        let whole = v1::Event::default();
        listeners.tell_of(&entry(8, &whole));
        assert_eq!((one.ask(), all.ask()), (some(&[8]), Told::after(7)));
        let damaged = Entry {
            event: None,
            ..entry(9, &whole)
        };
        listeners.tell_of(&damaged);
        listeners.tell_all();
        assert_eq!((one.ask(), all.ask()), (Told::after(0), Told::after(0)));
    }

    #[test]
    fn of_very_many_only_the_first_are_told_one_by_one() {
        let news = News::default();
        let one = listener(&["a"], &news);
        let mut listeners = Listeners::default();
        listeners.join(&one);
        for sequence in 1..=2 * MAX_TOLD as u64 {
            listeners.tell_of(&entry(sequence, &message("a", "")));
        }
        let told = one.ask();
        assert_eq!(told.some.len(), MAX_TOLD);
        assert_eq!(told.rest, Some(MAX_TOLD as u64 + 1));
    }

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        let news = News::default();
        let pair = [listener(&["a", "b"], &news), listener(&["b"], &news)];
        let all = listener(&[], &news);
        let mut listeners = Listeners::default();
        for listener in pair.iter().chain([&all]) {
            listeners.join(listener);
        }
        let [one, other] = &pair;
        listeners.leave(one);
        listeners.leave(&all);
        listeners.tell_of(&entry(1, &message("b", "")));
        assert_eq!((one.is_told(), all.is_told()), (false, false));
        assert_eq!(other.ask(), some(&[1]));
        listeners.leave(other);
        assert!(listeners.to_all.is_empty() && listeners.to_account.is_empty());
    }
}
