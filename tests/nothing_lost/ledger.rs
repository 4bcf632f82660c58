//! The ledger: what the senders have sent and the upstream has accepted, and when the store lost everything. Pure.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The name that every sender's begins with.
pub(crate) const SENDERS: &str = "human";

/// A row of messages that are numbered from 1 on, in the order in which the upstream accepted them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    /// All one-to-one messages to an account.
    To(String),
    /// All messages in a group.
    Group(String),
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(account) => write!(f, "to {account}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// What the senders know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: BTreeMap<Row, Sent>,
    losses: Vec<Loss>,
}

/// What was sent in a row.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Every account that gets these messages.
    pub(crate) receivers: Vec<String>,
    /// The last number that was used.
    pub(crate) begun: u64,
    /// The last number that the upstream accepted.
    pub(crate) accepted: u64,
}

/// The store has lost everything.
#[derive(Debug)]
struct Loss {
    /// The last number in each row when it happened: what was sent later cannot have been lost.
    begun: BTreeMap<Row, u64>,
}

impl Ledger {
    /// A row, and the accounts that get its messages.
    pub(crate) fn open(&mut self, row: Row, receivers: Vec<String>) {
        let sent = Sent {
            receivers,
            begun: 0,
            accepted: 0,
        };
        self.rows.insert(row, sent);
    }

    /// The text of the next message of a row, which is sent now.
    pub(crate) fn begin(&mut self, row: &Row, now: Duration) -> String {
        let sent = self.rows.get_mut(row).expect("an open row");
        sent.begun += 1;
        text(sent.begun, now)
    }

    /// The upstream has accepted the last one of the row.
    pub(crate) fn accept(&mut self, row: &Row) {
        let sent = self.rows.get_mut(row).expect("an open row");
        sent.accepted += 1;
        assert_eq!(sent.accepted, sent.begun, "{row}: one at a time");
    }

    /// The store has lost all that it held up to now.
    pub(crate) fn lose(&mut self) {
        let begun = self.begun();
        self.losses.push(Loss { begun });
    }

    /// How many messages were accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.rows.values().map(|sent| sent.accepted).sum()
    }

    /// How many times the store has lost everything.
    pub(crate) fn losses(&self) -> usize {
        self.losses.len()
    }

    /// Whether one of the first so many losses, and whether one of those since, explains that this message and all before it
    /// are not there.
    pub(crate) fn explains(&self, row: &Row, number: u64, first: usize) -> (bool, bool) {
        let lost = |losses: &[Loss]| {
            let mut begun = losses.iter().filter_map(|loss| loss.begun.get(row));
            begun.any(|begun| number <= *begun)
        };
        let (before, since) = self.losses.split_at(first);
        (lost(before), lost(since))
    }

    /// The last number in each row.
    pub(crate) fn begun(&self) -> BTreeMap<Row, u64> {
        let rows = self.rows.iter();
        rows.map(|(row, sent)| (row.clone(), sent.begun)).collect()
    }

    pub(crate) fn get(&self, row: &Row) -> Option<&Sent> {
        self.rows.get(row)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&Row, &Sent)> {
        self.rows.iter()
    }
}

/// The text of a message: its number and when it was sent.
fn text(number: u64, now: Duration) -> String {
    format!("{number} {}", now.as_micros())
}

pub(crate) fn read_text(text: &str) -> Option<(u64, Duration)> {
    let (number, sent) = text.split_once(' ')?;
    Some((
        number.parse().ok()?,
        Duration::from_micros(sent.parse().ok()?),
    ))
}
