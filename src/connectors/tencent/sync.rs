//! How far a session has read, and what it has seen lately: what makes catch-up complete and without repeats.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::recent::Recent;
use crate::proto::record::TencentSync;
use crate::proto::v1;

/// How many message identities are remembered, beside those that are sure to come again.
const REMEMBERED: usize = 256;
/// Of these at least so many of messages that catch-up has brought or passed: their push may be on its way yet.
const LEAST_RECENT: usize = 128;
/// How many are remembered of messages that were pushed since the cookie last moved, and come again when it does. It
/// moves after [`super::catchup::MESSAGES_PER_SYNC`] messages, but one push can bring as many as fit a frame. Policy when
/// full: the oldest is forgotten, and may come twice.
const PUSHED: usize = 8192;

/// How many groups are remembered. Policy when full: the one that has not moved for longest is forgotten, and begins anew
/// with its next message.
const GROUPS: usize = 16_384;

/// How much may have been read since the record was last taken as a whole, for it to be added to that record: so much, or
/// an eighth of what is remembered, where that is more. A whole one has some kilobytes, which would go into the store with
/// every push.
const ADDED: usize = 32;

/// A message that was read cannot have been sent so long after the newest, in seconds: it is another group's.
const CLEARLY_NEWER: u64 = 5;

/// A session's reading position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The upstream's catch-up cookie; empty before the first catch-up.
    cookie: String,
    groups: BTreeMap<String, Group>,
    /// Counts what was heard of groups, which gives it an order in time.
    heard: u64,
    /// How much that was when the last whole list of groups began, if there was one in this process.
    last_list: Option<u64>,
    /// First of messages that do not come again by catch-up, then of those that do; each oldest first.
    recent: Recent,
    /// How many are the latter.
    pushed: usize,
    /// How many of these came after the last page of catch-up was asked for, which may not hold them.
    meanwhile: usize,
    news: News,
}

/// What has changed since the record was last taken as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct News {
    /// So many messages were pushed.
    pushed: usize,
    /// Of these groups further messages were read.
    groups: BTreeSet<String>,
    /// The cookie has moved.
    cookie: bool,
    /// And that is all; not so where there was no whole record yet.
    all: bool,
}

/// How far a group has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    /// The last sequence.
    last: u64,
    /// When the group was made, in Unix seconds; 0 if that is not known.
    created: u64,
    /// When the newest message was sent that was read or passed by, in Unix seconds; 0 if that is not known. Not kept over
    /// a restart.
    newest: u64,
    /// The time of the message that last made it doubtful whether the group is still this one.
    doubted: u64,
    /// When it was last heard of, as counted by [`Position::heard`].
    heard: u64,
}

/// How a group that was read before stands to what the upstream says of the one that has its name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// It is this one.
    Same,
    /// It was made anew: nothing of it has been read.
    New,
    /// The upstream speaks of the one before it.
    Old,
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
        let recent: Recent = record.recent.into_iter().skip(surplus).collect();
        Self {
            cookie: record.cookie,
            groups: record
                .groups
                .into_iter()
                .take(GROUPS)
                .map(|(group, last)| {
                    let read = Group {
                        last,
                        created: record.group_created.get(&group).copied().unwrap_or(0),
                        ..Group::default()
                    };
                    (group, read)
                })
                .collect(),
            // Which of them come again the first catch-up shows.
            pushed: recent.len(),
            recent,
            ..Self::default()
        }
    }

    /// For the record.
    pub fn to_record(&self) -> TencentSync {
        TencentSync {
            cookie: self.cookie.clone(),
            groups: self
                .groups
                .iter()
                .map(|(group, read)| (group.clone(), read.last))
                .collect(),
            group_created: self
                .groups
                .iter()
                .filter(|(_, read)| read.created > 0)
                .map(|(group, read)| (group.clone(), read.created))
                .collect(),
            recent: self.recent.newest(self.recent.len()).collect(),
        }
    }

    /// What has changed since the last whole record, if that is little: to be put behind that record.
    pub fn addition(&self) -> Option<TencentSync> {
        let News {
            pushed,
            groups,
            cookie,
            all,
        } = &self.news;
        if !all || *cookie || pushed + groups.len() > ADDED.max(self.recent.len() / 8) {
            return None;
        }
        let last = |group: &String| self.group(group).map(|last| (group.clone(), last));
        Some(TencentSync {
            groups: groups.iter().filter_map(last).collect(),
            recent: self.recent.newest(*pushed).collect(),
            ..TencentSync::default()
        })
    }

    /// Whether anything but the cookie has changed since the last whole record.
    pub fn has_news(&self) -> bool {
        let News {
            pushed,
            groups,
            cookie: _,
            all,
        } = &self.news;
        !all || *pushed > 0 || !groups.is_empty()
    }

    /// The record was taken as a whole.
    pub fn recorded(&mut self) {
        self.news = News {
            all: true,
            ..News::default()
        };
    }

    /// Remembers the identity of a message that was pushed. False if it was there.
    pub fn pushed(&mut self, identity: &str) -> bool {
        if !self.recent.insert_before(0, fingerprint(identity)) {
            return false;
        }
        self.news.pushed += 1;
        self.meanwhile += 1;
        // The oldest of too many counts as one that does not come again.
        self.pushed = PUSHED.min(self.pushed + 1);
        self.trim();
        true
    }

    /// Remembers the identity of a message that catch-up has brought. False if it was there.
    pub fn fetched(&mut self, identity: &str) -> bool {
        let is_new = self
            .recent
            .insert_before(self.pushed, fingerprint(identity));
        if !is_new {
            return false;
        }
        self.news.all = false;
        self.trim();
        true
    }

    /// The upstream's catch-up cookie; empty before the first catch-up.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// Catch-up has come so far.
    pub fn set_cookie(&mut self, cookie: String) {
        self.cookie = cookie;
        self.news.cookie = true;
    }

    /// A page of catch-up is asked for: it holds what was pushed before.
    pub const fn asked(&mut self) {
        self.meanwhile = 0;
    }

    /// Catch-up has come to its end: the cookie is behind all that was pushed before its last page was asked for.
    pub fn caught_up(&mut self) {
        self.pushed = self.pushed.min(self.meanwhile);
        self.trim();
    }

    /// Whether an identity with this fingerprint is remembered.
    pub(super) fn knows(&self, hash: u64) -> bool {
        self.recent.contains(hash)
    }

    fn trim(&mut self) {
        let most = REMEMBERED.max(self.pushed + LEAST_RECENT);
        self.recent.keep_newest(most);
    }

    /// The last sequence read of a group.
    pub fn group(&self, group: &str) -> Option<u64> {
        self.groups.get(group).map(|read| read.last)
    }

    /// Where a group's message stands.
    pub fn group_order(&self, group: &str, sequence: u64) -> GroupOrder {
        match self.group(group) {
            Some(last) if sequence <= last => GroupOrder::Seen,
            Some(last) if sequence > last + 1 => GroupOrder::GapAfter(last),
            Some(_) | None => GroupOrder::Next,
        }
    }

    /// Whether the group that the upstream names now is the one that has been read. It was made at `created`, in Unix
    /// seconds or 0 where that is not said, and has come to the sequence `upto`.
    pub fn generation(&self, group: &str, created: u64, upto: u64) -> Generation {
        let Some(read) = self.groups.get(group) else {
            return Generation::New;
        };
        // Answers lag behind what is pushed: a lower count alone says nothing.
        if created == 0 {
            Generation::Same
        } else if read.created > 0 {
            match created.cmp(&read.created) {
                Ordering::Less => Generation::Old,
                Ordering::Equal => Generation::Same,
                Ordering::Greater => Generation::New,
            }
        } else if read.newest > 0 {
            // It was there before its messages.
            if created > read.newest {
                Generation::New
            } else {
                Generation::Same
            }
        } else if upto < read.last {
            // Repeats rather than a loss; from now on the time is known.
            Generation::New
        } else {
            Generation::Same
        }
    }

    /// A group is to be read from after `sequence` on, whatever has been read under its name before.
    pub fn begin_group(&mut self, group: &str, sequence: u64) {
        if self.groups.len() >= GROUPS && !self.groups.contains_key(group) {
            let stalest = self.groups.iter().min_by_key(|(_, read)| read.heard);
            if let Some(stalest) = stalest.map(|(group, _)| group.clone()) {
                self.groups.remove(&stalest);
            }
        }
        self.heard += 1;
        self.news.all = false;
        let read = Group {
            last: sequence,
            heard: self.heard,
            ..Group::default()
        };
        self.groups.insert(group.to_owned(), read);
    }

    /// Whether a message that by its sequence has been read is so much newer than it could be that the group must have been
    /// made again under its old name. True once for messages of one time.
    pub fn doubts_group(&mut self, group: &str, message: &v1::Message) -> bool {
        let Some(read) = self.groups.get_mut(group) else {
            return false;
        };
        let sent = sent_at(message);
        let doubtful = read.newest > 0 && sent > read.newest.max(read.doubted) + CLEARLY_NEWER;
        if doubtful {
            read.doubted = sent;
        }
        doubtful
    }

    /// A list of groups begins. Answers what [`Position::listed`] is to be told at its end.
    pub const fn list_begins(&self) -> u64 {
        self.heard
    }

    /// A list of groups names this one.
    pub fn names_group(&mut self, group: &str) {
        if let Some(read) = self.groups.get_mut(group) {
            self.heard += 1;
            read.heard = self.heard;
        }
    }

    /// A list of groups has come to its end. A group that a list named once, that this one does not name nor did the whole
    /// one before it, and that has not moved since, has been left. One list is not enough: while groups come and go its
    /// pages may pass one over. Some kinds of groups no list names.
    pub fn listed(&mut self, began: u64) {
        if let Some(last) = self.last_list.replace(began) {
            let before = self.groups.len();
            self.groups
                .retain(|_, read| read.created == 0 || read.heard > last);
            self.news.all &= self.groups.len() == before;
        }
    }

    /// When a group was made, in Unix seconds; 0 where that is not said.
    pub fn group_was_made(&mut self, group: &str, created: u64) {
        if let Some(read) = self.groups.get_mut(group)
            && created > 0
            && created != read.created
        {
            read.created = created;
            self.news.all = false;
        }
    }

    /// A message of a group that has been read or passed by was sent then, in Unix seconds.
    pub fn group_message_sent(&mut self, group: &str, at: u64) {
        if let Some(read) = self.groups.get_mut(group) {
            read.newest = read.newest.max(at);
        }
    }

    /// A group's message with a sequence has been read, and all before it.
    pub fn read_group_message(&mut self, group: &str, sequence: u64, message: &v1::Message) {
        self.move_group(group, sequence, sent_at(message));
    }

    /// A group has been read up to and with `sequence`.
    pub fn advance_group(&mut self, group: &str, sequence: u64) {
        self.move_group(group, sequence, 0);
    }

    fn move_group(&mut self, group: &str, sequence: u64, newest: u64) {
        if let Some(read) = self.groups.get_mut(group) {
            self.heard += 1;
            read.heard = self.heard;
            read.newest = newest.max(read.newest);
            if sequence > read.last {
                read.last = sequence;
                self.news.groups.insert(group.to_owned());
            }
        } else {
            self.begin_group(group, sequence);
            self.group_message_sent(group, newest);
        }
    }
}

/// When a message was sent, in Unix seconds; 0 where that is not said.
fn sent_at(message: &v1::Message) -> u64 {
    let seconds = message.sent_at.map_or(0, |at| at.seconds);
    u64::try_from(seconds).unwrap_or(0)
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
    use prost::Message as _;

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
        position.asked();
        position.caught_up();
        assert_eq!(position.to_record().recent.len(), REMEMBERED);
        assert!(!position.fetched("id-1999"));
    }

    #[test]
    fn what_was_pushed_while_a_page_was_on_its_way_comes_again() {
        let mut position = Position::default();
        position.pushed("before");
        position.asked();
        position.pushed("meanwhile");
        position.caught_up();
        for n in 0..1000 {
            position.fetched(&format!("page-{n}"));
        }
        assert!(!position.fetched("meanwhile"));
        assert!(position.fetched("before"), "forgotten long ago");
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
    fn a_record_with_its_addition_is_as_good_as_a_whole_one() {
        let mut position = Position::default();
        position.advance_group("g", 7);
        position.advance_group("h", 7);
        position.pushed("0");
        assert_eq!(position.addition(), None, "nothing to add it to");
        let record = position.to_record();
        position.recorded();
        assert_eq!(position.addition(), Some(TencentSync::default()));
        position.advance_group("g", 8);
        position.advance_group("g", 3);
        for n in 1..ADDED {
            position.pushed(&n.to_string());
        }
        let addition = position.addition().unwrap();
        assert_eq!(addition.recent.len(), ADDED - 1);
        assert_eq!(addition.groups.len(), 1);
        let mut read = record.encode_to_vec();
        read.extend(addition.encode_to_vec());
        let read = TencentSync::decode(&*read).unwrap();
        assert_eq!(read, position.to_record());
        position.pushed("one more");
        assert_eq!(position.addition(), None, "too much to add");
    }

    #[test]
    fn what_no_push_has_changed_goes_into_a_whole_record() {
        let changes: [fn(&mut Position); 6] = [
            |position| _ = position.fetched("id"),
            |position| position.set_cookie("c".into()),
            |position| position.begin_group("g", 0),
            |position| position.advance_group("new", 7),
            |position| position.group_was_made("g", 5),
            |position| {
                position.listed(position.list_begins());
                position.listed(position.list_begins());
            },
        ];
        for change in changes {
            let mut position = Position::default();
            position.advance_group("g", 7);
            position.group_was_made("g", 4);
            position.recorded();
            change(&mut position);
            assert_eq!(position.addition(), None);
        }
    }

    #[test]
    fn lists_that_say_what_is_known_bring_no_news() {
        let mut position = Position::default();
        position.advance_group("g", 7);
        position.group_was_made("g", 4);
        position.recorded();
        for _ in 0..3 {
            let began = position.list_begins();
            position.names_group("g");
            position.group_was_made("g", 4);
            position.listed(began);
        }
        position.set_cookie("c".into());
        assert!(!position.has_news());
        position.advance_group("g", 8);
        assert!(position.has_news());
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
    fn of_too_many_groups_the_one_that_has_not_moved_for_longest_is_forgotten() {
        let mut position = Position::default();
        for n in 0..16_384 {
            position.advance_group(&format!("g{n}"), 7);
        }
        position.advance_group("g0", 8);
        for n in 0..10 {
            position.advance_group(&format!("new{n}"), 7);
        }
        assert_eq!(position.to_record().groups.len(), 16_384);
        for n in 0..10 {
            assert_eq!(position.group(&format!("new{n}")), Some(7));
            assert_eq!(position.group(&format!("g{}", n + 1)), None);
        }
        assert_eq!(
            (position.group("g0"), position.group("g11")),
            (Some(8), Some(7))
        );
    }

    #[test]
    fn survives_its_record() {
        let mut position = Position::default();
        position.set_cookie("MTA=".into());
        position.advance_group("g", 7);
        position.group_was_made("g", 5);
        position.advance_group("h", 8);
        position.pushed("id");
        let record = position.to_record();
        assert_eq!(Position::from_record(record.clone()).to_record(), record);
        assert_eq!((record.groups["h"], record.group_created["g"]), (8, 5));
    }
}
