//! How far a session has read, and what it has seen lately: what makes catch-up complete and without repeats.

use std::collections::{BTreeMap, VecDeque};

use crate::proto::record::TencentSync;

/// How many message identities are remembered. It must exceed what can come between two moves of the cookie:
/// [`super::catchup::MESSAGES_PER_SYNC`] and what may be held back meanwhile.
const REMEMBERED: usize = 256;

/// A session's reading position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The upstream's catch-up cookie; empty before the first catch-up.
    pub cookie: String,
    groups: BTreeMap<String, u64>,
    recent: VecDeque<u64>,
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
        Self {
            cookie: record.cookie,
            groups: record.groups.into_iter().collect(),
            recent: record.recent.into_iter().take(REMEMBERED).collect(),
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

    /// Remembers a message identity. False if it was there.
    pub fn remember(&mut self, identity: &str) -> bool {
        let hash = fingerprint(identity);
        if self.recent.contains(&hash) {
            return false;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
        true
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

/// FNV-1a, 64 bits: stable over versions, which a stored fingerprint has to be. With 256 remembered the odds of
/// taking a new message for a seen one are one in 10^17.
pub(super) fn fingerprint(identity: &str) -> u64 {
    identity.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_remembered_within_a_bound() {
        let mut position = Position::default();
        for n in 0..1000 {
            assert!(position.remember(&format!("id-{n}")));
            assert!(!position.remember(&format!("id-{n}")));
        }
        assert_eq!(position.recent.len(), REMEMBERED);
        assert!(!position.remember("id-900"));
        assert!(position.remember("id-1"), "forgotten long ago");
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
        position.remember("id");
        assert_eq!(Position::from_record(position.to_record()), position);
    }
}
