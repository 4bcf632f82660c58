//! The books of each subscriber: what it was given, and whether that agrees with the ledger. Pure, and bounded by the number
//! of conversations, not of messages.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use imgate::proto::v1::message::Conversation;

use super::figures::Delays;
use super::ledger::{Ledger, Row, SENDERS, read_text};

/// How many faults are kept in words; more are counted.
const FAULTS_KEPT: usize = 20;
/// Where a subscriber stands: what it goes back to when it comes back with an older cursor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The cursor; none before the first response.
    pub(crate) cursor: Option<String>,
    /// The last sequence of each account.
    sequences: HashMap<String, u64>,
    /// How many resets of a log were told.
    resets: usize,
}

/// What a subscriber asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Only these accounts; all when empty.
    pub(crate) accounts: Vec<String>,
    /// Whether it begins in the middle, with what is retained then.
    pub(crate) late: bool,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Messages that came for the first time.
    pub(crate) delivered: u64,
    /// Messages that came again because the subscriber went back.
    pub(crate) read_again: u64,
    /// Messages that came again as another event of the log.
    pub(crate) twice_in_log: u64,
    /// Messages that a gap stands for, or that were lost before a late subscriber began.
    pub(crate) covered: u64,
    /// Messages that were lost together with the name of the subscription, of which nobody can tell.
    pub(crate) untold: u64,
    pub(crate) gaps: u64,
    pub(crate) other_events: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            delivered,
            read_again,
            twice_in_log,
            covered,
            untold,
            gaps,
            other_events,
        } = self;
        write!(
            f,
            "{delivered} delivered, {read_again} read again, {twice_in_log} twice in the log, {gaps} gaps, {covered} covered, \
             {untold} untold, {other_events} other events"
        )
    }
}

/// What one subscriber was given.
#[derive(Debug)]
pub(crate) struct Record {
    name: String,
    wish: Wish,
    partitions: usize,
    pub(crate) place: Place,
    pub(crate) counts: Counts,
    pub(crate) delays: Delays,
    lines: BTreeMap<(String, Row), Line>,
    /// The greatest sequence of each account that ever came, in the present log.
    top: HashMap<String, u64>,
    /// How many resets of a log came, repeats included.
    resets: u64,
    /// How many losses there had been when it began.
    losses_before: usize,
    /// The last number in each row when its name was made anew.
    untold: BTreeMap<Row, u64>,
    /// How many losses there had been then.
    losses_at_name: usize,
    /// What came twice in the log.
    twice: Vec<String>,
    /// What took longest.
    slowest: (Duration, String),
    faults: Vec<String>,
    faults_left_out: usize,
}

/// One row as one account gets it.
#[derive(Debug, Default)]
struct Line {
    last: u64,
    /// What the resets were at when the last one came.
    resets: u64,
    /// The first and last numbers of what a gap stands for.
    holes: Vec<(u64, u64)>,
}

impl Record {
    pub(crate) fn new(name: &str, wish: Wish, partitions: usize) -> Self {
        Self {
            name: name.to_owned(),
            wish,
            partitions,
            place: Place::default(),
            counts: Counts::default(),
            delays: Delays::default(),
            lines: BTreeMap::new(),
            top: HashMap::new(),
            resets: 0,
            losses_before: 0,
            untold: BTreeMap::new(),
            losses_at_name: 0,
            twice: Vec::new(),
            slowest: (Duration::ZERO, String::new()),
            faults: Vec::new(),
            faults_left_out: 0,
        }
    }

    /// What is not as it should be.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// How many more there are than the ones that are told.
    pub(crate) fn faults_left_out(&self) -> usize {
        self.faults_left_out
    }

    /// Notes what is not as it should be.
    pub(crate) fn fault(&mut self, text: impl fmt::Display) {
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(format!("{}: {text}", self.name));
        } else {
            self.faults_left_out += 1;
        }
    }

    /// A subscriber that begins in the middle has got its first response.
    pub(crate) fn begin(&mut self, ledger: &Ledger) {
        self.losses_before = ledger.losses();
    }

    /// Its name was made anew, at the end of what there is now. That is right once after the store has lost it while no stream
    /// read it: where it stood is lost with the name, and so no gap can tell what is missing.
    pub(crate) fn begin_anew(&mut self, ledger: &Ledger) {
        if ledger.losses() == self.losses_at_name {
            return self.fault("its name was made anew, and the store has lost nothing since");
        }
        self.losses_at_name = ledger.losses();
        self.untold = ledger.begun();
        self.place.sequences.clear();
        self.top.clear();
    }

    /// Some of the messages that are in the log more than once.
    pub(crate) fn twice(&self) -> &[String] {
        &self.twice
    }

    /// What took longest, and when it came.
    pub(crate) fn slowest(&self) -> &str {
        &self.slowest.1
    }

    /// Enters a response.
    pub(crate) fn enter(
        &mut self,
        response: v1::SubscribeResponse,
        ledger: &Ledger,
        now: Duration,
    ) {
        for event in response.events {
            self.take(event, ledger, now);
        }
        self.place.cursor = Some(response.cursor);
    }

    fn take(&mut self, event: v1::Event, ledger: &Ledger, now: Duration) {
        let v1::Event {
            account,
            sequence,
            kind,
            ..
        } = event;
        if let Some(Kind::Gap(gap)) = kind {
            return self.take_gap(&account, gap, ledger);
        }
        let last = self.place.sequences.insert(account.clone(), sequence);
        if last.is_some_and(|last| last >= sequence) {
            self.fault(format_args!(
                "{account}: sequence {sequence} comes after {last:?}"
            ));
        }
        let wanted = self.wish.accounts.is_empty() || self.wish.accounts.contains(&account);
        if !wanted {
            self.fault(format_args!("{account}: nobody asked for it"));
        }
        let top = self.top.entry(account.clone()).or_default();
        let again = sequence <= *top;
        *top = sequence.max(*top);
        match kind {
            Some(Kind::Message(message)) => {
                self.take_message(account, &message, again, ledger, now)
            }
            Some(Kind::SessionChanged(_) | Kind::UpstreamNotice(_) | Kind::SignatureExpired(_)) => {
                self.counts.other_events += 1;
            }
            Some(Kind::KickedOffline(kick)) => {
                self.fault(format_args!("{account}: nobody has kicked it: {kick:?}"));
            }
            Some(Kind::Gap(_)) | None => self.fault(format_args!("{account}: an event of no kind")),
        }
    }

    fn take_gap(&mut self, account: &str, gap: v1::Gap, ledger: &Ledger) {
        self.counts.gaps += 1;
        if gap.reason() == v1::GapReason::NotStored {
            // A replica that lost its hold of a partition has given up what it had not stored. Messages come all the same,
            // for the upstream keeps them: it covers none.
            return;
        }
        if gap.reason() != v1::GapReason::LogReset {
            return self.fault(format_args!("{account}: nothing justifies {gap:?}"));
        }
        self.resets += 1;
        self.place.resets += 1;
        // A log whose end its owner had not seen begins with 1 again. Which accounts are in it is not told.
        self.place.sequences.clear();
        self.top.clear();
        // Numbers are never given out twice, so one that begins at the earliest is told of what was lost before it, too.
        let losses = ledger.losses();
        let allowed = losses * self.partitions;
        let (told, logs) = (self.place.resets, self.partitions);
        if told > allowed {
            self.fault(format_args!(
                "nothing justifies {gap:?}: the {told}th, for {losses} losses of {logs} logs"
            ));
        }
    }

    fn take_message(
        &mut self,
        account: String,
        message: &v1::Message,
        again: bool,
        ledger: &Ledger,
        now: Duration,
    ) {
        let row = match &message.conversation {
            Some(Conversation::To(to)) => Row::To(to.clone()),
            Some(Conversation::Group(group)) => Row::Group(group.clone()),
            None => return self.fault(format_args!("{account}: nowhere sent: {message:?}")),
        };
        let sent = ledger.get(&row);
        let Some(sent) = sent.filter(|sent| sent.receivers.contains(&account)) else {
            return self.fault(format_args!("{account}: not its own: {message:?}"));
        };
        let from_human = message.from.starts_with(SENDERS) && !message.own;
        let Some((number, at)) =
            only_text(message).filter(|_| from_human && !message.id.is_empty())
        else {
            return self.fault(format_args!("{account}: nobody has sent {message:?}"));
        };
        if number > sent.begun {
            return self.fault(format_args!("{account}, {row}: {number} was not sent"));
        }
        let line = self
            .lines
            .entry((account.clone(), row.clone()))
            .or_default();
        if number <= line.last {
            if line
                .holes
                .iter()
                .any(|&(first, last)| first <= number && number <= last)
            {
                let last = line.last;
                self.fault(format_args!(
                    "{account}, {row}: {number} comes after {last}"
                ));
            } else if again {
                self.counts.read_again += 1;
            } else {
                self.counts.twice_in_log += 1;
                if self.twice.len() < FAULTS_KEPT {
                    let text = format!("{account}, {row}: {number} at {now:.1?}");
                    self.twice.push(text);
                }
            }
            return;
        }
        let hole = (line.last + 1, number - 1);
        let told = line.resets < self.resets;
        let first = line.last == 0;
        line.last = number;
        line.resets = self.resets;
        self.counts.delivered += 1;
        let delay = now.saturating_sub(at);
        self.delays.add(delay);
        if delay > self.slowest.0 {
            self.slowest = (delay, format!("{account}, {row}: {number} at {now:.1?}"));
        }
        if hole.0 <= hole.1 {
            line.holes.push(hole);
            let (before, since) = ledger.explains(&row, hole.1, self.losses_before);
            if (self.wish.late && first && before) || (told && since) {
                self.counts.covered += number - hole.0;
            } else if self
                .untold
                .get(&row)
                .is_some_and(|untold| hole.1 <= *untold)
            {
                self.counts.untold += number - hole.0;
            } else {
                let why = if told {
                    "the gap is not for that"
                } else {
                    "no gap"
                };
                self.fault(format_args!(
                    "{account}, {row}: {} to {} are missing, {why}",
                    hole.0, hole.1
                ));
            }
        }
    }

    /// Whether all has come that was accepted.
    pub(crate) fn is_complete(&self, ledger: &Ledger) -> bool {
        self.missing(ledger).next().is_none()
    }

    /// The end: all that was accepted must have come by now.
    pub(crate) fn close(&mut self, ledger: &Ledger) {
        let missing: Vec<String> = self
            .missing(ledger)
            .map(|(account, row, last, accepted)| {
                format!("{account}, {row}: {accepted} were accepted, the last that came is {last}")
            })
            .collect();
        for text in missing {
            self.fault(text);
        }
    }

    fn missing<'a>(
        &'a self,
        ledger: &'a Ledger,
    ) -> impl Iterator<Item = (&'a String, &'a Row, u64, u64)> {
        let due = ledger.all().flat_map(|(row, sent)| {
            let accounts = sent.receivers.iter();
            accounts.map(move |account| (account, row, sent.accepted))
        });
        due.filter(|(account, ..)| {
            self.wish.accounts.is_empty() || self.wish.accounts.contains(*account)
        })
        .filter_map(|(account, row, accepted)| {
            let line = self.lines.get(&(account.clone(), row.clone()));
            let last = line.map_or(0, |line| line.last);
            (last < accepted).then_some((account, row, last, accepted))
        })
    }
}

/// What the one text of a message says.
fn only_text(message: &v1::Message) -> Option<(u64, Duration)> {
    let [element] = message.elements.as_slice() else {
        return None;
    };
    match element.kind.as_ref()? {
        v1::element::Kind::Text(text) => read_text(&text.text),
        v1::element::Kind::Custom(_) | v1::element::Kind::Raw(_) => None,
    }
}
