//! Messages and raw commands: answers, time-outs, drops, and what makes a repeated send one message.

use super::*;
use crate::connectors::{Conversation, OutgoingMessage, RequestId};

const SEND: &str = "openim.sendmsg";
const SEND_GROUP: &str = "group_open_http_svc.send_group_msg";

fn message(to: Conversation, client_message_id: &str) -> OutgoingMessage {
    let text = v1::element::Kind::Text(v1::TextElement { text: "hi".into() });
    OutgoingMessage {
        conversation: to,
        elements: vec![v1::Element { kind: Some(text) }],
        client_message_id: client_message_id.into(),
        cloud_custom_data: String::new(),
        online_only: false,
    }
}

fn to_bob() -> OutgoingMessage {
    message(Conversation::User("bob".into()), "")
}

fn to_group() -> OutgoingMessage {
    message(Conversation::Group("G".into()), "")
}

impl Talk {
    fn send(&mut self, id: u64, message: &OutgoingMessage) {
        let until = self.now.at + 30 * SECOND;
        self.send_until(id, message, until);
    }

    fn send_until(&mut self, id: u64, message: &OutgoingMessage, until: Instant) {
        let client_time = self.now.wall.as_secs();
        self.protocol
            .send(self.now, RequestId(id), message, client_time, until);
    }
}

#[test]
fn an_answered_message_has_the_identity_that_receivers_see() {
    let mut talk = Talk::online(&[]);
    talk.send(1, &to_bob());
    let asked = talk.asked(SEND);
    talk.answer(
        &asked,
        &json!({"ActionStatus": "OK", "MsgTime": 1_795_000_009, "MsgKey": "k"}),
    );
    let id = format!(
        "144115200000000001-{}-{}",
        asked.body["MsgClientTime"], asked.body["MsgRandom"]
    );
    assert_eq!(
        talk.says(),
        [format!("answered 1: 0 {id:?} at 1795000009 seq 0")]
    );

    talk.send(2, &to_group());
    let asked = talk.asked(SEND_GROUP);
    talk.answer(&asked, &json!({"MsgTime": 9, "MsgSeq": 12}));
    assert_eq!(talk.says(), [r#"answered 2: 0 "G-12" at 9 seq 12"#]);

    talk.send(3, &to_bob());
    let asked = talk.asked(SEND);
    talk.answer(&asked, &json!({"ErrorCode": 80001, "ErrorInfo": "dirty"}));
    assert_eq!(talk.says(), [r#"answered 3: 80001 "" at 0 seq 0"#]);
}

#[test]
fn answers_belong_to_their_number_and_command() {
    let mut talk = Talk::online(&[]);
    talk.send(1, &to_bob());
    talk.send(2, &to_bob());
    let frames = talk.frames();
    assert_ne!(frames[0].body["MsgSeq"], frames[1].body["MsgSeq"]);
    let mut wrong = frames[0].clone();
    wrong.command = SEND_GROUP.into();
    talk.answer(&wrong, &json!({}));
    assert_eq!(talk.says(), [""; 0]);
    talk.answer(&frames[1], &json!({"ErrorCode": 2}));
    talk.answer(&frames[0], &json!({"ErrorCode": 1}));
    talk.answer(&frames[0], &json!({"ErrorCode": 3}));
    assert_eq!(
        talk.says(),
        [
            r#"answered 2: 2 "" at 0 seq 0"#,
            r#"answered 1: 1 "" at 0 seq 0"#
        ]
    );
}

#[test]
fn a_message_waits_for_the_login_and_goes_out_before_the_pages() {
    let mut talk = Talk::new();
    talk.send(1, &to_bob());
    assert_eq!(talk.asks(), [""; 0]);
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    talk.send(2, &to_group());
    assert_eq!(talk.asks(), [""; 0]);
    talk.answer(&login, &login_answer());
    assert_eq!(talk.asks(), [SEND, SEND_GROUP, GETMSG]);
}

#[test]
fn a_message_is_sent_again_byte_for_byte_after_a_drop() {
    let mut talk = Talk::online(&[]);
    talk.send(1, &to_bob());
    talk.send(2, &to_group());
    let first = talk.frames();
    talk.skip(5 * SECOND);
    talk.reconnect_with_sends(&first);
    // Again and again, until it is answered.
    let second = talk.reconnect_with_sends(&first);
    talk.answer(&second[0], &json!({"MsgTime": 5}));
    talk.answer(&second[1], &json!({"MsgTime": 5, "MsgSeq": 1}));
    talk.protocol.disconnected();
    talk.protocol.log_in(talk.now, &Credential::Ticket);
    let login = talk.asked(LOGIN);
    talk.answer(&login, &login_answer());
    assert_eq!(talk.asks(), [GETMSG]);
}

impl Talk {
    fn reconnect_with_sends(&mut self, first: &[Asked]) -> Vec<Asked> {
        self.protocol.disconnected();
        self.protocol.log_in(self.now, &Credential::Ticket);
        let login = self.asked(LOGIN);
        self.answer(&login, &login_answer());
        let mut frames = self.frames();
        assert_eq!(frames.pop().unwrap().command, GETMSG);
        let sent = |asked: &Asked| (asked.command.clone(), asked.seq, asked.text.clone());
        let (before, after): (Vec<_>, Vec<_>) = (
            first.iter().map(sent).collect(),
            frames.iter().map(sent).collect(),
        );
        assert_eq!(before, after);
        frames
    }
}

#[test]
fn a_message_that_met_an_expired_credential_goes_out_after_the_next_login() {
    for code in [70001, 20002] {
        let mut talk = Talk::online(&[]);
        talk.send(1, &to_bob());
        let asked = talk.asked(SEND);
        talk.answer(&asked, &json!({"ErrorCode": code}));
        assert_eq!(talk.says(), [format!("expired {code}")]);
        talk.protocol.disconnected();
        talk.protocol.log_in(talk.now, &signature());
        let login = talk.asked(LOGIN);
        talk.answer(&login, &login_answer());
        let again = talk.frames().remove(0);
        assert_eq!((again.seq, again.text), (asked.seq, asked.text));
        talk.says();
    }
}

#[test]
fn a_message_is_given_up_at_its_deadline() {
    let mut talk = Talk::online(&[]);
    talk.send(1, &to_bob());
    let asked = talk.asked(SEND);
    talk.skip(29 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), [""; 0]);
    assert_eq!(talk.protocol.poll_timeout(), Some(talk.now.at + SECOND));
    talk.skip(SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unanswered 1"]);
    talk.answer(&asked, &json!({}));
    assert_eq!(talk.says(), [""; 0]);

    // Also while there is no connection.
    talk.protocol.disconnected();
    talk.send(2, &to_bob());
    talk.skip(30 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unsent 2"]);
    talk.protocol.log_in(talk.now, &Credential::Ticket);
    let login = talk.asked(LOGIN);
    talk.answer(&login, &login_answer());
    assert_eq!(talk.asks(), [GETMSG]);
}

/// With a client message ID: it may be repeated.
fn repeatable() -> OutgoingMessage {
    message(Conversation::User("bob".into()), "order-1")
}

#[test]
fn the_answer_to_a_message_that_may_be_repeated_is_waited_for_beyond_its_deadline() {
    let mut talk = Talk::online(&[]);
    talk.send_until(1, &repeatable(), talk.now.at + SECOND);
    let asked = talk.asked(SEND);
    talk.skip(14 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), [""; 0]);
    talk.answer(&asked, &json!({"MsgTime": 7}));
    let says = talk.says();
    assert!(says[0].starts_with("answered 1: 0 "), "{says:?}");

    // Not for ever, and it does not go out again meanwhile.
    talk.send_until(2, &repeatable(), talk.now.at + SECOND);
    talk.asked(SEND);
    talk.skip(2 * SECOND);
    talk.reconnect();
    talk.catch_up_on_nothing();
    talk.says();
    talk.skip(13 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unanswered 2"]);
}

#[test]
fn a_repetition_gives_a_message_more_time_to_go_out() {
    let mut talk = Talk::online(&[]);
    talk.protocol.disconnected();
    talk.send_until(1, &repeatable(), talk.now.at + SECOND);
    for seconds in [9, 2] {
        let until = talk.now.at + seconds * SECOND;
        talk.protocol.extend(talk.now, RequestId(1), until);
    }
    talk.skip(8 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), [""; 0]);
    talk.protocol.log_in(talk.now, &Credential::Ticket);
    let login = talk.asked(LOGIN);
    talk.answer(&login, &login_answer());
    let first = talk.frames().remove(0);
    // Out already: nothing more is to be done.
    let until = talk.now.at + 9 * SECOND;
    talk.protocol.extend(talk.now, RequestId(1), until);
    assert_eq!(talk.asks(), [""; 0]);
    // Its answer was lost with the connection, and it was too late to go out on the next one.
    talk.skip(10 * SECOND);
    talk.reconnect();
    talk.catch_up_on_nothing();
    let until = talk.now.at + 9 * SECOND;
    talk.protocol.extend(talk.now, RequestId(1), until);
    let again = talk.asked(SEND);
    assert_eq!((again.seq, again.text), (first.seq, first.text));
}

#[test]
fn a_message_that_never_went_out_is_unsent() {
    let mut talk = Talk::online(&[]);
    // Too late from the beginning.
    talk.send_until(1, &repeatable(), talk.now.at);
    assert_eq!(talk.asks(), [""; 0]);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unsent 1"]);
    // The upstream refused it together with the credential, and the next login came too late.
    talk.send(2, &repeatable());
    let asked = talk.asked(SEND);
    talk.answer(&asked, &json!({"ErrorCode": 70001}));
    talk.protocol.disconnected();
    talk.says();
    talk.skip(30 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unsent 2"]);
    // This one may have arrived.
    let mut talk = Talk::online(&[]);
    talk.send(3, &repeatable());
    talk.protocol.disconnected();
    talk.skip(30 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unanswered 3"]);
}

#[test]
fn an_answer_is_in_doubt_when_an_earlier_try_was_not_answered_or_it_cannot_be_read() {
    let in_doubt = |talk: &mut Talk| {
        talk.protocol.out.reports.drain(..).find_map(|report| {
            let Report::Answered(_, answer) = report else {
                return None;
            };
            Some(answer.in_doubt)
        })
    };
    let refusal = json!({"ErrorCode": 20003});
    let mut talk = Talk::online(&[]);
    talk.send(1, &repeatable());
    let asked = talk.asked(SEND);
    talk.answer(&asked, &refusal);
    assert_eq!(in_doubt(&mut talk), Some(false));
    talk.send(2, &repeatable());
    let asked = talk.asked(SEND);
    talk.answer_text(&asked, r#"{"ErrorCode":"many"}"#);
    assert_eq!(in_doubt(&mut talk), Some(true));
    // Refused with the credential is not unanswered.
    talk.send(3, &repeatable());
    let asked = talk.asked(SEND);
    talk.answer(&asked, &json!({"ErrorCode": 70001}));
    let again = talk.reconnect_with_sends(std::slice::from_ref(&asked));
    talk.answer(&again[0], &refusal);
    assert_eq!(in_doubt(&mut talk), Some(false));
    talk.send(4, &repeatable());
    let asked = talk.asked(SEND);
    let again = talk.reconnect_with_sends(std::slice::from_ref(&asked));
    talk.answer(&again[0], &refusal);
    assert_eq!(in_doubt(&mut talk), Some(true));
}

#[test]
fn a_raw_command_is_answered_with_its_body_and_does_not_outlive_the_connection() {
    let mut talk = Talk::online(&[]);
    let command = "profile.portrait_get_all";
    let body = r#"{"a": [1,  2]}"#;
    talk.protocol
        .invoke(talk.now, RequestId(1), command, body.into());
    let asked = talk.asked(command);
    assert_eq!(asked.text, body);
    assert_eq!(asked.head["cs"], crc32fast::hash(body.as_bytes()));
    talk.answer_text(&asked, r#"{"ErrorCode":0,"x":  1}"#);
    let Some(Report::Answered(RequestId(1), answer)) = talk.protocol.out.reports.pop_front() else {
        panic!("no answer")
    };
    assert_eq!(
        (answer.code, answer.body_json.as_str()),
        (0, r#"{"ErrorCode":0,"x":  1}"#)
    );

    talk.protocol
        .invoke(talk.now, RequestId(2), command, "{}".into());
    talk.protocol
        .invoke(talk.now, RequestId(3), command, "{}".into());
    talk.skip(15 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["unanswered 2", "unanswered 3"]);
    talk.protocol
        .invoke(talk.now, RequestId(4), command, "{}".into());
    talk.protocol.disconnected();
    talk.protocol
        .invoke(talk.now, RequestId(5), command, "{}".into());
    assert_eq!(talk.says(), ["unanswered 4", "unanswered 5"]);
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn an_answer_that_cannot_be_read_is_the_callers_to_see() {
    let mut talk = Talk::online(&[]);
    talk.send(1, &to_bob());
    let asked = talk.asked(SEND);
    talk.answer_text(&asked, r#"{"ErrorCode":"many"}"#);
    assert_eq!(
        talk.says(),
        ["bad frame", r#"answered 1: -1 "" at 0 seq 0"#]
    );
}

#[test]
fn an_announced_overload_is_answered_here_until_it_has_passed() {
    for (seconds, believed) in [(5, 5), (86_400, 60)] {
        let mut talk = Talk::online(&[]);
        let notice = json!({"OverLoadServCmd": SEND, "DelaySecs": seconds});
        talk.push("OverLoadPush.notify2", &notice);
        assert_eq!(talk.says(), ["events [notice:OverLoadPush.notify2]"]);
        talk.send(1, &to_bob());
        talk.protocol
            .invoke(talk.now, RequestId(2), SEND, "{}".into());
        let refused = |id: u64| format!(r#"answered {id}: 60022 "" at 0 seq 0"#);
        assert_eq!(talk.says(), [refused(1), refused(2)]);
        talk.send(3, &to_group());
        assert_eq!(talk.asks(), [SEND_GROUP], "the others go on");
        talk.skip(believed * SECOND - Duration::from_millis(1));
        talk.send(4, &to_bob());
        assert_eq!(talk.says(), [refused(4)]);
        talk.skip(Duration::from_millis(1));
        talk.send(5, &to_bob());
        assert_eq!(talk.asks(), [SEND]);
    }
    let mut talk = Talk::online(&[]);
    talk.push("OverLoadPush.notify2", &json!({"DelaySecs": "soon"}));
    talk.send(1, &to_bob());
    assert_eq!(talk.asks(), [SEND]);
}

#[test]
fn a_client_message_id_is_an_identity_over_restarts() {
    let identity = |talk: &mut Talk, id: &str| {
        talk.send(1, &message(Conversation::User("bob".into()), id));
        let asked = talk.asked(SEND);
        (
            asked.body["MsgSeq"].clone(),
            asked.body["MsgRandom"].clone(),
        )
    };
    let mut talk = Talk::online(&[]);
    let first = identity(&mut talk, "order-1");
    assert!(first.1.as_u64().unwrap() < 100_000_000);
    assert_ne!(identity(&mut talk, "order-2"), first);
    talk.skip(100 * SECOND);
    assert_eq!(identity(&mut talk, "order-1"), first);
    let mut later = Talk::online(&[]);
    assert_eq!(identity(&mut later, "order-1"), first);
    let without = (identity(&mut talk, ""), identity(&mut talk, ""));
    assert_ne!(without.0, without.1);
}

#[test]
fn the_two_numbers_of_an_identity_are_independent() {
    // Two IDs of one length with the same CRC-32: were both numbers made of such a sum, the second message would be
    // taken for the first.
    let (a, b) = ("plumless", "buckeroo");
    assert_eq!(crc32fast::hash(a.as_bytes()), crc32fast::hash(b.as_bytes()));
    let mut talk = Talk::online(&[]);
    let mut identity = |id: &str| {
        talk.send(1, &message(Conversation::User("bob".into()), id));
        let asked = talk.asked(SEND);
        (
            asked.body["MsgSeq"].clone(),
            asked.body["MsgRandom"].clone(),
        )
    };
    assert_ne!(identity(a), identity(b));
}
