//! What is too large, or never answered: told, and asked for neither in vain nor for ever.

use super::*;

/// Small, so that much over it is not much.
const LIMIT: usize = 16 << 10;
const MINUTE: Duration = Duration::from_mins(1);

fn online(groups: &[(&str, u64)]) -> Talk {
    let mut talk = Talk::online(groups);
    talk.protocol.who.max_frame_bytes = LIMIT;
    talk
}

/// A text over the limit of a message.
fn fat(text: &str) -> String {
    format!("{text}{}", "x".repeat(LIMIT + 1))
}

/// A body over what a frame may have at all.
fn monster() -> Value {
    json!({"Cookie": "beyond", "SyncFlag": 2, "Filler": "x".repeat(greatest_frame(LIMIT))})
}

fn page(cookie: &str, texts: &[&str]) -> Value {
    let list: Vec<Value> = texts.iter().map(|text| c2c(text)).collect();
    json!({"Cookie": cookie, "SyncFlag": 2, "MsgList": list})
}

/// An online session whose next page of one-to-one messages is too large.
fn stuck() -> Talk {
    let mut talk = online(&[]);
    talk.reconnect();
    talk.answer_page(&monster());
    assert_eq!(talk.says(), ["accepted", "bad frame", "events [gap:0]"]);
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["events []"]);
    talk
}

/// Time passes until the page is asked for again: how much, and the request.
fn wait_for_retry(talk: &mut Talk) -> (Duration, Asked) {
    let began = talk.now.at;
    loop {
        let due = talk.protocol.poll_timeout().unwrap();
        assert!(due > talk.now.at, "a timer that is always due");
        talk.skip(due - talk.now.at);
        talk.protocol.timeout(talk.now);
        let asked = talk
            .frames()
            .into_iter()
            .find(|asked| asked.command == GETMSG);
        if let Some(asked) = asked {
            return (talk.now.at - began, asked);
        }
    }
}

#[test]
fn a_message_over_the_limit_is_one_gap_and_told_once() {
    let mut talk = online(&[]);
    let fat = fat("a");
    talk.push(
        PUSH,
        &json!({"NeedAck": 1, "SessionData": "s", "EventArray": [{"C2cMsgArray": [c2c(&fat), c2c("b")]}]}),
    );
    assert_eq!(talk.says(), ["bad frame", "events [gap:1 b]"]);
    talk.store();
    assert_eq!(talk.acked(), ["s"], "or the upstream repeats it");

    talk.reconnect();
    talk.answer_page(&page("c1", &[&fat, "b", "c"]));
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["accepted", "events [c*]", "events []"]);
    assert_eq!(talk.protocol.position().cookie(), "c1");
}

#[test]
fn a_fetched_message_over_the_limit_is_a_gap_among_the_others() {
    let mut talk = online(&[("G", 7)]);
    talk.reconnect();
    talk.answer_page(&page("c1", &["a", &fat("b"), "c"]));
    assert_eq!(
        talk.says(),
        ["accepted", "bad frame", "events [a* gap:1 c*]"]
    );
    talk.answer_groups(&[("G", 9)]);
    let mut body = group_page("G", 8..=9);
    body["RspMsgList"][0]["MsgBody"][0]["MsgContent"]["Text"] = fat("9").into();
    let asked = talk.asked(GROUP_PAGE);
    talk.answer(&asked, &body);
    assert_eq!(
        talk.says(),
        ["events []", "bad frame", "events [G8* gap:1]"]
    );
    assert_eq!(talk.protocol.position().group("G"), Some(9));
}

#[test]
fn a_page_over_the_limit_of_messages_within_it_is_told_whole() {
    let mut talk = online(&[]);
    talk.reconnect();
    let texts: Vec<String> = (0..3)
        .map(|n| format!("{n}{}", "x".repeat(LIMIT / 2)))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    talk.answer_page(&page("c1", &texts));
    let told: Vec<String> = texts.iter().map(|text| format!("{text}*")).collect();
    assert!(talk.says() == ["accepted".into(), format!("events [{}]", told.join(" "))]);
}

#[test]
fn a_groups_page_that_is_too_large_is_asked_for_in_ever_smaller_parts() {
    const MONSTERS: [u64; 2] = [15, 40];
    let mut talk = online(&[("G", 7)]);
    talk.reconnect();
    talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
    talk.answer_groups(&[("G", 67)]);
    talk.says();
    let (mut told, mut requests) = (Vec::new(), Vec::new());
    while talk.protocol.position().group("G") < Some(67) {
        let asked = talk.asked(GROUP_PAGE);
        let upto = asked.body["ReqMsgSeq"].as_u64().unwrap();
        let count = asked.body["ReqMsgNumber"].as_u64().unwrap();
        let range = upto + 1 - count..=upto;
        if MONSTERS.iter().any(|monster| range.contains(monster)) {
            talk.answer(&asked, &monster());
        } else {
            talk.answer(&asked, &group_page("G", range));
        }
        requests.push(count);
        told.extend(talk.says().into_iter().filter(|word| word != "bad frame"));
        talk.store();
    }
    let told = told.join(" ").replace("events [", "").replace(']', "");
    let expected: Vec<String> = (8..=67)
        .map(|n| {
            if MONSTERS.contains(&n) {
                "gap:1".into()
            } else {
                format!("G{n}*")
            }
        })
        .collect();
    assert_eq!(told, expected.join(" "));
    assert_eq!(requests[..5], [20, 10, 5, 10, 5]);
    assert_eq!(requests.last(), Some(&12), "grown again: {requests:?}");
    assert!(requests.len() < 40, "{requests:?}");
}

#[test]
fn a_page_that_cannot_be_taken_is_told_and_live_messages_go_on() {
    let mut talk = stuck();
    assert_eq!(talk.protocol.position().cookie(), "c0");
    let texts: Vec<String> = (0..200).map(|n| format!("m{n}")).collect();
    for text in &texts {
        talk.push_c2c(&[text]);
        assert_eq!(talk.says(), [format!("events [{text}]")]);
    }
    assert_eq!(
        talk.asks(),
        [""; 0],
        "the cookie is not asked about in vain"
    );
    assert_eq!(talk.protocol.out.reports.len(), 0);
}

#[test]
fn it_is_tried_again_ever_more_rarely_and_told_once() {
    let mut talk = stuck();
    // However it fails, there is no second gap, no lost connection and no loop.
    for minutes in [1, 2, 4] {
        let (waited, asked) = wait_for_retry(&mut talk);
        assert!(
            waited <= minutes * MINUTE && waited >= minutes * MINUTE / 2,
            "{waited:?}"
        );
        match minutes {
            1 => talk.answer(&asked, &monster()),
            2 => talk.answer(&asked, &json!({"ErrorCode": 60019})),
            _ => {
                talk.skip(15 * SECOND);
                talk.protocol.timeout(talk.now);
            }
        }
        assert_eq!(talk.says().last().unwrap(), "events []");
        talk.store();
        talk.protocol
            .out
            .frames
            .retain(|frame| Asked::read(frame).command != HELLO);
        talk.answer_groups(&[]);
        assert_eq!(talk.says(), ["events []"]);
    }
    let (_, asked) = wait_for_retry(&mut talk);
    talk.answer(&asked, &page("c9", &["missed"]));
    talk.store();
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["events [missed*]", "events []"]);
    assert_eq!(talk.protocol.position().cookie(), "c9");
    assert_eq!(talk.protocol.retry_at(), None);
}

#[test]
fn a_reconnect_does_not_ask_for_it_before_its_time() {
    let mut talk = stuck();
    talk.reconnect();
    talk.answer_groups(&[]);
    assert_eq!(
        talk.says(),
        ["accepted", "events [gap:0]"],
        "what the drop cost is not known"
    );
    talk.push_c2c(&["live"]);
    assert_eq!(talk.says(), ["events [live]"]);
}

#[test]
fn a_page_without_an_answer_costs_two_connections_and_then_itself() {
    let mut talk = online(&[("G", 7)]);
    let mut asked_for = Vec::new();
    for attempt in 0..3 {
        talk.reconnect();
        // The others are answered all the while.
        talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
        talk.answer_groups(&[("G", 27)]);
        talk.says();
        asked_for.push(
            talk.asked(GROUP_PAGE).body["ReqMsgNumber"]
                .as_u64()
                .unwrap(),
        );
        talk.skip(15 * SECOND);
        talk.protocol.timeout(talk.now);
        let expected = if attempt < 2 {
            "dead: catch-up unanswered"
        } else {
            "events [gap:20]"
        };
        assert_eq!(talk.says(), [expected]);
    }
    assert_eq!(asked_for, [20, 10, 5]);
    talk.store();
    talk.push_group("G", 28);
    assert_eq!(talk.says(), ["events [G28]"]);
    talk.store();
    assert_eq!(talk.acked(), ["G28"]);

    for attempt in 0..3 {
        talk.reconnect();
        talk.asked(GETMSG);
        talk.skip(15 * SECOND);
        talk.protocol.timeout(talk.now);
        let expected = if attempt < 2 {
            "dead: catch-up unanswered"
        } else {
            "events [gap:0]"
        };
        assert_eq!(talk.says(), ["accepted", expected]);
    }
    talk.store();
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["events []"]);
    talk.push_c2c(&["live"]);
    assert_eq!(talk.says(), ["events [live]"]);
}

#[test]
fn a_frame_that_cuts_the_connection_is_a_gap_and_is_not_provoked_again() {
    let mut talk = online(&[("G", 7)]);
    talk.protocol.cut_by_a_frame(talk.now);
    talk.reconnect();
    talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
    assert_eq!(
        talk.says(),
        ["accepted", "events [gap:0]"],
        "it may have been a push"
    );
    talk.answer_groups(&[("G", 27)]);
    let mut counts = Vec::new();
    while talk.protocol.position().group("G") == Some(7) {
        counts.push(
            talk.asked(GROUP_PAGE).body["ReqMsgNumber"]
                .as_u64()
                .unwrap(),
        );
        talk.protocol.cut_by_a_frame(talk.now);
        talk.reconnect();
        talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
        talk.answer_groups(&[("G", 27)]);
    }
    assert_eq!(counts, [20, 10, 5, 2, 1]);
    let asked = talk.asked(GROUP_PAGE);
    assert_eq!(
        asked.body["ReqMsgSeq"], 9,
        "after the one that cannot be had"
    );
    talk.says();

    let mut talk = online(&[]);
    talk.reconnect();
    talk.asked(GETMSG);
    talk.protocol.cut_by_a_frame(talk.now);
    talk.reconnect();
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["accepted", "accepted", "events [gap:0]"]);
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn a_push_that_cannot_be_taken_is_a_gap_also_when_it_is_repeated() {
    let mut talk = online(&[]);
    let body = json!({"NeedAck": 1, "SessionData": "x".repeat(greatest_frame(LIMIT))});
    let frame = frame::compress_gzip(&frame::encode_response(PUSH, 0, &body.to_string()));
    talk.protocol.receive(talk.now, &frame);
    assert_eq!(talk.says(), ["bad frame", "events [gap:0]"]);
    for _ in 0..3 {
        talk.protocol.receive(talk.now, &frame);
        assert_eq!(talk.says(), ["bad frame"]);
    }
    // Where something else comes first, with that.
    let other = frame::compress_zlib(&frame::encode_response(PUSH, 0, &body.to_string()));
    talk.reconnect();
    talk.protocol.receive(talk.now, &other);
    assert_eq!(talk.says(), ["accepted", "bad frame"]);
    talk.answer_page(&page("c1", &["a"]));
    assert_eq!(talk.says(), ["events [gap:0 a*]"]);
}

/// A push over what a frame may have at all.
fn push_monster(talk: &mut Talk) {
    let body = json!({"NeedAck": 1, "SessionData": "x".repeat(greatest_frame(LIMIT))});
    talk.push(PUSH, &body);
}

#[test]
fn what_a_push_that_cannot_be_taken_may_have_brought_is_fetched_before_what_is_newer() {
    let mut talk = online(&[]);
    push_monster(&mut talk);
    talk.push_c2c(&["newer"]);
    assert_eq!(talk.says(), ["bad frame", "events [gap:0]"]);
    talk.answer_page(&page("c1", &["within"]));
    talk.answer_groups(&[]);
    assert_eq!(
        talk.says(),
        ["events [within*]", "events []", "events [newer]"]
    );
}

#[test]
fn a_push_that_cannot_be_taken_is_told_once_though_it_cannot_be_fetched_either() {
    let mut talk = online(&[]);
    push_monster(&mut talk);
    assert_eq!(talk.says(), ["bad frame", "events [gap:0]"]);
    talk.answer_page(&monster());
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["bad frame", "events []", "events []"]);
    // Also when nothing is asked for, as it rests.
    talk.receive(b"garbage");
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["bad frame", "events [gap:0]", "events []"]);
    let (_, asked) = wait_for_retry(&mut talk);
    talk.answer(&asked, &page("c9", &["missed"]));
    assert_eq!(talk.says(), ["events [missed*]"]);
}

#[test]
fn a_frame_that_cannot_be_read_is_told_again_after_something_else_was() {
    let mut talk = online(&[]);
    talk.receive(b"garbage");
    talk.receive(b"and more of it");
    let told_once = ["bad frame", "events [gap:0]", "bad frame"];
    assert_eq!(talk.says(), told_once);
    talk.answer_page(&page("c1", &["a"]));
    talk.receive(b"other garbage");
    assert_eq!(talk.says(), ["events [a*]", "bad frame"]);
    talk.answer_groups(&[]);
    talk.catch_up_on_nothing();
    assert_eq!(talk.says(), ["events [gap:0]", "events []", "events []"]);
    // And in the next round, whatever was told in this one.
    talk.receive(b"yet other garbage");
    assert_eq!(talk.says(), ["bad frame", "events [gap:0]"]);
}

#[test]
fn a_frame_that_cannot_be_read_waits_with_its_gap_for_the_login_and_for_the_store() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    talk.receive(b"garbage");
    talk.accept();
    assert_eq!(talk.says(), ["bad frame", "accepted"]);
    talk.catch_up_on_nothing();
    assert_eq!(talk.says(), ["events [gap:0]", "events []"]);

    talk.protocol.set_stalled(talk.now, true);
    for n in 0..3_u8 {
        talk.receive(&[n]);
    }
    assert_eq!(talk.says(), ["bad frame", "bad frame", "bad frame"]);
    talk.protocol.set_stalled(talk.now, false);
    talk.answer_page(&page("c2", &["a"]));
    assert_eq!(talk.says(), ["events [gap:0 a*]"]);
}

#[test]
fn a_message_that_is_passed_over_because_it_cut_the_connection_is_told_before_that_is_stored() {
    let mut talk = online(&[("G", 7)]);
    talk.reconnect();
    talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
    talk.answer_groups(&[("G", 8)]);
    talk.says();
    talk.asked(GROUP_PAGE);
    talk.protocol.cut_by_a_frame(talk.now);
    assert_eq!(talk.protocol.position().group("G"), Some(8));
    assert_eq!(talk.says(), ["events [gap:0]"]);
    talk.reconnect();
    talk.catch_up_on_nothing();
    assert_eq!(talk.says(), ["accepted", "events []", "events []"]);
}

#[test]
fn an_answer_that_cannot_be_taken_leaves_its_caller_without_one_at_once() {
    let mut talk = online(&[]);
    talk.protocol
        .invoke(talk.now, RequestId(5), "some.command", "{}".into());
    let asked = talk.asked("some.command");
    talk.answer(&asked, &monster());
    assert_eq!(talk.says(), ["bad frame", "unanswered 5"]);
}
