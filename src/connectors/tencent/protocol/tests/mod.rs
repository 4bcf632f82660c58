//! Tests of the conversation without a socket: the test plays the upstream, frame by frame.
//!
//! The upstream's frames go round through every form that it packs them in. What is reported is compared in short
//! words, see [`show`].

mod catching_up;
mod commands;
mod garbage;
mod groups;
mod login;
mod oversize;
mod pushes;
mod random;

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::*;
use crate::connectors::{Delivery, PushAck, Report, RequestId};
use crate::proto::v1;
use crate::proto::v1::event::Kind;
use crate::session::effect::Credential;
use crate::types::{Secret, UnixMillis};

pub(super) const LOGIN: &str = "im_open_status.wslogin";
pub(super) const GETMSG: &str = "openim.getmsg";
pub(super) const GROUPS: &str = "group_open_http_svc.get_joined_group_list";
pub(super) const GROUP_PAGE: &str = "group_open_http_svc.group_msg_get";
pub(super) const PUSH: &str = "im_open_push.msg_push";
pub(super) const ACK: &str = "openim.ws_msg_push_ack";
pub(super) const HELLO: &str = "im_open_status.wshello";
const MAX_FRAME: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// A conversation, its clock, and what would be in its store.
pub(super) struct Talk {
    pub(super) protocol: Protocol,
    pub(super) now: Now,
    /// What was reported and not stored yet, oldest first.
    pub(super) unstored: VecDeque<Vec<PushAck>>,
    packing: usize,
}

/// A request of the connector's, as the upstream reads it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) command: String,
    pub(super) seq: u64,
    pub(super) head: Value,
    pub(super) body: Value,
    /// The body, byte for byte.
    pub(super) text: String,
}

impl Asked {
    pub(super) fn read(frame: &[u8]) -> Self {
        let incoming = frame::decode(frame, MAX_FRAME).unwrap();
        let text = incoming.body.get().to_owned();
        Self {
            command: incoming.servcmd,
            seq: incoming.seq,
            head: incoming.head,
            body: serde_json::from_str(&text).unwrap(),
            text,
        }
    }
}

pub(super) fn who() -> Identification {
    Identification {
        account: "bot1".into(),
        sdk_app_id: 1_400_000_001,
        max_frame_bytes: MAX_FRAME,
    }
}

pub(super) fn start_of_time() -> Now {
    Now {
        at: tokio::time::Instant::now().into_std(),
        wall: UnixMillis::from_secs(1_795_000_000),
    }
}

pub(super) fn signature() -> Credential {
    Credential::Signature(Secret::new("the-signature".into()))
}

impl Talk {
    pub(super) fn new() -> Self {
        Self::restored(&TencentTicket::default(), Position::default())
    }

    pub(super) fn restored(ticket: &TencentTicket, position: Position) -> Self {
        Self {
            protocol: Protocol::new(who(), 7, ticket, position),
            now: start_of_time(),
            unstored: VecDeque::new(),
            packing: 0,
        }
    }

    /// Logged in by signature, caught up on nothing, in the groups `groups` with their last sequences.
    pub(super) fn online(groups: &[(&str, u64)]) -> Self {
        let mut talk = Self::new();
        talk.log_in();
        talk.answer_page(&json!({"Cookie": "c0", "SyncFlag": 2}));
        talk.answer_groups(groups);
        talk.says();
        talk.unstored.clear();
        assert_eq!(talk.asks(), [""; 0]);
        talk
    }

    /// Logs in by signature, accepted.
    pub(super) fn log_in(&mut self) {
        self.protocol.log_in(self.now, &signature());
        self.accept();
    }

    /// Comes back after a drop, with the ticket.
    pub(super) fn reconnect(&mut self) {
        self.protocol.disconnected();
        self.protocol.log_in(self.now, &Credential::Ticket);
        self.accept();
    }

    fn accept(&mut self) {
        let login = self.asked(LOGIN);
        self.answer(&login, &login_answer());
    }

    pub(super) fn answer_page(&mut self, body: &Value) {
        let page = self.asked(GETMSG);
        self.answer(&page, body);
        self.store();
    }

    pub(super) fn answer_groups(&mut self, groups: &[(&str, u64)]) {
        let list: Vec<Value> = groups
            .iter()
            .map(|(id, last)| json!({"GroupId": id, "NextMsgSeq": last + 1}))
            .collect();
        let asked = self.asked(GROUPS);
        self.answer(&asked, &json!({"GroupIdList": list}));
        self.store();
    }

    /// Catches up on nothing.
    pub(super) fn catch_up_on_nothing(&mut self) {
        self.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
        self.answer_groups(&[]);
    }

    /// All frames that the connector wants sent.
    pub(super) fn frames(&mut self) -> Vec<Asked> {
        let frames = self.protocol.out.frames.drain(..);
        frames.map(|frame| Asked::read(&frame)).collect()
    }

    /// Their commands.
    pub(super) fn asks(&mut self) -> Vec<String> {
        let frames = self.frames();
        frames.into_iter().map(|asked| asked.command).collect()
    }

    /// The only frame that the connector wants sent, which is this.
    #[track_caller]
    pub(super) fn asked(&mut self, command: &str) -> Asked {
        let mut frames = self.frames();
        let commands: Vec<&str> = frames.iter().map(|asked| asked.command.as_str()).collect();
        assert_eq!(commands, [command]);
        frames.remove(0)
    }

    pub(super) fn receive(&mut self, json: &[u8]) {
        self.packing += 1;
        let frame = match self.packing % 4 {
            0 => json.to_vec(),
            1 => frame::compress_gzip(json),
            2 => frame::compress_zlib(json),
            _ => frame::compress_sync_flush(json),
        };
        self.protocol.receive(self.now, &frame);
    }

    pub(super) fn answer(&mut self, asked: &Asked, body: &Value) {
        self.answer_text(asked, &body.to_string());
    }

    pub(super) fn answer_text(&mut self, asked: &Asked, body: &str) {
        self.receive(&frame::encode_response(&asked.command, asked.seq, body));
    }

    pub(super) fn push(&mut self, command: &str, body: &Value) {
        self.receive(&frame::encode_response(command, 0, &body.to_string()));
    }

    /// Pushes one-to-one messages, to be acknowledged by the name of the first.
    pub(super) fn push_c2c(&mut self, texts: &[&str]) {
        self.push_all(texts[0], texts.iter().map(|text| c2c(text)).collect());
    }

    /// Pushes one-to-one messages, to be acknowledged by `handle`.
    pub(super) fn push_all(&mut self, handle: &str, messages: Vec<Value>) {
        self.push(
            PUSH,
            &json!({"NeedAck": 1, "SessionData": handle, "EventArray": [{"Event": 9, "C2cMsgArray": messages}]}),
        );
    }

    /// Pushes a group message, to be acknowledged by its sequence.
    pub(super) fn push_group(&mut self, group: &str, sequence: u64) {
        self.push(
            PUSH,
            &json!({
                "NeedAck": 1,
                "SessionData": format!("{group}{sequence}"),
                "EventArray": [{"Event": 3, "GroupMsgArray": [group_message(group, sequence)]}],
            }),
        );
    }

    /// Pushes messages of the group G of this time in one push, to be acknowledged by the first.
    pub(super) fn push_all_of_group(
        &mut self,
        sequences: std::ops::RangeInclusive<u64>,
        time: u64,
    ) {
        let handle = format!("s{}", sequences.start());
        let messages: Vec<Value> = sequences
            .map(|sequence| {
                let mut message = group_message("G", sequence);
                message["MsgTimeStamp"] = json!(time);
                message
            })
            .collect();
        self.push(
            PUSH,
            &json!({"NeedAck": 1, "SessionData": handle, "EventArray": [{"GroupMsgArray": messages}]}),
        );
    }

    /// What was reported, in short words. Deliveries are kept to be stored.
    pub(super) fn says(&mut self) -> Vec<String> {
        let reports: Vec<Report> = self.protocol.out.reports.drain(..).collect();
        for report in &reports {
            if let Report::Events(delivery) = report {
                self.unstored.push_back(delivery.acks.clone());
            }
        }
        reports.iter().map(show).collect()
    }

    /// Stores everything that has been reported, without a word on what is still to be read by the test.
    pub(super) fn store(&mut self) {
        loop {
            for report in &mut self.protocol.out.reports {
                if let Report::Events(delivery) = report {
                    self.unstored.push_back(std::mem::take(&mut delivery.acks));
                }
            }
            self.unstored.retain(|acks| !acks.is_empty());
            let Some(acks) = self.unstored.pop_front() else {
                return;
            };
            // This may set free what waited for it.
            self.protocol.stored(self.now, &acks);
        }
    }

    pub(super) fn skip(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall = self.now.wall.plus(time);
    }

    /// The handles of the pushes that are acknowledged now.
    pub(super) fn acked(&mut self) -> Vec<String> {
        let frames = self.frames();
        frames
            .iter()
            .map(|asked| {
                assert_eq!(asked.command, ACK);
                asked.body["SessionData"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

pub(super) fn login_answer() -> Value {
    json!({
        "ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "A2Key": "the-a2", "TinyId": "144115200000000001",
        "InstId": 77, "HelloInterval": 60,
    })
}

/// A one-to-one message from bob. Its text is its identity.
pub(super) fn c2c(text: &str) -> Value {
    json!({
        "From_Account": "bob", "To_Account": "bot1", "TinyId": "144", "MsgSeq": 1, "MsgTimeStamp": 1_795_000_000,
        "MsgClientTime": 1_795_000_000, "MsgRandom": crc32fast::hash(text.as_bytes()),
        "MsgBody": [{"MsgType": "TIMTextElem", "MsgContent": {"Text": text}}],
    })
}

/// A group's message from bob. Its text is its sequence.
pub(super) fn group_message(group: &str, sequence: u64) -> Value {
    json!({
        "From_Account": "bob", "ToGroupId": group, "GroupInfo": {"GroupId": group}, "MsgSeq": sequence,
        "MsgRandom": sequence, "MsgTimeStamp": 1_795_000_000,
        "MsgBody": [{"MsgType": "TIMTextElem", "MsgContent": {"Text": sequence.to_string()}}],
    })
}

/// An answer to `group_msg_get` with these sequences, newest first, as the upstream gives them.
pub(super) fn group_page(group: &str, sequences: impl IntoIterator<Item = u64>) -> Value {
    let mut list: Vec<Value> = sequences
        .into_iter()
        .map(|sequence| group_message(group, sequence))
        .collect();
    list.reverse();
    json!({"GroupId": group, "IsFinished": 1, "RspMsgList": list})
}

/// A report in short words; a star marks what was fetched, not pushed.
pub(super) fn show(report: &Report) -> String {
    match report {
        Report::Accepted => "accepted".into(),
        Report::Refused(refusal) => format!("refused {} {:?}", refusal.code, refusal.disposition),
        Report::LoggedOut => "logged out".into(),
        Report::Expired(refusal) => format!("expired {}", refusal.code),
        Report::Kicked { kick_type, .. } => format!("kicked {kick_type}"),
        Report::Dead(reason) => format!("dead: {reason}"),
        Report::Events(Delivery {
            events, given_up, ..
        }) => {
            let given_up = (*given_up > 0).then(|| format!("given-up:{given_up}"));
            let events = events.iter().map(show_event);
            let events: Vec<String> = given_up.into_iter().chain(events).collect();
            format!("events [{}]", events.join(" "))
        }
        Report::Answered(id, answer) => {
            format!(
                "answered {}: {} {:?} at {} seq {}",
                id.0, answer.code, answer.message_id, answer.sent_at, answer.upstream_sequence
            )
        }
        Report::Unanswered(id) => format!("unanswered {}", id.0),
        Report::Unsent(id) => format!("unsent {}", id.0),
        Report::BadFrame(_) => "bad frame".into(),
    }
}

pub(super) fn show_event(event: &Kind) -> String {
    match event {
        Kind::Message(message) => {
            let star = if message.backfilled { "*" } else { "" };
            let text = match message
                .elements
                .first()
                .and_then(|first| first.kind.as_ref())
            {
                Some(v1::element::Kind::Text(text)) => text.text.as_str(),
                _ => "?",
            };
            match &message.conversation {
                Some(v1::message::Conversation::Group(group)) => format!("{group}{text}{star}"),
                Some(v1::message::Conversation::To(_)) | None => format!("{text}{star}"),
            }
        }
        Kind::Gap(gap) => format!("gap:{}", gap.count),
        Kind::UpstreamNotice(notice) => format!("notice:{}", notice.command),
        Kind::SessionChanged(_) | Kind::SignatureExpired(_) | Kind::KickedOffline(_) => {
            panic!("the session tells that: {event:?}")
        }
    }
}
