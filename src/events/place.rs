//! What entries of a log mean to a subscriber: the events it gets, and what is missing. Pure.
//!
//! What a log has lost is told from its numbers. An owner never gives a number out twice, so a subscriber that is
//! ahead of a log that lost its newest entries has seen all that is missing, and waits for what comes. Only when the
//! owner is gone as well does the next one give these numbers to other events: then the entry at the subscriber's
//! place is another than it has read, or the log grows where it had ended short of that place.

use std::collections::HashSet;
use std::sync::Arc;

use super::cursor::Mark;
use super::encoded::{Encoded, Kind, account_print};
use super::entry::Entry;
use super::source::Read;
use crate::proto::v1;
use crate::store::{LogBounds, LogId, Position};

/// The most bytes of events in one batch, unless a single event is larger.
pub(super) const MAX_BATCH_BYTES: usize = 256 * 1024;

/// What stands for no log: nobody has ever written to it, or the store has lost it.
const NO_LOG: LogId = LogId(0);

/// Which events a subscriber asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Accounts; all when empty.
    accounts: HashSet<String>,
    /// Their fingerprints, in order: where each of many subscribers has a few accounts, nearly every event is left out by
    /// nearly all of them.
    prints: Vec<u32>,
    /// Kinds; all when empty.
    kinds: Vec<v1::EventKind>,
}

impl Filter {
    /// Lets these accounts and kinds through; all where there are none.
    pub(super) fn new(accounts: HashSet<String>, kinds: Vec<v1::EventKind>) -> Self {
        let prints = accounts.iter().map(|id| account_print(id.as_bytes()));
        let mut prints: Vec<u32> = prints.collect();
        prints.sort_unstable();
        Self {
            accounts,
            prints,
            kinds,
        }
    }

    pub(super) fn lets_all_through(&self) -> bool {
        self.accounts.is_empty() && self.kinds.is_empty()
    }

    fn lets_through(&self, event: &Encoded) -> bool {
        self.lets_account_through(event) && self.lets_kind_through(event.kind())
    }

    fn lets_account_through(&self, event: &Encoded) -> bool {
        if self.accounts.is_empty() || !event.has_account() {
            return true;
        }
        self.prints.binary_search(&event.account_print()).is_ok()
            && self.accounts.contains(event.account())
    }

    fn lets_kind_through(&self, kind: Kind) -> bool {
        match kind {
            // What a later version has written only who asks for everything gets.
            Kind::Of(kind) => self.kinds.is_empty() || self.kinds.contains(&kind),
            Kind::Gap(_) => true,
        }
    }
}

/// Where a subscriber stands in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) mark: Mark,
    /// Where the log ended when it was seen to end short of the position.
    short: Option<u64>,
}

/// What a read comes to.
#[derive(Debug, PartialEq)]
pub(super) struct Taken {
    /// What the subscriber gets, gaps included.
    pub(super) events: Vec<Encoded>,
    /// Whether there is more to read already.
    pub(super) more: bool,
    /// Whether the log is known to be the one that the subscriber has read so far.
    pub(super) certain: bool,
}

impl From<Mark> for Stand {
    fn from(mark: Mark) -> Self {
        Self { mark, short: None }
    }
}

/// Takes at most `max_events` events out of a read that began at the stand, and moves the stand behind the last entry
/// that was looked at. What cannot be had any more becomes a gap.
pub(super) fn take(stand: &mut Stand, read: Read, filter: &Filter, max_events: usize) -> Taken {
    let Read {
        anchor,
        entries,
        bounds,
    } = read;
    let position = stand.mark.position;
    if bounds.log != position.log {
        return other_log(stand, bounds);
    }
    if position.sequence > bounds.last_sequence {
        return ends_short(stand, bounds.last_sequence);
    }
    if let Some(anchor) = anchor {
        // It was not there when the log ended short of it.
        let given_out_again = stand
            .mark
            .print
            .map_or_else(|| stand.short.is_some(), |print| print != anchor);
        if given_out_again {
            let place = stand.short.unwrap_or(position.sequence);
            return go_on(stand, place, bounds.last_sequence);
        }
        stand.mark.print = Some(anchor);
    }
    stand.short = None;
    let mut batch = Batch::new(max_events);
    if entries.is_empty() {
        batch.skip(stand, bounds.last_sequence, bounds.first_sequence);
    }
    batch.walk(stand, entries.iter(), bounds.first_sequence, filter);
    Taken {
        events: batch.events,
        more: stand.mark.position.sequence < bounds.last_sequence,
        certain: true,
    }
}

/// Takes at most `max_events` events out of those entries behind the stand that may be for the subscriber, of a log without
/// a hole, and moves the stand behind the last that was looked at; if that is all of them, to `until`.
pub(super) fn pass<'a>(
    stand: &mut Stand,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
    until: Mark,
    filter: &Filter,
    max_events: usize,
) -> Vec<Encoded> {
    let mut batch = Batch::new(max_events);
    for entry in entries {
        if !batch.has_room(entry.size) {
            return batch.events;
        }
        batch.add(stand, entry, filter);
    }
    stand.mark = until;
    batch.events
}

struct Batch {
    events: Vec<Encoded>,
    bytes: usize,
    max_events: usize,
}

impl Batch {
    const fn new(max_events: usize) -> Self {
        Self {
            events: Vec::new(),
            bytes: 0,
            max_events,
        }
    }

    /// At least one event always fits.
    fn has_room(&self, bytes: usize) -> bool {
        self.events.is_empty()
            || (self.events.len() < self.max_events && self.bytes + bytes <= MAX_BATCH_BYTES)
    }

    /// Takes entries for as long as there is room. The oldest that the log retains is `first`.
    fn walk<'a>(
        &mut self,
        stand: &mut Stand,
        entries: impl Iterator<Item = &'a Arc<Entry>>,
        first: u64,
        filter: &Filter,
    ) {
        for entry in entries {
            if entry.sequence <= stand.mark.position.sequence {
                continue;
            }
            if !self.has_room(entry.size) {
                return;
            }
            let before = entry.sequence - 1;
            self.skip(stand, before, first);
            if stand.mark.position.sequence < before || !self.has_room(entry.size) {
                return;
            }
            self.add(stand, entry, filter);
        }
    }

    /// Tells that what follows the stand is missing up to `last`: it is not retained, or the store has lost it.
    fn skip(&mut self, stand: &mut Stand, last: u64, first: u64) {
        while stand.mark.position.sequence < last && self.has_room(0) {
            let from = stand.mark.position.sequence + 1;
            let (reason, to) = if from < first {
                (v1::GapReason::Retention, last.min(first - 1))
            } else {
                (v1::GapReason::LogReset, last)
            };
            self.events.push(missing(reason, from, to));
            stand.mark.position.sequence = to;
            stand.mark.print = None;
        }
    }

    /// Looks at an entry, and moves the stand behind it.
    fn add(&mut self, stand: &mut Stand, entry: &Entry, filter: &Filter) {
        stand.mark.position.sequence = entry.sequence;
        stand.mark.print = Some(entry.print);
        match &entry.event {
            Some(event) if filter.lets_through(event) => {
                self.bytes += entry.size;
                self.events.push(event.clone());
            }
            Some(_) => {}
            None => {
                let at = entry.sequence;
                self.events.push(missing(v1::GapReason::Corrupt, at, at));
            }
        }
    }
}

/// The log is another one than the position's: it is read from its beginning.
fn other_log(stand: &mut Stand, bounds: LogBounds) -> Taken {
    if bounds.log == NO_LOG {
        // If its owner lives it goes on where it was, and nothing is missing that the subscriber has not seen.
        return wait();
    }
    let old = stand.mark.position;
    let beginning = Position {
        log: bounds.log,
        sequence: 0,
    };
    *stand = Mark::from(beginning).into();
    let first_of_all = old.log == NO_LOG;
    Taken {
        events: if first_of_all {
            vec![]
        } else {
            vec![lost(old.sequence + 1, 0)]
        },
        more: bounds.last_sequence > 0,
        certain: true,
    }
}

/// The log ends at `end`, before the position: it has lost entries that the subscriber has seen.
fn ends_short(stand: &mut Stand, end: u64) -> Taken {
    match stand.short {
        // The owner would have gone on behind the position.
        Some(seen) if seen < end => go_on(stand, seen, end),
        Some(_) | None => {
            stand.short = Some(end);
            wait()
        }
    }
}

/// Goes on behind `place`, in a log that has given its numbers out again. Since which one cannot be known, and so what
/// is missing before `place` cannot be known either.
fn go_on(stand: &mut Stand, place: u64, end: u64) -> Taken {
    let position = Position {
        sequence: place,
        ..stand.mark.position
    };
    *stand = Mark::from(position).into();
    Taken {
        events: vec![lost(0, place)],
        more: place < end,
        certain: true,
    }
}

const fn wait() -> Taken {
    Taken {
        events: Vec::new(),
        more: false,
        certain: false,
    }
}

/// An unknown number of events is lost; 0 is an end that is not known.
fn lost(from: u64, to: u64) -> Encoded {
    Encoded::from(v1::Gap {
        reason: v1::GapReason::LogReset.into(),
        from_sequence: from,
        to_sequence: to,
        count: 0,
    })
}

fn missing(reason: v1::GapReason, from: u64, to: u64) -> Encoded {
    Encoded::from(v1::Gap {
        reason: reason.into(),
        from_sequence: from,
        to_sequence: to,
        count: (to + 1).saturating_sub(from),
    })
}

#[cfg(test)]
mod tests;
