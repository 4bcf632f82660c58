//! Entries that follow each other in one log, within bounds: the newest ones stay. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cursor::Mark;
use super::entry::Entry;
use super::source::Read;
use crate::store::{LogId, Position};

/// The most entries of one partition: a second of one that is very busy.
const MAX_ENTRIES: usize = 4096;
/// The most bytes of one partition: sixteen of the largest batches, so that a subscriber that pauses for a moment
/// finds the next ones still in memory.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of all partitions of the replica: sixteen that are full, or very many quiet ones.
const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// What an entry takes beyond its encoded bytes: its structs, and what counts who shares them.
const ENTRY_OVERHEAD: usize = 256;

/// The bytes that all windows of the replica have together.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// The newest entries of a log.
#[derive(Debug)]
pub(super) struct Window {
    /// After which the entries go.
    base: Mark,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    budget: Arc<Budget>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(MAX_TOTAL_BYTES)
    }
}

impl Budget {
    pub(super) const fn of(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Window {
    /// A window that is empty, at the end of what is known.
    pub(super) const fn new(base: Mark, budget: Arc<Budget>) -> Self {
        Self {
            base,
            entries: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    /// Where it begins: the first entry is the next one.
    pub(super) const fn base(&self) -> Mark {
        self.base
    }

    /// Where it ends.
    pub(super) fn end(&self) -> Mark {
        self.entries.back().map_or(self.base, |last| Mark {
            position: Position {
                sequence: last.sequence,
                ..self.base.position
            },
            print: Some(last.print),
        })
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Arc<Entry>> {
        let distance = sequence.checked_sub(self.base.position.sequence + 1)?;
        self.entries.get(usize::try_from(distance).ok()?)
    }

    /// The place of an entry that it has, or its beginning.
    pub(super) fn mark(&self, sequence: u64) -> Mark {
        self.get(sequence).map_or(self.base, |entry| Mark {
            position: Position {
                sequence,
                ..self.base.position
            },
            print: Some(entry.print),
        })
    }

    /// Whether it has the entry after this place.
    pub(super) fn goes_on_from(&self, place: Position) -> bool {
        let (base, end) = (self.base.position, self.end().position);
        place.log == base.log && (base.sequence..end.sequence).contains(&place.sequence)
    }

    /// What follows `sequence`, which is not before the base.
    pub(super) fn after(&self, sequence: u64) -> impl Iterator<Item = &Arc<Entry>> {
        let skip = sequence.saturating_sub(self.base.position.sequence);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.entries.range(skip.min(self.entries.len())..)
    }

    /// Whether these entries, which follow each other and with which the log ends, go on with the window, or say the
    /// same where they overlap.
    pub(super) fn is_followed_by(&self, log: LogId, entries: &[Arc<Entry>]) -> bool {
        let (base, end) = (self.base.position, self.end().position);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return true;
        };
        let joins = first.sequence <= end.sequence.saturating_add(1);
        let agrees = |entry: &Arc<Entry>| {
            let own = match entry.sequence.checked_sub(base.sequence) {
                Some(0) => self.base.print,
                Some(distance) => usize::try_from(distance - 1)
                    .ok()
                    .and_then(|index| Some(self.entries.get(index)?.print)),
                None => None,
            };
            own.is_none_or(|own| own == entry.print)
        };
        let reaches = last.sequence >= end.sequence;
        log == base.log && joins && reaches && entries.iter().all(agrees)
    }

    /// Adds entries that go on with the window; those that it has are passed over.
    pub(super) fn extend(&mut self, entries: Vec<Arc<Entry>>) {
        for entry in entries {
            if entry.sequence <= self.end().position.sequence {
                continue;
            }
            let size = size(&entry);
            self.bytes += size;
            self.budget.used.fetch_add(size, Ordering::Relaxed);
            self.entries.push_back(entry);
        }
        while self.entries.len() > MAX_ENTRIES
            || self.bytes > MAX_BYTES
            || self.budget.used() > self.budget.limit
        {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    /// Adds what a read gave that began at the end, up to where something is missing in it. False if it does not go on
    /// with the window at all: the log is another one, or has lost entries.
    pub(super) fn take_in(&mut self, read: Read) -> bool {
        let (end, bounds) = (self.end(), read.bounds);
        let found = Mark {
            print: read.anchor,
            ..end
        };
        if bounds.log != end.position.log || end.differs(found) {
            return false;
        }
        let mut next = end.position.sequence;
        let mut following = Vec::new();
        for entry in read.entries {
            if entry.sequence == next + 1 {
                next = entry.sequence;
                following.push(entry);
            }
        }
        let goes_on = !following.is_empty() || bounds.last_sequence == end.position.sequence;
        self.extend(following);
        goes_on
    }

    /// False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else {
            return false;
        };
        self.base.position.sequence = oldest.sequence;
        self.base.print = Some(oldest.print);
        self.bytes -= size(&oldest);
        self.budget.used.fetch_sub(size(&oldest), Ordering::Relaxed);
        true
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn size(entry: &Entry) -> usize {
    ENTRY_OVERHEAD + entry.size
}

#[cfg(test)]
mod tests;
