//! From the upstream's JSON of pushes and pages to events. Whatever has no type here is carried through as it came.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::connectors::tencent::sync::fingerprint;
use crate::proto::{time, v1};

/// How many things a push or page may hold; a real one has a few dozen, and in a flood as many as fit a frame. Each costs far more memory than the upstream has
/// to send for it, so what holds more is not taken apart.
pub(super) const MAX_ENTRIES: usize = 16_384;

/// An entry of `C2cNotifyMsgArray`, if it is a kick.
#[derive(Debug, Deserialize)]
pub struct NotifyEntry {
    /// Present if it is.
    #[serde(rename = "KickoutMsgNotify")]
    pub kickout: Option<Kickout>,
}

/// A kick.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Kickout {
    /// 1 another instance, 2 another device, 3 by REST API.
    #[serde(default)]
    pub kick_type: i32,
}

/// What one entry of a push or page was found to be.
#[derive(Debug)]
pub enum Parsed {
    /// A one-to-one message.
    C2c {
        /// The message.
        message: v1::Message,
        /// The upstream does not keep it: it cannot be fetched.
        online_only: bool,
    },
    /// A group message.
    Group {
        /// Of which group.
        group: String,
        /// The group's sequence; 0 if it has none.
        sequence: u64,
        /// The message.
        message: v1::Message,
    },
    /// A kick.
    Kick(i32),
    /// Something without a type here.
    Notice(v1::UpstreamNotice),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct C2cItem<'a> {
    #[serde(rename = "From_Account", borrow)]
    from: Cow<'a, str>,
    #[serde(rename = "To_Account", borrow, default)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    msg_body: Vec<Elem<'a>>,
    #[serde(default, deserialize_with = "text_or_number")]
    tiny_id: String,
    #[serde(default)]
    msg_seq: u64,
    #[serde(default)]
    msg_random: u64,
    #[serde(default)]
    msg_time_stamp: u64,
    #[serde(default)]
    msg_client_time: u64,
    #[serde(default)]
    cloud_custom_data: String,
    #[serde(default)]
    is_sync_msg: u8,
    /// 0 if it is only for who is online.
    #[serde(borrow, default)]
    msg_life_time: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupItem<'a> {
    #[serde(rename = "From_Account")]
    from: String,
    #[serde(default)]
    to_group_id: String,
    #[serde(default)]
    group_id: String,
    #[serde(borrow)]
    msg_body: Vec<Elem<'a>>,
    #[serde(default)]
    msg_seq: u64,
    #[serde(default)]
    msg_random: u64,
    #[serde(default)]
    msg_time_stamp: u64,
    #[serde(default)]
    cloud_custom_data: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Elem<'a> {
    #[serde(borrow)]
    msg_type: Cow<'a, str>,
    #[serde(borrow)]
    msg_content: &'a RawValue,
}

/// The TinyId comes as text, for it does not fit a double, but a number is accepted by the vendor's SDK too.
pub fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    struct Either;
    impl Visitor<'_> for Either {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a number")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    from.deserialize_any(Either)
}

/// What an entry of a push is, read no further than it has to be to find its messages: to skip over them once more for the
/// entry, and for each of its fields, would take as long as reading them.
#[derive(Debug)]
pub enum Entry<'a> {
    /// Of an entry, this is a field that holds messages or the like.
    Array(Vec<&'a RawValue>),
    /// An entry, with its fields.
    Object(Vec<(Cow<'a, str>, Entry<'a>)>),
    /// Anything else.
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Entry<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Entry<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = array.next_element()? {
                    items.push(item);
                }
                Ok(Entry::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entry<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = object.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Entry::Object(fields))
            }

            fn visit_str<E>(self, _: &str) -> Result<Entry<'de>, E> {
                Ok(Entry::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Entry<'de>, E> {
                Ok(Entry::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Entry<'de>, E> {
                Ok(Entry::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Entry<'de>, E> {
                Ok(Entry::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Entry<'de>, E> {
                Ok(Entry::Other)
            }

            fn visit_unit<E>(self) -> Result<Entry<'de>, E> {
                Ok(Entry::Other)
            }
        }
        from.deserialize_any(Any)
    }
}

/// Reads the entries of a push with this body.
pub fn parse_push(
    account: &str,
    servcmd: &str,
    body: &str,
    entries: Vec<Entry<'_>>,
) -> Vec<Parsed> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(rename = "EventArray", borrow, default)]
        entries: Vec<&'a RawValue>,
    }
    let mut out = Vec::new();
    let mut whole = None;
    for (index, entry) in entries.into_iter().enumerate() {
        if !parse_entry(account, servcmd, entry, &mut out) {
            let whole = whole.get_or_insert_with(|| {
                serde_json::from_str(body).unwrap_or(Whole {
                    entries: Vec::new(),
                })
            });
            let whole = whole.entries.get(index).map_or(body, |entry| entry.get());
            out.push(notice(servcmd, whole));
        }
    }
    out
}

/// Reads one entry of an `EventArray` into `out`.
pub fn parse_event(account: &str, servcmd: &str, entry: &RawValue, out: &mut Vec<Parsed>) {
    let read = serde_json::from_str(entry.get()).unwrap_or(Entry::Other);
    if !parse_entry(account, servcmd, read, out) {
        out.push(notice(servcmd, entry.get()));
    }
}

/// Reads an entry into `out`: an array's name says what it holds. False if there is nothing in it, or something else, which
/// makes a notice of the whole.
fn parse_entry(account: &str, servcmd: &str, entry: Entry<'_>, out: &mut Vec<Parsed>) -> bool {
    let Entry::Object(fields) = entry else {
        return false;
    };
    let before = out.len();
    let mut all_known = true;
    for (name, value) in fields {
        let items = match value {
            _ if name == "Event" => continue,
            Entry::Array(items) if out.len() + items.len() <= MAX_ENTRIES => items,
            Entry::Array(_) | Entry::Object(_) | Entry::Other => {
                all_known = false;
                continue;
            }
        };
        match &*name {
            "C2cMsgArray" => out.extend(items.iter().map(|item| parse_c2c(account, servcmd, item))),
            "GroupMsgArray" => {
                out.extend(items.iter().map(|item| parse_group(account, servcmd, item)));
            }
            "C2cNotifyMsgArray" => out.extend(items.iter().map(|item| parse_notify(servcmd, item))),
            _ => all_known &= items.is_empty(),
        }
    }
    all_known && out.len() > before
}

fn parse_notify(servcmd: &str, item: &RawValue) -> Parsed {
    match serde_json::from_str::<NotifyEntry>(item.get()) {
        Ok(NotifyEntry {
            kickout: Some(kick),
        }) => Parsed::Kick(kick.kick_type),
        Ok(NotifyEntry { kickout: None }) | Err(_) => {
            notice(&format!("{servcmd}/C2cNotifyMsgArray"), item.get())
        }
    }
}

/// Reads a one-to-one message. One that is neither from nor to the account, or cannot be read, is a notice.
pub fn parse_c2c(account: &str, servcmd: &str, raw: &RawValue) -> Parsed {
    let item = match serde_json::from_str::<C2cItem<'_>>(raw.get()) {
        Ok(item) if item.to.is_empty() || item.to == account || item.from == account => item,
        Ok(_) | Err(_) => return notice(&format!("{servcmd}/C2cMsgArray"), raw.get()),
    };
    // An echo names the peer as its sender: the vendor's SDKs turn it round, and so does this.
    let echo = item.is_sync_msg == 1;
    let own = echo || item.from == account;
    let id = c2c_id(&item, raw);
    let online_only = item.msg_life_time.is_some_and(|time| time.get() == "0");
    let (from, to) = if echo && item.from != account {
        (account.into(), item.from)
    } else if item.to.is_empty() {
        (item.from, account.into())
    } else {
        (item.from, item.to)
    };
    let message = v1::Message {
        id,
        from: from.into_owned(),
        conversation: Some(v1::message::Conversation::To(to.into_owned())),
        elements: item.msg_body.into_iter().map(element).collect(),
        sent_at: timestamp(item.msg_time_stamp),
        upstream_sequence: item.msg_seq,
        backfilled: false,
        own,
        cloud_custom_data: item.cloud_custom_data,
        raw_json: raw.get().to_owned(),
    };
    Parsed::C2c {
        message,
        online_only,
    }
}

/// The identity that the vendor's SDKs give a message. What a server sent may lack the sender's marks, or bear the same
/// ones each time: the upstream's are added then, and where there are none of these either, what it says.
fn c2c_id(item: &C2cItem<'_>, raw: &RawValue) -> String {
    let id = format!(
        "{}-{}-{}",
        item.tiny_id, item.msg_client_time, item.msg_random
    );
    if !item.tiny_id.is_empty() && item.msg_client_time > 0 {
        return id;
    }
    if item.msg_seq == 0 && item.msg_random == 0 {
        return format!("{id}-{:016x}", fingerprint(raw.get()));
    }
    format!(
        "{id}-{}-{}-{}",
        item.from, item.msg_seq, item.msg_time_stamp
    )
}

/// Reads a group message. One that cannot be read is a notice.
pub fn parse_group(account: &str, servcmd: &str, raw: &RawValue) -> Parsed {
    let Ok(mut item) = serde_json::from_str::<GroupItem<'_>>(raw.get()) else {
        return notice(&format!("{servcmd}/GroupMsgArray"), raw.get());
    };
    let group = if item.to_group_id.is_empty() {
        std::mem::take(&mut item.group_id)
    } else {
        std::mem::take(&mut item.to_group_id)
    };
    if group.is_empty() {
        return notice(&format!("{servcmd}/GroupMsgArray"), raw.get());
    }
    let id = group_message_id(&group, &item, raw);
    let message = v1::Message {
        id,
        own: item.from == account,
        from: item.from,
        conversation: Some(v1::message::Conversation::Group(group.clone())),
        elements: item.msg_body.into_iter().map(element).collect(),
        sent_at: timestamp(item.msg_time_stamp),
        upstream_sequence: item.msg_seq,
        backfilled: false,
        cloud_custom_data: item.cloud_custom_data,
        raw_json: raw.get().to_owned(),
    };
    Parsed::Group {
        group,
        sequence: item.msg_seq,
        message,
    }
}

/// The identity of a group's message. One without a sequence has the sender's random number, which may be the same each
/// time; where there is none, what it says tells it from others.
fn group_message_id(group: &str, item: &GroupItem<'_>, raw: &RawValue) -> String {
    match (item.msg_seq, item.msg_random) {
        (0, 0) => format!("{group}-{:016x}", fingerprint(raw.get())),
        (0, random) => format!("{group}-r{random}-{}-{}", item.from, item.msg_time_stamp),
        (sequence, _) => format!("{group}-{sequence}"),
    }
}

/// Carries JSON text through as it came.
pub fn notice(command: &str, json: &str) -> Parsed {
    Parsed::Notice(v1::UpstreamNotice {
        command: command.to_owned(),
        json: json.to_owned(),
    })
}

/// A moment in Unix seconds, for the API. What cannot be one is none.
pub fn timestamp(seconds: u64) -> Option<prost_types::Timestamp> {
    (1..=time::LAST_SECOND)
        .contains(&seconds)
        .then(|| time::timestamp(seconds * 1000))
}

fn element(elem: Elem<'_>) -> v1::Element {
    #[derive(Deserialize)]
    struct Text {
        #[serde(rename = "Text")]
        text: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Custom {
        #[serde(default)]
        data: String,
        #[serde(default)]
        desc: String,
        #[serde(default)]
        ext: String,
    }
    use v1::element::Kind;
    let content = elem.msg_content.get();
    let typed = match &*elem.msg_type {
        "TIMTextElem" => serde_json::from_str::<Text>(content)
            .ok()
            .map(|text| Kind::Text(v1::TextElement { text: text.text })),
        "TIMCustomElem" => serde_json::from_str::<Custom>(content).ok().map(|custom| {
            Kind::Custom(v1::CustomElement {
                data: custom.data,
                desc: custom.desc,
                ext: custom.ext,
            })
        }),
        _ => None,
    };
    let kind = typed.unwrap_or_else(|| {
        Kind::Raw(v1::RawElement {
            r#type: elem.msg_type.into_owned(),
            content_json: content.to_owned(),
        })
    });
    v1::Element { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_message_has_the_identity_that_the_sender_sees() {
        let json = raw(
            r#"{"From_Account":"bob","To_Account":"bot1","TinyId":"144","MsgSeq":7,"MsgRandom":9,
                "MsgClientTime":5,"MsgTimeStamp":6,"MsgBody":[
                {"MsgType":"TIMTextElem","MsgContent":{"Text":"hi"}},
                {"MsgType":"TIMCustomElem","MsgContent":{"Data":"d","Desc":"e","Ext":"x"}},
                {"MsgType":"TIMFaceElem","MsgContent":{"Index":1}}]}"#,
        );
        let Parsed::C2c { message, .. } = parse_c2c("bot1", "push", &json) else {
            panic!("no message")
        };
        assert_eq!(message.id, "144-5-9");
        assert_eq!((message.from.as_str(), message.own), ("bob", false));
        assert_eq!(message.elements.len(), 3);
        assert!(matches!(
            &message.elements[2].kind,
            Some(v1::element::Kind::Raw(raw)) if raw.r#type == "TIMFaceElem"
        ));
    }

    #[test]
    fn a_moment_that_cannot_be_one_is_none() {
        for (seconds, shown) in [
            (0, None),
            (1_795_000_000, Some(1_795_000_000)),
            (253_402_300_799, Some(253_402_300_799)),
            (253_402_300_800, None),
            (u64::MAX, None),
        ] {
            assert_eq!(timestamp(seconds).map(|at| at.seconds), shown);
        }
    }

    #[test]
    fn an_echo_is_turned_round() {
        let json = raw(
            r#"{"From_Account":"bob","To_Account":"bot1","IsSyncMsg":1,"MsgBody":[],"TinyId":144}"#,
        );
        let Parsed::C2c { message, .. } = parse_c2c("bot1", "push", &json) else {
            panic!("no message")
        };
        assert_eq!((message.from.as_str(), message.own), ("bot1", true));
        assert_eq!(
            message.conversation,
            Some(v1::message::Conversation::To("bob".into()))
        );
    }

    #[test]
    fn what_has_no_type_is_carried_through() {
        let mut out = Vec::new();
        for entry in [
            r#"{"Event":5,"GroupTips":[{"a":1}]}"#,
            r#"{"Event":9,"C2cMsgArray":[{"From_Account":"x","To_Account":"y","MsgBody":[]}]}"#,
            r#"{"Event":9,"C2cMsgArray":[{"no":"sender"}]}"#,
            r#"{"Event":9,"C2cMsgArray":7}"#,
            r#"{"Event":10,"C2cNotifyMsgArray":[{"C2cReadedReceipt":{}}]}"#,
            r#"{"Event":3,"GroupMsgArray":[{"From_Account":"a","MsgBody":[]}]}"#,
        ] {
            parse_event("bot1", "im_open_push.msg_push", &raw(entry), &mut out);
        }
        assert_eq!(out.len(), 6);
        assert!(
            out.iter().all(|parsed| matches!(parsed, Parsed::Notice(_))),
            "{out:?}"
        );
    }

    #[test]
    fn group_messages_without_a_sequence_are_told_apart() {
        let id = |fields: &str| {
            let json = format!(r#"{{"GroupId":"g",{fields},"MsgBody":[]}}"#);
            let Parsed::Group { message, .. } = parse_group("bot1", "push", &raw(&json)) else {
                panic!("no message")
            };
            message.id
        };
        let fields = [
            r#""From_Account":"a","MsgTimeStamp":1"#,
            r#""From_Account":"a","MsgTimeStamp":2"#,
            r#""From_Account":"a","MsgTimeStamp":2,"CloudCustomData":"x""#,
            r#""From_Account":"a","MsgTimeStamp":1,"MsgRandom":7"#,
            r#""From_Account":"a","MsgTimeStamp":2,"MsgRandom":7"#,
            r#""From_Account":"b","MsgTimeStamp":2,"MsgRandom":7"#,
            r#""From_Account":"b","MsgTimeStamp":2,"MsgRandom":8"#,
        ];
        let ids: std::collections::BTreeSet<_> = fields.iter().map(|of| id(of)).collect();
        assert_eq!(ids.len(), fields.len(), "{ids:?}");
        assert!(fields.iter().all(|of| ids.contains(&id(of))), "the same");
    }

    #[test]
    fn a_kick_is_found() {
        let mut out = Vec::new();
        let entry = r#"{"Event":10,"C2cNotifyMsgArray":[{"KickoutMsgNotify":{"KickType":1}}]}"#;
        parse_event(
            "bot1",
            "im_open_status.stat_forceoffline",
            &raw(entry),
            &mut out,
        );
        assert!(matches!(out[..], [Parsed::Kick(1)]), "{out:?}");
    }
}
