//! Logging in and out: with a signature, with a ticket, refused, expired, kicked, and the timers of an online session.

use super::*;

#[test]
fn a_login_by_signature_names_the_account_and_no_ticket() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    assert_eq!(login.head["identifier"], "bot1");
    assert_eq!(login.head["usersig"], "the-signature");
    assert_eq!(login.head["status_instid"], 0);
    assert_eq!(login.head["sdkappid"], 1_400_000_001);
    assert_eq!(login.head["cs"], 0);
    assert!(login.head.get("a2").is_none() && login.head.get("tinyid").is_none());
    assert_eq!(
        login.body,
        json!({"State": "Online", "is_web_uniapp": 0, "InstType": 0, "CustomInfo": ""})
    );
    assert!(!talk.protocol.has_ticket());

    talk.answer(&login, &login_answer());
    assert_eq!(talk.says(), ["accepted"]);
    let page = talk.asked(GETMSG);
    assert_eq!(page.head["a2"], "the-a2");
    assert_eq!(page.head["tinyid"], "144115200000000001");
    assert_eq!(page.head["status_instid"], 77);
    assert!(page.head.get("identifier").is_none() && page.head.get("usersig").is_none());
    assert_eq!(page.head["cs"], crc32fast::hash(page.text.as_bytes()));
    assert!(page.seq > login.seq);
}

#[test]
fn a_login_by_ticket_names_the_ticket_and_no_account() {
    let first = Talk::online(&[]);
    let ticket = first.protocol.ticket_record();
    let mut talk = Talk::restored(&ticket, Position::default());
    assert!(talk.protocol.has_ticket());
    let same = |path: &str| path.contains(&format!("&instanceid={}&", ticket.instance_id));
    assert!(same(&first.protocol.ticket_record_path()));
    assert!(
        same(&talk.protocol.path()),
        "the instance outlives the process"
    );
    assert_ne!(
        talk.protocol.path(),
        talk.protocol.path(),
        "a new random each time"
    );

    talk.protocol.log_in(talk.now, &Credential::Ticket);
    let login = talk.asked(LOGIN);
    assert_eq!(login.head["a2"], "the-a2");
    assert_eq!(login.head["tinyid"], "144115200000000001");
    assert_eq!(login.head["status_instid"], 77);
    assert!(login.head.get("identifier").is_none() && login.head.get("usersig").is_none());
    talk.answer(&login, &login_answer());
    assert_eq!(talk.says(), ["accepted"]);
}

impl Protocol {
    fn ticket_record_path(&self) -> String {
        format!("&instanceid={}&", self.instance_id)
    }
}

#[test]
fn a_captured_login_is_accepted() {
    let capture = include_str!("../../../../../tests/data/captures/chat-login.jsonl");
    let frames: Vec<Value> = capture
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let captured = |command: &str| {
        let found = frames
            .iter()
            .find(|line| line["dir"] == "s2c" && line["frame"]["head"]["servcmd"] == command);
        found.unwrap()["frame"]["body"].clone()
    };
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    talk.answer(&login, &captured(LOGIN));
    // The same upstream pushes this at once; it is for a user interface.
    let bits = "im_sdk_config_mgr.push_imsdk_purchase_bitsv2";
    talk.push(bits, &captured(bits));
    let page = talk.asked(GETMSG);
    talk.answer(&page, &captured(GETMSG));
    talk.store();
    let groups = talk.asked(GROUPS);
    talk.answer(&groups, &captured(GROUPS));
    assert_eq!(talk.says(), ["accepted", "events []", "events []"]);
    assert_eq!(talk.protocol.position().cookie(), "MA==");
    assert_eq!(talk.protocol.position().group("G1"), Some(0));
    let record = talk.protocol.ticket_record();
    assert_eq!(record.tiny_id, captured(LOGIN)["TinyId"].as_str().unwrap());
    assert_eq!((record.a2.len(), record.hello_interval), (96, 120));
}

#[test]
fn a_login_answer_without_its_fruit_is_refused() {
    for (field, report) in [
        ("TinyId", "refused 2022 Retry"),
        ("A2Key", "refused 2023 Retry"),
    ] {
        let mut talk = Talk::new();
        talk.protocol.log_in(talk.now, &signature());
        let login = talk.asked(LOGIN);
        let mut body = login_answer();
        body.as_object_mut().unwrap().remove(field);
        talk.answer(&login, &body);
        assert_eq!(talk.says(), [report]);
        assert_eq!(talk.asks(), [""; 0]);
        assert!(!talk.protocol.has_ticket());
    }
}

#[test]
fn a_tiny_id_may_be_a_number() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    talk.answer(
        &login,
        &json!({"A2Key": "a", "TinyId": 144_115_200_000_000_001_u64}),
    );
    assert_eq!(talk.says(), ["accepted"]);
    assert_eq!(talk.protocol.ticket_record().tiny_id, "144115200000000001");
}

#[test]
fn every_refusal_is_reported_with_what_it_means() {
    for (code, report) in [
        (6206, "refused 6206 Renew"),
        (70001, "refused 70001 Renew"),
        (70003, "refused 70003 Renew"),
        (20002, "refused 20002 ForgetTicket"),
        (1002, "refused 1002 Kicked"),
        (70009, "refused 70009 Park"),
        (70013, "refused 70013 Park"),
        (70014, "refused 70014 Park"),
        (70051, "refused 70051 Park"),
        (60006, "refused 60006 Park"),
        (70050, "refused 70050 Throttle(60s)"),
        (70402, "refused 70402 Throttle(15s)"),
        (60019, "refused 60019 Throttle(5s)"),
        (70500, "refused 70500 Retry"),
        (99999, "refused 99999 Retry"),
        (-7, "refused -7 Retry"),
    ] {
        for credential in [signature(), Credential::Ticket] {
            let mut talk = Talk::online(&[]);
            talk.protocol.disconnected();
            talk.protocol.log_in(talk.now, &credential);
            let login = talk.asked(LOGIN);
            talk.answer(&login, &json!({"ErrorCode": code, "ErrorInfo": "no"}));
            assert_eq!(talk.says(), [report]);
            assert_eq!(talk.asks(), [""; 0]);
        }
    }
}

#[test]
fn a_login_answer_that_cannot_be_read_may_pass() {
    for body in [r#"{"ErrorCode":"zero"}"#, r#"{"A2Key":7}"#] {
        let mut talk = Talk::new();
        talk.protocol.log_in(talk.now, &signature());
        let login = talk.asked(LOGIN);
        talk.answer_text(&login, body);
        let says = talk.says();
        assert_eq!(says.last().unwrap(), "refused -1 Retry", "{body}: {says:?}");
    }
}

#[test]
fn a_logout_ends_with_any_answer() {
    for body in [
        json!({}),
        json!({"ErrorCode": 70001}),
        json!({"ErrorCode": 5}),
    ] {
        let mut talk = Talk::online(&[]);
        talk.protocol.log_out(talk.now);
        let logout = talk.asked("im_open_status.wslogout");
        assert_eq!(logout.body, json!({"wslogout_type": 0, "is_web_uniapp": 0}));
        talk.answer(&logout, &body);
        assert_eq!(talk.says(), ["logged out"]);
    }
}

#[test]
fn an_expiry_on_any_request_ends_the_session() {
    for code in [70001, 20002] {
        let answer = json!({"ErrorCode": code, "ErrorInfo": "expired"});
        let expired = format!("expired {code}");

        let mut talk = Talk::online(&[]);
        talk.protocol.heartbeat(talk.now);
        let heartbeat = talk.asked("heartbeat.alive");
        talk.answer(&heartbeat, &answer);
        assert_eq!(talk.says(), [expired.as_str()]);

        let mut talk = Talk::online(&[]);
        talk.skip(60 * SECOND);
        talk.protocol.timeout(talk.now);
        let hello = talk.asked(HELLO);
        talk.answer(&hello, &answer);
        assert_eq!(talk.says(), [expired.as_str()]);

        let mut talk = Talk::new();
        talk.log_in();
        let page = talk.asked(GETMSG);
        talk.says();
        talk.answer(&page, &answer);
        assert_eq!(talk.says(), [expired.as_str()]);

        let mut talk = Talk::online(&[]);
        talk.push("StatSvc.KickOther", &json!({}));
        let login = talk.asked(LOGIN);
        talk.says();
        talk.answer(&login, &answer);
        assert_eq!(talk.says(), [expired.as_str()]);

        // The configuration service has names of its own.
        let mut talk = Talk::online(&[]);
        let command = "im_sdk_config_mgr.fetch_config";
        talk.protocol
            .invoke(talk.now, RequestId(3), command, "{}".into());
        let config = talk.asked(command);
        talk.answer(
            &config,
            &json!({"int32_error_code": code, "str_error_message": "x"}),
        );
        assert_eq!(talk.says(), ["unanswered 3", expired.as_str()]);
    }
}

#[test]
fn hello_is_said_as_often_as_the_login_answer_wants() {
    let mut talk = Talk::online(&[]);
    for _ in 0..3 {
        let due = talk.protocol.poll_timeout().unwrap();
        assert_eq!(due - talk.now.at, 60 * SECOND);
        talk.skip(59 * SECOND);
        talk.protocol.timeout(talk.now);
        assert_eq!(talk.asks(), [""; 0]);
        talk.skip(SECOND);
        talk.protocol.timeout(talk.now);
        let hello = talk.asked(HELLO);
        assert_eq!(hello.body, json!({"is_web_uniapp": 0}));
        talk.answer(&hello, &json!({"ErrorCode": 0}));
    }
    assert_eq!(talk.says(), [""; 0]);
    talk.protocol.disconnected();
    assert_eq!(talk.protocol.poll_timeout(), None);
}

#[test]
fn hello_is_said_every_two_minutes_without_a_word_from_upstream() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    talk.answer(&login, &json!({"A2Key": "a", "TinyId": "1"}));
    talk.catch_up_on_nothing();
    let due = talk.protocol.poll_timeout().unwrap();
    assert_eq!(due - talk.now.at, 120 * SECOND);
}

#[test]
fn an_unanswered_hello_is_left_to_the_heartbeat() {
    let mut talk = Talk::online(&[]);
    talk.skip(60 * SECOND);
    talk.protocol.timeout(talk.now);
    talk.asked(HELLO);
    talk.skip(15 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), [""; 0]);
}

#[test]
fn a_kick_comes_in_three_ways() {
    let kick = json!({"EventArray": [
        {"Event": 10, "C2cNotifyMsgArray": [{"KickoutMsgNotify": {"KickType": 2, "NewInstInfo": {}}}]},
    ]});
    for command in ["im_open_status.stat_forceoffline", PUSH] {
        let mut talk = Talk::online(&[]);
        talk.push(command, &kick);
        assert_eq!(talk.says(), ["kicked 2"]);
    }
    let mut talk = Talk::online(&[]);
    talk.skip(60 * SECOND);
    talk.protocol.timeout(talk.now);
    let hello = talk.asked(HELLO);
    talk.answer(
        &hello,
        &json!({"ErrorCode": 1002, "ErrorInfo": "gone", "KickType": 3}),
    );
    assert_eq!(talk.says(), ["kicked 3"]);
}

#[test]
fn a_captured_kick_is_a_kick() {
    let capture = include_str!("../../../../../tests/data/captures/chat-kick.jsonl");
    let line = capture
        .lines()
        .find(|line| line.contains("KickoutMsgNotify"))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let mut talk = Talk::online(&[]);
    talk.receive(line["frame"].to_string().as_bytes());
    assert_eq!(talk.says(), ["kicked 1"]);
}

#[test]
fn the_upstream_may_ask_for_the_login_again() {
    let mut talk = Talk::online(&[]);
    talk.push("StatSvc.KickOther", &json!({"any": 1}));
    assert_eq!(talk.says(), ["events [notice:StatSvc.KickOther]"]);
    let login = talk.asked(LOGIN);
    assert_eq!(login.head["a2"], "the-a2");
    assert!(login.head.get("usersig").is_none());
    talk.answer(&login, &login_answer());
    assert_eq!(talk.says(), [""; 0], "it is no new login of the session's");
    talk.catch_up_on_nothing();

    talk.skip(15 * SECOND);
    talk.push("StatSvc.KickOther", &json!({}));
    let login = talk.asked(LOGIN);
    talk.says();
    talk.answer(&login, &json!({"ErrorCode": 50001}));
    assert_eq!(talk.says(), ["dead: the upstream refused the session"]);

    talk.skip(15 * SECOND);
    talk.push("StatSvc.KickOther", &json!({}));
    talk.asked(LOGIN);
    talk.says();
    talk.skip(15 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["dead: login unanswered"]);
}

#[test]
fn logins_that_the_upstream_asks_for_are_never_two_at_once_and_keep_their_distance() {
    let mut talk = Talk::online(&[]);
    let ask = |talk: &mut Talk| talk.push("StatSvc.KickOther", &json!({}));
    ask(&mut talk);
    ask(&mut talk);
    let login = talk.asked(LOGIN);
    talk.answer(&login, &login_answer());
    talk.catch_up_on_nothing();
    // Not left out: the upstream may hold the session for another's until it comes.
    ask(&mut talk);
    ask(&mut talk);
    assert_eq!(talk.asks(), [""; 0]);
    talk.skip(14 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.asks(), [""; 0]);
    talk.skip(SECOND);
    assert_eq!(talk.protocol.poll_timeout(), Some(talk.now.at));
    talk.protocol.timeout(talk.now);
    let login = talk.asked(LOGIN);
    talk.answer(&login, &login_answer());
    talk.catch_up_on_nothing();
    // Not during a logout, and not on another connection.
    for logs_out in [true, false] {
        ask(&mut talk);
        talk.skip(14 * SECOND);
        if logs_out {
            talk.protocol.log_out(talk.now);
            talk.asked("im_open_status.wslogout");
            ask(&mut talk);
        } else {
            talk.reconnect();
            talk.catch_up_on_nothing();
        }
        talk.skip(SECOND);
        talk.protocol.timeout(talk.now);
        assert_eq!(talk.asks(), [""; 0], "logs out: {logs_out}");
        talk.reconnect();
        talk.catch_up_on_nothing();
        ask(&mut talk);
        let login = talk.asked(LOGIN);
        talk.answer(&login, &login_answer());
        talk.catch_up_on_nothing();
    }
}

#[test]
fn before_a_login_the_upstream_may_ask_for_nothing() {
    let mut talk = Talk::new();
    talk.push("StatSvc.KickOther", &json!({}));
    talk.push_c2c(&["hi"]);
    talk.protocol.stored(talk.now, &[]);
    assert_eq!((talk.asks(), talk.says()), (vec![], vec![]));
}

#[test]
fn a_login_that_the_upstream_asked_for_may_bring_a_new_ticket() {
    let mut talk = Talk::online(&[]);
    talk.push("StatSvc.KickOther", &json!({}));
    let login = talk.asked(LOGIN);
    let mut body = login_answer();
    body["A2Key"] = json!("the-second-a2");
    talk.answer(&login, &body);
    assert_eq!(talk.asked(GETMSG).head["a2"], "the-second-a2");
    assert_eq!(talk.protocol.ticket_record().a2, "the-second-a2");
}

#[test]
fn a_push_before_the_login_is_accepted_does_not_put_the_session_online() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    talk.push(PUSH, &json!({"Flag": 1, "EventArray": []}));
    assert_eq!(talk.asks(), [""; 0]);
    talk.answer(&login, &login_answer());
    assert_eq!(talk.says(), ["accepted"]);
    assert_eq!(talk.asks(), [GETMSG]);
}
