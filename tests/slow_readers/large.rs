//! Messages of the greatest size that may be sent and that may come.

use imgate::connectors::tencent::frame;
use imgate::proto::v1::SendResponse;
use serde_json::json;
use tonic::{Code, Status};

use crate::fixture::*;

/// What Send takes.
const MOST_SENT: usize = 12 * 1024;
/// What [`tenant`] takes of its upstream in one frame.
const MOST_PUSHED: usize = 1 << 20;

#[tokio::test]
async fn the_greatest_message_that_may_be_sent_comes_as_it_was_and_no_greater_one_is_taken() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    client.online("ann").await;
    client.online("ben").await;
    let mut events = client.subscribe().await;
    // Plain, two bytes a character, and what takes six bytes in JSON and that twice over in the upstream's own.
    let texts = [
        "x".repeat(MOST_SENT),
        "ü".repeat(MOST_SENT / 2),
        "\u{1}".repeat(MOST_SENT),
        "\"\\".repeat(MOST_SENT / 2),
    ];
    for text in &texts {
        let answer = client.send("ann", "ben", text, "").await.unwrap();
        assert_eq!((answer.code, answer.desc.as_str()), (0, ""));
        assert!(events.text("ben").await == *text, "{text:.10} has changed");
    }
    for text in &texts {
        let answer = client.send("ann", "ben", &format!("{text}x"), "").await;
        assert_too_large(answer);
    }
    assert_eq!(upstream.user("ann").sent, texts.len() as u64);
    assert_eq!(upstream.user("ben").connections, 1);
}

fn assert_too_large(answer: Result<SendResponse, Status>) {
    let text = answer.as_ref().unwrap_err().message();
    assert!(text.starts_with("elements: 12289 bytes"), "{text}");
    let refused = refusal(answer);
    let expected = (
        Code::InvalidArgument,
        "INVALID_FIELD".into(),
        "elements".into(),
    );
    assert_eq!(refused, expected);
}

/// A frame of so many bytes that pushes a text, and the text.
fn frame_of(bytes: usize, number: u64) -> (Vec<u8>, String) {
    let frame = |text: &str| {
        let item = json!({
            "From_Account": "friend", "To_Account": "bot", "TinyId": "1", "MsgSeq": number, "MsgRandom": number,
            "MsgTimeStamp": 1_700_000_000, "MsgClientTime": 1_700_000_000, "CloudCustomData": "",
            "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }],
        });
        let body = json!({ "EventArray": [{ "Event": 9, "C2cMsgArray": [item] }], "NeedAck": 0 });
        frame::encode_response("im_open_push.msg_push", 0, &body.to_string())
    };
    let text = "y".repeat(bytes - frame("").len());
    let frame = frame(&text);
    assert_eq!(frame.len(), bytes);
    (frame, text)
}

#[tokio::test]
async fn the_greatest_frame_that_may_come_is_delivered_and_a_far_greater_one_costs_a_connection_and_no_more()
 {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;

    // The whole way: kept upstream, pushed, stored, acknowledged. The frame around the text takes some hundred bytes.
    let text = "z".repeat(MOST_PUSHED - 1024);
    upstream.texts("friend", "bot", [text.clone()]);
    assert!(events.text("bot").await == text);
    until("it is not acknowledged", || upstream.user("bot").acked == 1).await;

    let (frame, text) = frame_of(MOST_PUSHED, 1);
    upstream.sim.raw("bot", &frame).unwrap();
    assert!(events.text("bot").await == text);
    assert_eq!(upstream.user("bot").connections, 1);

    // Up to four times the limit is read, for the sake of what a frame holds beside the one that is too large.
    let (frame, _) = frame_of(4 * MOST_PUSHED + 1, 2);
    upstream.sim.raw("bot", &frame).unwrap();
    until("it does not resume", || upstream.user("bot").resumes == 1).await;
    upstream.texts("friend", "bot", ["after".into()]);
    assert_eq!(events.text("bot").await, "after");
    assert_eq!(upstream.user("bot").logins, 1);
}
