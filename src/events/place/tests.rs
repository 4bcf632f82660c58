//! Tables of what reads come to.

use super::*;
use crate::events::entry::Print;
use crate::events::testing::{encoded, entry, gist, message, read};

const LOG: LogId = LogId(7);

fn at(sequence: u64) -> Position {
    Position { log: LOG, sequence }
}

/// A stand behind the entry whose text is its number.
fn behind(sequence: u64) -> Stand {
    let print = entry(sequence, &sequence.to_string()).print;
    let position = at(sequence);
    Mark {
        position,
        print: (sequence > 0).then_some(print),
    }
    .into()
}

fn entries(sequences: impl IntoIterator<Item = u64>) -> Vec<Arc<Entry>> {
    let entry = |sequence: u64| entry(sequence, &sequence.to_string());
    sequences.into_iter().map(entry).collect()
}

fn bounds(log: LogId, first_sequence: u64, last_sequence: u64) -> LogBounds {
    LogBounds {
        log,
        first_sequence,
        last_sequence,
    }
}

fn run(stand: &mut Stand, entries: Vec<Arc<Entry>>, bounds: LogBounds) -> (String, bool) {
    let read = read(stand.mark.position.sequence, entries, bounds);
    let taken = take(stand, read, &Filter::default(), 3);
    let gists: Vec<String> = taken.events.iter().map(gist).collect();
    (gists.join(", "), taken.more)
}

/// Reads a log of the entries that `texts` has, each in its place by its number, from an original one where it is the
/// number and from another where a prime is behind it, until there is nothing more. Each state of the log is given
/// with its first and last sequence.
fn story(start: u64, states: &[(&str, u64, u64)]) -> Vec<String> {
    let mut stand = behind(start);
    let mut told = Vec::new();
    for &(texts, first, last) in states {
        let mut gists = Vec::new();
        loop {
            let place = stand.mark.position.sequence;
            let log = texts.split_whitespace().map(|text| {
                let sequence = text.trim_end_matches('\'').parse().unwrap();
                entry(sequence, text)
            });
            let log = log.filter(|entry| entry.sequence >= place).take(3);
            let (got, more) = run(&mut stand, log.collect(), bounds(LOG, first, last));
            gists.push(got);
            if !more {
                break;
            }
            assert!(gists.len() < 20, "no end: {gists:?}");
        }
        gists.retain(|got| !got.is_empty());
        told.push(gists.join(", "));
    }
    told
}

#[test]
fn what_is_there_is_taken_in_order_up_to_the_bound() {
    let mut stand = behind(2);
    let log = bounds(LOG, 1, 9);
    assert_eq!(
        run(&mut stand, entries(2..=9), log),
        ("3, 4, 5".into(), true)
    );
    assert_eq!(stand, behind(5));
    let (events, more) = run(&mut stand, entries(8..=9), bounds(LOG, 8, 9));
    assert_eq!(events, "gap RETENTION 6-7 2, 8, 9");
    assert!(!more);
}

#[test]
fn what_is_missing_is_told_with_its_numbers_and_its_reason() {
    for (start, log, first, last, told) in [
        // Trimmed: before what is there, up to the end, and of a log that was read as new.
        (2, "10", 10, 10, "gap RETENTION 3-9 7, 10"),
        (2, "", 10, 9, "gap RETENTION 3-9 7"),
        (0, "4", 4, 4, "gap RETENTION 1-3 3, 4"),
        // Lost: a hole, which the next append has left.
        (
            90,
            "90 91 92 93 94 101",
            1,
            101,
            "91, 92, 93, 94, gap LOG_RESET 95-100 6, 101",
        ),
        (97, "94 101", 1, 101, "gap LOG_RESET 98-100 3, 101"),
        (100, "94 101 102", 1, 102, "101, 102"),
        // Both, and a hole at the end.
        (
            2,
            "5 9",
            5,
            9,
            "gap RETENTION 3-4 2, 5, gap LOG_RESET 6-8 3, 9",
        ),
        (2, "2 3", 1, 5, "3, gap LOG_RESET 4-5 2"),
        (3, "3", 3, 3, ""),
    ] {
        assert_eq!(
            story(start, &[(log, first, last)]),
            [told],
            "{start} in {log}"
        );
    }
}

#[test]
fn a_log_that_lost_its_newest_entries_is_waited_for() {
    // The owner lives: it leaves the numbers out.
    let lost = ("90 94", 90, 94);
    let waits = story(100, &[lost, lost, ("94 101", 90, 101)]);
    assert_eq!(waits, ["", "", "101"]);
    // One that lost more meanwhile.
    let waits = story(100, &[lost, ("90", 90, 90), ("90 101", 90, 101)]);
    assert_eq!(waits, ["", "", "101"]);
    // All of it, and the log goes on under its name.
    let mut stand = behind(100);
    let nothing = run(&mut stand, vec![], bounds(NO_LOG, 1, 0));
    assert_eq!((nothing, stand), ((String::new(), false), behind(100)));
    let next = run(&mut stand, entries(101..=101), bounds(LOG, 101, 101));
    assert_eq!(next, ("101".into(), false));
}

#[test]
fn numbers_that_are_given_out_again_are_a_gap() {
    // Seen as it grows, short of the place.
    let told = story(6, &[("2 3", 1, 3), ("2 3 4'", 1, 4), ("3 4' 5'", 1, 5)]);
    assert_eq!(told, ["", "gap LOG_RESET 0-3 0, 4'", "5'"]);
    // Grown past the place before it was looked at again, with and without knowing what was there.
    let told = story(6, &[("2 3", 1, 3), ("3 4' 5' 6' 7'", 1, 7)]);
    assert_eq!(told, ["", "gap LOG_RESET 0-3 0, 4', 5', 6', 7'"]);
    let mut stand: Stand = Mark::from(at(6)).into();
    run(&mut stand, entries(2..=3), bounds(LOG, 1, 3));
    let told = run(
        &mut stand,
        vec![entry(6, "6'"), entry(7, "7'")],
        bounds(LOG, 1, 7),
    );
    assert_eq!(told, ("gap LOG_RESET 0-3 0".into(), true));
    // Found at a resume: the entry at the place is another.
    let told = story(6, &[("4' 5' 6' 7'", 1, 7)]);
    assert_eq!(told, ["gap LOG_RESET 0-6 0, 7'"]);
    let told = story(6, &[("5' 6'", 1, 6)]);
    assert_eq!(told, ["gap LOG_RESET 0-6 0"]);
    // What was never seen cannot be compared, but is known from then on.
    let mut stand: Stand = Mark::from(at(6)).into();
    let told = run(&mut stand, entries(6..=6), bounds(LOG, 1, 6));
    assert_eq!((told, stand), ((String::new(), false), behind(6)));
}

#[test]
fn the_same_entry_written_again_after_a_lost_answer_is_no_gap() {
    let told = story(6, &[("2 3", 1, 3), ("3 6 7", 1, 7)]);
    assert_eq!(told, ["", "7"]);
}

#[test]
fn another_log_is_a_gap_and_is_read_from_its_beginning() {
    let mut stand = behind(5);
    // The entries are the new log's, read at the old place: they are left for the next read.
    let other = bounds(LogId(8), 1, 7);
    assert_eq!(
        run(&mut stand, entries(5..=7), other),
        ("gap LOG_RESET 6-0 0".into(), true)
    );
    let beginning = Position {
        log: LogId(8),
        sequence: 0,
    };
    assert_eq!(stand, Mark::from(beginning).into());
}

#[test]
fn the_first_log_is_not_a_reset() {
    let mut stand = Stand::default();
    assert_eq!(
        run(&mut stand, entries(1..=2), bounds(LOG, 1, 2)),
        (String::new(), true)
    );
    assert_eq!(stand, behind(0));
}

#[test]
fn a_log_is_certain_unless_it_is_waited_for() {
    let certain = |sequence, entries, bounds| {
        let read = read(sequence, entries, bounds);
        take(&mut behind(sequence), read, &Filter::default(), 3).certain
    };
    assert!(certain(2, entries(2..=3), bounds(LOG, 1, 3)));
    assert!(certain(3, entries(3..=3), bounds(LOG, 1, 3)));
    assert!(!certain(4, entries(3..=3), bounds(LOG, 1, 3)));
    assert!(!certain(4, vec![], bounds(NO_LOG, 1, 0)));
}

#[test]
fn an_event_that_cannot_be_read_is_a_gap() {
    let mut log = entries(1..=3);
    log[1] = Arc::new(Entry {
        event: None,
        ..(*log[1]).clone()
    });
    let (events, _) = run(&mut behind(0), log, bounds(LOG, 1, 3));
    assert_eq!(events, "1, gap CORRUPT 2-2 1, 3");
}

#[test]
fn a_gap_comes_whatever_the_filter() {
    let nobody = HashSet::from(["nobody".to_owned()]);
    let filter = Filter::new(nobody, vec![v1::EventKind::Notice]);
    let mut log = entries([5, 9]);
    log.push(Arc::new(Entry {
        event: None,
        ..(*entry(10, "")).clone()
    }));
    let read = read(2, log, bounds(LOG, 5, 10));
    let mut stand = behind(2);
    let taken = take(&mut stand, read, &filter, 10);
    let gists: Vec<String> = taken.events.iter().map(gist).collect();
    assert_eq!(
        gists,
        [
            "gap RETENTION 3-4 2",
            "gap LOG_RESET 6-8 3",
            "gap CORRUPT 10-10 1"
        ]
    );
    assert_eq!(stand.mark.position, at(10));
}

#[test]
fn a_batch_is_bounded_in_count_gaps_included() {
    let mut stand = behind(0);
    let mut told = Vec::new();
    for _ in 0..5 {
        let place = stand.mark.position.sequence;
        let read = read(place, entries([3, 7]), bounds(LOG, 3, 7));
        let taken = take(&mut stand, read, &Filter::default(), 1);
        assert!(taken.events.len() <= 1);
        told.extend(taken.events.iter().map(gist));
    }
    assert_eq!(
        told,
        ["gap RETENTION 1-2 2", "3", "gap LOG_RESET 4-6 3", "7"]
    );
}

#[test]
fn a_batch_is_bounded_in_bytes_but_takes_a_large_event() {
    let large = |sequence| entry(sequence, &"x".repeat(MAX_BATCH_BYTES));
    let log = || vec![large(1), large(2)];
    let mut stand = behind(0);
    for expected in 1..=2 {
        let log = log();
        let following = log.iter().filter(|entry| entry.sequence >= expected);
        let until = Mark {
            position: at(2),
            print: Some(log[1].print),
        };
        let events = pass(&mut stand, following, until, &Filter::default(), 100);
        assert_eq!(
            (events.len(), stand.mark.position),
            (1, at(expected)),
            "from the tail"
        );
    }
    stand = behind(0);
    for expected in 1..=2 {
        let place = stand.mark.position.sequence;
        let read = read(place, log(), bounds(LOG, 1, 2));
        let taken = take(&mut stand, read, &Filter::default(), 100);
        assert_eq!(
            (taken.events.len(), stand.mark.position),
            (1, at(expected)),
            "from the store"
        );
    }
}

#[test]
fn a_stand_moves_over_what_the_filter_keeps() {
    let filter = Filter::new(HashSet::from(["nobody".to_owned()]), vec![]);
    let mut stand = behind(0);
    let until = behind(4).mark;
    let events = pass(&mut stand, entries(1..=4).iter(), until, &filter, 2);
    assert_eq!(events, []);
    assert_eq!(stand, behind(4));
    assert_ne!(stand.mark.print, Some(Print(0)));
}

#[test]
fn a_filter_looks_at_accounts_and_kinds() {
    let message = encoded(&message("a", ""));
    let notice = encoded(&v1::Event {
        account: "a".into(),
        kind: Some(v1::event::Kind::UpstreamNotice(
            v1::UpstreamNotice::default(),
        )),
        ..v1::Event::default()
    });
    let lost = missing(v1::GapReason::Retention, 1, 2);
    let future = encoded(&v1::Event::default());
    let lets = |accounts: &[&str], kinds: &[v1::EventKind]| {
        let accounts = accounts.iter().map(|&a| a.into()).collect();
        let filter = Filter::new(accounts, kinds.to_vec());
        [&message, &notice, &lost, &future].map(|event| filter.lets_through(event))
    };
    assert_eq!(lets(&[], &[]), [true; 4]);
    assert_eq!(lets(&["a"], &[]), [true; 4]);
    assert_eq!(lets(&["b"], &[]), [false, false, true, true]);
    let kinds = [v1::EventKind::Notice];
    assert_eq!(lets(&[], &kinds), [false, true, true, false]);
    let kinds = [v1::EventKind::Message, v1::EventKind::Session];
    assert_eq!(lets(&["a"], &kinds), [true, false, true, false]);
}
