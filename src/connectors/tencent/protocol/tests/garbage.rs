//! Whatever an upstream sends, the conversation goes on: nothing panics, and nothing is asked for without end.

use proptest::prelude::*;

use super::*;

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
