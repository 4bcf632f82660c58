//! What the upstream pushes to a session in these scenarios.

use serde_json::json;

/// Who all messages are from.
pub(crate) const FRIEND: &str = "friend";
/// How many messages are in a large frame, and the bytes of text of each.
pub(crate) const IN_LARGE_FRAME: usize = 6;
const LARGE_TEXT: usize = 9_700;

/// The body of a control port's `/message`: an ordinary text, in a frame of some 600 bytes.
pub(crate) fn text_to(account: &str, number: usize) -> String {
    let text = format!(
        "{number} {}",
        "an ordinary message of a chat, not long and not short ".repeat(2)
    );
    json!({ "from": FRIEND, "to": account, "text": text }).to_string()
}

/// The body of a control port's `/push`: one frame of 60 KB with several messages.
pub(crate) fn large_frame_to(account: &str) -> String {
    let messages: Vec<_> = (0..IN_LARGE_FRAME)
        .map(|number| {
            json!({
                "From_Account": FRIEND, "To_Account": account, "From_AccountNick": "", "From_AccountHeadurl": "",
                "TinyId": "144115200000000001", "MsgSeq": 1_000_000 + number, "MsgRandom": 77_000_000 + number,
                "MsgTimeStamp": 1_700_000_000, "MsgClientTime": 1_700_000_000, "MsgKey": format!("large_{number}"),
                "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": "m".repeat(LARGE_TEXT) } }],
                "CloudCustomData": "", "IsSyncMsg": 0, "SupportMessageExtension": 0, "IsNeedReadReceipt": 0,
            })
        })
        .collect();
    json!({
        "user_id": account,
        "servcmd": "im_open_push.msg_push",
        "body": {
            "EventArray": [{ "Event": 9, "C2cMsgArray": messages }], "NeedAck": 1, "SessionData": "large",
        },
    })
    .to_string()
}
