//! Frames, and what is in the JSON of a push.

use std::hint::black_box;

use imgate::connectors::tencent::frame::{self, Credential, RequestHead};
use imgate::connectors::tencent::message;
use imgate::connectors::tencent::outgoing;
use imgate::connectors::tencent::push::PushBody;

use crate::inputs::{ACCOUNT, APP, FLOOD, MAX_FRAME, PUSH, push_body};
use crate::{Case, Operation};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("frame/decode/push", || decode(push(1))),
        Case::new("frame/decode/push packed", || decode(packed(1))).by_cpu(),
        Case::new("frame/decode/flood", || decode(push(FLOOD))),
        Case::new("frame/decode/flood packed", || decode(packed(FLOOD))).by_cpu(),
        Case::new("frame/encode/acknowledgement", acknowledgement).by_cpu(),
        Case::new("frame/encode/push", encode_push),
        Case::new("frame/pack/push", || pack(push(1))).by_cpu(),
        Case::new("frame/pack/flood", || pack(push(FLOOD))).by_cpu(),
        Case::new("message/parse/push", || parse(1)),
        Case::new("message/parse/flood", || parse(FLOOD)),
    ]
}

fn push(messages: usize) -> Vec<u8> {
    frame::encode_response(PUSH, 0, &push_body(messages))
}

/// As the real service packs.
fn packed(messages: usize) -> Vec<u8> {
    frame::compress_sync_flush(&push(messages))
}

fn decode(frame: Vec<u8>) -> Operation {
    Box::new(move || {
        black_box(frame::decode(black_box(&frame), MAX_FRAME).unwrap());
    })
}

/// The acknowledgement of a push, which every push asks for.
fn acknowledgement() -> Operation {
    let (a2, tinyid) = ("c9297f308c357316".repeat(6), "144115200000000001");
    Box::new(move || {
        let head = RequestHead {
            credential: Credential::Ticket { a2: &a2, tinyid },
            status_instid: 1_281_905_844,
            sdk_app_id: APP,
            reqtime: 1_795_382_967,
            servcmd: "openim.ws_msg_push_ack",
            seq: 46_051_063,
        };
        let body = outgoing::push_ack(black_box("sess-1"));
        black_box(frame::encode_request(&head, &body, true));
    })
}

fn encode_push() -> Operation {
    let body = push_body(1);
    Box::new(move || {
        black_box(frame::encode_response(PUSH, 0, black_box(&body)));
    })
}

/// What the simulator does.
fn pack(frame: Vec<u8>) -> Operation {
    Box::new(move || {
        black_box(frame::compress_sync_flush(black_box(&frame)));
    })
}

/// From the body of a frame to events.
fn parse(messages: usize) -> Operation {
    let body = push_body(messages);
    Box::new(move || {
        let push: PushBody<'_> = serde_json::from_str(black_box(&body)).unwrap();
        let entries = push.event_array.unwrap();
        black_box(message::parse_push(ACCOUNT, PUSH, &body, entries));
    })
}
