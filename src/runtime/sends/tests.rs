//! Sends without a session: the test is the store, the upstream, the callers and the clock.

mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;

use super::*;
use crate::connectors::Conversation;
use crate::proto::record::SendRecord;
use crate::proto::v1;
use crate::runtime::handle::Sent;
use crate::types::AccountId;

const SECOND: Duration = Duration::from_secs(1);
const MAX_PENDING: usize = 4;

type Waiting = oneshot::Receiver<Result<Sent, CallError>>;

/// The sends of one session, with what the store has of them.
struct Talk {
    sends: Sends,
    now: Now,
    stored: BTreeMap<String, Vec<u8>>,
    /// What is to be stored with the next append, oldest first.
    writes: VecDeque<SendWrite>,
    /// What went out: request, client time, and how long it may go out.
    frames: Vec<(RequestId, u64, Duration)>,
    /// What may go out for longer now, and how long.
    extended: Vec<(RequestId, Duration)>,
}

fn start() -> Now {
    Now {
        at: Instant::now().into_std(),
        wall: UnixMillis::from_secs(1_795_000_000),
    }
}

fn message(client_message_id: &str, text: &str) -> OutgoingMessage {
    let text = v1::element::Kind::Text(v1::TextElement { text: text.into() });
    OutgoingMessage {
        conversation: Conversation::User("bob".into()),
        elements: vec![v1::Element { kind: Some(text) }],
        client_message_id: client_message_id.into(),
        cloud_custom_data: String::new(),
        online_only: false,
    }
}

fn accepted(message_id: &str) -> Answer {
    Answer {
        code: 0,
        desc: String::new(),
        body_json: String::new(),
        message_id: message_id.into(),
        sent_at: 9,
        upstream_sequence: 0,
        in_doubt: false,
    }
}

fn refused() -> Answer {
    Answer {
        code: 20003,
        ..accepted("")
    }
}

impl Talk {
    fn new() -> Self {
        Self::restored(BTreeMap::new(), start())
    }

    fn restored(stored: BTreeMap<String, Vec<u8>>, now: Now) -> Self {
        let list = stored.iter().map(|(id, record)| StoredSend {
            account: AccountId::new("bot1"),
            client_message_id: id.clone(),
            record: record.clone(),
        });
        let mut talk = Self {
            sends: Sends::new(TenantId::new("t"), MAX_PENDING, list.collect(), now.wall),
            now,
            stored,
            writes: VecDeque::new(),
            frames: Vec::new(),
            extended: Vec::new(),
        };
        talk.steps();
        talk
    }

    /// The next process, with what is stored.
    fn restart(&mut self) {
        *self = Self::restored(std::mem::take(&mut self.stored), self.now);
    }

    fn wait(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall = self.now.wall.plus(time);
        self.sends.expire(self.now.wall);
        self.steps();
    }

    fn send(&mut self, id: &str) -> Waiting {
        self.send_text(id, "hi", 30 * SECOND)
    }

    fn send_text(&mut self, id: &str, text: &str, within: Duration) -> Waiting {
        let (reply, waiting) = oneshot::channel();
        let until = Instant::from_std(self.now.at + within);
        self.sends.admit(self.now, message(id, text), until, reply);
        self.steps();
        waiting
    }

    fn steps(&mut self) {
        while let Some(step) = self.sends.out.pop_front() {
            match step {
                Step::Store(write) => self.writes.push_back(write),
                Step::Send {
                    id,
                    client_time,
                    until,
                    ..
                } => {
                    let left = until.into_std().saturating_duration_since(self.now.at);
                    self.frames.push((id, client_time, left));
                }
                Step::Extend { id, until } => {
                    let left = until.into_std().saturating_duration_since(self.now.at);
                    self.extended.push((id, left));
                }
            }
        }
    }

    /// Stores all that is waited for, and what goes with it.
    fn store(&mut self) {
        while self.writes.iter().any(|write| write.prompt) {
            let writes: Vec<SendWrite> = self.writes.drain(..).collect();
            for write in &writes {
                if write.record.is_empty() {
                    self.stored.remove(&write.client_message_id);
                } else {
                    let id = write.client_message_id.clone();
                    self.stored.insert(id, write.record.clone());
                }
            }
            for id in writes.iter().filter_map(|write| write.waits) {
                self.sends.stored(self.now, id);
            }
            self.steps();
        }
    }

    /// What cannot be stored is given up.
    fn lose_writes(&mut self) {
        for id in self.writes.drain(..).filter_map(|write| write.waits) {
            self.sends.not_stored(id, || CallError::Stopping);
        }
        self.steps();
    }

    /// The frame that went out since the last time, if it is only one.
    #[track_caller]
    fn frame(&mut self) -> (RequestId, u64, Duration) {
        assert_eq!(self.frames.len(), 1, "{:?}", self.frames);
        self.frames.remove(0)
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        self.sends.answered(id, answer);
        self.steps();
    }

    /// Sends a message, and has it answered.
    fn sent(&mut self, id: &str) -> Sent {
        let mut waiting = self.send(id);
        self.store();
        let (request, ..) = self.frame();
        self.answer(request, accepted(&format!("message of {id}")));
        self.store();
        outcome(&mut waiting).unwrap()
    }

    fn record(&self, id: &str) -> SendRecord {
        SendRecord::decode(self.stored[id].as_slice()).unwrap()
    }
}

#[track_caller]
fn outcome(waiting: &mut Waiting) -> Result<Sent, CallError> {
    match waiting.try_recv() {
        Ok(outcome) => outcome,
        Err(_) => panic!("it is not answered yet"),
    }
}

#[track_caller]
fn reason(waiting: &mut Waiting) -> &'static str {
    outcome(waiting).unwrap_err().reason()
}

fn is_waiting(waiting: &mut Waiting) -> bool {
    waiting.try_recv() == Err(oneshot::error::TryRecvError::Empty)
}

impl PartialEq for CallError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[test]
fn the_intent_is_stored_then_it_is_sent_then_the_outcome_is_stored_then_it_is_answered() {
    let mut talk = Talk::new();
    let mut waiting = talk.send("a");
    assert!(talk.frames.is_empty(), "sent before the intent is stored");
    talk.wait(3 * SECOND);
    talk.store();
    let intent = talk.record("a");
    assert_eq!(
        (intent.asked_ms, intent.outcome.is_some()),
        (1_795_000_000_000, false)
    );
    // Whatever has passed meanwhile, it goes out as it was stored.
    let (request, client_time, _) = talk.frame();
    assert_eq!(client_time, intent.client_time);
    talk.answer(request, accepted("1-2-3"));
    assert!(
        is_waiting(&mut waiting),
        "answered before the outcome is stored"
    );
    talk.store();
    assert_eq!(outcome(&mut waiting).unwrap().message_id, "1-2-3");
    let outcome = talk.record("a").outcome.unwrap();
    assert_eq!((outcome.message_id.as_str(), outcome.sent_at), ("1-2-3", 9));
}

#[test]
fn a_message_without_an_id_costs_no_write() {
    let mut talk = Talk::new();
    let mut waiting = talk.send("");
    let (request, client_time, left) = talk.frame();
    assert_eq!((client_time, left), (1_795_000_000, 30 * SECOND));
    talk.answer(request, accepted("m"));
    assert_eq!(outcome(&mut waiting).unwrap().message_id, "m");
    assert!(talk.writes.is_empty());
}

#[test]
fn a_repetition_joins_wherever_the_first_one_is() {
    let mut talk = Talk::new();
    let mut all = vec![talk.send("a")];
    all.push(talk.send_text("a", "hi", 60 * SECOND));
    talk.store();
    let (request, _, left) = talk.frame();
    assert_eq!(left, 60 * SECOND, "for the one who waits the longest");
    talk.wait(10 * SECOND);
    all.push(talk.send_text("a", "hi", 70 * SECOND));
    all.push(talk.send_text("a", "hi", 700 * SECOND));
    let extended = [70 * SECOND, 280 * SECOND].map(|left| (request, left));
    assert_eq!(
        talk.extended, extended,
        "as long as the upstream knows a double"
    );
    talk.answer(request, accepted("m"));
    all.push(talk.send("a"));
    assert!(all.iter_mut().all(is_waiting));
    talk.store();
    assert!(talk.frames.is_empty());
    for waiting in &mut all {
        assert_eq!(outcome(waiting).unwrap().message_id, "m");
    }
}

#[test]
fn a_repetition_is_answered_as_the_first_was_for_ten_minutes_also_in_the_next_process() {
    let mut talk = Talk::new();
    let first = talk.sent("a");
    talk.wait(299 * SECOND);
    assert_eq!(outcome(&mut talk.send("a")).unwrap(), first);
    talk.restart();
    talk.wait(300 * SECOND);
    assert_eq!(outcome(&mut talk.send("a")).unwrap(), first);
    assert!(talk.frames.is_empty() && talk.writes.is_empty());
    talk.wait(SECOND);
    let mut again = talk.send("a");
    talk.store();
    assert!(is_waiting(&mut again));
    let (_, client_time, _) = talk.frame();
    assert_eq!(client_time, 1_795_000_600);
}

#[test]
fn an_intent_without_an_outcome_goes_out_again_as_it_was_while_the_upstream_knows_a_double() {
    let unanswered = |talk: &mut Talk| {
        let mut waiting = talk.send("a");
        talk.store();
        let (request, ..) = talk.frame();
        talk.sends.unanswered(request);
        assert_eq!(reason(&mut waiting), "UPSTREAM_UNANSWERED");
    };
    let crashed = |talk: &mut Talk| {
        let _waiting = talk.send("a");
        talk.store();
        talk.frames.clear();
        talk.restart();
    };
    for ended in [&unanswered as &dyn Fn(&mut Talk), &crashed] {
        let mut talk = Talk::new();
        ended(&mut talk);
        talk.wait(280 * SECOND);
        let mut again = talk.send("a");
        let (request, client_time, left) = talk.frame();
        assert_eq!(client_time, 1_795_000_000);
        assert_eq!(left, 10 * SECOND, "nor later after a drop");
        talk.answer(request, accepted("m"));
        talk.store();
        assert_eq!(outcome(&mut again).unwrap().message_id, "m");

        let mut talk = Talk::new();
        ended(&mut talk);
        talk.wait(290 * SECOND);
        assert_eq!(reason(&mut talk.send("a")), "SEND_OUTCOME_UNKNOWN");
        talk.restart();
        talk.wait(309 * SECOND);
        assert_eq!(reason(&mut talk.send("a")), "SEND_OUTCOME_UNKNOWN");
        talk.wait(SECOND);
        let _waiting = talk.send("a");
        talk.store();
        assert_eq!(talk.frame().1, 1_795_000_600, "forgotten");
    }
}

#[test]
fn what_the_upstream_refused_or_never_got_is_forgotten() {
    let refuse = |talk: &mut Talk, request| talk.answer(request, refused());
    let unsent = |talk: &mut Talk, request| {
        talk.sends
            .not_sent(request, || CallError::UpstreamUnanswered);
        talk.steps();
    };
    for ended in [&refuse as &dyn Fn(&mut Talk, RequestId), &unsent] {
        let mut talk = Talk::new();
        let mut waiting = talk.send("a");
        talk.store();
        let (request, ..) = talk.frame();
        ended(&mut talk, request);
        assert!(!is_waiting(&mut waiting), "answered at once");
        talk.store();
        assert!(talk.stored.is_empty());
        // Another message may have the ID now.
        talk.wait(SECOND);
        let _waiting = talk.send_text("a", "other", SECOND);
        talk.store();
        assert_eq!(talk.frame().1, 1_795_000_001);
    }
}

#[test]
fn a_refusal_says_nothing_of_an_earlier_try() {
    let unanswered_before = |talk: &mut Talk| {
        let _waiting = talk.send("a");
        talk.store();
        let (request, ..) = talk.frame();
        talk.sends.unanswered(request);
        let waiting = talk.send("a");
        (waiting, refused())
    };
    let dropped_before = |talk: &mut Talk| {
        let waiting = talk.send("a");
        talk.store();
        let in_doubt = true;
        (
            waiting,
            Answer {
                in_doubt,
                ..refused()
            },
        )
    };
    for begun in [
        &unanswered_before as &dyn Fn(&mut Talk) -> _,
        &dropped_before,
    ] {
        let mut talk = Talk::new();
        let (mut waiting, refusal) = begun(&mut talk);
        let (request, ..) = talk.frame();
        talk.answer(request, refusal);
        assert_eq!(outcome(&mut waiting).unwrap().outcome.code, 20003);
        talk.wait(5 * SECOND);
        let _again = talk.send("a");
        assert_eq!(talk.frame().1, 1_795_000_000, "the same message");
        assert!(talk.stored.contains_key("a"));
    }
}

#[test]
fn another_message_under_the_same_id_is_refused() {
    let mut talk = Talk::new();
    let mut first = talk.send("a");
    assert_eq!(
        reason(&mut talk.send_text("a", "other", SECOND)),
        "INVALID_FIELD"
    );
    talk.store();
    let (request, ..) = talk.frame();
    talk.answer(request, accepted("m"));
    talk.store();
    assert!(outcome(&mut first).is_ok());
    talk.restart();
    let refused = outcome(&mut talk.send_text("a", "other", SECOND)).unwrap_err();
    assert!(
        refused.to_string().starts_with("client_message_id: "),
        "{refused}"
    );
    assert!(outcome(&mut talk.send("a")).is_ok());
}

#[test]
fn where_and_what_and_how_make_a_message() {
    use remembered::digest;
    let base = message("a", "hi");
    assert_eq!(
        digest(&base),
        digest(&message("b", "hi")),
        "the ID does not"
    );
    let others = [
        message("a", "ho"),
        OutgoingMessage {
            conversation: Conversation::Group("bob".into()),
            ..base.clone()
        },
        OutgoingMessage {
            conversation: Conversation::User("eve".into()),
            ..base.clone()
        },
        OutgoingMessage {
            cloud_custom_data: "x".into(),
            ..base.clone()
        },
        OutgoingMessage {
            online_only: true,
            ..base.clone()
        },
        OutgoingMessage {
            elements: [base.elements.clone(), base.elements.clone()].concat(),
            ..base.clone()
        },
    ];
    for other in others {
        assert_ne!(digest(&base), digest(&other), "{other:?}");
    }
}

#[test]
fn so_many_are_remembered_and_the_oldest_is_forgotten_in_the_store_too() {
    let mut talk = Talk::new();
    for n in 0..1024 {
        talk.sent(&format!("id-{n}"));
    }
    let first = outcome(&mut talk.send("id-0")).unwrap();
    assert_eq!(first.message_id, "message of id-0");
    talk.sent("one more");
    assert_eq!(talk.stored.len(), 1024);
    assert!(!talk.stored.contains_key("id-0"));
    assert!(outcome(&mut talk.send("id-1")).is_ok());
    let mut again = talk.send("id-0");
    assert!(is_waiting(&mut again));

    // The same in the next process, whatever the store has.
    let mut record = talk.record("id-1");
    record.asked_ms -= 1;
    talk.stored.insert("oldest".into(), record.encode_to_vec());
    let left = talk.stored.len() - 1024;
    talk.restart();
    let forgotten: Vec<_> = talk
        .writes
        .iter()
        .map(|write| &write.client_message_id)
        .collect();
    assert_eq!((forgotten.len(), forgotten[0].as_str()), (left, "oldest"));
}

#[test]
fn what_is_too_old_is_forgotten_in_the_store_with_the_next_append() {
    let mut talk = Talk::new();
    talk.sent("a");
    talk.wait(600 * SECOND);
    assert!(
        talk.writes.iter().all(|write| !write.prompt),
        "by itself no append is made"
    );
    assert_eq!(talk.sends.remembered_until(), None);
    talk.sent("b");
    assert_eq!(talk.stored.keys().collect::<Vec<_>>(), ["b"]);
    // One that is under way is not too old.
    let mut waiting = talk.send_text("c", "hi", 1000 * SECOND);
    talk.wait(700 * SECOND);
    assert!(is_waiting(&mut waiting));
    talk.store();
    assert_eq!(
        reason(&mut waiting),
        "UPSTREAM_UNANSWERED",
        "it is not sent so late"
    );
    assert!(talk.stored.is_empty());
}

#[test]
fn only_so_many_wait_and_those_that_wait_for_the_store_keep_no_others_out() {
    let mut talk = Talk::new();
    let ids = ["a", "b", "c", "d"];
    let mut waiting: Vec<Waiting> = ids.iter().map(|id| talk.send(id)).collect();
    assert_eq!(reason(&mut talk.send("e")), "SENDS_PENDING");
    waiting.push(talk.send("a"));
    for _ in 0..MAX_PENDING {
        let _sent = talk.send("");
    }
    assert_eq!(talk.frames.len(), MAX_PENDING);
    assert_eq!(reason(&mut talk.send("")), "SENDS_PENDING");
    // Their callers have gone: they leave their places when the store has taken them.
    talk.wait(31 * SECOND);
    assert_eq!(reason(&mut talk.send("e")), "SENDS_PENDING");
    talk.frames.clear();
    talk.store();
    assert!(talk.frames.is_empty(), "too late");
    assert!(waiting.iter_mut().all(|waiting| !is_waiting(waiting)));
    assert!(talk.stored.is_empty());
}

#[test]
fn what_cannot_be_stored_is_not_sent_and_what_was_sent_is_answered_all_the_same() {
    let mut talk = Talk::new();
    let mut waiting = talk.send("a");
    talk.lose_writes();
    assert_eq!(reason(&mut waiting), "DRAINING");
    assert!(talk.frames.is_empty());

    let mut waiting = talk.send("a");
    talk.store();
    let (request, ..) = talk.frame();
    talk.answer(request, accepted("m"));
    talk.lose_writes();
    assert_eq!(outcome(&mut waiting).unwrap().message_id, "m");
    assert_eq!(outcome(&mut talk.send("a")).unwrap().message_id, "m");
    // The next append has it.
    talk.sent("b");
    assert_eq!(talk.record("a").outcome.unwrap().message_id, "m");
}

#[test]
fn a_store_that_lost_its_data_gets_everything_again() {
    let mut talk = Talk::new();
    talk.sent("a");
    let _waiting = talk.send("b");
    talk.store();
    talk.frames.clear();
    let before = std::mem::take(&mut talk.stored);
    talk.sends.store_again();
    talk.steps();
    talk.sent("c");
    talk.stored.remove("c");
    assert_eq!(talk.stored, before);
}

#[test]
fn a_record_that_cannot_be_read_is_forgotten_alone() {
    let mut talk = Talk::new();
    talk.sent("a");
    talk.stored.insert("bad".into(), vec![0xff; 3]);
    talk.restart();
    assert!(outcome(&mut talk.send("a")).is_ok());
    assert_eq!(talk.writes[0].client_message_id, "bad");
    assert!(talk.writes[0].record.is_empty());
}
