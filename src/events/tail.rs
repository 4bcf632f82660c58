//! The newest entries of a log, in a bounded memory that all its subscribers on this replica share.
//!
//! The log's writer puts in what it has committed, if it is on this replica. What others write is read from the store
//! when the first subscriber has come to the end of the tail, once for all of them. The entries follow each other
//! without a hole and are of one log: where that would not be so the tail is emptied, and every subscriber reads the
//! store by itself until it has found out what is missing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use super::cursor::Mark;
use super::entry::Entry;
use super::listeners::{Listener, Listeners, Told};
use super::place::MAX_BATCH_BYTES;
use super::source::{Read, Retry, Source};
use super::window::{Budget, Window};
use crate::store::{Position, StoreError};
use crate::types::PartitionId;

/// A look at the store for growth that nobody told of serves all subscribers for so long.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The most entries that are read at once.
const MAX_FETCH: usize = 256;

/// The tail of one partition's log.
pub(super) struct Tail {
    partition: PartitionId,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

struct State {
    listeners: Listeners,
    /// Nothing before a subscriber has found the end of the log, or the writer has put something in.
    window: Option<Window>,
    /// Grows whenever the tail is emptied: what a subscriber has read may be of another log, or before a hole.
    generation: u64,
    /// How often it was told of growth that is not in the tail.
    told: u64,
    /// How much of that has been looked into.
    looked_into: u64,
    /// When the tail was last known to reach to the end of the log.
    looked_at: Instant,
    retry: Retry,
    /// What an entry takes in the store, on average.
    average_bytes: usize,
    /// The read under way, for as long as somebody waits for it.
    fetch: Option<WeakShared<BoxFuture<'static, ()>>>,
}

/// What a subscriber asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// What follows this.
    pub(super) after: Position,
    /// The generation in which it has made sure that the store has what it has read; `None` if never.
    pub(super) certain: Option<u64>,
    /// Whether it has taken all up to the tail's end when it last asked: what came since it was told of, if it is for it.
    pub(super) level: bool,
    /// Since when it wants to know about growth that nobody told of.
    pub(super) look: Option<Instant>,
    /// How many that follow each other are looked at, at the most.
    pub(super) limit: u64,
}

/// What a subscriber gets.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// There are entries that follow.
    Entries {
        /// What it makes of them.
        taken: T,
        /// Where the tail ends.
        end: u64,
    },
    /// Nothing follows, as far as is known.
    Nothing,
    /// There may be more in the store: wait for [`Tail::fetch`].
    Fetch,
    /// The same, but the store refused: not before then.
    Later(Instant),
    /// The tail does not reach back so far: read the store.
    Behind,
}

/// How the tail goes on from where a subscriber has found the log to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It ends there too.
    Level,
    /// It has what came meanwhile, which may not have been told.
    Further,
    /// It does not.
    Apart,
}

/// What is known when a read of the store begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// See [`Ask::certain`].
    pub(super) generation: u64,
    told: u64,
    at: Instant,
}

/// A read under way that several subscribers wait for. It goes on as long as one of them waits.
pub(super) type Fetch = Shared<BoxFuture<'static, ()>>;

impl Tail {
    pub(super) fn new(partition: PartitionId, budget: Arc<Budget>) -> Self {
        Self {
            partition,
            budget,
            state: Mutex::new(State {
                listeners: Listeners::default(),
                window: None,
                generation: 0,
                told: 0,
                looked_into: 0,
                looked_at: Instant::now(),
                retry: Retry::default(),
                average_bytes: 1024,
                fetch: None,
            }),
        }
    }

    /// Tells a subscriber from now on of what may be for it.
    pub(super) fn join(&self, listener: &Arc<Listener>) {
        self.locked().listeners.join(listener);
    }

    /// Tells it no more.
    pub(super) fn leave(&self, listener: &Arc<Listener>) {
        self.locked().listeners.leave(listener);
    }

    /// What follows a position, for one of the listeners. It takes its own at once: most of many subscribers take nothing
    /// of most entries, and do not have them handed over for that. It gets those that may be for it, and up to where the
    /// others need not be looked at.
    pub(super) fn next<T>(
        &self,
        listener: &Listener,
        ask: Ask,
        take: impl FnOnce(&mut dyn Iterator<Item = &Arc<Entry>>, Mark) -> T,
    ) -> Next<T> {
        let state = self.locked();
        let told = listener.ask();
        let certain = ask.certain == Some(state.generation);
        let Some(window) = state.window.as_ref().filter(|_| certain) else {
            return Next::Behind;
        };
        let (base, end) = (window.base().position, window.end().position);
        let after = ask.after.sequence;
        let told = if ask.level { told } else { Told::after(after) };
        let first = told.first().unwrap_or(end.sequence + 1).max(after + 1);
        if ask.after.log != end.log || first <= base.sequence {
            return Next::Behind;
        }
        if after < end.sequence {
            let some = told.some.iter().filter(|&&sequence| sequence > after);
            let some = some.filter_map(|&sequence| window.get(sequence));
            let rest = told.rest.map(|rest| after.max(rest.saturating_sub(1)));
            let following = rest.into_iter().flat_map(|rest| window.after(rest));
            let until = rest.map_or(end.sequence, |rest| {
                end.sequence.min(rest.saturating_add(ask.limit))
            });
            let following = following.take_while(|entry| entry.sequence <= until);
            let taken = take(&mut some.chain(following), window.mark(until));
            let end = end.sequence;
            return Next::Entries { taken, end };
        }
        let look = |asked| state.looked_at + LOOK_EVERY <= asked;
        if state.told > state.looked_into || ask.look.is_some_and(look) {
            return state.retry.wait().map_or(Next::Fetch, Next::Later);
        }
        if ask.after == end {
            Next::Nothing
        } else {
            Next::Behind
        }
    }

    /// Where it ends, for a listener at a place that is certain and level with it, if nothing since is for it.
    pub(super) fn passed(&self, listener: &Listener, certain: Option<u64>) -> Option<Mark> {
        let state = self.locked();
        let nothing = certain == Some(state.generation) && !listener.is_told();
        let window = state.window.as_ref().filter(|_| nothing);
        window.map(Window::end)
    }

    /// Takes in what the writer on this replica has committed: the entries that the log ends with.
    pub(super) fn appended(&self, log: Position, entries: Vec<Arc<Entry>>) {
        let Some(first) = entries.first() else {
            return;
        };
        let before = Position {
            sequence: first.sequence.saturating_sub(1),
            ..log
        };
        let mut state = self.locked();
        let goes_on = |window: &Window| window.is_followed_by(log.log, &entries);
        if !state.window.as_ref().is_some_and(goes_on) {
            let window = Window::new(before.into(), Arc::clone(&self.budget));
            state.empty(Some(window));
        }
        for entry in &entries {
            state.listeners.tell_of(entry);
        }
        if let Some(window) = state.window.as_mut() {
            window.extend(entries);
        }
        state.looked_at = Instant::now();
        state.looked_into = state.told;
    }

    /// Notes that the log ends at `end`, by whoever writes it.
    pub(super) fn grown(&self, end: Position) {
        let mut state = self.locked();
        let is_old = |window: &Window| {
            let known = window.end().position;
            known.log == end.log && known.sequence >= end.sequence
        };
        if state.window.as_ref().is_some_and(is_old) {
            return;
        }
        state.told += 1;
        state.listeners.tell_all();
    }

    /// Notes that the log may have grown without a word.
    pub(super) fn may_have_grown(&self) {
        let mut state = self.locked();
        state.told += 1;
        state.listeners.tell_all();
    }

    /// What is known now, before a subscriber reads the store by itself.
    pub(super) fn stamp(&self) -> Stamp {
        self.locked().stamp()
    }

    /// Notes that a subscriber has found the log to end at `end`, by a read that began at the stamp. From there on the
    /// tail grows, if nobody has found that before.
    pub(super) fn ends(&self, end: Mark, stamp: Stamp) -> Met {
        let mut state = self.locked();
        if state.generation != stamp.generation {
            return Met::Apart;
        }
        let window = state.window.as_ref();
        let known = window.map(Window::end);
        match known {
            None => state.window = Some(Window::new(end, Arc::clone(&self.budget))),
            Some(known) if known.position != end.position => {
                let goes_on = window.is_some_and(|window| window.goes_on_from(end.position));
                // Another has looked later and found more, which this one was not told of.
                let has_grown = known.position.log == end.position.log
                    && known.position.sequence > end.position.sequence
                    && state.looked_at > stamp.at;
                return if goes_on || has_grown {
                    Met::Further
                } else {
                    Met::Apart
                };
            }
            Some(known) if known.differs(end) => {
                let window = Window::new(end, Arc::clone(&self.budget));
                state.empty(Some(window));
            }
            Some(_) => {}
        }
        state.looked_at = state.looked_at.max(stamp.at);
        state.looked_into = state.looked_into.max(stamp.told);
        if state.generation == stamp.generation {
            Met::Level
        } else {
            Met::Apart
        }
    }

    /// The read of what follows the tail's end: the one under way, or a new one. Afterwards ask again.
    pub(super) fn fetch(self: &Arc<Self>, source: &Source) -> Fetch {
        let mut state = self.locked();
        let under_way = state.fetch.as_ref().and_then(WeakShared::upgrade);
        if let Some(fetch) = under_way {
            return fetch;
        }
        let (tail, source) = (Arc::clone(self), source.clone());
        let (stamp, limit) = (state.stamp(), state.fetch_limit());
        let end = state.window.as_ref().map(Window::end);
        let reading = async move {
            let position = end.unwrap_or_default().position;
            let answer = source.read(&tail.partition, position.sequence, limit).await;
            tail.fetched(end, stamp, answer);
        };
        let fetch = reading.boxed().shared();
        state.fetch = fetch.downgrade();
        fetch
    }

    fn fetched(&self, end: Option<Mark>, stamp: Stamp, answer: Result<Read, StoreError>) {
        let mut state = self.locked();
        state.fetch = None;
        let read = match answer {
            Ok(read) => read,
            Err(refusal) => {
                state.retry.failed(&self.partition, &refusal);
                return;
            }
        };
        state.retry.worked();
        let same = state.window.as_ref().map(Window::end) == end;
        let Some(window) = state.window.as_mut().filter(|_| same) else {
            // The writer was faster.
            return;
        };
        let bytes: usize = read.entries.iter().map(|entry| entry.size).sum();
        let average = bytes.checked_div(read.entries.len());
        let last = read.bounds.last_sequence;
        if window.take_in(read) {
            let more = window.end().position.sequence < last;
            state.looked_at = state.looked_at.max(stamp.at);
            state.looked_into = state.looked_into.max(stamp.told);
            if more {
                state.told = state.looked_into + 1;
            }
        } else {
            state.empty(None);
        }
        if let Some(average) = average {
            state.average_bytes = (3 * state.average_bytes + average) / 4;
        }
        state.listeners.tell_all();
    }

    /// The numbers of the entries that it has.
    #[cfg(test)]
    pub(super) fn held(&self) -> Vec<u64> {
        let state = self.locked();
        let window = state.window.as_ref();
        window.map_or_else(Vec::new, |window| {
            let all = window.after(window.base().position.sequence);
            all.map(|entry| entry.sequence).collect()
        })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stamp(&self) -> Stamp {
        Stamp {
            generation: self.generation,
            told: self.told,
            at: Instant::now(),
        }
    }

    /// Begins anew, with nothing or with what is known now.
    fn empty(&mut self, window: Option<Window>) {
        self.generation += 1;
        self.window = window;
        self.listeners.tell_all();
    }

    /// As many entries as will probably make one batch.
    fn fetch_limit(&self) -> usize {
        (MAX_BATCH_BYTES / self.average_bytes.max(1)).clamp(1, MAX_FETCH)
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
