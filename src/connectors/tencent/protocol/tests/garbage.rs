//! Whatever an upstream sends, the conversation goes on: nothing panics, and nothing is asked for without end.

use proptest::prelude::*;

use super::*;
use crate::connectors::tencent::message;

const COMMANDS: [&str; 11] = [
    LOGIN,
    GETMSG,
    GROUPS,
    GROUP_PAGE,
    PUSH,
    HELLO,
    "heartbeat.alive",
    "im_open_status.stat_forceoffline",
    "OverLoadPush.notify2",
    "StatSvc.KickOther",
    "openim.sendmsg",
];

const NAMES: [&str; 26] = [
    "ErrorCode",
    "ErrorInfo",
    "A2Key",
    "TinyId",
    "InstId",
    "HelloInterval",
    "Cookie",
    "SyncFlag",
    "MsgList",
    "EventArray",
    "C2cMsgArray",
    "GroupMsgArray",
    "C2cNotifyMsgArray",
    "KickoutMsgNotify",
    "NeedAck",
    "SessionData",
    "Flag",
    "From_Account",
    "ToGroupId",
    "MsgBody",
    "MsgSeq",
    "GroupIdList",
    "NextMsgSeq",
    "RspMsgList",
    "IsFinished",
    "OverLoadServCmd",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![
            0_u64,
            1,
            2,
            70001,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX
        ])
        .prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["", "G", "bot1", "bob", "c1"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

/// A body that gets far: a group's message or a list of groups, with any numbers.
fn plausible() -> impl Strategy<Value = Value> {
    let sequence = prop_oneof![
        0..40_u64,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1_u64 << 40)
    ];
    prop::collection::vec(sequence, 1..5).prop_map(|sequences| {
        let messages: Vec<Value> = sequences.iter().map(|s| group_message("G", *s)).collect();
        let groups: Vec<Value> = sequences
            .iter()
            .map(|s| json!({"GroupId": "G", "NextMsgSeq": s}))
            .collect();
        json!({
            "A2Key": "a", "TinyId": "1", "Cookie": sequences[0].to_string(), "SyncFlag": 2,
            "NeedAck": 1, "SessionData": "s", "EventArray": [{"GroupMsgArray": messages}],
            "RspMsgList": messages, "IsFinished": sequences[0] % 2, "GroupIdList": groups,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_conversation_goes_on(
        bodies in prop::collection::vec(
            (any::<bool>(), prop::sample::select(COMMANDS.to_vec()), prop_oneof![value(), plausible()]), 1..60,
        ),
    ) {
        let mut talk = Talk::online(&[("G", 7)]);
        for (answer, command, body) in bodies {
            let frames = talk.frames();
            match frames.last() {
                Some(asked) if answer => talk.answer(asked, &body),
                _ => talk.push(command, &body),
            }
            talk.store();
            prop_assert!(talk.protocol.out.frames.len() < 100);
            talk.says();
            // A connection that was called dead is gone.
            if talk.protocol.poll_timeout().is_none() {
                talk.protocol.log_in(talk.now, &signature());
            }
        }
    }

    #[test]
    fn bytes_at_random_are_bad_frames(bytes in prop::collection::vec(any::<u8>(), 0..200), packed in any::<bool>()) {
        let mut talk = Talk::online(&[]);
        let frame = if packed { [b"COMP", bytes.as_slice()].concat() } else { bytes };
        talk.protocol.receive(talk.now, &frame);
        prop_assert_eq!(talk.says(), ["bad frame", "events [gap:0]"]);
    }
}

/// Each of a great many empty things would cost a hundred times the memory that it has in the frame.
#[test]
fn what_holds_far_too_much_is_not_taken_apart() {
    let most = message::MAX_ENTRIES;
    let notices = |talk: &mut Talk| match &talk.says()[..] {
        [events] => events.matches("notice:").count(),
        others => panic!("{others:?}"),
    };
    let items = |count: usize| json!({"Event": 9, "C2cMsgArray": vec![json!({}); count]});
    for (array, told) in [
        (vec![items(most)], most),
        (vec![items(most + 1)], 1),
        // In several lists, too: the last one is carried through as a whole.
        (vec![items(most / 2), items(most / 2), items(1)], most + 1),
        (vec![json!({}); most + 1], 1),
    ] {
        let mut talk = Talk::online(&[]);
        talk.push(PUSH, &json!({"EventArray": array}));
        assert_eq!(notices(&mut talk), told);
    }
    for (command, list) in [(GETMSG, "MsgList"), (GROUPS, "GroupIdList")] {
        let mut talk = Talk::new();
        talk.log_in();
        if command == GROUPS {
            talk.answer_page(&json!({"Cookie": "c0", "SyncFlag": 2}));
        }
        talk.says();
        let asked = talk.asked(command);
        let item = json!({"GroupId": "g"});
        talk.answer(&asked, &json!({"Cookie": "c1", list: vec![item; most + 1]}));
        assert_eq!(talk.says(), ["bad frame", "events [gap:0]"], "{command}");
    }
}

/// An upstream that announces overloads without end is believed in some of them.
#[test]
fn announced_overloads_are_bounded() {
    let mut talk = Talk::online(&[]);
    let announce = |talk: &mut Talk, command: &str| {
        let notice = json!({"OverLoadServCmd": command, "DelaySecs": 60});
        talk.push("OverLoadPush.notify2", &notice);
    };
    announce(&mut talk, &"x".repeat(129));
    assert_eq!(talk.protocol.overloads.len(), 0);
    for number in 0..100 {
        announce(&mut talk, &format!("a.{number}"));
    }
    assert_eq!(talk.protocol.overloads.len(), 64);
    // One that is known is prolonged all the same, and what has passed makes room.
    talk.skip(30 * SECOND);
    announce(&mut talk, "a.0");
    talk.skip(31 * SECOND);
    announce(&mut talk, "b.c");
    let left: Vec<&String> = talk.protocol.overloads.keys().collect();
    assert_eq!(left, ["a.0", "b.c"]);
}

/// The upstream's words are stored with the session and go into every answer about it.
#[test]
fn long_explanations_are_cut() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    let words = "用".repeat(2000);
    talk.answer(&login, &json!({"ErrorCode": 70009, "ErrorInfo": words}));
    match talk.protocol.out.reports.pop_front() {
        Some(Report::Refused(refusal)) => assert_eq!(refusal.desc, "用".repeat(341)),
        other => panic!("{other:?}"),
    }
}

/// What is wrong with an answer goes to the log, and the answer may be a message.
#[test]
fn reasons_do_not_repeat_what_was_said() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.says();
    let page = talk.asked(GETMSG);
    talk.answer(&page, &json!({"MsgList": "a private word"}));
    talk.push("x.y", &json!({}));
    let reports = std::mem::take(&mut talk.protocol.out.reports);
    let reasons: Vec<String> = reports
        .into_iter()
        .filter_map(|report| {
            if let Report::BadFrame(reason) = report {
                Some(reason)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("expected a sequence"), "{reasons:?}");
    assert!(!reasons[0].contains("private"), "{reasons:?}");
}
