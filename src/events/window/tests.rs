//! Windows against what the log has.

use proptest::prelude::*;

use super::*;
use crate::events::entry::Print;
use crate::events::testing::{self, entry};
use crate::store::LogBounds;

const LOG: LogId = LogId(7);

fn mark(sequence: u64) -> Mark {
    let position = Position { log: LOG, sequence };
    Mark {
        position,
        print: None,
    }
}

fn window(base: u64) -> Window {
    Window::new(mark(base), Arc::new(Budget::default()))
}

fn entries(sequences: impl IntoIterator<Item = u64>) -> Vec<Arc<Entry>> {
    let entry = |sequence: u64| entry(sequence, &sequence.to_string());
    sequences.into_iter().map(entry).collect()
}

/// What a read gives that began at the end of a window.
fn read(
    window: &Window,
    sequences: impl IntoIterator<Item = u64>,
    log: LogId,
    last_sequence: u64,
) -> Read {
    let bounds = LogBounds {
        log,
        first_sequence: 1,
        last_sequence,
    };
    let place = window.end().position.sequence;
    testing::read(place, entries(sequences), bounds)
}

fn sequences<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Vec<u64> {
    entries.map(|entry| entry.sequence).collect()
}

/// All that a window has.
fn held(window: &Window) -> Vec<u64> {
    let base = window.base().position.sequence;
    sequences(window.after(base))
}

#[test]
fn it_gives_what_follows() {
    let mut window = window(5);
    assert_eq!(window.end(), mark(5));
    window.extend(entries(6..=9));
    let after = |sequence| sequences(window.after(sequence));
    assert_eq!(after(5), [6, 7, 8, 9]);
    assert_eq!(after(7), [8, 9]);
    assert_eq!(after(9), Vec::<u64>::new());
}

#[test]
fn what_the_writer_has_committed_goes_on_with_it_or_not() {
    let mut window = window(5);
    window.extend(entries(6..=8));
    let follows =
        |log, sequences: &[u64]| window.is_followed_by(log, &entries(sequences.iter().copied()));
    assert!(follows(LOG, &[9, 10]));
    // Read from the store before the writer had its answer.
    assert!(follows(LOG, &[7, 8, 9]));
    assert!(follows(LOG, &[8]));
    // From before it began.
    assert!(follows(LOG, &[4, 5, 6, 7, 8]));
    for (log, sequences) in [
        (LogId(8), &[9][..]),
        (LOG, &[10]),
        // It ends where the window did not: something has happened.
        (LOG, &[6, 7]),
        (LOG, &[3]),
    ] {
        assert!(!follows(log, sequences), "{sequences:?}");
    }
    // The same numbers, for other events.
    let other = [entry(8, "8'"), entry(9, "9")];
    assert!(!window.is_followed_by(LOG, &other));
    window.drop_oldest();
    let other: Vec<_> = [(6, "6'"), (7, "7"), (8, "8")]
        .map(|(sequence, text)| entry(sequence, text))
        .into();
    assert!(!window.is_followed_by(LOG, &other), "the base is known too");
}

#[test]
fn what_was_read_goes_on_with_it_or_not() {
    for (sequences, log, last, goes_on, held_then) in [
        (&[8, 9, 10][..], LOG, 10, true, &[6, 7, 8, 9, 10][..]),
        (&[8], LOG, 8, true, &[6, 7, 8]),
        // Its last entry is not in the store any more, but what follows is.
        (&[9], LOG, 9, true, &[6, 7, 8, 9]),
        // As far as nothing is missing.
        (&[8, 9, 11], LOG, 11, true, &[6, 7, 8, 9]),
        (&[8, 10], LOG, 10, false, &[6, 7, 8]),
        (&[8], LOG, 12, false, &[6, 7, 8]),
        (&[], LOG, 7, false, &[6, 7, 8]),
        (&[8, 9], LogId(8), 9, false, &[6, 7, 8]),
    ] {
        let mut window = window(5);
        window.extend(entries(6..=8));
        let read = read(&window, sequences.iter().copied(), log, last);
        assert_eq!(window.take_in(read), goes_on, "{sequences:?}");
        assert_eq!(held(&window), held_then);
    }
    // Another entry in the place of the last one.
    let mut window = window(5);
    window.extend(vec![entry(6, "6'")]);
    let read = read(&window, 6..=7, LOG, 7);
    assert!(!window.take_in(read));
}

#[test]
fn the_oldest_go_when_there_is_no_room() {
    let size = size(&entry(1, "1"));
    let budget = Arc::new(Budget::of(4 * size));
    let mut one = Window::new(mark(0), Arc::clone(&budget));
    one.extend(entries(1..=3));
    let mut other = Window::new(mark(0), Arc::clone(&budget));
    // Each gives up its own.
    other.extend(entries(1..=3));
    assert_eq!(
        (held(&one), held(&other)),
        (vec![1, 2, 3], vec![3]),
        "a partition that grows takes nothing from another"
    );
    assert_eq!(budget.used(), 4 * size);
    other.extend(entries(4..=5));
    assert_eq!(held(&other), [5]);
    let print = Some(entry(4, "4").print);
    assert_eq!(other.base(), Mark { print, ..mark(4) });
    drop(one);
    assert_eq!(budget.used(), size);
    other.extend(entries(6..=8));
    assert_eq!(held(&other), [5, 6, 7, 8]);
    // One that is too large for all is passed through.
    other.extend(vec![entry(9, &"x".repeat(10 * size))]);
    assert_eq!((held(&other), budget.used()), (vec![], 0));
    assert_eq!(other.end().position, mark(9).position);
}

#[test]
fn a_partition_has_its_bounds() {
    let mut window = window(0);
    window.extend(entries(1..=6000));
    assert!(window.entries.len() <= MAX_ENTRIES && window.bytes <= MAX_BYTES);
    assert_eq!(held(&window).last(), Some(&6000));
    window.extend(vec![entry(6001, &"x".repeat(MAX_BYTES / 2))]);
    assert!(window.bytes <= MAX_BYTES);
    assert_eq!(held(&window).last(), Some(&6001));
}

proptest! {
    /// Whatever comes in, what is in a window follows each other, ends where it is said to end, and is counted.
    #[test]
    fn a_window_has_no_holes(
        steps in prop::collection::vec((0..3_u8, 0..12_u64, 1..6_u64, any::<bool>()), 1..60),
    ) {
        let size = size(&entry(10, "10"));
        let budget = Arc::new(Budget::of(8 * size));
        let mut window = Window::new(mark(10), Arc::clone(&budget));
        for (step, from, count, holed) in steps {
            let first = (window.end().position.sequence + from).saturating_sub(8).max(1);
            let mut sequences: Vec<u64> = (first..first + count).collect();
            let last = first + count - 1;
            match step {
                0 => {
                    let entries = entries(sequences);
                    if window.is_followed_by(LOG, &entries) {
                        window.extend(entries);
                        prop_assert_eq!(window.end().position.sequence, last);
                    }
                }
                1 => {
                    if holed {
                        sequences.remove(sequences.len() / 2);
                    }
                    let before = window.end();
                    let read = read(&window, sequences, LOG, last);
                    let goes_on = window.take_in(read);
                    prop_assert!(goes_on || window.end() == before);
                }
                _ => {
                    window.drop_oldest();
                }
            }
            let held = held(&window);
            let base = window.base().position.sequence;
            let expected: Vec<u64> = (base + 1..=window.end().position.sequence).collect();
            prop_assert_eq!(&held, &expected);
            prop_assert_eq!(budget.used(), window.bytes);
            prop_assert!(budget.used() <= 8 * size);
            let sum: usize = window.entries.iter().map(|entry| super::size(entry)).sum();
            prop_assert_eq!(window.bytes, sum);
            prop_assert_ne!(window.end().print, Some(Print(0)));
        }
        drop(window);
        prop_assert_eq!(budget.used(), 0);
    }
}
