//! An account's one-to-one messages: what waits, what was acknowledged, and reading on from a cookie.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use super::groups::{Group, GroupMessage};
use crate::types::AccountId;

/// How many messages an account (or a group) keeps. Older ones are forgotten, as the real service forgets after some days.
pub(super) const MAX_KEPT: usize = 10_000;

/// How many of its last sends an account remembers, to answer a repeated one as it did the first.
const MAX_REMEMBERED: usize = 1024;

/// A one-to-one message, as clients get it in pushes and lists.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct C2cMessage {
    #[serde(skip)]
    pub(super) from: AccountId,
    /// Where it stands among all messages of the simulator.
    #[serde(skip)]
    pub(super) order: u64,
    #[serde(rename = "From_Account")]
    pub(super) from_account: String,
    #[serde(rename = "To_Account")]
    pub(super) to_account: String,
    #[serde(rename = "From_AccountNick")]
    pub(super) from_nick: String,
    #[serde(rename = "From_AccountHeadurl")]
    pub(super) from_headurl: String,
    pub(super) tiny_id: String,
    pub(super) msg_seq: u64,
    pub(super) msg_random: u64,
    #[serde(rename = "MsgTimeStamp")]
    pub(super) time: u64,
    #[serde(rename = "MsgClientTime")]
    pub(super) client_time: u64,
    pub(super) msg_key: String,
    pub(super) msg_body: Box<RawValue>,
    pub(super) cloud_custom_data: String,
    pub(super) is_sync_msg: u8,
    pub(super) support_message_extension: u8,
    pub(super) is_need_read_receipt: u8,
    /// 0 if it is for who is online only; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) msg_life_time: Option<u64>,
}

/// A message on its way to one account.
#[derive(Clone, Debug)]
pub(super) enum Delivery {
    /// One to one.
    C2c {
        /// Where it lies in the receiver's mailbox; `None` if it is for who is online only, and not kept.
        position: Option<u64>,
        /// What.
        message: Arc<C2cMessage>,
    },
    /// In a group.
    Group {
        /// Where.
        group: Arc<Group>,
        /// What.
        message: Arc<GroupMessage>,
    },
}

#[derive(Debug)]
struct Entry {
    message: Arc<C2cMessage>,
    acked: bool,
}

/// Messages to one account, and the last one of each conversation.
///
/// A cookie is a position. An answer holds everything after the client's cookie, acknowledged or not. Without a cookie reading starts at the
/// first message that was never acknowledged: neither by acknowledging its push nor by coming back with a later cookie.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    kept: VecDeque<Entry>,
    /// The position of the first kept message.
    base: u64,
    first_unacked: u64,
    last_of: BTreeMap<AccountId, Arc<C2cMessage>>,
}

/// One answer's worth of messages.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) messages: Vec<Arc<C2cMessage>>,
    /// The cookie to come back with.
    pub(super) cookie: String,
    /// Whether nothing is left after it.
    pub(super) is_last: bool,
}

impl Mailbox {
    /// Keeps an incoming message; answers its position.
    pub(super) fn receive(&mut self, message: Arc<C2cMessage>) -> u64 {
        let position = self.end();
        self.note_conversation(message.from.clone(), Arc::clone(&message));
        self.kept.push_back(Entry {
            message,
            acked: false,
        });
        if self.kept.len() > MAX_KEPT {
            self.kept.pop_front();
            self.base += 1;
            self.first_unacked = self.first_unacked.max(self.base);
        }
        position
    }

    /// Notes the last message with somebody, whoever sent it.
    pub(super) fn note_conversation(&mut self, with: AccountId, message: Arc<C2cMessage>) {
        self.last_of.insert(with, message);
    }

    /// The last message with each partner.
    pub(super) fn conversations(&self) -> impl Iterator<Item = (&AccountId, &Arc<C2cMessage>)> {
        self.last_of.iter()
    }

    /// Notes that a push was acknowledged.
    pub(super) fn acknowledge(&mut self, position: u64) {
        if let Some(entry) = self.entry_mut(position) {
            entry.acked = true;
        }
        while self
            .entry_mut(self.first_unacked)
            .is_some_and(|entry| entry.acked)
        {
            self.first_unacked += 1;
        }
    }

    /// What follows the cookie, at most `limit` messages. Coming back with a cookie says that everything before it has arrived. A cookie that
    /// cannot be ours is taken as none.
    pub(super) fn read(&mut self, cookie: &str, limit: usize) -> Page {
        let start = match position_of(cookie) {
            Some(position) if position <= self.end() => {
                self.first_unacked = self.first_unacked.max(position);
                position
            }
            Some(_) | None => self.first_unacked,
        };
        let skipped = usize::try_from(start.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let messages: Vec<_> = self
            .kept
            .iter()
            .skip(skipped)
            .take(limit)
            .map(|entry| Arc::clone(&entry.message))
            .collect();
        let next = start.max(self.base) + messages.len() as u64;
        Page {
            messages,
            cookie: BASE64.encode(next.to_string()),
            is_last: next >= self.end(),
        }
    }

    /// What came from one account, oldest first.
    pub(super) fn messages_from(&self, from: &AccountId) -> Vec<Arc<C2cMessage>> {
        let messages = self.kept.iter().map(|entry| &entry.message);
        messages
            .filter(|message| message.from == *from)
            .map(Arc::clone)
            .collect()
    }

    fn end(&self) -> u64 {
        self.base + self.kept.len() as u64
    }

    fn entry_mut(&mut self, position: u64) -> Option<&mut Entry> {
        let index = position.checked_sub(self.base)?;
        self.kept.get_mut(usize::try_from(index).ok()?)
    }
}

fn position_of(cookie: &str) -> Option<u64> {
    let digits = BASE64.decode(cookie).ok()?;
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// How a client numbers a message: two sends of the same number are one message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SendKey {
    /// One to one: receiver, `MsgSeq`, `MsgRandom`.
    C2c(AccountId, u64, u64),
    /// In a group: the group, `Random`, `ClientSeq`. The last is beyond what the real service is known to look at; it makes an
    /// accidental match of two messages unlikely.
    Group(String, u64, u64),
}

/// How a send ended: when, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) time: u64,
    pub(super) seq: u64,
}

/// The last sends of an account, with their outcomes.
#[derive(Debug, Default)]
pub(super) struct SentBefore {
    outcomes: HashMap<SendKey, Sent>,
    order: VecDeque<SendKey>,
}

impl SentBefore {
    /// How the send of this number ended, if there was one.
    pub(super) fn outcome(&self, key: &SendKey) -> Option<Sent> {
        self.outcomes.get(key).copied()
    }

    /// Notes an outcome; forgets the oldest one when there are too many.
    pub(super) fn note(&mut self, key: SendKey, outcome: Sent) {
        if self.outcomes.insert(key.clone(), outcome).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::sim) fn message(number: u64) -> Arc<C2cMessage> {
        Arc::new(C2cMessage {
            from: AccountId::new("a"),
            order: number,
            from_account: String::from("a"),
            to_account: String::from("b"),
            from_nick: String::new(),
            from_headurl: String::new(),
            tiny_id: String::from("1"),
            msg_seq: number,
            msg_random: 0,
            time: number,
            client_time: number,
            msg_key: number.to_string(),
            msg_body: RawValue::from_string(String::from("[]")).unwrap(),
            cloud_custom_data: String::new(),
            is_sync_msg: 0,
            support_message_extension: 0,
            is_need_read_receipt: 0,
            msg_life_time: None,
        })
    }

    fn filled(count: u64) -> Mailbox {
        let mut mailbox = Mailbox::default();
        for number in 0..count {
            assert_eq!(mailbox.receive(message(number)), number);
        }
        mailbox
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.messages
            .iter()
            .map(|message| message.msg_seq)
            .collect()
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut mailbox = filled(5);
        let page = mailbox.read("", 2);
        assert_eq!((numbers(&page), page.is_last), (vec![0, 1], false));
        let page = mailbox.read(&page.cookie, 2);
        assert_eq!((numbers(&page), page.is_last), (vec![2, 3], false));
        let page = mailbox.read(&page.cookie, 2);
        assert_eq!((numbers(&page), page.is_last), (vec![4], true));
        let page = mailbox.read(&page.cookie, 2);
        assert_eq!((numbers(&page), page.is_last), (vec![], true));
        mailbox.receive(message(5));
        assert_eq!(numbers(&mailbox.read(&page.cookie, 2)), [5]);
    }

    #[test]
    fn a_cookie_brings_back_what_was_pushed_and_acknowledged() {
        let mut mailbox = filled(1);
        let cookie = mailbox.read("", 10).cookie;
        let position = mailbox.receive(message(1));
        mailbox.acknowledge(position);
        assert_eq!(numbers(&mailbox.read(&cookie, 10)), [1]);
    }

    #[test]
    fn without_a_cookie_only_what_was_never_acknowledged_comes() {
        let mut mailbox = filled(4);
        mailbox.acknowledge(1);
        assert_eq!(
            numbers(&mailbox.read("", 10)),
            [0, 1, 2, 3],
            "the first is still open"
        );
        mailbox.acknowledge(0);
        let page = mailbox.read("", 10);
        assert_eq!(numbers(&page), [2, 3]);
        assert_eq!(
            numbers(&mailbox.read("", 10)),
            [2, 3],
            "reading alone proves nothing"
        );
        mailbox.read(&page.cookie, 10);
        assert_eq!(numbers(&mailbox.read("", 10)), [0; 0], "coming back does");
    }

    #[test]
    fn a_cookie_of_another_life_is_taken_as_none() {
        let mut mailbox = filled(2);
        for cookie in ["garbage", "!!", "OTk="] {
            assert_eq!(numbers(&mailbox.read(cookie, 10)), [0, 1], "{cookie}");
        }
    }

    #[test]
    fn old_messages_are_forgotten() {
        let count = MAX_KEPT as u64 + 3;
        let mut mailbox = filled(count);
        let page = mailbox.read("", 1);
        assert_eq!(numbers(&page), [3]);
        assert_eq!(numbers(&mailbox.read(&BASE64.encode("0"), 1)), [3]);
        mailbox.acknowledge(0);
        mailbox.acknowledge(3);
        assert_eq!(numbers(&mailbox.read("", 1)), [4]);
    }

    #[test]
    fn sends_are_remembered_up_to_a_bound() {
        let mut before = SentBefore::default();
        let key = |n| SendKey::C2c(AccountId::new("b"), n, 7);
        for n in 0..=MAX_REMEMBERED as u64 {
            assert_eq!(before.outcome(&key(n)), None);
            before.note(key(n), Sent { time: n, seq: n });
        }
        assert_eq!(before.outcome(&key(0)), None);
        assert_eq!(before.outcome(&key(1)), Some(Sent { time: 1, seq: 1 }));
        assert_eq!(before.order.len(), before.outcomes.len());
    }
}
