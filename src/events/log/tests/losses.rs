//! What the store loses, and what the writer makes of that: nothing is written twice, no number has two events.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::events::testing::{append, on_paused_time};
use crate::store::LogId;

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_written_once() {
    let world = world(LogOptions::default()).await;
    world.append("a").await;
    world.store.lose_answers(3);
    let waiting = world.push("b");
    assert!(world.writer.accepts().is_ok());
    waiting.await.unwrap().unwrap();
    world.append("c").await;
    assert_eq!(world.texts().await, ["a", "b", "c"]);
    assert_eq!(world.sequences().await, [1, 2, 3]);
    assert_eq!(world.store.commits(), [1, 1, 1]);
    assert_eq!(world.record().await, b"c");
}

#[tokio::test(start_paused = true)]
async fn the_numbers_of_events_that_were_lost_are_not_given_out_again() {
    let world = world(LogOptions::default()).await;
    for n in 1..=4 {
        world.append(&n.to_string()).await;
    }
    let log = world.store.log_bounds(&partition(0)).await.unwrap().log;
    world.store.lose_newest(&partition(0), 2);
    world.append("5").await;
    assert_eq!(world.sequences().await, [1, 2, 5]);

    world.store.lose_data();
    let waiting = world.push("6");
    tokio::task::yield_now().await;
    world.claim_again().await;
    waiting.await.unwrap().unwrap();
    assert_eq!(world.sequences().await, [6]);
    let bounds = world.store.log_bounds(&partition(0)).await.unwrap();
    assert_eq!(bounds.log, log, "what is missing can be told");
}

#[tokio::test(start_paused = true)]
async fn records_that_are_saved_after_a_loss_do_not_make_the_log_forget_its_numbers() {
    let world = world(LogOptions::default()).await;
    let record = || {
        let (mut append, done) = one("a record");
        append.events.clear();
        (append, done)
    };
    for n in 1..=4 {
        world.append(&n.to_string()).await;
    }
    let log = world.store.log_bounds(&partition(0)).await.unwrap().log;
    world.store.lose_newest(&partition(0), 2);
    let (append, done) = record();
    world.writer.append(append).await;
    done.await.unwrap().unwrap();
    world.append("5").await;
    assert_eq!(world.sequences().await, [1, 2, 5]);

    world.store.lose_data();
    let (append, waiting) = record();
    world.writer.append(append).await;
    tokio::task::yield_now().await;
    world.claim_again().await;
    waiting.await.unwrap().unwrap();
    world.append("6").await;
    assert_eq!(world.sequences().await, [6]);
    let bounds = world.store.log_bounds(&partition(0)).await.unwrap();
    assert_eq!(bounds.log, log);
}

#[tokio::test(start_paused = true)]
async fn a_new_hold_of_the_partition_knows_nothing_of_the_log() {
    let world = world(LogOptions::default()).await;
    world.append("1").await;
    let log = world.store.log_bounds(&partition(0)).await.unwrap().log;
    world.lease.send_replace(None);
    tokio::task::yield_now().await;
    // Another replica goes on, and then all is lost: the second entry's number was its.
    let end = append(&world.store, &partition(0), &[message("bot1", "2")]).await;
    assert_eq!((end.log, end.sequence), (log, 2));
    world.store.lose_data();
    let newer = lease(&world.store, &partition(0)).await;
    world.lease.send_replace(Some(newer));
    world.append("3").await;
    let bounds = world.store.log_bounds(&partition(0)).await.unwrap();
    assert_ne!(bounds.log, log);
    assert_eq!(world.texts().await, ["3"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_writer_stops_its_group() {
    let world = world(LogOptions::default()).await;
    world.store.panic_on_commit();
    let dropped = world.push("a");
    let stopping = tokio::time::timeout(Duration::from_secs(1), world.tasks.stopping());
    stopping.await.expect("nobody hears of it");
    assert!(dropped.await.is_err());
    let (append, _done) = one("b");
    let refused = world.writer.try_append(append).unwrap_err();
    assert_eq!(refused.error, AppendError::Stopping);
    world.tasks.ended().await;
}

/// What goes wrong between two appends.
#[derive(Clone, Debug)]
enum Trouble {
    None,
    LostAnswers(usize),
    LostNewest(usize),
    LostData,
    Away,
    Full,
}

fn troubles() -> impl Strategy<Value = Vec<Trouble>> {
    let one = prop_oneof![
        3 => Just(Trouble::None),
        2 => (1..4_usize).prop_map(Trouble::LostAnswers),
        2 => (1..4_usize).prop_map(Trouble::LostNewest),
        1 => Just(Trouble::LostData),
        1 => Just(Trouble::Away),
        1 => Just(Trouble::Full),
    ];
    prop::collection::vec(one, 1..25)
}

/// Appends one event after each trouble; answers what a reader that is always there has read.
async fn live_through(troubles: &[Trouble]) -> HashMap<(LogId, u64), Vec<u8>> {
    let mut world = world(LogOptions::default()).await;
    let mut read = HashMap::new();
    for (number, trouble) in troubles.iter().enumerate() {
        match trouble {
            Trouble::None => {}
            Trouble::LostAnswers(count) => world.store.lose_answers(*count),
            Trouble::LostNewest(count) => world.store.lose_newest(&partition(0), *count),
            Trouble::LostData => world.store.lose_data(),
            Trouble::Away => world.store.set_available(false),
            Trouble::Full => world.store.set_full(true),
        }
        let mut done = world.push(&number.to_string());
        let all_is_well = tokio::time::sleep(Duration::from_secs(5));
        tokio::pin!(all_is_well);
        loop {
            tokio::select! {
                stored = &mut done => break stored.unwrap().unwrap(),
                _fenced = world.fenced.recv() => world.claim_again().await,
                () = &mut all_is_well, if !all_is_well.is_elapsed() => {
                    world.store.set_available(true);
                    world.store.set_full(false);
                }
            }
        }
        let seen = world.store.read(&partition(0), 0, 9999).await.unwrap();
        for entry in seen.entries {
            let place = (seen.bounds.log, entry.sequence);
            let before = read.insert(place, entry.payload.clone());
            assert!(
                before.is_none_or(|before| before == entry.payload),
                "{place:?} is two events"
            );
        }
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_number_has_two_events_and_no_event_two_numbers(troubles in troubles()) {
        let read = on_paused_time(live_through(&troubles));
        // A store that loses an event which it has said it has cannot hide that it was there.
        prop_assert_eq!(read.len(), troubles.len());
    }
}
