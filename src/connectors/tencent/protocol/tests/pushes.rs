//! Pushes: messages, what has no type, what cannot be read, repeats, and acknowledgements.

use super::*;

#[test]
fn a_push_is_acknowledged_when_it_is_stored_and_not_before() {
    let mut talk = Talk::online(&[]);
    talk.push_c2c(&["a"]);
    talk.push_c2c(&["b"]);
    assert_eq!(talk.says(), ["events [a]", "events [b]"]);
    assert_eq!(talk.asks(), [""; 0]);
    let first = talk.unstored.pop_front().unwrap();
    talk.protocol.stored(talk.now, &first);
    let ack = talk.asked(ACK);
    assert_eq!(ack.text, r#"{"SessionData":"a"}"#);
    assert_eq!(ack.head["cs"], 0);
    talk.store();
    assert_eq!(talk.acked(), ["b"]);
}

#[test]
fn a_push_that_wants_no_acknowledgement_gets_none() {
    let mut talk = Talk::online(&[]);
    talk.push(
        PUSH,
        &json!({"SessionData": "s", "EventArray": [{"C2cMsgArray": [c2c("a")]}]}),
    );
    talk.push(
        "im_open_push.multi_msg_push_ws",
        &json!({"NeedAck": 0, "EventArray": [{"C2cMsgArray": [c2c("b")]}]}),
    );
    talk.store();
    assert_eq!(talk.says(), ["events [a]", "events [b]"]);
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn a_push_twice_is_one_event_and_two_acknowledgements() {
    let mut talk = Talk::online(&[]);
    talk.push_c2c(&["a"]);
    talk.push_c2c(&["a"]);
    talk.push_c2c(&["a", "b"]);
    talk.store();
    assert_eq!(talk.says(), ["events [a]", "events []", "events [b]"]);
    assert_eq!(talk.acked(), ["a", "a", "a"]);
}

#[test]
fn no_acknowledgement_goes_to_a_dead_connection() {
    let mut talk = Talk::online(&[]);
    talk.push_c2c(&["a"]);
    talk.says();
    talk.protocol.disconnected();
    talk.store();
    assert_eq!(talk.asks(), [""; 0]);
    // Nor to one that is not logged in yet.
    let mut talk = Talk::online(&[]);
    talk.push_c2c(&["a"]);
    talk.says();
    talk.protocol.disconnected();
    talk.protocol.log_in(talk.now, &Credential::Ticket);
    talk.store();
    let login = talk.asked(LOGIN);
    talk.answer(&login, &login_answer());
    talk.catch_up_on_nothing();
    // The upstream pushes it again, and gets its answer without another event.
    talk.says();
    talk.push_c2c(&["a"]);
    talk.store();
    assert_eq!(
        (talk.says(), talk.acked()),
        (vec!["events []".into()], vec!["a".into()])
    );
}

#[test]
fn frames_for_a_dead_connection_are_dropped() {
    let mut talk = Talk::online(&[]);
    talk.protocol.heartbeat(talk.now);
    talk.protocol.disconnected();
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn a_captured_push_is_a_message() {
    let capture = include_str!("../../../../../tests/data/captures/chat-recv.jsonl");
    let line = capture
        .lines()
        .find(|line| line.contains("C2cMsgArray"))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let mut talk = Talk::online(&[]);
    talk.receive(line["frame"].to_string().as_bytes());
    let item = &line["frame"]["body"]["EventArray"][0]["C2cMsgArray"][0];
    let Some(Report::Events(delivery)) = talk.protocol.out.reports.pop_front() else {
        panic!("no events")
    };
    let Some(Kind::Message(message)) = delivery.events.first() else {
        panic!("no message")
    };
    assert_eq!(message.from, item["From_Account"].as_str().unwrap());
    assert_eq!(
        message.id,
        format!(
            "{}-{}-{}",
            item["TinyId"].as_str().unwrap(),
            item["MsgClientTime"],
            item["MsgRandom"]
        )
    );
    assert_eq!(
        serde_json::from_str::<Value>(&message.raw_json).unwrap(),
        *item
    );
    talk.protocol.stored(talk.now, &delivery.acks);
    let session_data = line["frame"]["body"]["SessionData"].as_str().unwrap();
    assert_eq!(talk.acked(), [session_data]);
}

#[test]
fn what_has_no_type_is_told_with_its_json() {
    let mut talk = Talk::online(&[]);
    let body = json!({"anything": [1, 2]});
    talk.push("some_svc.news", &body);
    let Some(Report::Events(delivery)) = talk.protocol.out.reports.pop_front() else {
        panic!("no events")
    };
    let Some(Kind::UpstreamNotice(notice)) = delivery.events.first() else {
        panic!("no notice")
    };
    assert_eq!(notice.command, "some_svc.news");
    assert_eq!(serde_json::from_str::<Value>(&notice.json).unwrap(), body);

    for entry in [
        json!({"Event": 5, "GroupTips": [{"MsgBody": {"ReportType": 1}}]}),
        json!({"Event": 100, "RoomData": {}}),
        json!({"C2cMsgArray": 7}),
        json!("no object"),
        json!({}),
    ] {
        let body = json!({"NeedAck": 1, "SessionData": "s", "EventArray": [entry]});
        talk.push(PUSH, &body);
        talk.store();
        assert_eq!(talk.says(), [format!("events [notice:{PUSH}]")], "{entry}");
        assert_eq!(talk.acked(), ["s"]);
    }
    // A push of events without events, and one whose frame cannot be understood.
    for body in [json!({"NeedAck": 0}), json!({"EventArray": 3}), json!([])] {
        talk.push(PUSH, &body);
        assert_eq!(talk.says(), [format!("events [notice:{PUSH}]")], "{body}");
    }
}

#[test]
fn what_comes_beside_messages_is_not_hidden_by_them() {
    let mut talk = Talk::online(&[]);
    talk.push(
        PUSH,
        &json!({"EventArray": [{"Event": 9, "C2cMsgArray": [c2c("a")], "GroupTips": [{"x": 1}]}]}),
    );
    assert_eq!(talk.says(), [format!("events [a notice:{PUSH}]")]);
}

#[test]
fn a_push_with_a_number_of_its_own_is_a_push() {
    let mut talk = Talk::online(&[]);
    let body = json!({"EventArray": [{"C2cMsgArray": [c2c("a")]}]}).to_string();
    talk.receive(&frame::encode_response(PUSH, 4_000_000_000, &body));
    talk.receive(&frame::encode_response(
        "some_svc.news",
        4_000_000_000,
        "{}",
    ));
    assert_eq!(talk.says(), ["events [a]", "events [notice:some_svc.news]"]);
    // A late answer is none.
    talk.protocol.heartbeat(talk.now);
    let heartbeat = talk.asked("heartbeat.alive");
    talk.answer(&heartbeat, &json!({}));
    talk.answer(&heartbeat, &json!({}));
    assert_eq!(talk.says(), [""; 0]);
}

#[test]
fn a_push_for_nobody_is_a_notice() {
    let mut talk = Talk::online(&[]);
    let mut message = c2c("a");
    message["To_Account"] = json!("somebody");
    talk.push(PUSH, &json!({"EventArray": [{"C2cMsgArray": [message]}]}));
    assert_eq!(talk.says(), [format!("events [notice:{PUSH}/C2cMsgArray]")]);
}

#[test]
fn messages_with_half_an_identity_are_not_taken_for_one() {
    let mut talk = Talk::online(&[]);
    let bare = |text: &str| {
        let mut message = c2c(text);
        let fields = message.as_object_mut().unwrap();
        for field in [
            "TinyId",
            "MsgClientTime",
            "MsgRandom",
            "MsgSeq",
            "MsgTimeStamp",
        ] {
            fields.remove(field);
        }
        message
    };
    // As a server sends them, by the vendor's REST API: without a client's time, and often with the same random.
    let by_rest = |text: &str, seq: u64| {
        let mut message = c2c(text);
        message["MsgClientTime"] = json!(0);
        message["MsgRandom"] = json!(1);
        message["MsgSeq"] = json!(seq);
        message
    };
    let all = json!([
        bare("a"),
        bare("b"),
        bare("a"),
        by_rest("c", 1),
        by_rest("d", 2),
        by_rest("c", 1)
    ]);
    talk.push(PUSH, &json!({"EventArray": [{"C2cMsgArray": all}]}));
    let Some(Report::Events(delivery)) = talk.protocol.out.reports.pop_front() else {
        panic!("no events")
    };
    let told: Vec<String> = delivery.events.iter().map(show_event).collect();
    assert_eq!(told, ["a", "b", "c", "d"]);
    let mut ids: Vec<&str> = delivery
        .events
        .iter()
        .filter_map(|event| match event {
            Kind::Message(message) => Some(message.id.as_str()),
            Kind::Gap(_)
            | Kind::UpstreamNotice(_)
            | Kind::SessionChanged(_)
            | Kind::SignatureExpired(_)
            | Kind::KickedOffline(_) => None,
        })
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

#[test]
fn garbage_is_left_out_told_as_a_gap_and_what_it_may_have_been_is_fetched() {
    let deep = format!(
        r#"{{"head":{{"servcmd":"{PUSH}","seq":0}},"body":{}1{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let cut = &frame::compress_gzip(&[b'x'; 500])[..20];
    let huge = vec![b' '; greatest_frame(MAX_FRAME) + 1];
    let bomb = frame::compress_zlib(&huge);
    for bytes in [
        b"".as_slice(),
        b"\0\xff\xfe",
        b"{}",
        b"[]",
        b"null",
        br#"{"head":{}}"#,
        br#"{"head":{"servcmd":7}}"#,
        br#"{"head":{"servcmd":"a.b"},"body":"#,
        b"COMP",
        b"COMPxxxx",
        b"COMP\x28\xb5\x2f\xfd\x00",
        cut,
        deep.as_bytes(),
        &huge,
        &bomb,
    ] {
        let mut talk = Talk::online(&[]);
        talk.protocol.receive(talk.now, bytes);
        let which = &bytes[..bytes.len().min(40)];
        assert_eq!(talk.says(), ["bad frame", "events [gap:0]"], "{which:?}");
        // However often the upstream repeats it, it is told once, and fetched once.
        talk.protocol.receive(talk.now, bytes);
        talk.protocol.receive(talk.now, bytes);
        assert_eq!(talk.says(), ["bad frame", "bad frame"]);
        talk.push_c2c(&["still here"]);
        talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2, "MsgList": [c2c("fetched")]}));
        talk.answer_groups(&[]);
        assert_eq!(
            talk.says(),
            ["events [fetched*]", "events []", "events [still here]"]
        );
        assert_eq!(talk.acked(), ["still here"]);
        talk.protocol.receive(talk.now, bytes);
        assert_eq!(
            (talk.says(), talk.asks()),
            (vec!["bad frame".into()], vec![])
        );
    }
    // Before a login there is nothing that could be missed.
    let mut talk = Talk::new();
    talk.protocol.receive(talk.now, b"garbage");
    assert_eq!(
        (talk.says(), talk.asks()),
        (vec!["bad frame".into()], vec![])
    );
}
