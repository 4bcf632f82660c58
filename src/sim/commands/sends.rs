//! Sending, one to one and to groups.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::accounts::{Account, Refused, count};
use super::super::groups::{Group, GroupInfo, GroupMessage};
use super::super::mailbox::{C2cMessage, Delivery, SendKey, Sent};
use super::super::world::World;
use super::ok;
use crate::types::{AccountId, UnixMillis};

/// The body of `openim.sendmsg`, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::sim) struct C2cSend {
    #[serde(rename = "To_Account")]
    to: String,
    msg_seq: u64,
    msg_random: u64,
    msg_body: Box<RawValue>,
    #[serde(default)]
    cloud_custom_data: String,
    #[serde(rename = "From_AccountNick", default)]
    from_nick: String,
    #[serde(rename = "From_AccountHeadurl", default)]
    from_headurl: String,
    #[serde(rename = "MsgClientTime", default)]
    client_time: Option<u64>,
    #[serde(default)]
    msg_life_time: Option<u64>,
    #[serde(default)]
    is_need_read_receipt: u8,
    #[serde(default)]
    support_message_extension: u8,
}

/// The body of `send_group_msg`, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::sim) struct GroupSend {
    group_id: String,
    random: u64,
    #[serde(default)]
    client_seq: u64,
    #[serde(default)]
    msg_priority: String,
    msg_body: Box<RawValue>,
    #[serde(default)]
    cloud_custom_data: String,
    #[serde(rename = "MsgClientTime", default)]
    client_time: Option<u64>,
    #[serde(default)]
    online_only_flag: u8,
}

impl C2cSend {
    /// A plain text.
    pub(in crate::sim) fn text(to: &str, seq: u64, text: &str, now: UnixMillis) -> Self {
        Self {
            to: to.to_owned(),
            msg_seq: seq,
            msg_random: random_of(seq),
            msg_body: text_body(text),
            cloud_custom_data: String::new(),
            from_nick: String::new(),
            from_headurl: String::new(),
            client_time: Some(now.as_secs()),
            msg_life_time: None,
            is_need_read_receipt: 0,
            support_message_extension: 0,
        }
    }

    /// With this random number instead of one that follows from the sequence.
    pub(in crate::sim) fn with_random(self, msg_random: u64) -> Self {
        Self { msg_random, ..self }
    }
}

impl GroupSend {
    /// A plain text.
    pub(in crate::sim) fn text(group: &str, seq: u64, text: &str, now: UnixMillis) -> Self {
        Self {
            group_id: group.to_owned(),
            random: random_of(seq),
            client_seq: seq,
            msg_priority: String::from("Normal"),
            msg_body: text_body(text),
            cloud_custom_data: String::new(),
            client_time: Some(now.as_secs()),
            online_only_flag: 0,
        }
    }
}

/// A number that looks like chance, and is another one for each of a sender's messages: it alone tells those of one second
/// apart. 48271 has no factor in common with the number of values.
const fn random_of(seq: u64) -> u64 {
    const VALUES: u64 = 100_000_000;
    (seq % VALUES) * 48_271 % VALUES
}

fn text_body(text: &str) -> Box<RawValue> {
    let body = json!([{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }]);
    RawValue::from_string(body.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Reads a request's body; what cannot be read is refused as the real service does.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Refused> {
    serde_json::from_str(body)
        .map_err(|error| Refused::new(70402, format!("parameters invalid: {error}")))
}

/// Refuses a message without elements, or with an element that lacks its type or content.
fn check_elements(body: &RawValue) -> Result<(), Refused> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Element {
        msg_type: String,
        #[expect(dead_code, reason = "it must be there, and be an object")]
        msg_content: serde_json::Map<String, serde_json::Value>,
    }
    let elements: Vec<Element> = parse(body.get())?;
    if elements.is_empty() || elements.iter().any(|element| element.msg_type.is_empty()) {
        return Err(Refused::new(
            70402,
            "parameters invalid: MsgBody has no element",
        ));
    }
    Ok(())
}

fn nick_of(account: &Account, given: String) -> String {
    if given.is_empty() {
        format!("nick_{}", account.id)
    } else {
        given
    }
}

impl World {
    pub(super) fn on_send_c2c(
        &self,
        from: &Arc<Account>,
        body: &str,
        now: UnixMillis,
    ) -> Result<String, Refused> {
        let send: C2cSend = parse(body)?;
        let random = send.msg_random;
        let sent = self.send_c2c(from, send, now)?;
        Ok(ok(json!({
            "MsgTime": sent.time,
            "MsgKey": format!("{}_{random}_{}", sent.seq, sent.time),
            "MsgDropReason": "",
        })))
    }

    /// Sends one to one. The same send again has the same outcome, and no effect.
    pub(in crate::sim) fn send_c2c(
        &self,
        from: &Arc<Account>,
        send: C2cSend,
        now: UnixMillis,
    ) -> Result<Sent, Refused> {
        check_elements(&send.msg_body)?;
        let to = self
            .find(&send.to)
            .ok_or_else(|| Refused::new(20003, "To_Account does not exist"))?;
        let sent = Sent {
            time: now.as_secs(),
            seq: send.msg_seq,
        };
        let key = SendKey::C2c(to.id.clone(), send.msg_seq, send.msg_random);
        let is_kept = send.msg_life_time != Some(0);
        let message = c2c_message(from, &to.id, send, self.next_number(), sent.time);
        let message = Arc::new(message);
        {
            let mut sender = from.state();
            if let Some(before) = sender.sent.outcome(&key) {
                return Ok(before);
            }
            sender.sent.note(key, sent);
            if is_kept {
                let copy = Arc::clone(&message);
                sender.mailbox.note_conversation(to.id.clone(), copy);
            }
        }
        count(&from.counters.sent);
        let mut receiver = to.state();
        let position = is_kept.then(|| receiver.mailbox.receive(Arc::clone(&message)));
        receiver.push(&Delivery::C2c { position, message }, now);
        Ok(sent)
    }

    pub(super) fn on_send_group(
        &self,
        from: &Arc<Account>,
        body: &str,
        now: UnixMillis,
    ) -> Result<String, Refused> {
        let sent = self.send_group(from, parse(body)?, now)?;
        Ok(ok(
            json!({ "MsgTime": sent.time, "MsgSeq": sent.seq, "MsgDropReason": "" }),
        ))
    }

    /// Sends to a group. The same send again has the same outcome, and no effect.
    pub(in crate::sim) fn send_group(
        &self,
        from: &Arc<Account>,
        send: GroupSend,
        now: UnixMillis,
    ) -> Result<Sent, Refused> {
        check_elements(&send.msg_body)?;
        let group = self
            .find_group(&send.group_id)
            .ok_or_else(|| Refused::new(10010, "the group does not exist"))?;
        if !group.has_member(&from.id) {
            return Err(Refused::new(10007, "only members may send to the group"));
        }
        let key = SendKey::Group(group.id.clone(), send.random, send.client_seq);
        // Two copies at once (the old connection's and the new one's) must not both be sent, and the account may not be locked when
        // the group is.
        let _one_at_a_time = from.group_send();
        if let Some(before) = from.state().sent.outcome(&key) {
            return Ok(before);
        }
        let time = now.as_secs();
        let seq = group.send(&from.id, now, |seq| {
            group_message(from, &group, send, seq, time)
        });
        let sent = Sent { time, seq };
        from.state().sent.note(key, sent);
        count(&from.counters.sent);
        Ok(sent)
    }
}

/// A message as its receiver gets it.
pub(in crate::sim) fn c2c_message(
    from: &Account,
    to: &AccountId,
    send: C2cSend,
    order: u64,
    time: u64,
) -> C2cMessage {
    C2cMessage {
        from: from.id.clone(),
        order,
        from_account: from.id.to_string(),
        to_account: to.to_string(),
        from_nick: nick_of(from, send.from_nick),
        from_headurl: send.from_headurl,
        tiny_id: from.tiny_id.to_string(),
        msg_seq: send.msg_seq,
        msg_random: send.msg_random,
        time,
        client_time: send.client_time.unwrap_or(time),
        msg_key: format!("{}_{}_{time}", send.msg_seq, send.msg_random),
        msg_body: send.msg_body,
        cloud_custom_data: send.cloud_custom_data,
        is_sync_msg: 0,
        support_message_extension: send.support_message_extension,
        is_need_read_receipt: send.is_need_read_receipt,
        msg_life_time: send.msg_life_time,
    }
}

fn group_message(
    from: &Account,
    group: &Group,
    send: GroupSend,
    seq: u64,
    time: u64,
) -> GroupMessage {
    GroupMessage {
        from_account: from.id.to_string(),
        to_group_id: group.id.clone(),
        group_info: GroupInfo {
            group_id: group.id.clone(),
            group_name: group.name(),
            group_type: Group::KIND,
            from_nick: nick_of(from, String::new()),
            from_headurl: String::new(),
        },
        msg_seq: seq,
        msg_random: send.random,
        time,
        client_time: send.client_time.unwrap_or(time),
        client_seq: send.client_seq,
        msg_priority: match send.msg_priority.as_str() {
            "High" => 1,
            "Low" => 3,
            "Lowest" => 4,
            _ => 2,
        },
        tiny_id: from.tiny_id.to_string(),
        online_only_flag: send.online_only_flag,
        cloud_custom_data: send.cloud_custom_data,
        msg_body: send.msg_body,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sim::SimOptions;
    use crate::types::Secret;

    const NOW: UnixMillis = UnixMillis::from_secs(1_000);

    fn world() -> (World, Arc<Account>, Arc<Account>) {
        let world = World::new(SimOptions::new(1, Secret::new(String::from("k"))), None);
        let a = world.find_or_create(&AccountId::new("a"));
        let b = world.find_or_create(&AccountId::new("b"));
        (world, a, b)
    }

    fn c2c(to: &str, seq: u64) -> String {
        let element = json!({ "MsgType": "TIMTextElem", "MsgContent": { "Text": "hi" } });
        json!({ "To_Account": to, "MsgSeq": seq, "MsgRandom": 9, "MsgBody": [element] }).to_string()
    }

    fn group(group: &str, random: u64) -> String {
        let element = json!({ "MsgType": "TIMTextElem", "MsgContent": { "Text": "hi" } });
        json!({ "GroupId": group, "Random": random, "MsgBody": [element] }).to_string()
    }

    fn value(answer: Result<String, Refused>) -> Value {
        serde_json::from_str(&answer.unwrap()).unwrap()
    }

    #[test]
    fn messages_of_one_second_are_told_apart() {
        let numbers: std::collections::HashSet<_> = (1..=100_000).map(random_of).collect();
        assert_eq!(numbers.len(), 100_000);
    }

    #[test]
    fn a_repeated_send_has_the_first_outcome_and_no_effect() {
        let (world, a, b) = world();
        let first = value(world.on_send_c2c(&a, &c2c("b", 1), NOW));
        let later = UnixMillis::from_secs(2_000);
        assert_eq!(value(world.on_send_c2c(&a, &c2c("b", 1), later)), first);
        assert_eq!(first["MsgKey"], "1_9_1000");
        let other = value(world.on_send_c2c(&a, &c2c("b", 2), later));
        assert_eq!(other["MsgTime"], 2_000);
        assert_eq!(b.state().mailbox.read("", 10).messages.len(), 2);
        assert_eq!(world.stats(NOW).users["a"].sent, 2);
    }

    #[test]
    fn group_messages_are_numbered_once() {
        let (world, a, _) = world();
        world
            .set_group("g", &[String::from("a"), String::from("b")], NOW)
            .unwrap();
        for (random, seq) in [(5, 1), (5, 1), (6, 2), (5, 1)] {
            assert_eq!(
                value(world.on_send_group(&a, &group("g", random), NOW))["MsgSeq"],
                seq
            );
        }
        assert_eq!(world.stats(NOW).users["a"].sent, 2);
    }

    #[test]
    fn online_only_messages_are_not_kept() {
        let (world, a, b) = world();
        let body = c2c("b", 1).replace("\"MsgSeq\"", "\"MsgLifeTime\":0,\"MsgSeq\"");
        value(world.on_send_c2c(&a, &body, NOW));
        assert!(b.state().mailbox.read("", 10).messages.is_empty());
        assert_eq!(a.state().mailbox.conversations().count(), 0);
    }

    #[test]
    fn wrong_sends_are_refused() {
        let (world, a, _) = world();
        world.set_group("g", &[String::from("b")], NOW).unwrap();
        for (body, code) in [
            (c2c("nobody", 1), 20003),
            (String::from("{}"), 70402),
            (String::from("[]"), 70402),
            (c2c("b", 1).replace("TIMTextElem", ""), 70402),
            (c2c("b", 1).replace("MsgContent", "X"), 70402),
            (
                json!({ "To_Account": "b", "MsgSeq": 1, "MsgRandom": 1, "MsgBody": [] })
                    .to_string(),
                70402,
            ),
        ] {
            assert_eq!(
                world.on_send_c2c(&a, &body, NOW).unwrap_err().code,
                code,
                "{body}"
            );
        }
        assert_eq!(
            world
                .on_send_group(&a, &group("g", 1), NOW)
                .unwrap_err()
                .code,
            10007
        );
        assert_eq!(
            world
                .on_send_group(&a, &group("h", 1), NOW)
                .unwrap_err()
                .code,
            10010
        );
    }
}
