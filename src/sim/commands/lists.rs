//! Reading: catch-up, history, and the lists that clients ask for after a login.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::accounts::{Account, Refused};
use super::super::groups::{Group, GroupMessage, View};
use super::super::mailbox::C2cMessage;
use super::super::world::World;
use super::ok;
use super::sends::parse;
use crate::types::AccountId;

/// The most messages in an answer to `openim.getroammsg`.
const MAX_ROAM: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetMsg {
    #[serde(default)]
    cookie: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Roam {
    #[serde(rename = "Peer_Account")]
    peer: String,
    #[serde(default)]
    max_cnt: usize,
    #[serde(default)]
    last_msg_time: u64,
    #[serde(default)]
    msg_key: String,
    #[serde(default)]
    get_direction: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupRead {
    group_id: String,
    #[serde(default)]
    req_msg_number: u64,
    #[serde(default)]
    req_msg_seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupInfos {
    group_id_list: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JoinedGroups {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
}

/// Fields of a list that is empty, for the commands whose callers look for one; else no fields.
pub(super) fn empty(command: &str) -> Value {
    match command {
        // Without `StartIndex` 0 clients ask for ever.
        "sns.black_list_get" => {
            json!({ "BlackListItem": [], "StartIndex": 0, "CurruentSequence": 0 })
        }
        "sns.friend_get" => json!({
            "UserDataItem": [], "StandardSequence": 0, "CustomSequence": 0,
            "FriendNum": 0, "CompleteFlag": 1, "NextStartIndex": 0,
        }),
        "sns.group_get" => json!({ "ResultItem": [], "CurrentSequence": 0 }),
        "sns.pendency_get" => json!({
            "PendencyItem": [], "StartTime": 0, "UnreadPendencyCount": 0, "CurrentSequence": 0,
        }),
        "group_open_http_svc.get_group_notify" => {
            json!({ "GroupNotifyList": [], "NextMsgTime": 0 })
        }
        "group_open_http_svc.batch_get_group_notify" => json!({ "GroupNotifyList": [] }),
        "million_group_open_http_svc.get_joined_group_list" => {
            json!({ "TotalCount": 0, "GroupIdList": [] })
        }
        _ => json!({}),
    }
}

/// The profiles that are asked for: a nickname each.
pub(super) fn profiles(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let asked = body.get("UserItem").and_then(Value::as_array);
    let items: Vec<_> = asked
        .into_iter()
        .flatten()
        .filter_map(|item| item.get("To_Account")?.as_str())
        .map(|id| {
            json!({
                "To_Account": id,
                "StandardSequence": 0,
                "CustomSequence": 0,
                "ProfileItem": [{ "Tag": "Tag_Profile_IM_Nick", "Value": format!("nick_{id}") }],
                "ResultCode": 0,
                "ResultInfo": "",
            })
        })
        .collect();
    ok(json!({
        "UserProfileItem": items, "CurrentStandardSequence": 0, "Fail_Account": [],
    }))
}

impl World {
    /// `openim.getmsg`: what follows the cookie; see [`super::super::mailbox::Mailbox`].
    pub(super) fn on_getmsg(&self, account: &Account, body: &str) -> Result<String, Refused> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer<'a> {
            cookie: String,
            sync_flag: u8,
            msg_list: Vec<&'a C2cMessage>,
            #[serde(rename = "C2CPairUnreadCount")]
            pair_unread: [(); 0],
            #[serde(rename = "C2CRemainingUnreadCount")]
            remaining_unread: [(); 0],
        }
        let asked: GetMsg = parse(body)?;
        let limit = self.options.page_size.max(1);
        let page = account.state().mailbox.read(&asked.cookie, limit);
        Ok(ok(Answer {
            cookie: page.cookie,
            sync_flag: if page.is_last { 2 } else { 1 },
            msg_list: page.messages.iter().map(Arc::as_ref).collect(),
            pair_unread: [],
            remaining_unread: [],
        }))
    }

    /// `openim.getroammsg`: the messages with one partner, oldest first. Direction 1 is newer than the given time; else older, up to and
    /// with that second, but before the message of the given key.
    pub(super) fn on_roam(&self, account: &Account, body: &str) -> Result<String, Refused> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer<'a> {
            complete: u8,
            msg_cnt: usize,
            last_msg_time: u64,
            last_msg_key: String,
            msg_list: Vec<&'a C2cMessage>,
        }
        let asked: Roam = parse(body)?;
        let mut messages = self.conversation(account, &asked.peer);
        let (time, key) = (asked.last_msg_time, asked.msg_key.as_str());
        let newer = asked.get_direction == 1;
        if newer {
            messages.retain(|message| message.time > time);
        } else {
            let end = messages.iter().position(|message| message.msg_key == key);
            messages.truncate(end.unwrap_or(messages.len()));
            messages.retain(|message| time == 0 || message.time <= time);
        }
        let limit = asked.max_cnt.clamp(1, MAX_ROAM);
        let complete = messages.len() <= limit;
        if newer {
            messages.truncate(limit);
        } else {
            messages.drain(..messages.len().saturating_sub(limit));
        }
        let last = if newer {
            messages.last()
        } else {
            messages.first()
        };
        Ok(ok(Answer {
            complete: u8::from(complete),
            msg_cnt: messages.len(),
            last_msg_time: last.map_or(time, |message| message.time),
            last_msg_key: last
                .map(|message| message.msg_key.clone())
                .unwrap_or_default(),
            msg_list: messages.iter().map(Arc::as_ref).collect(),
        }))
    }

    fn conversation(&self, account: &Account, peer: &str) -> Vec<Arc<C2cMessage>> {
        let peer_id = AccountId::new(peer);
        let mut messages = account.state().mailbox.messages_from(&peer_id);
        if let Some(peer) = self.find(peer).filter(|peer| peer.id != account.id) {
            let mine = peer.state().mailbox.messages_from(&account.id);
            messages.extend(mine);
        }
        messages.sort_by_key(|message| message.order);
        messages
    }

    /// `group_msg_get`: newest first.
    pub(super) fn on_group_read(&self, account: &Account, body: &str) -> Result<String, Refused> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer<'a> {
            group_id: String,
            is_finished: u8,
            next_req_msg_seq: u64,
            rsp_msg_list: Vec<&'a GroupMessage>,
        }
        let asked: GroupRead = parse(body)?;
        let group = self
            .find_group(&asked.group_id)
            .ok_or_else(|| Refused::new(10010, "the group does not exist"))?;
        if !group.has_member(&account.id) {
            return Err(Refused::new(10007, "only members may read the group"));
        }
        let (messages, whole) = group.read(asked.req_msg_seq, asked.req_msg_number);
        let oldest = messages
            .last()
            .map_or(asked.req_msg_seq, |message| message.msg_seq);
        Ok(ok(Answer {
            group_id: group.id.clone(),
            is_finished: u8::from(whole),
            next_req_msg_seq: oldest.saturating_sub(1),
            rsp_msg_list: messages.iter().map(Arc::as_ref).collect(),
        }))
    }

    fn groups_of(&self, account: &Account) -> Vec<(Arc<Group>, View)> {
        let names = account.state().groups.clone();
        names
            .iter()
            .filter_map(|name| self.find_group(name))
            .filter_map(|group| {
                let view = group.view(&account.id)?;
                Some((group, view))
            })
            .collect()
    }

    /// `get_joined_group_list`: the account's groups, each with its next number and the account's reading position.
    pub(super) fn on_joined_groups(
        &self,
        account: &Account,
        body: &str,
    ) -> Result<String, Refused> {
        let asked: JoinedGroups = parse(body)?;
        let groups = self.groups_of(account);
        let list: Vec<_> = groups
            .iter()
            .skip(asked.offset)
            .take(asked.limit.unwrap_or(usize::MAX))
            .map(|(group, view)| joined_group(group, *view))
            .collect();
        Ok(ok(
            json!({ "TotalCount": groups.len(), "GroupIdList": list }),
        ))
    }

    /// `get_group_self_member_info`: these groups, as clients ask before they send to one that they do not know yet.
    pub(super) fn on_group_infos(&self, account: &Account, body: &str) -> Result<String, Refused> {
        let asked: GroupInfos = parse(body)?;
        let infos: Vec<_> = asked
            .group_id_list
            .iter()
            .map(|id| {
                let group = self.find_group(id);
                let seen = group.as_ref().and_then(|group| group.view(&account.id));
                let Some((group, view)) = group.zip(seen) else {
                    let text = "no such group, or no member of it";
                    return json!({ "GroupId": id, "ErrorCode": 10010, "ErrorInfo": text });
                };
                let mut info = joined_group(&group, view);
                info["ErrorCode"] = json!(0);
                info["ErrorInfo"] = json!("");
                info
            })
            .collect();
        Ok(ok(json!({ "GroupInfo": infos })))
    }

    /// `recentcontact.page_get`: every conversation on one page.
    pub(super) fn on_recent(&self, account: &Account) -> String {
        let mut items: Vec<Value> = {
            let state = account.state();
            let conversations = state.mailbox.conversations();
            conversations
                .map(|(with, last)| recent_c2c(with, last))
                .collect()
        };
        let groups = self.groups_of(account);
        items.extend(
            groups
                .iter()
                .map(|(group, view)| recent_group(group, *view)),
        );
        ok(json!({
            "CompleteFlag": 1,
            "TimeStamp": 0,
            "StartIndex": 0,
            "TopTimeStamp": 0,
            "TopStartIndex": 0,
            "SessionItem": items,
        }))
    }
}

fn joined_group(group: &Group, view: View) -> Value {
    json!({
        "GroupId": group.id,
        "Type": Group::KIND,
        "Name": group.name(),
        "Introduction": "",
        "Notification": "",
        "FaceUrl": "",
        "Owner_Account": "",
        "CreateTime": group.created,
        "InfoSeq": 1,
        "LastInfoTime": group.created,
        "LastMsgTime": view.last_time,
        "NextMsgSeq": view.last_seq + 1,
        "MemberNum": view.members,
        "MaxMemberNum": 200.max(view.members),
        "ApplyJoinOption": "FreeAccess",
        "ShutUpAllMember": "Off",
        "SelfInfo": {
            "Role": "Member",
            "JoinTime": view.joined,
            "MsgFlag": "AcceptAndNotify",
            "MsgSeq": view.read,
        },
        "AppDefinedData": [],
    })
}

fn recent_c2c(with: &AccountId, last: &C2cMessage) -> Value {
    json!({
        "Type": 1,
        "To_Account": with.as_str(),
        "MsgTime": last.time,
        "MsgSeq": last.msg_seq,
        "MsgTimeStamp": last.time,
        "LastC2cMsgFrom_Account": last.from_account,
        "LastMsg": { "MsgBody": last.msg_body, "CloudCustomData": last.cloud_custom_data },
        "LastMsgFlags": 0,
        "TopFlags": 0,
        "UnreadMsgCount": 0,
        "C2cNick": format!("nick_{with}"),
        "C2cImage": "",
        "C2cPeerReadTime": 0,
    })
}

fn recent_group(group: &Group, view: View) -> Value {
    json!({
        "Type": 2,
        "ToAccount": group.id,
        "MsgTimeStamp": if view.last_time == 0 { group.created } else { view.last_time },
        "MsgSeq": view.last_seq,
        "MsgGroupFrom_Account": "",
        "LastMsg": { "MsgBody": [] },
        "LastMsgFlags": 0,
        "TopFlags": 0,
        "UnreadMsgCount": 0,
        "GroupNick": group.name(),
        "GroupImage": "",
        "GroupType": Group::KIND,
        "GroupNextMsgSeq": view.last_seq + 1,
        "MsgGroupReadedSeq": view.read,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimOptions;
    use crate::types::{Secret, UnixMillis};

    const fn at(seconds: u64) -> UnixMillis {
        UnixMillis::from_secs(seconds)
    }

    fn world() -> (World, Arc<Account>) {
        let mut options = SimOptions::new(1, Secret::new(String::from("k")));
        options.page_size = 2;
        let world = World::new(options, None);
        let a = world.find_or_create(&AccountId::new("a"));
        world.find_or_create(&AccountId::new("b"));
        for (time, from, to) in [
            (10, "b", "a"),
            (20, "a", "b"),
            (30, "b", "a"),
            (40, "b", "a"),
        ] {
            world
                .message(from, to, &time.to_string(), at(time))
                .unwrap();
        }
        (world, a)
    }

    fn value(answer: Result<String, Refused>) -> Value {
        serde_json::from_str(&answer.unwrap()).unwrap()
    }

    fn times(answer: &Value) -> Vec<u64> {
        let list = answer["MsgList"].as_array().unwrap().iter();
        list.map(|message| message["MsgTimeStamp"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn getmsg_goes_page_by_page() {
        let (world, a) = world();
        let first = value(world.on_getmsg(&a, r#"{"Cookie":"","SyncFlag":0}"#));
        assert_eq!(
            (times(&first), &first["SyncFlag"]),
            (vec![10, 30], &json!(1))
        );
        let body = json!({ "Cookie": first["Cookie"], "SyncFlag": 1 }).to_string();
        let second = value(world.on_getmsg(&a, &body));
        assert_eq!((times(&second), &second["SyncFlag"]), (vec![40], &json!(2)));
        assert_eq!(
            second["MsgList"][0]["MsgBody"][0]["MsgContent"]["Text"],
            "40"
        );
        assert_eq!(second["ErrorCode"], 0);
    }

    #[test]
    fn history_is_read_in_both_directions() {
        let (world, a) = world();
        let roam = |direction: u8, time: u64, count: usize, key: &str| {
            let body = json!({
                "Peer_Account": "b", "MaxCnt": count, "LastMsgTime": time,
                "MsgKey": key, "GetDirection": direction,
            });
            value(world.on_roam(&a, &body.to_string()))
        };
        let newer = roam(1, 10, 2, "");
        assert_eq!(
            (times(&newer), &newer["Complete"]),
            (vec![20, 30], &json!(0))
        );
        assert_eq!(newer["LastMsgTime"], 30);
        let newer = roam(1, 20, 5, "");
        assert_eq!(
            (times(&newer), &newer["Complete"]),
            (vec![30, 40], &json!(1))
        );
        let latest = roam(0, 0, 3, "");
        assert_eq!(
            (times(&latest), &latest["Complete"]),
            (vec![20, 30, 40], &json!(0))
        );
        let key = latest["LastMsgKey"].as_str().unwrap();
        let oldest = roam(0, 20, 3, key);
        assert_eq!((times(&oldest), &oldest["Complete"]), (vec![10], &json!(1)));
    }

    #[test]
    fn groups_are_listed_and_read() {
        let (world, a) = world();
        world
            .set_group("g", &[String::from("a"), String::from("b")], at(1))
            .unwrap();
        for n in 1..=3 {
            world
                .group_message("b", "g", &n.to_string(), at(50))
                .unwrap();
        }
        let list = value(world.on_joined_groups(&a, "{}"));
        assert_eq!(list["TotalCount"], 1);
        assert_eq!(list["GroupIdList"][0]["NextMsgSeq"], 4);
        assert_eq!(list["GroupIdList"][0]["SelfInfo"]["MsgSeq"], 0);
        let beyond = value(world.on_joined_groups(&a, r#"{"Limit":200,"Offset":1}"#));
        assert_eq!(beyond["GroupIdList"], json!([]));
        let read = |body: Value| value(world.on_group_read(&a, &body.to_string()));
        let infos = value(world.on_group_infos(&a, r#"{"GroupIdList":["g","h"]}"#));
        assert_eq!(infos["GroupInfo"][0]["NextMsgSeq"], 4);
        assert_eq!(infos["GroupInfo"][1]["ErrorCode"], 10010);
        let page = read(json!({ "GroupId": "g", "ReqMsgNumber": 15, "ReqMsgSeq": 16 }));
        let seqs: Vec<_> = page["RspMsgList"].as_array().unwrap().iter().collect();
        assert_eq!(
            seqs.iter().map(|m| m["MsgSeq"].clone()).collect::<Vec<_>>(),
            [3, 2]
        );
        assert_eq!(
            (&page["IsFinished"], &page["NextReqMsgSeq"]),
            (&json!(1), &json!(1))
        );
        let none = read(json!({ "GroupId": "g", "ReqMsgNumber": 0 }));
        assert_eq!(none["RspMsgList"], json!([]));
        let error = world.on_group_read(&a, r#"{"GroupId":"h"}"#).unwrap_err();
        assert_eq!(error.code, 10010);
    }

    #[test]
    fn recent_conversations_are_on_one_page() {
        let (world, a) = world();
        world.set_group("g", &[String::from("a")], at(1)).unwrap();
        let recent = value(Ok(world.on_recent(&a)));
        assert_eq!(recent["CompleteFlag"], 1);
        let items = recent["SessionItem"].as_array().unwrap();
        assert_eq!(
            (&items[0]["To_Account"], &items[0]["MsgTime"]),
            (&json!("b"), &json!(40))
        );
        assert_eq!(
            items[0]["LastMsg"]["MsgBody"][0]["MsgContent"]["Text"],
            "40"
        );
        assert_eq!((&items[1]["ToAccount"], items.len()), (&json!("g"), 2));
    }

    #[test]
    fn endless_loops_of_clients_are_ended() {
        assert_eq!(empty("sns.black_list_get")["StartIndex"], 0);
        assert_eq!(
            empty("group_open_http_svc.get_group_notify")["NextMsgTime"],
            0
        );
        let answer: Value = serde_json::from_str(&ok(empty("no.such"))).unwrap();
        assert_eq!(
            answer,
            json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "" })
        );
    }

    #[test]
    fn profiles_have_nicknames() {
        let answer: Value =
            serde_json::from_str(&profiles(r#"{"UserItem":[{"To_Account":"x"}]}"#)).unwrap();
        assert_eq!(
            answer["UserProfileItem"][0]["ProfileItem"][0]["Value"],
            "nick_x"
        );
        profiles("garbage");
    }
}
