//! Frames that push something. Most of what comes pushes events, and is read in one go.

use std::borrow::Cow;

use serde::Deserialize;

use crate::connectors::tencent::frame::{Frame, Head, is_too_deep};
use crate::connectors::tencent::message::Entry;

/// A push, read where it lies.
#[derive(Debug)]
pub struct Push<'a> {
    /// What it is about, as `service.command`.
    pub servcmd: Cow<'a, str>,
    /// The body, JSON text as it was sent.
    pub body: &'a str,
    /// What the body says, if it is one of events that can be read.
    pub read: Option<PushBody<'a>>,
}

/// The body of a push of events.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PushBody<'a> {
    /// One entry per kind of event.
    #[serde(borrow)]
    pub event_array: Option<Vec<Entry<'a>>>,
    /// 1 if the push is to be acknowledged.
    #[serde(default)]
    pub need_ack: u8,
    /// The handle of the acknowledgement.
    #[serde(default)]
    pub session_data: String,
    /// 1 if there is more to fetch.
    #[serde(default)]
    pub flag: u8,
}

impl<'a> Push<'a> {
    /// Reads a frame's JSON if it pushes events and has the form that the service gives these: a head without a number, and
    /// then a body that can be read. To look for head and body first, as [`Frame::read`] does, takes as long again.
    pub fn of_events(json: &'a [u8]) -> Option<Self> {
        let json = std::str::from_utf8(json).ok()?;
        let rest = json.strip_prefix("{\"head\":")?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Head<'_>>();
        let Head { servcmd, seq } = values.next()?.ok()?;
        if seq != 0 || !is_of_events(&servcmd) {
            return None;
        }
        let body = rest
            .get(values.byte_offset()..)?
            .strip_prefix(",\"body\":")?
            .strip_suffix('}')?;
        if is_too_deep(body) {
            return None;
        }
        let read = serde_json::from_str(body).ok()?;
        Some(Self {
            servcmd,
            body,
            read: Some(read),
        })
    }

    /// From a frame that was read.
    pub fn of(frame: &Frame<'a>) -> Self {
        let body = frame.body.get();
        let read = is_of_events(&frame.servcmd)
            .then(|| serde_json::from_str(body).ok())
            .flatten();
        Self {
            servcmd: frame.servcmd.clone(),
            body,
            read,
        }
    }
}

fn is_of_events(servcmd: &str) -> bool {
    matches!(
        servcmd,
        "im_open_push.msg_push"
            | "im_open_push.multi_msg_push_ws"
            | "im_open_status.stat_forceoffline"
    )
}

/// Whether it is a push whatever its number.
pub(super) fn is_push(servcmd: &str) -> bool {
    is_of_events(servcmd) || servcmd == "OverLoadPush.notify2" || servcmd == "StatSvc.KickOther"
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURED: [&str; 2] = [
        include_str!("../../../tests/data/captures/chat-recv.jsonl"),
        include_str!("../../../tests/data/captures/chat-kick.jsonl"),
    ];

    /// The frames that the service sent.
    fn captured() -> impl Iterator<Item = String> {
        let lines = CAPTURED.iter().flat_map(|log| log.lines());
        lines.filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let came = line["dir"] == "s2c";
            let frame = line.get("frame").filter(|_| came)?;
            // As the service orders it.
            Some(format!(
                "{{\"head\":{},\"body\":{}}}",
                frame["head"], frame["body"]
            ))
        })
    }

    #[test]
    fn captured_pushes_of_events_are_read_in_one_go_as_in_two() {
        let mut read = 0;
        for json in captured() {
            let frame = Frame::read(json.as_bytes()).unwrap();
            let in_two = Push::of(&frame);
            let Some(in_one) = Push::of_events(json.as_bytes()) else {
                assert!(in_two.read.is_none(), "{json}");
                continue;
            };
            assert_eq!(format!("{in_one:?}"), format!("{in_two:?}"));
            read += 1;
        }
        assert!(read >= 2, "{read}");
    }

    #[test]
    fn what_has_another_form_is_left_to_the_longer_way() {
        let push = |body: &str| {
            format!(r#"{{"head":{{"seq":0,"servcmd":"im_open_push.msg_push"}},"body":{body}}}"#)
        };
        assert!(Push::of_events(push(r#"{"NeedAck":1}"#).as_bytes()).is_some());
        let deep = format!(
            r#"{{"EventArray":[{}{}]}}"#,
            "[".repeat(130),
            "]".repeat(130)
        );
        for json in [
            push(r#"{"NeedAck":1},"body":{"NeedAck":0}"#),
            push(r#"{"NeedAck":1}}"#),
            push(r#"{"NeedAck":"#),
            push("[1]"),
            push(&deep),
            push("{}").replace("\"seq\":0", "\"seq\":7"),
            push("{}").replace("msg_push", "other"),
            push("{}").replace(",\"body\"", ", \"body\""),
            push("{}").replace("{\"head\"", "{ \"head\""),
            "{\"head\":".into(),
        ] {
            assert!(Push::of_events(json.as_bytes()).is_none(), "{json}");
        }
        assert!(Push::of_events(b"{\"head\":\xff}").is_none());
    }
}
