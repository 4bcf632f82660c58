//! Groups: their sequences, gaps in them while online and after a login, and how much of them is fetched.

use super::*;

/// Answers the next request for a group's messages with all that it asks for; says which sequences those are.
#[track_caller]
fn fill(talk: &mut Talk) -> (u64, u64) {
    let asked = talk.asked(GROUP_PAGE);
    let number = |field: &str| asked.body[field].as_u64().unwrap();
    let (upto, count) = (number("ReqMsgSeq"), number("ReqMsgNumber"));
    let from = upto + 1 - count;
    let group = asked.body["GroupId"].as_str().unwrap().to_owned();
    talk.answer(&asked, &group_page(&group, from..=upto));
    talk.store();
    (from, upto)
}

fn told(from: u64, to: u64) -> String {
    let all: Vec<String> = (from..=to)
        .map(|sequence| format!("G{sequence}*"))
        .collect();
    format!("events [{}]", all.join(" "))
}

#[test]
fn a_group_follows_its_sequence() {
    let mut talk = Talk::online(&[("G", 7)]);
    talk.push_group("G", 8);
    talk.push_group("G", 9);
    talk.push_group("G", 8);
    talk.store();
    assert_eq!(talk.says(), ["events [G8]", "events [G9]", "events []"]);
    assert_eq!(talk.acked(), ["G8", "G9", "G8"]);
}

#[test]
fn a_gap_while_online_is_filled_before_what_shows_it() {
    let mut talk = Talk::online(&[("G", 7), ("H", 1)]);
    talk.push(
        PUSH,
        &json!({"NeedAck": 1, "SessionData": "s", "EventArray": [
            {"GroupMsgArray": [group_message("G", 8), group_message("G", 11), group_message("H", 2)]},
        ]}),
    );
    assert_eq!(
        talk.says(),
        ["events [G8]"],
        "not acknowledged: it is not whole"
    );
    talk.push_group("G", 12);
    assert_eq!(fill(&mut talk), (9, 10));
    talk.store();
    assert_eq!(talk.says(), ["events [G9* G10*]", "events [G11 H2 G12]"]);
    assert_eq!(talk.acked(), ["s", "G12"]);
}

#[test]
fn gaps_of_two_groups_are_filled_one_after_the_other() {
    let mut talk = Talk::online(&[("G", 7), ("H", 1)]);
    talk.push_group("G", 9);
    talk.push_group("H", 4);
    talk.push_group("H", 5);
    assert_eq!(fill(&mut talk), (8, 8));
    let mut frames = talk.frames();
    assert_eq!(frames.pop().unwrap().body["SessionData"], "G9");
    let page = frames.pop().unwrap();
    assert_eq!(
        (&page.body["ReqMsgSeq"], &page.body["ReqMsgNumber"]),
        (&json!(3), &json!(2))
    );
    talk.answer(&page, &group_page("H", 2..=3));
    talk.store();
    assert_eq!(
        talk.says(),
        [
            "events [G8*]",
            "events [G9]",
            "events [H2* H3*]",
            "events [H4 H5]"
        ]
    );
    assert_eq!(talk.acked(), ["H4", "H5"]);
}

#[test]
fn a_gap_that_cannot_be_filled_is_told() {
    let mut talk = Talk::online(&[("G", 7)]);
    talk.push_group("G", 12);
    let asked = talk.asked(GROUP_PAGE);
    talk.answer(&asked, &json!({"ErrorCode": 10007}));
    talk.store();
    assert_eq!(talk.says(), ["events [gap:4]", "events [G12]"]);
    assert_eq!(talk.acked(), ["G12"]);

    // An answer that cannot be read, and one that leaves messages out.
    talk.push_group("G", 14);
    let asked = talk.asked(GROUP_PAGE);
    talk.answer_text(&asked, r#"{"RspMsgList":7}"#);
    talk.store();
    assert_eq!(talk.says(), ["bad frame", "events [gap:1]", "events [G14]"]);
    assert_eq!(talk.acked(), ["G14"]);

    talk.push_group("G", 20);
    let asked = talk.asked(GROUP_PAGE);
    talk.answer(&asked, &group_page("G", [16, 18]));
    talk.store();
    assert_eq!(talk.says(), ["events [G16* G18* gap:3]", "events [G20]"]);
}

#[test]
fn an_answer_that_is_cut_short_is_asked_for_in_smaller_parts() {
    let mut talk = Talk::online(&[("G", 0)]);
    talk.push_group("G", 11);
    let asked = talk.asked(GROUP_PAGE);
    assert_eq!(
        (&asked.body["ReqMsgSeq"], &asked.body["ReqMsgNumber"]),
        (&json!(10), &json!(10))
    );
    let mut page = group_page("G", 7..=10);
    page["IsFinished"] = json!(0);
    talk.answer(&asked, &page);
    talk.store();
    assert_eq!(fill(&mut talk), (1, 6));
    assert_eq!(fill(&mut talk), (7, 10));
    assert_eq!(
        talk.says(),
        [
            "events []",
            told(1, 6).as_str(),
            told(7, 10).as_str(),
            "events [G11]"
        ]
    );
    // What is cut short to nothing is given up.
    talk.frames();
    talk.push_group("G", 15);
    let asked = talk.asked(GROUP_PAGE);
    talk.answer(&asked, &json!({"IsFinished": 0, "RspMsgList": []}));
    talk.store();
    assert_eq!(talk.says(), ["events [gap:3]", "events [G15]"]);
}

#[test]
fn tips_and_messages_without_a_sequence_are_carried_through() {
    let mut talk = Talk::online(&[("G", 7)]);
    talk.push_group("G", 10);
    let asked = talk.asked(GROUP_PAGE);
    let tip = json!({"From_Account": "@TIM#SYSTEM", "ToGroupId": "G", "MsgSeq": 8, "MsgBody": {"OpType": 1}});
    talk.answer(&asked, &json!({"RspMsgList": [group_message("G", 9), tip]}));
    talk.store();
    assert_eq!(
        talk.says(),
        [
            "events [notice:group_open_http_svc.group_msg_get/GroupMsgArray G9*]",
            "events [G10]",
        ]
    );
    talk.frames();
    // A group without sequences is none with a gap from 0 on.
    talk.push_group("N", 0);
    talk.push_group("N", 0);
    talk.push_group("N", 57);
    assert_eq!(talk.says(), ["events [N0]", "events []", "events [N57]"]);
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn an_unknown_group_begins_with_its_first_push() {
    let mut talk = Talk::online(&[]);
    talk.push_group("G", 41);
    assert_eq!(talk.says(), ["events [G41]"]);
    talk.push_group("G", 43);
    assert_eq!(fill(&mut talk), (42, 42));
    assert_eq!(talk.says(), ["events [G42*]", "events [G43]"]);
}

#[test]
fn after_a_login_groups_are_filled_up_to_their_last_sequence() {
    let mut talk = Talk::online(&[("G", 7), ("H", 3)]);
    talk.reconnect();
    talk.push_group("G", 30);
    talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
    talk.answer_groups(&[("G", 29), ("H", 3)]);
    assert_eq!(fill(&mut talk), (8, 27), "a page holds twenty");
    assert_eq!(fill(&mut talk), (28, 29));
    assert_eq!(
        talk.says(),
        [
            "accepted",
            "events []",
            "events []",
            told(8, 27).as_str(),
            told(28, 29).as_str(),
            "events [G30]",
        ]
    );
}

#[test]
fn a_group_that_is_new_begins_where_the_account_has_read_to() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.answer_page(&json!({"Cookie": "c1", "SyncFlag": 2}));
    let asked = talk.asked(GROUPS);
    talk.answer(
        &asked,
        &json!({"GroupIdList": [
            {"GroupId": "G", "NextMsgSeq": 10, "SelfInfo": {"MsgSeq": 6}},
            {"GroupId": "H", "NextMsgSeq": 10},
            {"GroupId": "I", "NextMsgSeq": 10, "SelfInfo": {"MsgSeq": 99}},
        ]}),
    );
    talk.store();
    assert_eq!(fill(&mut talk), (7, 9));
    assert_eq!(talk.asks(), [""; 0]);
    assert_eq!(talk.protocol.position().group("H"), Some(9));
    assert_eq!(talk.protocol.position().group("I"), Some(9));
}

#[test]
fn more_groups_than_an_answer_names_are_asked_for() {
    let names: Vec<String> = (0..200).map(|n| format!("g{n}")).collect();
    let groups: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let mut talk = Talk::new();
    talk.log_in();
    talk.answer_page(&json!({}));
    talk.answer_groups(&groups);
    let asked = talk.asked(GROUPS);
    assert_eq!(
        (&asked.body["Offset"], &asked.body["Limit"]),
        (&json!(200), &json!(200))
    );
    talk.answer(
        &asked,
        &json!({"GroupIdList": [{"GroupId": "last", "NextMsgSeq": 3}]}),
    );
    talk.store();
    assert_eq!(talk.asks(), [""; 0]);
    assert_eq!(talk.protocol.position().group("last"), Some(2));
}

#[test]
fn what_is_too_old_is_told_as_a_gap() {
    let mut talk = Talk::online(&[("G", 7)]);
    talk.reconnect();
    talk.answer_page(&json!({}));
    talk.answer_groups(&[("G", 1507)]);
    assert_eq!(talk.says(), ["accepted", "events []", "events [gap:500]"]);
    let mut next = 508;
    for _ in 0..50 {
        let (from, upto) = fill(&mut talk);
        assert_eq!((from, upto), (next, next + 19));
        next += 20;
    }
    assert_eq!(next, 1508);
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn a_push_from_far_ahead_does_not_set_off_endless_fetching() {
    let mut talk = Talk::online(&[("G", 7)]);
    talk.push_group("G", u64::MAX);
    let mut asked = 0;
    loop {
        let frames = talk.frames();
        let Some(page) = frames.iter().find(|frame| frame.command == GROUP_PAGE) else {
            break;
        };
        asked += 1;
        assert!(asked <= 50, "and more");
        talk.answer(page, &json!({"RspMsgList": []}));
        talk.store();
    }
    let says = talk.says();
    assert_eq!(says[0], format!("events [gap:{}]", u64::MAX - 1 - 1000 - 7));
    assert_eq!(says.last().unwrap(), &format!("events [G{}]", u64::MAX));
}

impl Talk {
    /// Online in the group G, made at 100 and read to `last`.
    fn in_group(last: u64) -> Self {
        let mut talk = Self::online(&[]);
        talk.hears_of(json!({"NextMsgSeq": last + 1, "CreateTime": 100}));
        assert_eq!(talk.asks(), [""; 0]);
        talk
    }

    /// Comes back, and hears this of the group G.
    fn hears_of(&mut self, mut group: Value) {
        self.reconnect();
        self.answer_page(&json!({}));
        self.is_told(&mut group);
        self.says();
    }

    /// The list of groups is asked for, and says this of G.
    #[track_caller]
    fn is_told(&mut self, group: &mut Value) {
        group["GroupId"] = json!("G");
        let asked = self.asked(GROUPS);
        self.answer(&asked, &json!({ "GroupIdList": [group] }));
        self.store();
    }
}

#[test]
fn a_group_that_was_made_again_under_its_old_name_is_not_taken_for_read() {
    let mut talk = Talk::in_group(500);
    talk.hears_of(json!({"NextMsgSeq": 3, "CreateTime": 200}));
    assert_eq!(fill(&mut talk), (1, 2));
    assert_eq!(talk.says(), [told(1, 2)]);
    talk.push_group("G", 3);
    assert_eq!(talk.says(), ["events [G3]"]);
    talk.store();
    assert_eq!(talk.acked(), ["G3"]);
    // An answer that does not say where the group stands changes nothing.
    talk.hears_of(json!({"CreateTime": 200}));
    talk.push_group("G", 3);
    talk.push_group("G", 4);
    assert_eq!(talk.says(), ["events []", "events [G4]"]);
}

#[test]
fn a_group_that_was_made_again_and_has_come_further_is_read_from_its_beginning() {
    let mut talk = Talk::in_group(2);
    // Where the account has read to is said of whoever read it, which was not this session.
    talk.hears_of(json!({"NextMsgSeq": 6, "CreateTime": 200, "SelfInfo": {"MsgSeq": 5}}));
    assert_eq!(fill(&mut talk), (1, 5));
    // Also in the next process.
    let mut talk = Talk::in_group(2);
    let position = Position::from_record(talk.protocol.position().to_record());
    talk = Talk::restored(&talk.protocol.ticket_record(), position);
    talk.hears_of(json!({"NextMsgSeq": 6, "CreateTime": 200}));
    assert_eq!(fill(&mut talk), (1, 5));
}

#[test]
fn an_answer_that_lags_behind_does_not_double_what_was_read() {
    let lagging = json!({"NextMsgSeq": 1500, "SelfInfo": {"MsgSeq": 0}});
    let mut timed = lagging.clone();
    timed["CreateTime"] = json!(100);
    for lagging in [lagging, timed] {
        let mut talk = Talk::in_group(1500);
        for _ in 0..2 {
            talk.hears_of(lagging.clone());
            assert_eq!(talk.asks(), [""; 0]);
        }
        talk.push_group("G", 1500);
        talk.push_group("G", 1501);
        assert_eq!(talk.says(), ["events []", "events [G1501]"]);
    }
}

#[test]
fn an_answer_about_a_group_that_is_gone_says_nothing_of_the_one_that_has_its_name() {
    let mut talk = Talk::in_group(500);
    talk.hears_of(json!({"NextMsgSeq": 1, "CreateTime": 200}));
    talk.hears_of(json!({"NextMsgSeq": 501, "CreateTime": 100}));
    assert_eq!(talk.asks(), [""; 0]);
    talk.push_group("G", 1);
    assert_eq!(talk.says(), ["events [G1]"]);
}

#[test]
fn a_lower_count_of_a_group_of_unknown_age_is_taken_for_a_new_one_once() {
    let mut talk = Talk::online(&[("G", 10)]);
    talk.hears_of(json!({"NextMsgSeq": 4, "CreateTime": 200}));
    assert_eq!(fill(&mut talk), (1, 3));
    talk.hears_of(json!({"NextMsgSeq": 3, "CreateTime": 200}));
    assert_eq!(talk.asks(), [""; 0]);
    // One that was heard of by its messages was there before them.
    let mut talk = Talk::online(&[]);
    talk.push_group("G", 10);
    talk.says();
    talk.unstored.clear();
    talk.hears_of(json!({"NextMsgSeq": 4, "CreateTime": 200}));
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn a_group_that_was_made_again_while_online_is_found_by_the_time_of_its_messages() {
    let mut talk = Talk::in_group(0);
    talk.push_all_of_group(1..=8, 1_795_000_000);
    talk.says();
    talk.unstored.clear();
    // Repetitions, and what is about as old, are nothing new.
    talk.push_all_of_group(3..=8, 1_795_000_000);
    talk.push_all_of_group(8..=8, 1_795_000_005);
    assert_eq!(talk.says(), ["events []", "events []"]);
    talk.unstored.clear();
    assert_eq!(talk.asks(), [""; 0]);
    // The group was made again, and has come to its second message.
    talk.push_all_of_group(2..=2, 1_795_000_100);
    assert_eq!(talk.says(), [""; 0], "it waits");
    talk.is_told(&mut json!({
        "NextMsgSeq": 3, "CreateTime": 1_795_000_050, "LastMsgTime": 1_795_000_100,
    }));
    assert_eq!(fill(&mut talk), (1, 2));
    assert_eq!(talk.says(), ["events []", &told(1, 2), "events []"]);
    talk.store();
    assert_eq!(talk.acked(), ["s2"]);
    talk.push_all_of_group(3..=3, 1_795_000_100);
    assert_eq!(talk.says(), ["events [G3]"]);
}

#[test]
fn an_odd_time_of_a_message_that_was_read_costs_one_question() {
    let mut talk = Talk::in_group(0);
    talk.push_all_of_group(1..=8, 1_795_000_000);
    talk.says();
    talk.unstored.clear();
    talk.push_all_of_group(2..=2, 1_795_000_100);
    talk.is_told(&mut json!({"NextMsgSeq": 9, "CreateTime": 100}));
    assert_eq!(talk.says(), ["events []", "events []"]);
    assert_eq!(talk.acked(), ["s2"]);
    talk.push_all_of_group(2..=2, 1_795_000_100);
    assert_eq!(talk.says(), ["events []"]);
    assert_eq!(talk.asks(), [""; 0]);
}

#[test]
fn a_group_that_two_lists_do_not_name_any_more_is_forgotten() {
    let mut talk = Talk::new();
    let list = |names: &[&str]| {
        let list = names.iter();
        let list = list.map(|name| json!({"GroupId": name, "NextMsgSeq": 8, "CreateTime": 100}));
        json!({"GroupIdList": list.collect::<Vec<_>>()})
    };
    let hear = |talk: &mut Talk, list: &Value| {
        talk.reconnect();
        talk.answer_page(&json!({}));
        let asked = talk.asked(GROUPS);
        talk.answer(&asked, list);
        talk.store();
        talk.says();
        assert_eq!(talk.asks(), [""; 0]);
    };
    hear(&mut talk, &list(&["G", "H", "I"]));
    // Of a kind that lists do not name.
    talk.push_group("J", 1);
    talk.says();
    talk.unstored.clear();
    hear(&mut talk, &list(&["G"]));
    talk.push_group("I", 8);
    talk.says();
    talk.unstored.clear();
    let kept = |talk: &Talk| {
        let record = talk.protocol.position().to_record();
        let groups: std::collections::BTreeSet<_> = record.groups.into_keys().collect();
        groups.into_iter().collect::<String>()
    };
    assert_eq!(kept(&talk), "GHIJ", "a list may have left one out");
    hear(&mut talk, &list(&["G"]));
    assert_eq!(kept(&talk), "GIJ");
    hear(&mut talk, &list(&["G"]));
    assert_eq!(kept(&talk), "GJ");
    // A list that is not whole says nothing of what it does not name.
    for _ in 0..3 {
        talk.reconnect();
        talk.answer_page(&json!({}));
        let asked = talk.asked(GROUPS);
        let names: Vec<String> = (0..200).map(|n| format!("g{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        talk.answer(&asked, &list(&names));
        talk.store();
        talk.asked(GROUPS);
    }
    assert_eq!(talk.protocol.position().group("G"), Some(7));
}

#[test]
fn a_page_of_one_to_one_messages_does_not_hide_a_gap_in_a_group() {
    let mut talk = Talk::online(&[("G", 7)]);
    talk.reconnect();
    talk.answer_page(&json!({
        "Cookie": "c1", "SyncFlag": 2, "EventArray": [{"GroupMsgArray": [group_message("G", 8), group_message("G", 11)]}],
    }));
    talk.answer_groups(&[("G", 11)]);
    assert_eq!(fill(&mut talk), (9, 11));
    assert_eq!(talk.asks(), [""; 0], "not twice");
    assert_eq!(
        talk.says(),
        [
            "accepted",
            "events [G8*]",
            "events []",
            told(9, 11).as_str()
        ]
    );
}
