//! Frames and pushes that are not as they should be.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use imgate::config::ByteSize;
use imgate::proto::v1;
use imgate::proto::v1::event::Kind;

use crate::fixture::*;

const MIB: usize = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(b"COMP".to_vec(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(b"COMP".to_vec(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn push(body: &str) -> Vec<u8> {
    format!(r#"{{"head":{{"servcmd":"im_open_push.msg_push","seq":0}},"body":{body}}}"#)
        .into_bytes()
}

/// Frames that cannot be read and leave the connection alone.
fn unreadable() -> Vec<Vec<u8>> {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let mut cut = gzip(&push("{}"));
    cut.truncate(cut.len() / 3);
    vec![
        b"".to_vec(),
        b"\0".to_vec(),
        vec![0xff; 1000],
        b"COMP".to_vec(),
        b"COMPplain text".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        br#"{"head":null}"#.to_vec(),
        br#"{"head":{"servcmd":7,"seq":0},"body":{}}"#.to_vec(),
        br#"{"head":{"servcmd":"","seq":0},"body":{}}"#.to_vec(),
        cut,
        push(&deep),
        push(&deep_object),
        deep.into_bytes(),
        gzip(&push(&deep_object)),
        // Small on the wire, and over the bound when it is unpacked.
        gzip(&vec![b' '; 5 * MIB]),
        zlib(&vec![b' '; 6 * MIB]),
    ]
}

#[tokio::test]
async fn frames_that_cannot_be_read_are_counted_and_left_out() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("other").await;
    let frames = unreadable();
    for (number, frame) in frames.iter().enumerate() {
        upstream.sim.raw("bot", frame).unwrap();
        // The next message shows that the frame was dealt with, and the session with it.
        let text = format!("after {number}");
        upstream.texts("friend", "bot", [text.clone()]);
        assert_eq!(events.text("bot").await, text);
    }
    let bad = gateway.metrics.sum("imgate_session_bad_frames_total", "");
    assert_eq!(bad as usize, frames.len());
    for account in ["bot", "other"] {
        let user = upstream.user(account);
        assert_eq!((user.logins, user.resumes, user.online), (1, 0, true));
    }
}

/// The next message or gap of the account `bot`.
async fn told(events: &mut Events) -> String {
    let pick = |kind| match kind {
        Kind::Gap(gap) => Some(format!("gap of {}", gap.count)),
        kind => text_of(kind),
    };
    events.next_of("bot", pick).await
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_once_as_a_gap_and_costs_nothing_else() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    let fat = "z".repeat(3 * MIB / 2);
    upstream.texts("friend", "bot", [fat.clone(), "pushed".into()]);
    assert_eq!(told(&mut events).await, "gap of 1");
    assert_eq!(told(&mut events).await, "pushed");

    // Both are in what is fetched after a drop, and so is another that was not pushed.
    upstream.sim.drop_connections(Some("bot")).unwrap();
    upstream.texts("friend", "bot", [format!("{fat}2"), "fetched".into()]);
    assert_eq!(told(&mut events).await, "gap of 1");
    assert_eq!(told(&mut events).await, "fetched");
    upstream.texts("friend", "bot", ["live".into()]);
    assert_eq!(told(&mut events).await, "live");
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.resumes, user.online), (1, 1, true));
}

#[tokio::test]
async fn a_page_over_the_limit_of_ordinary_messages_is_fetched_whole() {
    let upstream = Upstream::start().await;
    let mut tenant = tenant("acme", upstream.url());
    tenant.limits.upstream_frame_bytes = ByteSize(64 << 10);
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    upstream.sim.drop_connections(Some("bot")).unwrap();
    let texts: Vec<String> = (0..40)
        .map(|n| format!("{n} {}", "z".repeat(8_000)))
        .collect();
    upstream.texts("friend", "bot", texts.clone());
    for text in &texts {
        assert!(told(&mut events).await == *text);
    }
    assert_eq!(upstream.user("bot").resumes, 1);
}

#[tokio::test]
async fn a_page_that_cannot_be_taken_is_told_as_a_gap_and_what_is_newer_arrives() {
    let upstream = Upstream::start().await;
    let mut tenant = tenant("acme", upstream.url());
    tenant.limits.upstream_frame_bytes = ByteSize(64 << 10);
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    // Over the four-fold: told when it is pushed, and when it is met again.
    upstream.texts("friend", "bot", ["z".repeat(MIB), "first".into()]);
    assert_eq!(told(&mut events).await, "gap of 0");
    assert_eq!(told(&mut events).await, "first");
    for text in ["second", "third"] {
        upstream.sim.drop_connections(Some("bot")).unwrap();
        assert_eq!(told(&mut events).await, "gap of 0");
        upstream.texts("friend", "bot", [text.into()]);
        assert_eq!(told(&mut events).await, text);
    }
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.resumes, user.online), (1, 2, true));
    let session = client.session("bot").await.unwrap();
    assert_eq!(session.state(), SessionState::Online);
}

#[tokio::test]
async fn a_frame_of_64_mib_costs_one_connection_of_one_session() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("other").await;
    upstream.sim.raw("bot", &vec![b' '; 64 * MIB]).unwrap();
    until("it does not resume", || upstream.user("bot").resumes == 1).await;
    upstream.texts("friend", "bot", ["after".into()]);
    let told = [told(&mut events).await, told(&mut events).await];
    assert_eq!(told, ["gap of 0", "after"]);
    assert_eq!(upstream.user("bot").logins, 1);
    assert_eq!(upstream.user("other").connections, 1);
    let lost = "imgate_session_connections_lost_total";
    assert_eq!(gateway.metrics.sum(lost, ""), 1.0);
}

fn notice_of(kind: Kind) -> Option<v1::UpstreamNotice> {
    match kind {
        Kind::UpstreamNotice(notice) => Some(notice),
        _ => None,
    }
}

#[tokio::test]
async fn pushes_without_a_type_are_carried_through_as_they_came() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    let body = r#"{"New":[1,{"b":"ü"}],"Float":1.50,"Big":18446744073709551616}"#;
    upstream
        .sim
        .push("bot", "brand_new.thing", body.to_owned())
        .unwrap();
    let notice = events.next_of("bot", notice_of).await;
    assert_eq!(notice.command, "brand_new.thing");
    assert_eq!(notice.json, body);

    let event = r#"{"Event":99,"UnheardOfArray":[{"x":1}]}"#;
    let body = format!(r#"{{"EventArray":[{event}],"NeedAck":0}}"#);
    upstream
        .sim
        .push("bot", "im_open_push.msg_push", body)
        .unwrap();
    let notice = events.next_of("bot", notice_of).await;
    assert!(notice.command.starts_with("im_open_push.msg_push"));
    assert!(notice.json.contains("UnheardOfArray"), "{notice:?}");
    assert_eq!(upstream.user("bot").connections, 1);
}

#[tokio::test]
async fn a_push_for_nobody_harms_nobody() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("other").await;
    // Messages between strangers, to nobody at all, and to the other session's account.
    for to in [r#""stranger""#, r#""""#, "null", r#""other""#] {
        let item = format!(
            r#"{{"From_Account":"ghost","To_Account":{to},"MsgSeq":1,"MsgRandom":2,"MsgTimeStamp":3,
                "MsgBody":[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"boo"}}}}]}}"#
        );
        let body = format!(r#"{{"EventArray":[{{"Event":9,"C2cMsgArray":[{item}]}}]}}"#);
        upstream
            .sim
            .push("bot", "im_open_push.msg_push", body)
            .unwrap();
    }
    // Answers to questions that nobody asked.
    for seq in ["1", "18446744073709551615", "-1", r#""x""#] {
        let frame = format!(
            r#"{{"head":{{"servcmd":"openim.sendmsg","seq":{seq}}},"body":{{"ErrorCode":70001}}}}"#
        );
        upstream.sim.raw("bot", frame.as_bytes()).unwrap();
    }
    for account in ["bot", "other"] {
        upstream.texts("friend", account, [format!("to {account}")]);
    }
    let (mut to_bot, mut to_other) = (Vec::new(), Vec::new());
    while to_bot.last().is_none_or(|text| text != "to bot") || to_other.is_empty() {
        let event = events.next().await;
        if let Some(text) = event.kind.and_then(text_of) {
            match event.account.as_str() {
                "bot" => to_bot.push(text),
                _ => to_other.push(text),
            }
        }
    }
    // What came on a connection stays with its account.
    assert_eq!(to_other, ["to other"]);
    for account in ["bot", "other"] {
        let session = client.session(account).await.unwrap();
        assert_eq!(session.state(), SessionState::Online);
        assert_eq!(upstream.user(account).connections, 1);
    }
}
