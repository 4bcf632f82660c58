//! Catching up after a login: pages, pushes that wait for them, a store that is full, and answers that are of no use.

use super::*;

/// One page with these one-to-one messages.
fn page(cookie: &str, sync_flag: u8, texts: &[&str]) -> Value {
    let list: Vec<Value> = texts.iter().map(|text| c2c(text)).collect();
    json!({"Cookie": cookie, "SyncFlag": sync_flag, "MsgList": list})
}

fn online_and_catching_up() -> Talk {
    let mut talk = Talk::online(&[]);
    talk.reconnect();
    assert_eq!(talk.says(), ["accepted"]);
    talk
}

#[test]
fn pages_follow_each_other_by_their_cookies() {
    let mut talk = Talk::new();
    talk.log_in();
    let first = talk.asked(GETMSG);
    assert_eq!(
        first.body,
        json!({
            "Cookie": "", "SyncFlag": 0, "NeedAbstract": 1, "IsOnlineSync": 0, "NeedSignaling": 1,
            "NeedCachedMsg": 1,
        })
    );
    talk.answer(&first, &page("c1", 1, &["a", "b"]));
    talk.store();
    let second = talk.asked(GETMSG);
    assert_eq!(
        (&second.body["Cookie"], &second.body["SyncFlag"]),
        (&json!("c1"), &json!(1))
    );
    talk.answer(&second, &page("c2", 0, &["c"]));
    talk.store();
    let third = talk.asked(GETMSG);
    assert_eq!(
        (&third.body["Cookie"], &third.body["SyncFlag"]),
        (&json!("c2"), &json!(0))
    );
    talk.answer(&third, &page("c3", 2, &[]));
    talk.store();
    assert_eq!(talk.asks(), [GROUPS]);
    assert_eq!(
        talk.says(),
        ["accepted", "events [a* b*]", "events [c*]", "events []"]
    );
    assert_eq!(talk.protocol.position().cookie(), "c3");
}

#[test]
fn a_cookie_that_stays_or_is_missing_ends_the_pages() {
    for (cookie, kept) in [("c0", "c0"), ("", "c0")] {
        let mut talk = online_and_catching_up();
        talk.answer_page(&page(cookie, 1, &["a"]));
        assert_eq!(talk.says(), ["events [a*]"]);
        assert_eq!(talk.asks(), [GROUPS]);
        assert_eq!(talk.protocol.position().cookie(), kept);
    }
}

#[test]
fn after_a_drop_reading_goes_on_from_the_last_cookie() {
    let mut talk = online_and_catching_up();
    let asked = talk.asked(GETMSG);
    assert_eq!(
        (&asked.body["Cookie"], &asked.body["SyncFlag"]),
        (&json!("c0"), &json!(0))
    );
}

#[test]
fn a_page_is_stored_before_the_next_is_asked_for() {
    // To come back with a cookie says that everything before it has arrived.
    let mut talk = online_and_catching_up();
    let asked = talk.asked(GETMSG);
    talk.answer(&asked, &page("c1", 1, &["a"]));
    assert_eq!(talk.says(), ["events [a*]"]);
    assert_eq!(talk.asks(), [""; 0], "the page is not stored yet");
    talk.protocol.stored(talk.now, &[]);
    assert_eq!(talk.asks(), [""; 0], "something else was stored");

    // A new connection does not help.
    talk.reconnect();
    assert_eq!(
        (talk.says(), talk.asks()),
        (vec!["accepted".into()], vec![])
    );
    talk.store();
    assert_eq!(talk.asked(GETMSG).body["Cookie"], "c1");
}

#[test]
fn a_page_that_brings_nothing_is_not_waited_for() {
    let mut talk = online_and_catching_up();
    talk.protocol.recorded();
    let asked = talk.asked(GETMSG);
    talk.answer(&asked, &page("c1", 2, &[]));
    assert_eq!(talk.says(), [""; 0]);
    let groups = talk.asked(GROUPS);
    talk.answer(&groups, &json!({"GroupIdList": []}));
    assert_eq!((talk.says(), talk.asks()), (vec![], vec![]));
    talk.push_c2c(&["a"]);
    assert_eq!(talk.says(), ["events [a]"]);
    assert_eq!(talk.protocol.addition(), None, "the cookie goes with it");

    // What was pushed is not stored yet: a page that brings it again is waited for.
    talk.reconnect();
    let asked = talk.asked(GETMSG);
    talk.answer(&asked, &page("c2", 1, &["a"]));
    assert_eq!(
        (talk.says(), talk.asks()),
        (vec!["accepted".into(), "events []".into()], vec![])
    );
    talk.store();
    assert_eq!(talk.asks(), [ACK, GETMSG]);
}

#[test]
fn after_a_page_that_cannot_be_stored_reading_goes_on() {
    let mut talk = online_and_catching_up();
    let asked = talk.asked(GETMSG);
    talk.answer(&asked, &page("c1", 1, &["a"]));
    assert_eq!(talk.says(), ["events [a*]"]);
    talk.protocol.not_stored(talk.now);
    assert_eq!(talk.says(), [""; 0]);
    talk.answer_page(&page("c2", 2, &["b"]));
    // That the first page is missing is told by who could not store it.
    assert_eq!(talk.says(), ["events [b*]"]);
}

#[test]
fn an_answer_with_an_error_is_a_gap_and_the_rest_goes_on() {
    let mut talk = online_and_catching_up();
    let asked = talk.asked(GETMSG);
    talk.answer(&asked, &json!({"ErrorCode": 60019, "ErrorInfo": "slowly"}));
    talk.store();
    assert_eq!(talk.says(), ["events [gap:0]"]);
    let asked = talk.asked(GROUPS);
    talk.answer(&asked, &json!({"ErrorCode": 60019}));
    assert_eq!(talk.says(), ["events [gap:0]"]);
    talk.store();
    assert_eq!(talk.asks(), [""; 0]);
    talk.push_c2c(&["live"]);
    assert_eq!(talk.says(), ["events [live]"]);
    assert_eq!(talk.protocol.position().cookie(), "c0");
}

#[test]
fn an_answer_that_cannot_be_read_costs_its_own_step_alone() {
    for body in [r#"{"Cookie":7}"#, r#"{"MsgList":{}}"#, "7"] {
        let mut talk = online_and_catching_up();
        let asked = talk.asked(GETMSG);
        talk.answer_text(&asked, body);
        talk.store();
        let says = talk.says();
        assert_eq!(says.first().unwrap(), "bad frame", "{body}");
        assert_eq!(says.last().unwrap(), "events [gap:0]", "{body}");
        let asked = talk.asked(GROUPS);
        talk.answer_text(&asked, r#"{"GroupIdList":[{"NextMsgSeq":3}]}"#);
        talk.store();
        assert_eq!(talk.says(), ["bad frame", "events [gap:0]"]);
        assert_eq!(talk.asks(), [""; 0]);
    }
}

#[test]
fn an_unanswered_page_is_a_dead_connection() {
    let mut talk = online_and_catching_up();
    talk.asked(GETMSG);
    assert_eq!(
        talk.protocol.poll_timeout(),
        Some(talk.now.at + 15 * SECOND)
    );
    talk.skip(15 * SECOND);
    talk.protocol.timeout(talk.now);
    assert_eq!(talk.says(), ["dead: catch-up unanswered"]);
}

#[test]
fn what_a_page_holds_besides_messages_is_told_and_an_old_kick_is_not() {
    let mut talk = online_and_catching_up();
    talk.answer_page(&json!({
        "Cookie": "c1", "SyncFlag": 2,
        "MsgList": [c2c("a"), {"From_Account": "x", "To_Account": "y", "MsgBody": []}],
        "EventArray": [
            {"Event": 9, "C2cMsgArray": [c2c("b"), c2c("a")]},
            {"Event": 10, "C2cNotifyMsgArray": [{"KickoutMsgNotify": {"KickType": 1}}]},
            {"Event": 3, "GroupMsgArray": [group_message("G", 5)]},
            {"Event": 8, "ProfileDataMod": [{"x": 1}]},
        ],
    }));
    assert_eq!(
        talk.says(),
        ["events [a* notice:openim.getmsg/C2cMsgArray b* G5* notice:openim.getmsg]"]
    );
}

#[test]
fn pushes_wait_for_the_pages_and_are_told_once() {
    let mut talk = online_and_catching_up();
    talk.push_c2c(&["c"]);
    talk.push_c2c(&["d", "e"]);
    assert_eq!(talk.says(), [""; 0], "held back");
    talk.answer_page(&page("c1", 1, &["a", "b"]));
    talk.push_c2c(&["f"]);
    talk.answer_page(&page("c2", 2, &["c", "d"]));
    assert_eq!(talk.says(), ["events [a* b*]", "events [c* d*]"]);
    let groups = talk.asked(GROUPS);
    talk.answer(&groups, &json!({}));
    talk.store();
    // Nothing of them is acknowledged before it is stored, also what a page has brought.
    assert_eq!(talk.says(), ["events []", "events [e f]"]);
    assert_eq!(talk.acked(), ["c", "d", "f"]);
}

#[test]
fn a_push_on_top_of_those_that_are_held_is_fetched_in_another_round() {
    let mut talk = online_and_catching_up();
    let texts: Vec<String> = (0..130).map(|n| format!("m{n}")).collect();
    for text in &texts {
        talk.push_c2c(&[text]);
    }
    talk.answer_page(&page("c1", 2, &[]));
    talk.answer_groups(&[]);
    assert_eq!(
        talk.says(),
        ["events []", "events []"],
        "not yet: two are missing"
    );
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    talk.answer_page(&page("c2", 2, &all));
    talk.answer_groups(&[]);
    let told: Vec<String> = texts.iter().map(|text| format!("{text}*")).collect();
    assert_eq!(
        talk.says(),
        [
            format!("events [{}]", told.join(" ")).as_str(),
            "events []",
            "events []"
        ]
    );
    assert_eq!(
        talk.acked().len(),
        128,
        "the two that were left out are not"
    );
}

#[test]
fn held_pushes_are_bounded_by_their_bytes_too() {
    let mut talk = online_and_catching_up();
    let long = "x".repeat(400_000);
    for n in 0..4 {
        talk.push_c2c(&[&format!("{n}{long}")]);
    }
    talk.answer_page(&page("c1", 2, &[]));
    talk.answer_groups(&[]);
    assert_eq!(talk.asks(), [GETMSG], "not all of them were kept");
}

#[test]
fn a_held_push_of_more_than_these_bytes_is_kept_alone() {
    let mut talk = online_and_catching_up();
    let long = "x".repeat(400_000);
    talk.push_c2c(&[&long]);
    talk.answer_page(&page("c1", 2, &[]));
    talk.answer_groups(&[]);
    let asks = talk.asks();
    assert_eq!(asks, ["openim.ws_msg_push_ack"], "and not fetched");
}

#[test]
fn while_the_store_is_full_pushes_are_left_out_and_fetched_later() {
    let mut talk = Talk::online(&[]);
    talk.push_c2c(&["a"]);
    talk.store();
    assert_eq!(
        (talk.says(), talk.acked()),
        (vec!["events [a]".into()], vec!["a".into()])
    );

    talk.protocol.set_stalled(talk.now, true);
    talk.push_c2c(&["b"]);
    talk.push_c2c(&["c"]);
    assert_eq!((talk.says(), talk.asks()), (vec![], vec![]));
    talk.protocol.set_stalled(talk.now, false);
    talk.push_c2c(&["d"]);
    assert_eq!(talk.says(), [""; 0], "what was left out comes first");
    talk.answer_page(&page("c1", 2, &["a", "b", "c"]));
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["events [b* c*]", "events []", "events [d]"]);
    assert_eq!(talk.acked(), ["d"]);

    // The upstream repeats what was not acknowledged.
    talk.push_c2c(&["b"]);
    talk.store();
    assert_eq!(
        (talk.says(), talk.acked()),
        (vec!["events []".into()], vec!["b".into()])
    );
}

#[test]
fn a_round_pauses_while_the_store_is_full() {
    let mut talk = online_and_catching_up();
    let asked = talk.asked(GETMSG);
    talk.protocol.set_stalled(talk.now, true);
    talk.push_c2c(&["b"]);
    talk.answer(&asked, &page("c1", 1, &["a"]));
    talk.store();
    assert_eq!(
        (talk.says(), talk.asks()),
        (vec!["events [a*]".into()], vec![])
    );
    talk.protocol.set_stalled(talk.now, false);
    talk.answer_page(&page("c2", 2, &[]));
    talk.answer_groups(&[]);
    talk.answer_page(&page("c3", 2, &["b"]));
    talk.answer_groups(&[]);
    assert_eq!(
        talk.says(),
        ["events []", "events []", "events [b*]", "events []"]
    );

    // A login does not break the pause either.
    talk.protocol.set_stalled(talk.now, true);
    talk.reconnect();
    assert_eq!(
        (talk.says(), talk.asks()),
        (vec!["accepted".into()], vec![])
    );
    talk.protocol.set_stalled(talk.now, false);
    assert_eq!(talk.asks(), [GETMSG]);
}

/// A push whose only entry is this, to be acknowledged or not.
fn lone(ack: bool, entry: &Value) -> Value {
    json!({"NeedAck": u8::from(ack), "SessionData": "s", "EventArray": [entry]})
}

fn online_only() -> Value {
    let mut message = c2c("only now");
    message["MsgLifeTime"] = json!(0);
    json!({ "C2cMsgArray": [message] })
}

fn unnumbered() -> Value {
    json!({"GroupMsgArray": [group_message("G", 0)]})
}

fn notice() -> Value {
    json!({"Event": 8, "ProfileDataMod": []})
}

#[test]
fn what_is_left_out_and_can_neither_be_fetched_nor_comes_again_is_given_up() {
    for entry in [online_only(), unnumbered(), notice()] {
        let mut talk = Talk::online(&[]);
        talk.protocol.set_stalled(talk.now, true);
        talk.push(PUSH, &lone(false, &entry));
        talk.push(PUSH, &lone(false, &entry));
        let told = "events [given-up:1]";
        assert_eq!(talk.says(), [told, told], "{entry}");
        talk.push("some.news", &json!({"a": 1}));
        assert_eq!(talk.says(), [told]);
        talk.protocol.set_stalled(talk.now, false);
        talk.catch_up_on_nothing();
        assert_eq!(talk.says(), ["events []", "events []"], "told once");
    }
    // What catch-up fetches is not given up.
    let mut talk = Talk::online(&[("G", 1)]);
    talk.protocol.set_stalled(talk.now, true);
    let both = json!({"C2cMsgArray": [c2c("a")], "GroupMsgArray": [group_message("G", 2)]});
    talk.push(PUSH, &lone(false, &both));
    assert_eq!(talk.says(), [""; 0]);
}

#[test]
fn what_wants_an_acknowledgement_comes_again_or_is_given_up_with_the_connection() {
    for entry in [online_only(), unnumbered(), notice()] {
        let mut talk = Talk::online(&[]);
        talk.protocol.set_stalled(talk.now, true);
        talk.push(PUSH, &lone(true, &entry));
        talk.push(PUSH, &lone(true, &entry));
        talk.protocol.set_stalled(talk.now, false);
        talk.catch_up_on_nothing();
        assert_eq!(talk.says(), ["events []", "events []"]);
        talk.push(PUSH, &lone(true, &entry));
        let events = talk.says();
        assert!(
            !events.concat().contains("given-up") && events.len() == 1,
            "{events:?}"
        );
        talk.store();
        assert_eq!(talk.acked(), ["s"]);
        talk.protocol.disconnected();
        assert_eq!(talk.says(), [""; 0]);

        let mut talk = Talk::online(&[]);
        talk.protocol.set_stalled(talk.now, true);
        talk.push(PUSH, &lone(true, &entry));
        talk.push(PUSH, &lone(true, &entry));
        talk.protocol.disconnected();
        assert_eq!(talk.says(), ["events [given-up:1]"], "{entry}");
        talk.protocol.disconnected();
        assert_eq!(talk.says(), [""; 0], "told once");
    }
}

#[test]
fn what_waits_for_the_pages_when_the_connection_goes_is_fetched_or_given_up() {
    for ack in [true, false] {
        let mut talk = online_and_catching_up();
        talk.push_c2c(&["a"]);
        talk.push(PUSH, &lone(ack, &notice()));
        talk.push("some.news", &json!({}));
        talk.frames();
        talk.reconnect();
        assert_eq!(talk.says(), ["events [given-up:2]", "accepted"]);
        talk.answer_page(&page("c1", 2, &["a"]));
        assert_eq!(talk.says(), ["events [a*]"]);
    }
}

#[test]
fn what_comes_during_the_login_is_fetched_or_given_up() {
    let mut talk = Talk::new();
    talk.protocol.log_in(talk.now, &signature());
    let login = talk.asked(LOGIN);
    talk.push_c2c(&["a"]);
    talk.push(PUSH, &lone(false, &notice()));
    assert_eq!(talk.says(), ["events [given-up:1]"]);
    talk.answer(&login, &login_answer());
    talk.answer_page(&page("c1", 2, &["a"]));
    assert_eq!(talk.says(), ["accepted", "events [a*]"]);
}

#[test]
fn the_cookie_moves_on_while_pushes_come() {
    let mut talk = Talk::online(&[]);
    for n in 0..64 {
        assert_eq!(talk.asks(), [""; 0], "{n}");
        talk.push_c2c(&[&format!("m{n}")]);
    }
    let sync = talk.asked(GETMSG);
    talk.store();
    assert_eq!(talk.says().len(), 64);
    assert_eq!(talk.acked().len(), 64);
    talk.push_c2c(&["meanwhile"]);
    assert_eq!(talk.says(), ["events [meanwhile]"], "nothing is missing");
    let all: Vec<String> = (0..64).map(|n| format!("m{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    talk.answer(&sync, &page("c9", 2, &all));
    talk.store();
    assert_eq!(talk.says(), ["events []"]);
    assert_eq!(talk.protocol.position().cookie(), "c9");
    assert_eq!(talk.acked(), ["meanwhile"]);
    // Messages count, not the pushes that bring them.
    let many: Vec<String> = (64..128).map(|n| format!("m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    talk.push_c2c(&many);
    // The page may have been made before the push that came meanwhile: the next one brings it again.
    let sync = talk.asked(GETMSG);
    talk.store();
    assert_eq!(talk.says().len(), 1);
    talk.answer(&sync, &page("c10", 2, &[&["meanwhile"], &*many].concat()));
    assert_eq!(talk.says(), ["events []"]);
}

#[test]
fn a_group_may_show_a_gap_while_the_cookie_moves() {
    let mut talk = Talk::online(&[("G", 7)]);
    let many: Vec<String> = (0..64).map(|n| format!("m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    talk.push_c2c(&many);
    let sync = talk.asked(GETMSG);
    talk.store();
    assert_eq!((talk.says().len(), talk.acked().len()), (1, 1));
    talk.push_group("G", 10);
    talk.push_c2c(&["later"]);
    assert_eq!(talk.says(), [""; 0], "what is missing comes first");
    talk.answer(&sync, &page("c9", 2, &[]));
    talk.store();
    let missing = talk.asked(GROUP_PAGE);
    talk.answer(&missing, &group_page("G", 8..=9));
    talk.store();
    assert_eq!(
        talk.says(),
        ["events []", "events [G8* G9*]", "events [G10 later]"]
    );
}

#[test]
fn a_push_may_say_that_there_is_more_before_it() {
    let mut talk = Talk::online(&[]);
    talk.push(
        PUSH,
        &json!({"Flag": 1, "NeedAck": 1, "SessionData": "s", "EventArray": [{"C2cMsgArray": [c2c("b")]}]}),
    );
    assert_eq!(talk.says(), [""; 0]);
    let asked = talk.asked(GETMSG);
    assert_eq!(asked.body["IsOnlineSync"], 1);
    talk.answer(&asked, &page("c1", 2, &["a", "b"]));
    talk.store();
    assert_eq!(talk.says(), ["events [a* b*]", "events []"]);
    assert_eq!(talk.acked(), ["s"]);
}

#[test]
fn a_drop_forgets_the_round_and_what_it_held() {
    let mut talk = online_and_catching_up();
    let asked = talk.asked(GETMSG);
    talk.push_c2c(&["a"]);
    talk.reconnect();
    talk.answer(&asked, &page("late", 2, &["z"]));
    assert_eq!(
        talk.says(),
        ["accepted"],
        "the answer is another connection's"
    );
    talk.answer_page(&page("c1", 2, &["a"]));
    talk.answer_groups(&[]);
    assert_eq!(talk.says(), ["events [a*]", "events []"]);
}
