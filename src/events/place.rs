//! What a read of a log means to a subscriber: the events it gets, and what is missing. Pure.

use std::collections::HashSet;

use prost::Message as _;
use tracing::error;

use crate::proto::v1;
use crate::store::{LogBounds, LogEntry, LogId, LogRead, Position};

/// The most bytes of events in one batch, unless a single event is larger.
pub(super) const MAX_BATCH_BYTES: usize = 256 * 1024;

/// The place of a log that nobody has ever written to; also where a log that is new is read from.
pub(super) const ORIGIN: Position = Position {
    log: LogId(0),
    sequence: 0,
};

/// Which events a subscriber asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Accounts; all when empty.
    pub(super) accounts: HashSet<String>,
    /// Kinds; all when empty.
    pub(super) kinds: Vec<v1::EventKind>,
}

impl Filter {
    pub(super) fn lets_all_through(&self) -> bool {
        self.accounts.is_empty() && self.kinds.is_empty()
    }

    fn lets_through(&self, event: &v1::Event) -> bool {
        let account = self.accounts.is_empty()
            || event.account.is_empty()
            || self.accounts.contains(&event.account);
        account && self.lets_kind_through(event)
    }

    fn lets_kind_through(&self, event: &v1::Event) -> bool {
        use v1::event::Kind;
        let kind = match event.kind.as_ref() {
            Some(Kind::Message(_)) => v1::EventKind::Message,
            Some(Kind::SessionChanged(_) | Kind::SignatureExpired(_) | Kind::KickedOffline(_)) => {
                v1::EventKind::Session
            }
            Some(Kind::UpstreamNotice(_)) => v1::EventKind::Notice,
            Some(Kind::Gap(_)) => return true,
            // Written by a later version: only who asks for everything gets it.
            None => v1::EventKind::Unspecified,
        };
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

/// What a read comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Taken {
    /// What the subscriber gets, gaps included.
    pub(super) events: Vec<v1::Event>,
    /// Whether there is more to read already.
    pub(super) more: bool,
}

/// Takes at most `max_events` events out of a read, and moves `position` behind the last entry that was looked
/// at. What cannot be had any more becomes a gap.
pub(super) fn take(
    position: &mut Position,
    read: LogRead,
    filter: &Filter,
    max_events: usize,
) -> Taken {
    let LogRead { entries, bounds } = read;
    if bounds.log != position.log {
        return change_log(position, bounds);
    }
    if position.sequence > bounds.last_sequence {
        return go_back(position, bounds);
    }
    let mut batch = Batch {
        events: Vec::new(),
        bytes: 0,
        max_events,
    };
    for entry in entries {
        if entry.sequence <= position.sequence {
            continue;
        }
        if !batch.has_room(entry.payload.len()) {
            break;
        }
        let before = entry.sequence - 1;
        if position.sequence < before {
            batch.events.push(missing(position.sequence + 1, before));
            position.sequence = before;
            if !batch.has_room(entry.payload.len()) {
                break;
            }
        }
        batch.add(entry, filter);
        position.sequence += 1;
    }
    let trimmed = bounds.first_sequence.saturating_sub(1);
    if position.sequence < trimmed && batch.has_room(0) {
        batch.events.push(missing(position.sequence + 1, trimmed));
        position.sequence = trimmed;
    }
    Taken {
        events: batch.events,
        more: position.sequence < bounds.last_sequence,
    }
}

struct Batch {
    events: Vec<v1::Event>,
    bytes: usize,
    max_events: usize,
}

impl Batch {
    /// At least one event always fits.
    fn has_room(&self, bytes: usize) -> bool {
        self.events.is_empty()
            || (self.events.len() < self.max_events && self.bytes + bytes <= MAX_BATCH_BYTES)
    }

    fn add(&mut self, entry: LogEntry, filter: &Filter) {
        match v1::Event::decode(entry.payload.as_slice()) {
            Ok(mut event) if filter.lets_through(&event) => {
                event.sequence = entry.sequence;
                self.bytes += entry.payload.len();
                self.events.push(event);
            }
            Ok(_) => {}
            Err(problem) => {
                error!(sequence = entry.sequence, error = %problem, "an event in the log cannot be read");
                self.events.push(gap(v1::Gap {
                    reason: v1::GapReason::Corrupt.into(),
                    from_sequence: entry.sequence,
                    to_sequence: entry.sequence,
                    count: 1,
                }));
            }
        }
    }
}

/// The log is another one than the position's: it is read from its beginning.
fn change_log(position: &mut Position, bounds: LogBounds) -> Taken {
    let old = std::mem::replace(
        position,
        Position {
            log: bounds.log,
            sequence: 0,
        },
    );
    let mut events = Vec::new();
    if old != ORIGIN {
        events.push(log_reset(old.sequence + 1));
    }
    Taken {
        events,
        more: bounds.last_sequence > 0,
    }
}

/// The log has lost its end and will give its numbers out again.
fn go_back(position: &mut Position, bounds: LogBounds) -> Taken {
    position.sequence = bounds.last_sequence;
    Taken {
        events: vec![log_reset(bounds.last_sequence + 1)],
        more: false,
    }
}

fn log_reset(from: u64) -> v1::Event {
    gap(v1::Gap {
        reason: v1::GapReason::LogReset.into(),
        from_sequence: from,
        to_sequence: 0,
        count: 0,
    })
}

fn missing(from: u64, to: u64) -> v1::Event {
    gap(v1::Gap {
        reason: v1::GapReason::Retention.into(),
        from_sequence: from,
        to_sequence: to,
        count: (to + 1).saturating_sub(from),
    })
}

fn gap(gap: v1::Gap) -> v1::Event {
    v1::Event {
        sequence: gap.to_sequence,
        kind: Some(v1::event::Kind::Gap(gap)),
        ..v1::Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::{gist, message};
    use crate::types::UnixMillis;

    const LOG: LogId = LogId(7);

    fn at(sequence: u64) -> Position {
        Position { log: LOG, sequence }
    }

    fn entries(sequences: impl IntoIterator<Item = u64>) -> Vec<LogEntry> {
        let entry = |sequence: u64| LogEntry {
            sequence,
            appended_at: UnixMillis(0),
            payload: message("bot", &sequence.to_string()).encode_to_vec(),
        };
        sequences.into_iter().map(entry).collect()
    }

    fn bounds(log: LogId, first_sequence: u64, last_sequence: u64) -> LogBounds {
        LogBounds {
            log,
            first_sequence,
            last_sequence,
        }
    }

    fn run(
        position: &mut Position,
        entries: Vec<LogEntry>,
        bounds: LogBounds,
    ) -> (Vec<String>, bool) {
        let read = LogRead { entries, bounds };
        let taken = take(position, read, &Filter::default(), 3);
        (taken.events.iter().map(gist).collect(), taken.more)
    }

    #[test]
    fn what_is_there_is_taken_in_order_up_to_the_bound() {
        let mut position = at(2);
        let log = bounds(LOG, 1, 9);
        let (events, more) = run(&mut position, entries(3..=9), log);
        assert_eq!((events.join(" "), more), ("3 4 5".into(), true));
        assert_eq!(position, at(5));
        let (events, more) = run(&mut position, entries(8..=9), bounds(LOG, 8, 9));
        assert_eq!(events, ["gap RETENTION 6-7 2", "8", "9"]);
        assert!(!more);
    }

    #[test]
    fn what_was_trimmed_is_a_gap_even_if_nothing_is_left() {
        let mut position = at(2);
        let (events, more) = run(&mut position, vec![], bounds(LOG, 10, 9));
        assert_eq!(events, ["gap RETENTION 3-9 7"]);
        assert_eq!((position, more), (at(9), false));
        // The same of a log that was read as new, and had been trimmed before.
        let mut position = Position { log: LOG, ..ORIGIN };
        let (events, _) = run(&mut position, entries(4..=4), bounds(LOG, 4, 4));
        assert_eq!(events, ["gap RETENTION 1-3 3", "4"]);
    }

    #[test]
    fn another_log_is_a_gap_and_is_read_from_its_beginning() {
        let mut position = at(5);
        // The entries are the new log's, read at the old place: they are left for the next read.
        let other = bounds(LogId(8), 1, 7);
        let (events, more) = run(&mut position, entries(6..=7), other);
        assert_eq!(
            (events.join(" "), more),
            ("gap LOG_RESET 6-0 0".into(), true)
        );
        let beginning = Position {
            log: LogId(8),
            sequence: 0,
        };
        assert_eq!(position, beginning);

        let mut position = at(5);
        let (events, more) = run(&mut position, vec![], bounds(LogId(0), 1, 0));
        assert_eq!((events.len(), more, position), (1, false, ORIGIN));
    }

    #[test]
    fn the_first_log_is_not_a_reset() {
        let mut position = ORIGIN;
        let (events, more) = run(&mut position, entries(1..=2), bounds(LOG, 1, 2));
        assert!(events.is_empty() && more);
        assert_eq!(position, at(0));
    }

    #[test]
    fn a_log_that_lost_its_end_is_a_gap() {
        let mut position = at(9);
        let (events, more) = run(&mut position, vec![], bounds(LOG, 1, 6));
        assert_eq!(
            (events.join(" "), more),
            ("gap LOG_RESET 7-0 0".into(), false)
        );
        assert_eq!(position, at(6));
    }

    #[test]
    fn an_event_that_cannot_be_read_is_a_gap() {
        let mut position = at(0);
        let mut log = entries(1..=3);
        log[1].payload = vec![0xff; 3];
        let (events, _) = run(&mut position, log, bounds(LOG, 1, 3));
        assert_eq!(events, ["1", "gap CORRUPT 2-2 1", "3"]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_but_takes_a_large_event() {
        let large = |sequence| LogEntry {
            sequence,
            appended_at: UnixMillis(0),
            payload: message("bot", &"x".repeat(MAX_BATCH_BYTES)).encode_to_vec(),
        };
        let mut position = at(0);
        let log = || vec![large(1), large(2)];
        for expected in 1..=2 {
            let read = LogRead {
                entries: log(),
                bounds: bounds(LOG, 1, 2),
            };
            let taken = take(&mut position, read, &Filter::default(), 100);
            assert_eq!((taken.events.len(), position), (1, at(expected)));
        }
    }

    #[test]
    fn a_filter_looks_at_accounts_and_kinds() {
        let notice = v1::Event {
            account: "a".into(),
            kind: Some(v1::event::Kind::UpstreamNotice(
                v1::UpstreamNotice::default(),
            )),
            ..v1::Event::default()
        };
        let lost = missing(1, 2);
        let future = v1::Event::default();
        let lets = |accounts: &[&str], kinds: &[v1::EventKind]| {
            let filter = Filter {
                accounts: accounts.iter().map(|&a| a.into()).collect(),
                kinds: kinds.to_vec(),
            };
            [&message("a", ""), &notice, &lost, &future].map(|event| filter.lets_through(event))
        };
        assert_eq!(lets(&[], &[]), [true; 4]);
        assert_eq!(lets(&["a"], &[]), [true; 4]);
        assert_eq!(lets(&["b"], &[]), [false, false, true, true]);
        let kinds = [v1::EventKind::Notice];
        assert_eq!(lets(&[], &kinds), [false, true, true, false]);
        let kinds = [v1::EventKind::Message, v1::EventKind::Session];
        assert_eq!(lets(&["a"], &kinds), [true, false, true, false]);
    }
}
