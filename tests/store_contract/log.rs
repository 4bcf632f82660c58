//! The contract's part on the log: reads, what retention drops, batches that come twice, and logs that lost entries.

use futures_util::future::join_all;
use imgate::store::{Batch, BatchId, LogBounds, LogId, Retention};
use imgate::types::UnixMillis;

use crate::fixture::*;

/// What a log retains, without its identity.
async fn bounds(store: &Shared) -> (u64, u64) {
    let bounds = store.log_bounds(&here()).await.unwrap();
    (bounds.first_sequence, bounds.last_sequence)
}

async fn sequences(store: &Shared) -> Vec<u64> {
    let read = store.read(&here(), 0, usize::MAX).await.unwrap();
    assert_eq!(read.bounds, store.log_bounds(&here()).await.unwrap());
    read.entries.iter().map(|entry| entry.sequence).collect()
}

/// A batch of one event for each of `sizes`, of so many bytes, written at `now`.
fn sized<const N: usize>(now: u64, sizes: [usize; N]) -> Batch {
    Batch {
        now: UnixMillis(now),
        events: sizes.map(|size| vec![b'x'; size]).into(),
        ..Batch::default()
    }
}

pub(crate) async fn a_read_is_after_a_place_and_bounded(store: Shared) {
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["1", "2", "3", "4", "5"]).await;
    let sequences = |after, limit| {
        let store = store.clone();
        async move {
            let entries = store.read(&here(), after, limit).await.unwrap().entries;
            entries
                .iter()
                .map(|entry| entry.sequence)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(sequences(0, 2).await, [1, 2]);
    assert_eq!(sequences(2, 2).await, [3, 4]);
    assert_eq!(sequences(4, 2).await, [5]);
    assert_eq!(sequences(3, usize::MAX).await, [4, 5]);
    assert!(sequences(0, 0).await.is_empty());
    assert!(sequences(5, 9).await.is_empty());
    assert!(sequences(u64::MAX, 9).await.is_empty());
}

pub(crate) async fn a_log_keeps_its_identity(store: Shared) {
    let lease = owned(&store, &here()).await;
    let none = store.commit(&lease, &records([session("bot", "r")])).await;
    let none = none.unwrap();
    assert_eq!((none.log, none.last_sequence), (LogId(0), 0));
    let nothing = store.commit(&lease, &Batch::default()).await.unwrap();
    assert_eq!(nothing, none);

    let made = append(&store, &lease, ["x"]).await;
    store.release(&lease).await.unwrap();
    let lease = owned(&store, &here()).await;
    trim(&store, &lease, newest(0)).await;
    let later = append(&store, &lease, ["y"]).await;
    assert_eq!((later.log, later.last_sequence), (made.log, 2));
    let quiet = store.commit(&lease, &records([session("bot", "s")])).await;
    assert_eq!(quiet.unwrap(), later);
    assert_eq!(store.log_bounds(&here()).await.unwrap().log, made.log);

    let other = partition("tenant", 4);
    let lease = owned(&store, &other).await;
    assert_ne!(append(&store, &lease, ["x"]).await.log, made.log);
}

pub(crate) async fn a_read_and_its_bounds_are_of_one_moment(store: Shared) {
    let lease = owned(&store, &here()).await;
    append(&store, &lease, ["0"]).await;
    let (store, lease) = (&store, &lease);
    let writing = async {
        for n in 0..100_u32 {
            append(store, lease, ["a", "b"]).await;
            if n % 3 == 0 {
                trim(store, lease, newest(3)).await;
            }
        }
    };
    let reading = async {
        let mut seen = 0;
        while seen < 201 {
            let read = store.read(&here(), 0, usize::MAX).await.unwrap();
            let sequences: Vec<u64> = read.entries.iter().map(|entry| entry.sequence).collect();
            let LogBounds {
                first_sequence,
                last_sequence,
                ..
            } = read.bounds;
            assert_eq!(
                sequences,
                (first_sequence..=last_sequence).collect::<Vec<_>>()
            );
            assert!(last_sequence >= seen, "{last_sequence} after {seen}");
            seen = last_sequence;
        }
    };
    tokio::join!(writing, reading, reading_bounds(store));
}

/// Reads from the middle, so that what is trimmed meanwhile is missing at the front.
async fn reading_bounds(store: &Shared) {
    let mut last = 0;
    while last < 201 {
        let read = store.read(&here(), last, 3).await.unwrap();
        let Some(first) = read.entries.first() else {
            assert_eq!(read.bounds.last_sequence, last);
            tokio::task::yield_now().await;
            continue;
        };
        assert_eq!(first.sequence, read.bounds.first_sequence.max(last + 1));
        last = read.entries.last().unwrap().sequence;
        assert!(last <= read.bounds.last_sequence);
    }
}

pub(crate) async fn a_log_is_trimmed_to_a_number_of_events_exactly(store: Shared) {
    let empty = LogBounds {
        log: LogId(0),
        first_sequence: 1,
        last_sequence: 0,
    };
    assert_eq!(store.log_bounds(&here()).await.unwrap(), empty);
    let lease = owned(&store, &here()).await;
    assert_eq!(trim(&store, &lease, newest(0)).await, 0);
    assert_eq!(store.log_bounds(&here()).await.unwrap(), empty);

    // More than one node of a radix tree or one page holds, so that inexact trimming shows.
    for _ in 0..50 {
        append(&store, &lease, ["a", "b", "c", "d", "e"]).await;
    }
    let log = append(&store, &lease, ["last"]).await.log;
    let bounds = |first_sequence| LogBounds {
        log,
        first_sequence,
        last_sequence: 251,
    };
    assert_eq!(store.log_bounds(&here()).await.unwrap(), bounds(1));
    for (keep, dropped) in [(1000, 0), (251, 0), (250, 1), (119, 131), (245, 0)] {
        assert_eq!(trim(&store, &lease, newest(keep)).await, dropped, "{keep}");
    }
    assert_eq!(store.log_bounds(&here()).await.unwrap(), bounds(133));
    let left = store.read(&here(), 0, 1000).await.unwrap().entries;
    assert_eq!((left[0].sequence, left.len()), (133, 119));

    assert_eq!(trim(&store, &lease, newest(0)).await, 119);
    assert_eq!(store.log_bounds(&here()).await.unwrap(), bounds(252));
    assert_eq!(append(&store, &lease, ["on"]).await.last_sequence, 252);
    assert_eq!(store.log_bounds(&here()).await.unwrap().first_sequence, 252);
}

pub(crate) async fn a_log_is_trimmed_to_a_number_of_bytes_exactly(store: Shared) {
    let lease = owned(&store, &here()).await;
    let keep = |bytes| Retention { bytes, ..ALL };
    store.commit(&lease, &sized(1, [10, 0, 5])).await.unwrap();
    store.commit(&lease, &sized(1, [7, 100, 1])).await.unwrap();
    // What comes last counts as what came first: 123 bytes in all.
    for (bytes, dropped, left) in [
        (124, 0, (1, 6)),
        (123, 0, (1, 6)),
        (122, 1, (2, 6)),
        (113, 0, (2, 6)),
        // The empty one takes no space, but is in the way of the next.
        (112, 2, (4, 6)),
        (107, 1, (5, 6)),
        (1, 1, (6, 6)),
        (0, 1, (7, 6)),
        (0, 0, (7, 6)),
    ] {
        assert_eq!(trim(&store, &lease, keep(bytes)).await, dropped, "{bytes}");
        assert_eq!(bounds(&store).await, left, "{bytes}");
    }
    // Nothing is left of the account of what was dropped.
    store.commit(&lease, &sized(1, [4, 4])).await.unwrap();
    assert_eq!(trim(&store, &lease, keep(8)).await, 0);
    assert_eq!(trim(&store, &lease, keep(7)).await, 1);
    assert_eq!(bounds(&store).await, (8, 8));
    // Other ways of dropping keep the same account.
    store.commit(&lease, &sized(1, [1, 2, 3])).await.unwrap();
    assert_eq!(trim(&store, &lease, newest(2)).await, 2);
    assert_eq!(trim(&store, &lease, keep(5)).await, 0);
    assert_eq!(trim(&store, &lease, keep(4)).await, 1);
}

pub(crate) async fn a_log_is_trimmed_to_an_age_exactly(store: Shared) {
    let lease = owned(&store, &here()).await;
    let since = |since| Retention {
        since: UnixMillis(since),
        ..ALL
    };
    for now in [999, 1000, 1000, 1001, 1500, 1200, 1600] {
        store.commit(&lease, &sized(now, [1])).await.unwrap();
    }
    for (moment, dropped, first) in [
        (0, 0, 1),
        (999, 0, 1),
        (1000, 1, 2),
        (1001, 2, 4),
        // An older one is behind a younger one, by another replica's clock: only the oldest place goes.
        (1300, 1, 5),
        (1501, 2, 7),
        (1600, 0, 7),
        (u64::MAX, 1, 8),
        (u64::MAX, 0, 8),
    ] {
        let left = trim(&store, &lease, since(moment)).await;
        assert_eq!(
            (left, bounds(&store).await),
            (dropped, (first, 7)),
            "{moment}"
        );
    }
}

pub(crate) async fn a_log_keeps_to_all_bounds_of_its_retention(store: Shared) {
    let lease = owned(&store, &here()).await;
    for now in 1..=10 {
        store.commit(&lease, &sized(now, [10])).await.unwrap();
    }
    let retention = |events, bytes, since| Retention {
        events,
        bytes,
        since: UnixMillis(since),
    };
    for (retention, left) in [
        (retention(9, 99, 2), 9),
        (retention(8, 90, 2), 8),
        (retention(8, 79, 3), 7),
        (retention(8, 79, 5), 6),
        (retention(5, 39, 8), 3),
        (retention(3, 30, 8), 3),
    ] {
        trim(&store, &lease, retention).await;
        assert_eq!(sequences(&store).await.len(), left, "{retention:?}");
    }
}

pub(crate) async fn missing_entries_do_not_count_for_retention(store: Shared) {
    let lease = owned(&store, &here()).await;
    let mut log = LogId(0);
    // 1, 2, then 11, 12, then 21, 22.
    for begin in [0, 10, 20] {
        let batch = Batch {
            seen: at(log, begin),
            ..sized(begin, [5, 5])
        };
        log = store.commit(&lease, &batch).await.unwrap().log;
    }
    assert_eq!(sequences(&store).await, [1, 2, 11, 12, 21, 22]);
    assert_eq!(bounds(&store).await, (1, 22));
    assert_eq!(trim(&store, &lease, newest(6)).await, 0);
    assert_eq!(trim(&store, &lease, newest(5)).await, 1);
    assert_eq!(bounds(&store).await, (2, 22));
    let retention = Retention { bytes: 20, ..ALL };
    assert_eq!(trim(&store, &lease, retention).await, 1);
    assert_eq!(bounds(&store).await, (11, 22));
    let retention = Retention {
        since: UnixMillis(11),
        ..ALL
    };
    assert_eq!(trim(&store, &lease, retention).await, 2);
    assert_eq!(bounds(&store).await, (21, 22));
    assert_eq!(trim(&store, &lease, newest(0)).await, 2);
    assert_eq!(bounds(&store).await, (23, 22));
    // A number that was lost after the trim is behind where that left the log.
    let batch = Batch {
        seen: at(log, 30),
        ..sized(1, [1])
    };
    store.commit(&lease, &batch).await.unwrap();
    assert_eq!(bounds(&store).await, (23, 31));
    assert_eq!(trim(&store, &lease, newest(1)).await, 0);
    assert_eq!(bounds(&store).await, (23, 31));
}

pub(crate) async fn a_long_trim_goes_in_steps(store: Shared) {
    let lease = owned(&store, &here()).await;
    let batch = Batch {
        events: vec![b"xy".to_vec(); 2_600],
        ..Batch::default()
    };
    store.commit(&lease, &batch).await.unwrap();
    let mut steps = Vec::new();
    let mut dropped = 0;
    loop {
        let trimmed = store.trim(&lease, &newest(100)).await.unwrap();
        dropped += trimmed.dropped();
        steps.push(trimmed.dropped());
        assert_eq!(bounds(&store).await, (dropped + 1, 2_600));
        let left = sequences(&store).await;
        assert_eq!((left[0], left.len() as u64), (dropped + 1, 2_600 - dropped));
        if !trimmed.more {
            break;
        }
    }
    assert_eq!(dropped, 2_500);
    assert!(steps.len() > 1, "{steps:?}");
    assert!(
        steps.iter().all(|step| (1..=1000).contains(step)),
        "{steps:?}"
    );
    let retention = Retention { bytes: 199, ..ALL };
    assert_eq!(trim(&store, &lease, retention).await, 1);
}

pub(crate) async fn the_last_batch_is_known(store: Shared) {
    let last = || async { store.last_batch(&here()).await.unwrap() };
    assert_eq!(last().await, BatchId::default());
    let lease = owned(&store, &here()).await;
    assert_eq!(last().await, BatchId::default());
    let largest = BatchId {
        writer: u64::MAX,
        number: u64::MAX,
    };
    for id in [batch_id(7), batch_id(8), largest] {
        let batch = Batch {
            id,
            records: vec![session("bot", "record")],
            ..Batch::default()
        };
        store.commit(&lease, &batch).await.unwrap();
        assert_eq!(last().await, id);
    }
    // Neither another claim nor a refused write changes it, and it is one partition's.
    let again = owned(&store, &here()).await;
    fenced(store.commit(&lease, &events(["x"])).await, &lease);
    store.trim(&again, &newest(0)).await.unwrap();
    assert_eq!(last().await, largest);
    let elsewhere = store.last_batch(&partition("tenant", 4)).await;
    assert_eq!(elsewhere.unwrap(), BatchId::default());
}

pub(crate) async fn a_batch_that_comes_again_is_written_once(store: Shared) {
    let lease = owned(&store, &here()).await;
    let first = Batch {
        id: batch_id(7),
        records: vec![session("bot", "first")],
        sends: vec![send("bot", "id", "first")],
        ..events(["a", "b"])
    };
    let answer = store.commit(&lease, &first).await.unwrap();
    // The owner sees by its lost answer neither that it was written nor where.
    assert_eq!(store.commit(&lease, &first).await.unwrap(), answer);
    // Nor is what a retry brings beside its ID looked at: it is the same batch.
    let later = Batch {
        now: UnixMillis(9),
        seen: at(answer.log, 1),
        ..first.clone()
    };
    assert_eq!(store.commit(&lease, &later).await.unwrap(), answer);
    // The same owner may have been given another lease meanwhile.
    let again = owned(&store, &here()).await;
    assert!(again.epoch > lease.epoch);
    assert_eq!(store.commit(&again, &first).await.unwrap(), answer);
    assert_eq!(
        fenced(store.commit(&lease, &first).await, &lease),
        Some(again.epoch)
    );
    let expected = [(1, "a".to_owned()), (2, "b".to_owned())];
    assert_eq!(log(&store, &here()).await, expected);

    let second = Batch {
        id: batch_id(8),
        records: vec![session("bot", "second")],
        ..Batch::default()
    };
    let quiet = store.commit(&again, &second).await.unwrap();
    assert_eq!(quiet, answer);
    assert_eq!(store.commit(&again, &second).await.unwrap(), answer);
    // A try that was held up for so long that its retry and another batch were written comes too late.
    assert_eq!(
        fenced(store.commit(&again, &first).await, &again),
        Some(again.epoch)
    );
    let third = Batch {
        id: batch_id(u64::MAX),
        ..events(["c"])
    };
    let answer = store.commit(&again, &third).await.unwrap();
    assert_eq!(answer.last_sequence, 3);
    for late in [&first, &second] {
        fenced(store.commit(&again, late).await, &again);
    }
    let sessions = store.sessions(&here()).await.unwrap();
    assert_eq!(sessions, [session("bot", "second")]);
    // Another writer counts for itself.
    let id = BatchId {
        writer: u64::MAX,
        number: 1,
    };
    let other = Batch {
        id,
        ..events(["d"])
    };
    assert_eq!(store.commit(&again, &other).await.unwrap().last_sequence, 4);

    // A partition's batches are its own.
    let other = partition("tenant", 4);
    let lease = owned(&store, &other).await;
    assert_eq!(store.commit(&lease, &third).await.unwrap().last_sequence, 1);
}

pub(crate) async fn batches_without_an_id_are_all_written(store: Shared) {
    let lease = owned(&store, &here()).await;
    let unnamed = events(["x"]);
    for sequence in 1..=3 {
        let committed = store.commit(&lease, &unnamed).await.unwrap();
        assert_eq!(committed.last_sequence, sequence);
    }
    let named = Batch {
        id: batch_id(7),
        ..events(["y"])
    };
    assert_eq!(store.commit(&lease, &named).await.unwrap().last_sequence, 4);
    store.commit(&lease, &unnamed).await.unwrap();
    assert_eq!(store.commit(&lease, &named).await.unwrap().last_sequence, 6);
}

pub(crate) async fn retries_of_many_at_once_are_written_once(store: Shared) {
    let lease = owned(&store, &here()).await;
    for id in 1..=20 {
        let batch = Batch {
            id: batch_id(id),
            ..events(["x", "y"])
        };
        let tries = (0..5).map(|_| store.commit(&lease, &batch));
        for answer in join_all(tries).await {
            assert_eq!(answer.unwrap().last_sequence, 2 * id);
        }
    }
    assert_eq!(sequences(&store).await.len(), 40);
}

pub(crate) async fn a_log_that_lost_its_newest_entries_leaves_a_hole(store: Shared) {
    let lease = owned(&store, &here()).await;
    let log = append(&store, &lease, ["1", "2", "3"]).await.log;
    let seen = |sequence, text| Batch {
        seen: at(log, sequence),
        ..events([text])
    };
    // Nothing was lost: what the owner has seen is the end, or before.
    for (sequence, last) in [(3, 4), (3, 5), (0, 6), (6, 7)] {
        let committed = store.commit(&lease, &seen(sequence, "on")).await.unwrap();
        assert_eq!((committed.log, committed.last_sequence), (log, last));
    }
    // The owner knows of 8 to 10, the store does not.
    let committed = store.commit(&lease, &seen(10, "after")).await.unwrap();
    assert_eq!((committed.log, committed.last_sequence), (log, 11));
    assert_eq!(sequences(&store).await, [1, 2, 3, 4, 5, 6, 7, 11]);
    assert_eq!(bounds(&store).await, (1, 11));
    assert_eq!(append(&store, &lease, ["on"]).await.last_sequence, 12);
    let entries = store.read(&here(), 8, 1).await.unwrap().entries;
    assert_eq!(texts(entries), [(11, "after".to_owned())]);
    // Without events there is nothing to number.
    let quiet = Batch {
        seen: at(log, 99),
        ..records([session("bot", "r")])
    };
    assert_eq!(
        store.commit(&lease, &quiet).await.unwrap().last_sequence,
        12
    );
    assert_eq!(bounds(&store).await, (1, 12));
}

pub(crate) async fn a_log_that_lost_everything_goes_on_as_the_same(store: Shared) {
    let lease = owned(&store, &here()).await;
    // Neighbours that a floating point number cannot tell apart.
    let log = LogId(u64::MAX - 1);
    let batch = Batch {
        seen: at(log, 1_000_000),
        ..events(["a", "b"])
    };
    // Records alone do not begin a log.
    let quiet = Batch {
        events: Vec::new(),
        records: vec![session("bot", "r")],
        ..batch.clone()
    };
    let none = store.commit(&lease, &quiet).await.unwrap();
    assert_eq!((none.log, none.last_sequence), (LogId(0), 0));

    let committed = store.commit(&lease, &batch).await.unwrap();
    assert_eq!((committed.log, committed.last_sequence), (log, 1_000_002));
    // Nobody dropped what is missing, so the log begins where it began.
    assert_eq!(bounds(&store).await, (1, 1_000_002));
    assert_eq!(sequences(&store).await, [1_000_001, 1_000_002]);
    let on = append(&store, &lease, ["c"]).await;
    assert_eq!((on.log, on.last_sequence), (log, 1_000_003));
    assert_eq!(trim(&store, &lease, newest(1)).await, 2);
    assert_eq!(bounds(&store).await, (1_000_003, 1_000_003));
}

pub(crate) async fn what_was_seen_of_another_log_is_passed_over(store: Shared) {
    let lease = owned(&store, &here()).await;
    let log = append(&store, &lease, ["a"]).await.log;
    // The nearest numbers, to be compared as what they are.
    for other in [log.0 ^ 1, log.0 ^ 2, 1, u64::MAX] {
        if other == log.0 {
            continue;
        }
        let batch = Batch {
            seen: at(LogId(other), 500),
            ..events(["x"])
        };
        let before = bounds(&store).await.1;
        let committed = store.commit(&lease, &batch).await.unwrap();
        assert_eq!((committed.log, committed.last_sequence), (log, before + 1));
    }
    // It has an identity when nothing is left of it, too.
    trim(&store, &lease, newest(0)).await;
    let batch = Batch {
        seen: at(LogId(9), 500),
        ..events(["x"])
    };
    let before = bounds(&store).await.1;
    let committed = store.commit(&lease, &batch).await.unwrap();
    assert_eq!((committed.log, committed.last_sequence), (log, before + 1));
}
