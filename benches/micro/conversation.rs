//! A session's conversation with the upstream: the frame of a push in, its event and its acknowledgement out.

use std::hint::black_box;
use std::time::Duration;

use imgate::connectors::tencent::frame;
use imgate::connectors::tencent::protocol::{Identification, Protocol};
use imgate::connectors::tencent::sync::Position;
use imgate::connectors::{Conversation, OutgoingMessage, PushAck, Report, RequestId};
use imgate::proto::record::TencentTicket;
use imgate::proto::v1;
use imgate::session::effect::Credential;
use imgate::session::input::Now;

use crate::inputs::{ACCOUNT, APP, FLOOD, MAX_FRAME, Pushes, now, signature};
use crate::{Case, Operation};

/// After so many messages the search for a repeat is as long as it becomes.
const REMEMBERED: usize = 512;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // After every 64 messages the upstream is asked for a new reading position, which is in the figure.
        Case::new("conversation/receive/push", || receive(1)).by_cpu(),
        Case::new("conversation/receive/flood", || receive(FLOOD)).by_cpu(),
        Case::new("conversation/send", send).by_cpu(),
        Case::new("conversation/log in", || {
            Box::new(|| {
                black_box(Talk::online());
            })
        })
        .by_cpu(),
        Case::new("repeats/new message", || remember(true)),
        Case::new("repeats/repeated message", || remember(false)),
    ]
}

/// A conversation, and the upstream's part in it.
pub(crate) struct Talk {
    pub(crate) protocol: Protocol,
    now: Now,
}

impl Talk {
    /// Logged in, and caught up on nothing.
    pub(crate) fn online() -> Self {
        let who = Identification {
            account: ACCOUNT.into(),
            sdk_app_id: APP,
            max_frame_bytes: MAX_FRAME,
        };
        let (ticket, position) = (TencentTicket::default(), Position::default());
        let mut talk = Self {
            protocol: Protocol::new(who, 7, &ticket, position),
            now: now(),
        };
        let credential = Credential::Signature(signature().text);
        talk.protocol.log_in(talk.now, &credential);
        talk.settle();
        talk
    }

    /// Takes a frame in, until there is nothing more to do.
    pub(crate) fn receive(&mut self, frame: &[u8]) {
        self.protocol.receive(self.now, frame);
        self.settle();
    }

    /// Answers what the connector asks for, and stores what it reports.
    fn settle(&mut self) {
        loop {
            while let Some(request) = self.protocol.out.frames.pop_front() {
                self.answer(&request);
            }
            let Some(report) = self.protocol.out.reports.pop_front() else {
                return;
            };
            if let Report::Events(delivery) = &report {
                self.protocol.stored(self.now, &delivery.acks);
                // The acknowledgements of pushes come first, and have no answer.
                let is_push = |ack: &&PushAck| matches!(ack, PushAck::Push(_));
                let acknowledged = delivery.acks.iter().filter(is_push).count();
                black_box(self.protocol.out.frames.drain(..acknowledged));
            }
            black_box(report);
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let asked = frame::decode(request, MAX_FRAME).unwrap();
        let body = match asked.servcmd.as_str() {
            "im_open_status.wslogin" => {
                r#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"A2Key":"c9297f308c357316","TinyId":"144115200000000001","InstId":77,"HelloInterval":120}"#
            }
            "openim.getmsg" => r#"{"ErrorCode":0,"Cookie":"c0","SyncFlag":2}"#,
            "group_open_http_svc.get_joined_group_list" => r#"{"ErrorCode":0,"GroupIdList":[]}"#,
            "openim.sendmsg" => r#"{"ErrorCode":0,"MsgTime":1795382968,"MsgKey":"1_2_3"}"#,
            other => panic!("the upstream knows no {other}"),
        };
        let answer = frame::encode_response(&asked.servcmd, asked.seq, body);
        self.protocol.receive(self.now, &answer);
    }
}

fn receive(messages: usize) -> Operation {
    let (mut talk, mut pushes) = (Talk::online(), Pushes::of(messages));
    for _ in 0..REMEMBERED.div_ceil(messages) {
        talk.receive(pushes.next());
    }
    Box::new(move || talk.receive(pushes.next()))
}

/// A text message out and its answer in.
fn send() -> Operation {
    let mut talk = Talk::online();
    let text = v1::TextElement {
        text: "ping e5929863-a9cb-491d-a199-b498cd979a5b".into(),
    };
    let message = OutgoingMessage {
        conversation: Conversation::User("bob".into()),
        elements: vec![v1::Element {
            kind: Some(v1::element::Kind::Text(text)),
        }],
        client_message_id: "order-4711".into(),
        cloud_custom_data: String::new(),
        online_only: false,
    };
    Box::new(move || {
        let (now, until) = (talk.now, talk.now.at + Duration::from_secs(10));
        let client_time = now.wall.as_secs();
        talk.protocol
            .send(now, RequestId(1), &message, client_time, until);
        talk.settle();
    })
}

/// Looks whether a message was there before, and remembers it if it was not.
fn remember(new: bool) -> Operation {
    let mut position = Position::default();
    let mut number = 0_u32;
    let mut next = move || {
        number += 1;
        format!("144115200000000002-1795382967-{:08}", number % 100_000_000)
    };
    let identities: Vec<String> = (0..REMEMBERED).map(|_| next()).collect();
    for identity in &identities {
        position.pushed(identity);
        position.caught_up();
    }
    let repeated = identities.last().unwrap().clone();
    Box::new(move || {
        if new {
            assert!(position.pushed(black_box(&next())));
            position.caught_up();
        } else {
            assert!(!position.pushed(black_box(&repeated)));
        }
    })
}
