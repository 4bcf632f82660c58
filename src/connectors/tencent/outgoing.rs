//! The bodies of what the connector sends.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::connectors::{Conversation, OutgoingMessage};
use crate::proto::v1;

/// The body of a login.
pub const LOGIN: &str = r#"{"State":"Online","is_web_uniapp":0,"InstType":0,"CustomInfo":""}"#;
/// The body of a logout by the user.
pub const LOGOUT: &str = r#"{"wslogout_type":0,"is_web_uniapp":0}"#;
/// The body of a hello.
pub const HELLO: &str = r#"{"is_web_uniapp":0}"#;

/// What makes a message one and the same upstream, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The sender's sequence.
    pub sequence: u32,
    /// A random number below 100 000 000.
    pub random: u32,
    /// Unix seconds.
    pub client_time: u64,
}

/// The command and body of a message.
pub fn message(
    account: &str,
    message: &OutgoingMessage,
    identity: Identity,
) -> (&'static str, String) {
    let elements: Vec<Value> = message.elements.iter().map(element).collect();
    let mut body = Map::new();
    body.insert("From_Account".into(), account.into());
    let command = match &message.conversation {
        Conversation::User(user) => {
            body.insert("To_Account".into(), user.as_str().into());
            body.insert("MsgSeq".into(), identity.sequence.into());
            body.insert("MsgRandom".into(), identity.random.into());
            if message.online_only {
                body.insert("MsgLifeTime".into(), 0.into());
            } else {
                body.insert("SendMsgControl".into(), json!([]));
            }
            body.insert("IsNeedReadReceipt".into(), 0.into());
            "openim.sendmsg"
        }
        Conversation::Group(group) => {
            body.insert("GroupId".into(), group.as_str().into());
            body.insert("Random".into(), identity.random.into());
            body.insert("ClientSeq".into(), identity.sequence.into());
            body.insert("MsgPriority".into(), "Normal".into());
            body.insert(
                "OnlineOnlyFlag".into(),
                u8::from(message.online_only).into(),
            );
            body.insert("GroupAtInfo".into(), json!([]));
            body.insert("SendMsgControl".into(), json!([]));
            body.insert("NeedReadReceipt".into(), 0.into());
            "group_open_http_svc.send_group_msg"
        }
    };
    body.insert("MsgBody".into(), elements.into());
    body.insert(
        "CloudCustomData".into(),
        message.cloud_custom_data.as_str().into(),
    );
    body.insert("MsgClientTime".into(), identity.client_time.into());
    body.insert("SupportMessageExtension".into(), 0.into());
    body.insert("IsRelayMsg".into(), 0.into());
    (command, Value::Object(body).to_string())
}

/// The body of one page of catch-up.
pub fn getmsg(cookie: &str, sync_flag: i64, online: bool) -> String {
    let (cookie, online) = (text(cookie), u8::from(online));
    format!(
        r#"{{"Cookie":{cookie},"SyncFlag":{sync_flag},"NeedAbstract":1,"IsOnlineSync":{online},"NeedSignaling":1,"NeedCachedMsg":1}}"#
    )
}

/// The body of the question which groups there are and how far they have come.
pub fn joined_groups(account: &str, offset: usize) -> String {
    const FILTER: &str = concat!(
        r#"{"GroupBaseInfoFilter":["Type","Name","CreateTime","LastMsgTime","NextMsgSeq"],"#,
        r#""SelfInfoFilter":["Role","JoinTime","MsgFlag","MsgSeq"]}"#
    );
    let account = text(account);
    format!(
        r#"{{"Member_Account":{account},"Limit":{JOINED_GROUPS_PAGE},"Offset":{offset},"ResponseFilter":{FILTER},"SupportTopic":0,"NeedAppDefineData":1}}"#
    )
}

/// How many groups one answer names.
pub const JOINED_GROUPS_PAGE: usize = 200;

/// The body of the question for `count` messages of a group up to and with `upto`.
pub fn group_messages(group: &str, upto: u64, count: u64) -> String {
    json!({
        "GroupId": group,
        "ReqMsgNumber": count,
        "ReqMsgSeq": upto,
        "WithRecalledMsg": 1,
    })
    .to_string()
}

/// The body of a push's acknowledgement.
pub fn push_ack(session_data: &str) -> String {
    format!(r#"{{"SessionData":{}}}"#, text(session_data))
}

fn text(text: &str) -> String {
    // Text into memory: there is nothing that cannot be written.
    serde_json::to_string(text).unwrap_or_default()
}

fn element(element: &v1::Element) -> Value {
    use v1::element::Kind;
    match &element.kind {
        Some(Kind::Text(text)) => {
            json!({"MsgType": "TIMTextElem", "MsgContent": {"Text": text.text}})
        }
        Some(Kind::Custom(custom)) => json!({
            "MsgType": "TIMCustomElem",
            "MsgContent": {"Data": custom.data, "Desc": custom.desc, "Ext": custom.ext},
        }),
        Some(Kind::Raw(raw)) => {
            // Checked to be an object where it came in.
            let content = RawValue::from_string(raw.content_json.clone())
                .and_then(|content| serde_json::from_str(content.get()))
                .unwrap_or_else(|_| Value::Object(Map::new()));
            json!({"MsgType": raw.r#type, "MsgContent": content})
        }
        None => json!({"MsgType": "TIMTextElem", "MsgContent": {"Text": ""}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(conversation: Conversation) -> OutgoingMessage {
        let text = v1::element::Kind::Text(v1::TextElement { text: "hi".into() });
        OutgoingMessage {
            conversation,
            elements: vec![v1::Element { kind: Some(text) }],
            client_message_id: String::new(),
            cloud_custom_data: "d".into(),
            online_only: false,
        }
    }

    #[test]
    fn whatever_a_body_asks_with_it_is_json() {
        let odd = "a\"b\\";
        let value = |body: String| serde_json::from_str::<Value>(&body).unwrap();
        let page = json!({
            "Cookie": odd,
            "SyncFlag": -1,
            "NeedAbstract": 1,
            "IsOnlineSync": 1,
            "NeedSignaling": 1,
            "NeedCachedMsg": 1,
        });
        assert_eq!(value(getmsg(odd, -1, true)), page);
        let groups = json!({
            "Member_Account": odd,
            "Limit": 200,
            "Offset": 400,
            "ResponseFilter": {
                "GroupBaseInfoFilter": ["Type", "Name", "CreateTime", "LastMsgTime", "NextMsgSeq"],
                "SelfInfoFilter": ["Role", "JoinTime", "MsgFlag", "MsgSeq"],
            },
            "SupportTopic": 0,
            "NeedAppDefineData": 1,
        });
        assert_eq!(value(joined_groups(odd, 400)), groups);
    }

    #[test]
    fn bodies_carry_the_fields_that_the_sdk_sends() {
        let identity = Identity {
            sequence: 7,
            random: 9,
            client_time: 5,
        };
        let (command, body) = message(
            "bot1",
            &outgoing(Conversation::User("bob".into())),
            identity,
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(command, "openim.sendmsg");
        assert_eq!(body["To_Account"], "bob");
        assert_eq!(
            (&body["MsgSeq"], &body["MsgRandom"]),
            (&json!(7), &json!(9))
        );
        assert_eq!(body["MsgBody"][0]["MsgContent"]["Text"], "hi");

        let (command, body) = message("bot1", &outgoing(Conversation::Group("g".into())), identity);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(command, "group_open_http_svc.send_group_msg");
        assert_eq!(
            (&body["GroupId"], &body["Random"]),
            (&json!("g"), &json!(9))
        );
        assert_eq!(body["ClientSeq"], 7);
    }
}
