//! The judges of `nothing_lost`, judged: the books find every defect that is planted and no other, a seed says what goes
//! wrong, and the command line is understood.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, and say what they measured"
)]

#[path = "nothing_lost/arguments.rs"]
mod arguments;
#[path = "nothing_lost/books.rs"]
mod books;
#[path = "nothing_lost/figures.rs"]
mod figures;
#[path = "nothing_lost/ledger.rs"]
mod ledger;
#[path = "nothing_lost/schedule.rs"]
mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::GapReason;
use imgate::proto::v1::event::Kind;
use imgate::proto::v1::message::Conversation;
use proptest::prelude::*;

use arguments::Command;
use books::{Record, Wish};
use figures::Delays;
use ledger::{Ledger, Row, SENDERS};
use schedule::{Lane, Settings, Steps};

const NOW: Duration = Duration::from_secs(1);

/// The senders, one subscriber, and the log between them.
struct Story {
    ledger: Ledger,
    record: Record,
    sequence: u64,
}

fn bot(name: &str) -> Row {
    Row::To(name.into())
}

impl Story {
    /// Bots `a` and `b`, and a group of both.
    fn new() -> Self {
        Self::wishing(Wish::default())
    }

    fn wishing(wish: Wish) -> Self {
        let mut ledger = Ledger::default();
        ledger.open(bot("a"), vec!["a".into()]);
        ledger.open(bot("b"), vec!["b".into()]);
        ledger.open(Row::Group("g".into()), vec!["a".into(), "b".into()]);
        Self {
            ledger,
            record: Record::new("reader", wish, 2),
            sequence: 0,
        }
    }

    /// The upstream accepts so many messages.
    fn send(&mut self, row: &Row, count: u64) {
        for _ in 0..count {
            self.ledger.begin(row, NOW);
            self.ledger.accept(row);
        }
    }

    fn give(&mut self, account: &str, sequence: u64, kind: Kind) {
        let event = v1::Event {
            account: account.into(),
            sequence,
            kind: Some(kind),
            ..v1::Event::default()
        };
        let response = v1::SubscribeResponse {
            subscription_made: false,
            events: vec![event],
            cursor: format!("after {sequence}"),
        };
        self.record.enter(response, &self.ledger, NOW);
    }

    /// The next events of the log are these messages.
    fn deliver(&mut self, account: &str, row: &Row, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.sequence += 1;
            let kind = Kind::Message(message(row, &format!("{number} 900000")));
            self.give(account, self.sequence, kind);
        }
    }

    fn gap(&mut self, reason: GapReason) {
        let gap = v1::Gap {
            reason: reason.into(),
            ..v1::Gap::default()
        };
        self.give("", 0, Kind::Gap(gap));
    }

    /// What is wrong in the end.
    fn end(mut self) -> Vec<String> {
        self.record.close(&self.ledger);
        self.record.faults().to_vec()
    }

    /// Exactly one thing is wrong in the end: this.
    fn ends_with(self, fault: &str) {
        let faults = self.end();
        let found = faults.len() == 1 && faults[0].contains(fault);
        assert!(found, "{fault:?} expected: {faults:?}");
    }
}

fn message(row: &Row, text: &str) -> v1::Message {
    let text = v1::TextElement { text: text.into() };
    v1::Message {
        id: "an-identity".into(),
        from: format!("{SENDERS}0"),
        conversation: Some(match row {
            Row::To(to) => Conversation::To(to.clone()),
            Row::Group(group) => Conversation::Group(group.clone()),
        }),
        elements: vec![v1::Element {
            kind: Some(v1::element::Kind::Text(text)),
        }],
        ..v1::Message::default()
    }
}

#[test]
fn what_comes_once_or_more_and_in_order_is_right() {
    let (a, b, g) = (bot("a"), bot("b"), Row::Group("g".into()));
    let mut story = Story::new();
    story.send(&a, 3);
    story.send(&b, 1);
    story.send(&g, 2);
    story.deliver("a", &a, [1, 2]);
    story.deliver("b", &g, [1]);
    let place = story.record.place.clone();
    story.deliver("a", &g, [1]);
    // The log has it twice.
    story.deliver("a", &a, [2, 3]);
    story.deliver("b", &b, [1]);
    story.deliver("b", &g, [2]);
    // It comes back with an older cursor.
    story.record.place = place;
    story.sequence -= 5;
    story.deliver("a", &g, [1]);
    story.deliver("a", &a, [2, 3]);
    story.deliver("b", &b, [1]);
    story.deliver("b", &g, [2]);
    assert!(!story.record.is_complete(&story.ledger));
    story.deliver("a", &g, [2]);
    assert!(story.record.is_complete(&story.ledger));
    let counts = &story.record.counts;
    // The repetition in the log was read again as well.
    let counted = (counts.delivered, counts.twice_in_log, counts.read_again);
    assert_eq!(counted, (8, 1, 5));
    assert_eq!(story.record.twice().len(), 1);
    assert_eq!(story.end(), [""; 0]);
}

#[test]
fn a_lost_message_is_found() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 5);
    story.deliver("a", &a, [1, 2, 4, 5]);
    story.ends_with("a, to a: 3 to 3 are missing, no gap");
}

#[test]
fn a_lost_first_and_a_lost_last_message_are_found() {
    let (a, g) = (bot("a"), Row::Group("g".into()));
    let mut story = Story::new();
    story.send(&a, 2);
    story.deliver("a", &a, [2]);
    story.ends_with("a, to a: 1 to 1 are missing");
    let mut story = Story::new();
    story.send(&g, 2);
    story.deliver("a", &g, [1, 2]);
    story.deliver("b", &g, [1]);
    assert!(!story.record.is_complete(&story.ledger));
    story.ends_with("b, group g: 2 were accepted, the last that came is 1");
}

#[test]
fn a_row_of_which_nothing_came_is_found() {
    let mut story = Story::new();
    story.send(&bot("b"), 1);
    story.ends_with("b, to b: 1 were accepted, the last that came is 0");
}

#[test]
fn a_message_in_the_wrong_order_is_found() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 3);
    story.deliver("a", &a, [1, 3, 2]);
    let faults = story.end();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("2 to 2 are missing, no gap"));
    assert!(faults[1].contains("2 comes after 3"));
}

#[test]
fn a_loss_that_a_gap_tells_of_is_right() {
    let (a, b) = (bot("a"), bot("b"));
    let mut story = Story::new();
    story.send(&a, 4);
    story.send(&b, 2);
    story.deliver("a", &a, [1, 2]);
    story.ledger.lose();
    // Both logs began anew, and number anew.
    story.gap(GapReason::LogReset);
    story.gap(GapReason::LogReset);
    story.sequence = 0;
    story.send(&a, 1);
    story.deliver("a", &a, [4, 5]);
    // All that was sent to the other one was lost.
    story.send(&b, 1);
    story.deliver("b", &b, [3]);
    assert_eq!(
        (story.record.counts.gaps, story.record.counts.covered),
        (2, 3)
    );
    assert_eq!(story.end(), [""; 0]);
}

#[test]
fn a_gap_that_no_loss_justifies_is_found() {
    let a = bot("a");
    let mut story = Story::new();
    story.gap(GapReason::LogReset);
    story.ends_with("nothing justifies");
    // What a replica gave up with its hold of a partition is told, but no message is excused by it.
    let mut story = Story::new();
    story.send(&a, 2);
    story.gap(GapReason::NotStored);
    story.deliver("a", &a, [2]);
    story.ends_with("1 to 1 are missing");
    for reason in [
        GapReason::Unspecified,
        GapReason::Retention,
        GapReason::Upstream,
        GapReason::Corrupt,
    ] {
        let mut story = Story::new();
        story.send(&a, 3);
        story.deliver("a", &a, [1]);
        story.ledger.lose();
        story.gap(reason);
        story.deliver("a", &a, [2, 3]);
        story.ends_with("nothing justifies");
    }
}

#[test]
fn more_gaps_than_logs_were_lost_are_found_but_not_one_that_is_read_again() {
    let mut story = Story::new();
    story.ledger.lose();
    let place = story.record.place.clone();
    story.gap(GapReason::LogReset);
    story.gap(GapReason::LogReset);
    story.record.place = place;
    story.gap(GapReason::LogReset);
    story.gap(GapReason::LogReset);
    assert_eq!(story.record.faults(), [""; 0]);
    story.gap(GapReason::LogReset);
    story.ends_with("the 3th, for 1 losses of 2 logs");
}

#[test]
fn a_loss_without_a_gap_is_found() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 4);
    story.deliver("a", &a, [1, 2]);
    story.ledger.lose();
    story.deliver("a", &a, [4]);
    story.ends_with("3 to 3 are missing, no gap");
}

#[test]
fn a_gap_covers_nothing_that_was_sent_after_the_loss() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 4);
    story.deliver("a", &a, [1, 2]);
    story.ledger.lose();
    story.send(&a, 2);
    story.gap(GapReason::LogReset);
    story.deliver("a", &a, [6]);
    story.ends_with("3 to 5 are missing, the gap is not for that");
}

#[test]
fn a_gap_covers_nothing_that_goes_missing_after_it() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 5);
    story.ledger.lose();
    story.gap(GapReason::LogReset);
    story.deliver("a", &a, [2, 3, 5]);
    story.ends_with("4 to 4 are missing, no gap");
}

#[test]
fn what_a_gap_covered_does_not_come_later() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 3);
    story.ledger.lose();
    story.gap(GapReason::LogReset);
    story.deliver("a", &a, [3, 2]);
    story.ends_with("2 comes after 3");
}

#[test]
fn who_begins_late_is_owed_what_was_not_lost_before() {
    let a = bot("a");
    let late = |first: u64| {
        let mut story = Story::wishing(Wish {
            late: true,
            ..Wish::default()
        });
        story.send(&a, 5);
        story.ledger.lose();
        story.record.begin(&story.ledger);
        story.send(&a, 2);
        story.deliver("a", &a, first..=7);
        story
    };
    assert_eq!(late(1).end(), [""; 0]);
    assert_eq!(late(6).end(), [""; 0]);
    late(7).ends_with("1 to 6 are missing");
    // It may be told of what was lost before it began, once for each log.
    let mut story = late(6);
    story.gap(GapReason::LogReset);
    assert_eq!(story.end(), [""; 0]);
    let mut story = late(6);
    for _ in 0..3 {
        story.gap(GapReason::LogReset);
    }
    story.ends_with("nothing justifies");
    // A late one that nothing was lost before is owed all.
    let mut story = Story::wishing(Wish {
        late: true,
        ..Wish::default()
    });
    story.send(&a, 2);
    story.record.begin(&story.ledger);
    story.deliver("a", &a, [2]);
    story.ends_with("1 to 1 are missing");
}

#[test]
fn a_name_that_was_lost_excuses_what_was_sent_before_it_was_made_anew() {
    let a = bot("a");
    let begin = |first: u64| {
        let mut story = Story::new();
        story.send(&a, 4);
        story.deliver("a", &a, [1]);
        story.ledger.lose();
        story.send(&a, 1);
        story.record.begin_anew(&story.ledger);
        story.send(&a, 2);
        story.sequence = 0;
        story.deliver("a", &a, first..=7);
        assert_eq!(story.record.counts.untold, if first == 6 { 4 } else { 0 });
        story
    };
    assert_eq!(begin(6).end(), [""; 0]);
    begin(7).ends_with("2 to 6 are missing");
}

#[test]
fn a_name_that_is_made_anew_without_a_loss_is_found() {
    let mut story = Story::new();
    story.record.begin_anew(&story.ledger);
    story.ends_with("the store has lost nothing");
    // One loss excuses one.
    let mut story = Story::new();
    story.ledger.lose();
    story.record.begin_anew(&story.ledger);
    story.record.begin_anew(&story.ledger);
    story.ends_with("the store has lost nothing");
}

#[test]
fn a_sequence_that_does_not_grow_is_found() {
    let a = bot("a");
    let mut story = Story::new();
    story.send(&a, 3);
    story.deliver("a", &a, [1, 2]);
    story.sequence -= 1;
    story.deliver("a", &a, [3]);
    story.ends_with("a: sequence 2 comes after Some(2)");
    // Nor does a cursor bring what came before it.
    let mut story = Story::new();
    story.send(&a, 2);
    story.deliver("a", &a, [1, 2]);
    story.sequence = 0;
    story.deliver("a", &a, [1]);
    story.ends_with("a: sequence 1 comes after Some(2)");
}

#[test]
fn what_nobody_sent_or_asked_for_is_found() {
    let a = bot("a");
    let mut story = Story::new();
    story.deliver("a", &a, [1]);
    story.ends_with("1 was not sent");

    let mut story = Story::new();
    story.send(&a, 1);
    story.deliver("b", &a, [1]);
    let faults = story.end();
    assert!(faults[0].contains("b: not its own"), "{faults:?}");

    let only_b = Wish {
        accounts: vec!["b".into()],
        late: false,
    };
    let mut story = Story::wishing(only_b);
    story.send(&a, 2);
    story.deliver("a", &a, [1]);
    story.ends_with("a: nobody asked for it");

    let kick = Kind::KickedOffline(v1::KickedOffline::default());
    let mut story = Story::new();
    story.give("a", 1, kick);
    story.ends_with("a: nobody has kicked it");
}

#[test]
fn a_damaged_message_is_found() {
    let a = bot("a");
    let damage: [fn(&mut v1::Message); 6] = [
        |message| message.id.clear(),
        |message| message.from = "a".into(),
        |message| message.own = true,
        |message| message.elements.clear(),
        |message| message.elements.push(message.elements[0].clone()),
        |message| message.elements[0].kind = None,
    ];
    for damage in damage {
        let mut story = Story::new();
        story.send(&a, 1);
        let mut damaged = message(&a, "1 5");
        damage(&mut damaged);
        story.give("a", 1, Kind::Message(damaged));
        let faults = story.end();
        assert!(faults[0].contains("nobody has sent"), "{faults:?}");
        assert_eq!(faults.len(), 2, "and it did not come: {faults:?}");
    }
}

#[test]
fn faults_are_kept_in_words_up_to_a_bound() {
    let mut story = Story::new();
    for number in 0..50 {
        story.record.fault(number);
    }
    assert_eq!(story.record.faults().len(), 20);
    assert_eq!(story.record.faults_left_out(), 30);
}

proptest! {
    /// What comes in order is right, wherever it goes back to; and if one message is left out each time, it is found.
    #[test]
    fn one_message_that_never_comes_is_always_found(
        count in 1_u64..40,
        back in prop::collection::vec((1_u64..40, 1_u64..40), 0..6),
        without in prop::option::of(1_u64..40),
    ) {
        let a = bot("a");
        let without = without.map(|number| 1 + number % count);
        let mut story = Story::new();
        story.send(&a, count);
        let mut places = vec![story.record.place.clone()];
        let mut at = 0;
        let mut read = |story: &mut Story, from: u64, to: u64| {
            for number in from + 1..=to {
                if without != Some(number) {
                    story.sequence = number - 1;
                    story.deliver("a", &a, [number]);
                }
                places.truncate(number as usize);
                places.push(story.record.place.clone());
            }
            places.clone()
        };
        for (to, then) in back {
            let places = read(&mut story, at, to.min(count).max(at));
            at = then.min(places.len() as u64 - 1);
            story.record.place = places[at as usize].clone();
        }
        read(&mut story, at, count);
        let faults = story.end();
        prop_assert_eq!(faults.len(), usize::from(without.is_some()), "{:?}", faults);
    }
}

#[test]
fn delays_are_told_to_within_5_percent() {
    let mut delays = Delays::default();
    assert_eq!(delays.at(0.5), Duration::ZERO);
    for millis in 1..=1000 {
        delays.add(Duration::from_millis(millis));
    }
    for (share, millis) in [(0.5, 500.0), (0.99, 990.0), (0.001, 1.0)] {
        let ratio = delays.at(share).as_secs_f64() * 1000.0 / millis;
        assert!((0.95..1.05).contains(&ratio), "{share}: {ratio}");
    }
    assert_eq!(delays.at(1.0), Duration::from_secs(1));
}

#[test]
fn a_seed_says_what_goes_wrong_and_everything_does() {
    let mut names = BTreeMap::new();
    for lane in [Lane::Gateway, Lane::Upstream, Lane::Redis] {
        let steps = |seed| Steps::new(seed, lane, 9, 1).take(300).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        let slower = Steps::new(7, lane, 9, 3).next().unwrap();
        assert_eq!(slower.after, 3 * steps(7)[0].after);
        for step in steps(7) {
            assert!(step.after < Duration::from_secs(4));
            *names.entry(step.fault.name()).or_insert(0) += 1;
        }
    }
    assert_eq!(names.len(), 17, "{names:?}");
    assert!(names["empty-redis"] < names["kill-redis"]);
    assert_eq!(Settings::new(7), Settings::new(7));
    let partitions = (0..50).map(|seed| Settings::new(seed).partitions);
    assert_eq!(
        partitions.collect::<std::collections::BTreeSet<_>>().len(),
        3
    );
}

fn read(line: &str) -> Result<Command, String> {
    arguments::read(line.split_whitespace().map(str::to_owned))
}

/// The names of the runs, for how many seconds, and how many were filtered out.
fn runs(line: &str) -> (Vec<String>, Vec<u64>, usize) {
    match read(line) {
        Ok(Command::Run { runs, filtered_out }) => {
            let seconds = runs.iter().map(|run| run.trouble.as_secs());
            let names = runs.iter().map(arguments::Run::name);
            (names.collect(), seconds.collect(), filtered_out)
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_command_line_says_what_is_run() {
    let (names, seconds, _) = runs("");
    assert_eq!(names.len(), 3);
    assert_eq!(seconds, [15; 3]);
    for store in ["redis", "embedded"] {
        assert!(names.iter().any(|name| name.ends_with(store)), "{names:?}");
    }
    assert_eq!(runs("--seed 4").0, ["seed_4_embedded"]);
    assert_eq!(runs("--seed=5").0, ["seed_5_redis"]);
    let (names, seconds, _) = runs("--seeds 3..5 --store redis --seconds 40");
    assert_eq!(names, ["seed_3_redis", "seed_4_redis", "seed_5_redis"]);
    assert_eq!(seconds, [40; 3]);
    let (names, seconds, _) = runs("--minutes 30");
    assert_eq!((names.len(), seconds), (1, vec![1800]));
}

#[test]
fn what_repeats_a_run_is_read_as_the_same_run() {
    for line in [
        "--seed 9 --store embedded --seconds 7",
        "--seed 3 --minutes 2",
    ] {
        let Ok(Command::Run { runs, .. }) = read(line) else {
            panic!("{line}");
        };
        let command = runs[0].command();
        let (_, again) = command.split_once(" -- ").unwrap();
        let filtered_out = 0;
        assert_eq!(read(again), Ok(Command::Run { runs, filtered_out }));
    }
}

#[test]
fn what_cargo_gives_to_every_test_binary_is_understood() {
    let none = (vec![], vec![], 3);
    assert_eq!(runs("some_other_test"), none);
    assert_eq!(runs("--ignored"), none);
    assert_eq!(runs("--skip seed"), none);
    assert_eq!(runs("--exact seed_1"), none);
    let all = runs("");
    assert_eq!(runs("--nocapture --test-threads=1 -q --color always"), all);
    assert_eq!(runs("--exact seed_1_redis --nocapture").0, ["seed_1_redis"]);
    assert_eq!(runs("seed_1").0.len(), 1);
    let list = |line: &str| match read(line) {
        Ok(Command::List { runs, terse }) => (runs.len(), terse),
        other => panic!("{other:?}"),
    };
    assert_eq!(list("--list"), (3, false));
    assert_eq!(list("--list --format terse"), (3, true));
    assert_eq!(list("--list --format terse --ignored"), (0, true));
}

#[test]
fn what_is_not_understood_is_said() {
    for (line, problem) in [
        ("--sed 1", "--sed is not known"),
        ("--seed", "--seed needs a value"),
        ("--seed one", "--seed needs a number, not \"one\""),
        ("--seeds 3", "--seeds needs A..B, not \"3\""),
        ("--store file", "--store is redis or embedded, not \"file\""),
        (
            "--seconds 1 --minutes 1",
            "give one of --seconds and --minutes",
        ),
    ] {
        assert_eq!(read(line), Err(problem.into()), "{line}");
    }
    assert_eq!(read("--help"), Ok(Command::Help));
    for option in ["--seed", "--seeds", "--store", "--seconds", "--minutes"] {
        assert!(arguments::USAGE.contains(option));
    }
}
