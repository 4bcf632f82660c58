//! A group of the simulator: members with their reading positions, and numbered messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::value::RawValue;

use super::accounts::Account;
use super::mailbox::{Delivery, MAX_KEPT};
use crate::types::{AccountId, UnixMillis};

/// The most messages that one answer to `group_msg_get` holds.
const MAX_PAGE: u64 = 50;

/// A group message, as clients get it in pushes and lists.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GroupMessage {
    #[serde(rename = "From_Account")]
    pub(super) from_account: String,
    pub(super) to_group_id: String,
    pub(super) group_info: GroupInfo,
    pub(super) msg_seq: u64,
    pub(super) msg_random: u64,
    #[serde(rename = "MsgTimeStamp")]
    pub(super) time: u64,
    #[serde(rename = "MsgClientTime")]
    pub(super) client_time: u64,
    pub(super) client_seq: u64,
    pub(super) msg_priority: u8,
    pub(super) tiny_id: String,
    pub(super) online_only_flag: u8,
    pub(super) cloud_custom_data: String,
    pub(super) msg_body: Box<RawValue>,
}

/// What a group message says of its group and sender.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GroupInfo {
    pub(super) group_id: String,
    pub(super) group_name: String,
    pub(super) group_type: &'static str,
    #[serde(rename = "From_AccountNick")]
    pub(super) from_nick: String,
    #[serde(rename = "From_AccountHeadurl")]
    pub(super) from_headurl: String,
}

/// A group. Its lock may be held while an account's is taken, never the other way round.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: String,
    /// In Unix seconds.
    pub(super) created: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<AccountId, Member>,
    kept: VecDeque<Arc<GroupMessage>>,
    /// The number of the last message; the first is 1.
    last_seq: u64,
}

#[derive(Debug)]
struct Member {
    account: Arc<Account>,
    joined: u64,
    /// All up to this number has been acknowledged, or was there before the account joined.
    read: u64,
    /// Acknowledged beyond a gap.
    read_ahead: BTreeSet<u64>,
}

/// How a group looks to one of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) last_seq: u64,
    pub(super) last_time: u64,
    pub(super) members: usize,
    pub(super) joined: u64,
    pub(super) read: u64,
}

impl Group {
    pub(super) const KIND: &'static str = "Public";

    pub(super) fn new(id: &str, created: u64) -> Self {
        Self {
            id: id.to_owned(),
            created,
            state: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("group {}", self.id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes these accounts the members. Who stays keeps its reading position; who comes has read all that is there.
    pub(super) fn set_members(&self, accounts: Vec<Arc<Account>>, now: UnixMillis) {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.members);
        let read = state.last_seq;
        for account in accounts {
            account.state().groups.insert(self.id.clone());
            let member = before.remove(&account.id).unwrap_or_else(|| Member {
                account: Arc::clone(&account),
                joined: now.as_secs(),
                read,
                read_ahead: BTreeSet::new(),
            });
            state.members.insert(account.id.clone(), member);
        }
        for gone in before.into_values() {
            gone.account.state().groups.remove(&self.id);
        }
    }

    /// Whether the account belongs to the group.
    pub(super) fn has_member(&self, account: &AccountId) -> bool {
        self.state().members.contains_key(account)
    }

    /// Numbers and keeps a message, and pushes it to the other members, all of them in the same order.
    pub(super) fn send(
        self: &Arc<Self>,
        from: &AccountId,
        now: UnixMillis,
        message: impl FnOnce(u64) -> GroupMessage,
    ) -> u64 {
        let mut state = self.state();
        state.last_seq += 1;
        let seq = state.last_seq;
        let message = Arc::new(message(seq));
        state.kept.push_back(Arc::clone(&message));
        if state.kept.len() > MAX_KEPT {
            state.kept.pop_front();
        }
        if let Some(sender) = state.members.get_mut(from) {
            sender.acknowledge(seq);
        }
        let delivery = Delivery::Group {
            group: Arc::clone(self),
            message,
        };
        for (id, member) in &state.members {
            if id != from {
                member.account.state().push(&delivery, now);
            }
        }
        seq
    }

    /// Notes that a member has acknowledged the push of a message.
    pub(super) fn acknowledge(&self, account: &AccountId, seq: u64) {
        if let Some(member) = self.state().members.get_mut(account) {
            member.acknowledge(seq);
        }
    }

    /// The messages numbered up to `up_to` (0: the last), at most `count` back from there, newest first; and whether these are all that were
    /// asked for. A number beyond the last counts, so that `up_to = known + count` asks for what is new alone; only far beyond it
    /// is the last message meant.
    pub(super) fn read(&self, up_to: u64, count: u64) -> (Vec<Arc<GroupMessage>>, bool) {
        let state = self.state();
        let top = if up_to == 0 || up_to > state.last_seq.saturating_add(count) {
            state.last_seq
        } else {
            up_to
        };
        let bottom = top.saturating_sub(count);
        let mut wanted = state
            .kept
            .iter()
            .rev()
            .skip_while(|message| message.msg_seq > top)
            .take_while(|message| message.msg_seq > bottom);
        let page = usize::try_from(MAX_PAGE).unwrap_or(usize::MAX);
        let messages: Vec<_> = wanted.by_ref().take(page).cloned().collect();
        let is_whole = wanted.next().is_none();
        (messages, is_whole)
    }

    /// How the group looks to a member; `None` for everybody else.
    pub(super) fn view(&self, account: &AccountId) -> Option<View> {
        let state = self.state();
        let member = state.members.get(account)?;
        // What has been forgotten cannot be read any more.
        let forgotten = state.last_seq - state.kept.len() as u64;
        Some(View {
            last_seq: state.last_seq,
            last_time: state.kept.back().map_or(0, |message| message.time),
            members: state.members.len(),
            joined: member.joined,
            read: member.read.max(forgotten),
        })
    }
}

impl Member {
    fn acknowledge(&mut self, seq: u64) {
        if seq > self.read {
            self.read_ahead.insert(seq);
        }
        while self.read_ahead.remove(&(self.read + 1)) {
            self.read += 1;
        }
        if self.read_ahead.len() > MAX_KEPT {
            // What lies before the gap is forgotten by now.
            if let Some(oldest) = self.read_ahead.pop_first() {
                self.read = oldest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis::from_secs(1_000);

    fn message(seq: u64) -> GroupMessage {
        GroupMessage {
            from_account: String::from("a"),
            to_group_id: String::from("g"),
            group_info: GroupInfo {
                group_id: String::from("g"),
                group_name: String::new(),
                group_type: Group::KIND,
                from_nick: String::new(),
                from_headurl: String::new(),
            },
            msg_seq: seq,
            msg_random: 0,
            time: seq,
            client_time: 0,
            client_seq: 0,
            msg_priority: 2,
            tiny_id: String::new(),
            online_only_flag: 0,
            cloud_custom_data: String::new(),
            msg_body: RawValue::from_string(String::from("[]")).unwrap(),
        }
    }

    fn account(id: &str) -> Arc<Account> {
        Arc::new(Account::new(AccountId::new(id), 1))
    }

    fn group(count: u64) -> (Arc<Group>, Arc<Account>, Arc<Account>) {
        let group = Arc::new(Group::new("g", 0));
        let (a, b) = (account("a"), account("b"));
        group.set_members(vec![Arc::clone(&a), Arc::clone(&b)], NOW);
        for seq in 1..=count {
            assert_eq!(group.send(&a.id, NOW, message), seq);
        }
        (group, a, b)
    }

    fn numbers(group: &Group, up_to: u64, count: u64) -> (Vec<u64>, bool) {
        let (messages, whole) = group.read(up_to, count);
        (
            messages.iter().map(|message| message.msg_seq).collect(),
            whole,
        )
    }

    #[test]
    fn reading_goes_backward_from_the_number() {
        let (group, ..) = group(120);
        assert_eq!(numbers(&group, 3, 15), (vec![3, 2, 1], true));
        assert_eq!(numbers(&group, 0, 2), (vec![120, 119], true));
        assert_eq!(numbers(&group, 132, 15), (vec![120, 119, 118], true));
        assert_eq!(numbers(&group, u64::MAX, 1), (vec![120], true));
        assert_eq!(numbers(&group, 100, 0), (vec![], true));
        let (page, whole) = numbers(&group, 110, 60);
        assert_eq!(
            (page.first(), page.last(), whole),
            (Some(&110), Some(&61), false)
        );
    }

    #[test]
    fn the_reading_position_moves_over_what_is_acknowledged_without_a_gap() {
        let (group, a, b) = group(3);
        assert_eq!(
            group.view(&a.id).unwrap().read,
            3,
            "a sender knows its own messages"
        );
        assert_eq!(group.view(&b.id).unwrap().read, 0);
        group.acknowledge(&b.id, 2);
        assert_eq!(group.view(&b.id).unwrap().read, 0);
        group.acknowledge(&b.id, 1);
        assert_eq!(group.view(&b.id).unwrap().read, 2);
        group.acknowledge(&b.id, 1);
        assert_eq!(group.view(&b.id).unwrap().read, 2);
    }

    #[test]
    fn who_joins_has_read_what_was_there() {
        let (group, a, b) = group(2);
        let c = account("c");
        group.set_members(vec![Arc::clone(&b), Arc::clone(&c)], NOW);
        assert_eq!(
            group.view(&b.id).unwrap().read,
            0,
            "who stays keeps its position"
        );
        assert_eq!(group.view(&c.id).unwrap().read, 2);
        assert_eq!(group.view(&a.id), None);
        assert!(!group.has_member(&a.id) && a.state().groups.is_empty());
        assert!(c.state().groups.contains("g"));
    }
}
