//! A push of one-to-one messages as JSON, borrowed where that can be, and the event that is made of each.

use std::borrow::Cow;

use imgate::proto::time::timestamp;
use imgate::proto::v1;
use imgate::types::UnixMillis;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(borrow)]
    pub(super) body: Body<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Body<'a> {
    #[serde(borrow)]
    pub(super) event_array: Vec<Entry<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry<'a> {
    #[serde(borrow, default)]
    pub(super) c2c_msg_array: Vec<C2c<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct C2c<'a> {
    #[serde(rename = "From_Account", borrow)]
    from: Cow<'a, str>,
    #[serde(rename = "To_Account", borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    tiny_id: Cow<'a, str>,
    msg_seq: u64,
    msg_random: u64,
    msg_time_stamp: u64,
    msg_client_time: u64,
    #[serde(borrow)]
    msg_body: Vec<Element<'a>>,
    #[serde(borrow)]
    cloud_custom_data: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Element<'a> {
    #[serde(borrow)]
    msg_content: Content<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl C2c<'_> {
    pub(super) fn into_event(self, now: UnixMillis) -> v1::Event {
        let text = |element: Element<'_>| v1::Element {
            kind: Some(v1::element::Kind::Text(v1::TextElement {
                text: element.msg_content.text.into_owned(),
            })),
        };
        let (tiny_id, time, random) = (self.tiny_id, self.msg_client_time, self.msg_random);
        let to = self.to.into_owned();
        v1::Event {
            account: to.clone(),
            sequence: 0,
            received_at: Some(timestamp(now.0)),
            kind: Some(v1::event::Kind::Message(v1::Message {
                id: format!("{tiny_id}-{time}-{random}"),
                from: self.from.into_owned(),
                conversation: Some(v1::message::Conversation::To(to)),
                elements: self.msg_body.into_iter().map(text).collect(),
                sent_at: Some(timestamp(self.msg_time_stamp * 1000)),
                upstream_sequence: self.msg_seq,
                cloud_custom_data: self.cloud_custom_data.into_owned(),
                ..v1::Message::default()
            })),
        }
    }
}
