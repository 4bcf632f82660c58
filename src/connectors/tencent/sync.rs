//! How far a session has read, and what it has seen lately: what makes catch-up complete and without repeats.

use std::collections::{BTreeMap, VecDeque};

use crate::proto::record::TencentSync;

/// How many message identities are remembered, beside those that are sure to come again.
const REMEMBERED: usize = 256;
/// Of these at least so many of messages that catch-up has brought or passed: their push may be on its way yet.
const LEAST_RECENT: usize = 128;
/// How many are remembered of messages that were pushed since the cookie last moved, and come again when it does. It
/// moves after [`super::catchup::MESSAGES_PER_SYNC`] messages, but one push can bring as many as fit a frame. Policy when
/// full: the oldest is forgotten, and may come twice.
const PUSHED: usize = 8192;

/// A session's reading position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The upstream's catch-up cookie; empty before the first catch-up.
    pub cookie: String,
    groups: BTreeMap<String, u64>,
    /// First of messages that do not come again by catch-up, then of those that do; each oldest first.
    recent: VecDeque<u64>,
    /// How many are the latter.
    pushed: usize,
}

/// How a group's message relates to what has been read of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupOrder {
    /// It is the next one, or the first that is known.
    Next,
    /// It has been read.
    Seen,
    /// The ones after this sequence are missing before it.
    GapAfter(u64),
}

impl Position {
    /// From the record; what cannot be read starts anew, which costs repeats at the most.
    pub fn from_record(record: TencentSync) -> Self {
        let surplus = record.recent.len().saturating_sub(PUSHED);
        let recent: VecDeque<u64> = record.recent.into_iter().skip(surplus).collect();
        Self {
            cookie: record.cookie,
            groups: record.groups.into_iter().collect(),
            // Which of them come again the first catch-up shows.
            pushed: recent.len(),
            recent,
        }
    }

    /// For the record.
    pub fn to_record(&self) -> TencentSync {
        TencentSync {
            cookie: self.cookie.clone(),
            groups: self
                .groups
                .iter()
                .map(|(group, seq)| (group.clone(), *seq))
                .collect(),
            recent: self.recent.iter().copied().collect(),
        }
    }

    /// Remembers the identity of a message that was pushed. False if it was there.
    pub fn pushed(&mut self, identity: &str) -> bool {
        let hash = fingerprint(identity);
        if self.knows(hash) {
            return false;
        }
        self.recent.push_back(hash);
        // The oldest of too many counts as one that does not come again.
        self.pushed = PUSHED.min(self.pushed + 1);
        self.trim();
        true
    }

    /// Remembers the identity of a message that catch-up has brought. False if it was there.
    pub fn fetched(&mut self, identity: &str) -> bool {
        let hash = fingerprint(identity);
        if self.knows(hash) {
            return false;
        }
        self.recent.insert(self.recent.len() - self.pushed, hash);
        self.trim();
        true
    }

    /// Catch-up has come to its end: the cookie is behind all that was pushed before.
    pub fn caught_up(&mut self) {
        self.pushed = 0;
        self.trim();
    }

    /// Whether an identity with this fingerprint is remembered.
    pub(super) fn knows(&self, hash: u64) -> bool {
        self.recent.contains(&hash)
    }

    fn trim(&mut self) {
        let most = REMEMBERED.max(self.pushed + LEAST_RECENT);
        let surplus = self.recent.len().saturating_sub(most);
        self.recent.drain(..surplus);
    }

    /// The last sequence read of a group.
    pub fn group(&self, group: &str) -> Option<u64> {
        self.groups.get(group).copied()
    }

    /// Where a group's message stands.
    pub fn group_order(&self, group: &str, sequence: u64) -> GroupOrder {
        match self.group(group) {
            Some(last) if sequence <= last => GroupOrder::Seen,
            Some(last) if sequence > last + 1 => GroupOrder::GapAfter(last),
            Some(_) | None => GroupOrder::Next,
        }
    }

    /// A group is to be read from after `sequence` on, whatever has been read of it before.
    pub fn begin_group(&mut self, group: &str, sequence: u64) {
        self.groups.insert(group.to_owned(), sequence);
    }

    /// A group has been read up to and with `sequence`.
    pub fn advance_group(&mut self, group: &str, sequence: u64) {
        match self.groups.get_mut(group) {
            Some(last) => *last = sequence.max(*last),
            None => {
                self.groups.insert(group.to_owned(), sequence);
            }
        }
    }
}

/// FNV-1a, 64 bits: stable over versions, which a stored fingerprint has to be. With 8192 remembered the odds
/// of taking a new message for a seen one are one in 10^15.
pub(super) fn fingerprint(identity: &str) -> u64 {
    identity.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_is_remembered_within_a_bound() {
        let mut position = Position::default();
        for n in 0..1000 {
            assert!(position.fetched(&format!("id-{n}")));
            assert!(!position.fetched(&format!("id-{n}")));
        }
        assert_eq!(position.to_record().recent.len(), REMEMBERED);
        assert!(!position.pushed("id-900"));
        assert!(position.pushed("id-1"), "forgotten long ago");
    }

    #[test]
    fn what_was_pushed_is_remembered_until_catch_up_has_passed_it() {
        let mut position = Position::default();
        for n in 0..2000 {
            assert!(position.pushed(&format!("id-{n}")));
        }
        // Also in the next process.
        let mut position = Position::from_record(position.to_record());
        for n in 0..2000 {
            assert!(!position.fetched(&format!("id-{n}")), "{n}");
            assert!(position.fetched(&format!("new-{n}")), "{n}");
        }
        position.caught_up();
        assert_eq!(position.to_record().recent.len(), REMEMBERED);
        assert!(!position.fetched("id-1999"));
    }

    #[test]
    fn what_is_remembered_is_bounded_whatever_comes() {
        let mut position = Position::default();
        for n in 0..PUSHED + 10 {
            position.fetched(&format!("page-{n}"));
            position.pushed(&format!("push-{n}"));
        }
        let record = position.to_record();
        assert_eq!(record.recent.len(), PUSHED + LEAST_RECENT);
        assert_eq!(
            Position::from_record(record).to_record().recent.len(),
            PUSHED
        );
    }

    #[test]
    fn group_sequences_tell_next_seen_and_gap() {
        let mut position = Position::default();
        assert_eq!(position.group_order("g", 7), GroupOrder::Next);
        position.advance_group("g", 7);
        assert_eq!(position.group_order("g", 7), GroupOrder::Seen);
        assert_eq!(position.group_order("g", 8), GroupOrder::Next);
        assert_eq!(position.group_order("g", 10), GroupOrder::GapAfter(7));
        position.advance_group("g", 3);
        assert_eq!(position.group("g"), Some(7), "never back");
    }

    #[test]
    fn survives_its_record() {
        let mut position = Position {
            cookie: "MTA=".into(),
            ..Position::default()
        };
        position.advance_group("g", 7);
        position.pushed("id");
        assert_eq!(Position::from_record(position.to_record()), position);
    }
}
