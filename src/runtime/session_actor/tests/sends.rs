//! Sends that are repeated: over the store, the upstream, the end of the process and another owner.

use super::*;
use crate::proto::record::SendRecord;
use crate::runtime::handle::{CallError, Conversation, OutgoingMessage, Sent};
use crate::store::{Batch, StoredSend};
use crate::types::{UnixMillis, WallClock};

const SECOND: Duration = Duration::from_secs(1);

fn message(client_message_id: &str) -> OutgoingMessage {
    let text = v1::element::Kind::Text(v1::TextElement { text: "hi".into() });
    OutgoingMessage {
        conversation: Conversation::User("bob".into()),
        elements: vec![v1::Element { kind: Some(text) }],
        client_message_id: client_message_id.into(),
        cloud_custom_data: String::new(),
        online_only: false,
    }
}

impl World {
    /// A world whose session is online.
    async fn online() -> Self {
        let world = Self::new().await;
        assert_eq!(world.log_in().await, 0);
        world
    }

    async fn send(&self, id: &str) -> Result<Sent, CallError> {
        self.send_within(id, 30 * SECOND).await
    }

    /// As the API calls it: the caller leaves at its deadline.
    async fn send_within(&self, id: &str, within: Duration) -> Result<Sent, CallError> {
        let deadline = Instant::now() + within;
        let key = Self::key();
        let sent = self.gateway.send(&key, message(id), deadline);
        match tokio::time::timeout_at(deadline, sent).await {
            Ok(sent) => sent,
            Err(_) => Err(CallError::UpstreamUnanswered),
        }
    }

    /// What the upstream got: number, random and time of each message.
    fn arrived(&self) -> Vec<[Value; 3]> {
        let sends = self.upstream.sends.borrow();
        let identity = |send: &Value| {
            ["MsgSeq", "MsgRandom", "MsgClientTime"].map(|field| send[field].clone())
        };
        sends.iter().map(identity).collect()
    }

    async fn arrives(&self, count: usize) {
        let mut sends = self.upstream.sends.subscribe();
        sends.wait_for(|sends| sends.len() >= count).await.unwrap();
    }

    async fn stored_sends(&self) -> Vec<(String, SendRecord)> {
        let sends = self.store.sends(&self.lease.partition).await.unwrap();
        let read = |send: StoredSend| {
            let record = SendRecord::decode(send.record.as_slice()).unwrap();
            (send.client_message_id, record)
        };
        sends.into_iter().map(read).collect()
    }

    /// Makes what is stored of sends older.
    async fn age(&self, by: Duration) {
        let sends = self.stored_sends().await.into_iter();
        let sends = sends.map(|(client_message_id, record)| StoredSend {
            account: Self::key().account,
            client_message_id,
            record: SendRecord {
                asked_ms: record.asked_ms - u64::try_from(by.as_millis()).unwrap(),
                client_time: record.client_time - by.as_secs(),
                ..record
            }
            .encode_to_vec(),
        });
        let batch = Batch {
            sends: sends.collect(),
            ..Batch::default()
        };
        self.store.commit(&self.lease, &batch).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_out_before_the_intent_is_stored_and_nothing_is_answered_before_the_outcome_is()
 {
    let world = World::online().await;
    world.store.set_hanging(true);
    let mut sent = std::pin::pin!(world.send("a"));
    let early = tokio::time::timeout(5 * SECOND, &mut sent).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(world.arrived().len(), 0, "sent and not stored");
    // The intent gets through, and the outcome does not.
    world.upstream.silent.store(true, Ordering::SeqCst);
    world.store.set_hanging(false);
    tokio::select! {
        early = &mut sent => panic!("{early:?}"),
        () = world.arrives(1) => {}
    }
    let stored = world.stored_sends().await;
    assert_eq!(stored[0].0, "a");
    assert!(stored[0].1.outcome.is_none());
    assert_eq!(world.arrived()[0][2], stored[0].1.client_time);
    world.upstream.silent.store(false, Ordering::SeqCst);
    world.store.set_hanging(true);
    // The next connection has it sent once more, and answered.
    world.upstream.stalled.send_replace(true);
    world.stands(v1::SessionState::BackingOff).await;
    world.upstream.stalled.send_replace(false);
    tokio::select! {
        early = &mut sent => panic!("{early:?}"),
        () = world.arrives(2) => {}
    }
    let early = tokio::time::timeout(SECOND, &mut sent).await;
    assert!(early.is_err(), "answered and not stored: {early:?}");
    world.store.set_hanging(false);
    let sent = sent.await.unwrap();
    let arrived = world.arrived();
    assert_eq!(arrived[0], arrived[1]);
    let stored = world.stored_sends().await;
    let outcome = stored[0].1.outcome.clone().unwrap();
    assert_eq!(outcome.message_id, sent.message_id);
    assert_eq!(
        sent.message_id,
        format!("144-{}-{}", arrived[0][2], arrived[0][1])
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_id_needs_no_store() {
    let world = World::online().await;
    world.store.set_available(false);
    assert_eq!(world.send("").await.unwrap().outcome.code, 0);
    // One with an ID waits for it, as long as its caller does, and keeps the others out of nothing.
    for _ in 0..20 {
        assert!(world.send_within("a", SECOND).await.is_err());
    }
    assert_eq!(world.send("").await.unwrap().outcome.code, 0);
    assert_eq!(world.arrived().len(), 2);
    let mut waits = std::pin::pin!(world.send("a"));
    assert!(tokio::time::timeout(SECOND, &mut waits).await.is_err());
    world.store.set_available(true);
    assert_eq!(waits.await.unwrap().outcome.code, 0);
    assert_eq!(world.arrived().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_answered_by_the_next_process_as_the_first_one_was() {
    let mut world = World::online().await;
    let first = world.send("a").await.unwrap();
    // No stop: it is dead from one moment to the next.
    world.restart().await;
    assert_eq!(world.send("a").await.unwrap(), first);
    assert_eq!(world.arrived().len(), 1);
    world.age(600 * SECOND).await;
    world.restart().await;
    world.stands(v1::SessionState::Online).await;
    let again = world.send("a").await.unwrap();
    assert_eq!(world.arrived().len(), 2, "ten minutes are over");
    let stored = world.stored_sends().await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(
        stored[0].1.outcome.as_ref().unwrap().message_id,
        again.message_id
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_crash_without_an_answer_sends_the_same_message() {
    let mut world = World::online().await;
    world.upstream.silent.store(true, Ordering::SeqCst);
    assert!(world.send_within("a", SECOND).await.is_err());
    world.age(200 * SECOND).await;
    let intent = world.stored_sends().await.remove(0).1;
    world.upstream.silent.store(false, Ordering::SeqCst);
    world.restart().await;
    let sent = world.send("a").await.unwrap();
    let arrived = world.arrived();
    assert_eq!((&arrived[0][..2], arrived.len()), (&arrived[1][..2], 2));
    assert_eq!(arrived[1][2], intent.client_time);
    assert_eq!(
        sent.message_id,
        format!("144-{}-{}", intent.client_time, arrived[0][1])
    );
}

#[tokio::test(start_paused = true)]
async fn an_old_intent_without_an_answer_is_said_to_be_unknown() {
    let mut world = World::online().await;
    world.upstream.silent.store(true, Ordering::SeqCst);
    assert!(world.send_within("a", SECOND).await.is_err());
    world.upstream.silent.store(false, Ordering::SeqCst);
    world.age(300 * SECOND).await;
    world.restart().await;
    let unknown = world.send("a").await.unwrap_err();
    assert_eq!(unknown.reason(), "SEND_OUTCOME_UNKNOWN");
    assert_eq!(world.arrived().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_joins_the_send_that_its_caller_has_left() {
    let world = World::online().await;
    world.upstream.silent.store(true, Ordering::SeqCst);
    assert!(world.send_within("a", SECOND).await.is_err());
    // The answer comes too late for the first call, and in time for the second.
    let mut again = std::pin::pin!(world.send("a"));
    assert!(tokio::time::timeout(SECOND, &mut again).await.is_err());
    assert_eq!(world.arrived().len(), 1, "joined");
    world.upstream.silent.store(false, Ordering::SeqCst);
    world.upstream.stalled.send_replace(true);
    let stalls = async {
        world.stands(v1::SessionState::BackingOff).await;
        world.upstream.stalled.send_replace(false);
    };
    let (sent, ()) = tokio::join!(again, stalls);
    assert_eq!(sent.unwrap().outcome.code, 0);
    let arrived = world.arrived();
    assert_eq!((&arrived[0], arrived.len()), (&arrived[1], 2));
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_refused_is_forgotten_in_the_store_too() {
    let mut world = World::online().await;
    world.upstream.send_refusals.lock().unwrap().push(20003);
    assert_eq!(world.send("a").await.unwrap().outcome.code, 20003);
    // The next answer of the store comes after.
    world.send("b").await.unwrap();
    let ids: Vec<_> = world
        .stored_sends()
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, ["b"]);
    world.restart().await;
    assert_eq!(world.send("a").await.unwrap().outcome.code, 0);
    assert_eq!(world.arrived().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn another_message_under_the_same_id_is_refused_also_by_the_next_process() {
    let mut world = World::online().await;
    world.send("a").await.unwrap();
    world.restart().await;
    let other = OutgoingMessage {
        conversation: Conversation::User("eve".into()),
        ..message("a")
    };
    let deadline = Instant::now() + SECOND;
    let refused = world.gateway.send(&World::key(), other, deadline).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(
            &refused,
            CallError::Invalid {
                field: "client_message_id",
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(world.arrived().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_empty_has_the_sends_again() {
    let mut world = World::online().await;
    let first = world.send("a").await.unwrap();
    world.store.lose_data();
    let partition = world.lease.partition.clone();
    let hour = Duration::from_secs(3600);
    let claim = world
        .store
        .claim(
            &partition,
            &ReplicaId::new("r"),
            hour,
            Some(world.lease.epoch),
        )
        .await;
    let Ok(Claim::Granted(lease)) = claim else {
        panic!("{claim:?}")
    };
    world.lease = lease.clone();
    world.keeper.send_replace(Some(lease));
    world.gateway.save_all(&partition);
    world.send("b").await.unwrap();
    world.restart().await;
    assert_eq!(world.send("a").await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn sends_of_an_account_that_logged_out_are_there_when_it_is_back() {
    let mut world = World::online().await;
    let first = world.send("a").await.unwrap();
    world.gateway.logout(&World::key()).await.unwrap();
    // Its task ends.
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.log_in().await, 0);
    assert_eq!(world.send("a").await.unwrap(), first);
    world.gateway.logout(&World::key()).await.unwrap();
    // And in the next process, where it has none from the beginning.
    world.restart().await;
    assert_eq!(world.log_in().await, 0);
    assert_eq!(world.send("a").await.unwrap(), first);
    assert_eq!(world.arrived().len(), 1);
    // The old ones are dropped when the partition is adopted.
    world.gateway.logout(&World::key()).await.unwrap();
    world.age(600 * SECOND).await;
    world.restart().await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.stored_sends().await, []);
}

#[tokio::test(start_paused = true)]
async fn another_owner_takes_the_sends_over_and_the_first_sends_nothing_more() {
    let mut world = World::online().await;
    let first = world.send("a").await.unwrap();
    let before = world.gateway.clone();
    world.restart().await;
    // The first does not know yet that it is not the owner any more.
    let deadline = Instant::now() + SECOND;
    let key = World::key();
    let late = before.send(&key, message("b"), deadline).await;
    assert_eq!(late.unwrap_err().reason(), "STORE_UNAVAILABLE");
    assert_eq!(world.send("a").await.unwrap(), first);
    assert_eq!(world.arrived().len(), 1, "sent by who does not own it");
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_a_message_is_under_way_leaves_it_to_the_next_process() {
    let mut world = World::online().await;
    world.upstream.silent.store(true, Ordering::SeqCst);
    let stop = async {
        world.arrives(1).await;
        world.gateway.stop().await;
    };
    let (sent, ()) = tokio::join!(world.send("a"), stop);
    assert_eq!(sent.unwrap_err().reason(), "DRAINING");
    world.upstream.silent.store(false, Ordering::SeqCst);
    world.restart().await;
    world.send("a").await.unwrap();
    let arrived = world.arrived();
    assert_eq!((&arrived[0], arrived.len()), (&arrived[1], 2));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_too_long_for_the_session_may_be_another_one_then() {
    let world = World::online().await;
    world.upstream.stalled.send_replace(true);
    world.stands(v1::SessionState::BackingOff).await;
    let before = WallClock.now();
    assert!(world.send_within("a", 2 * SECOND).await.is_err());
    world.upstream.stalled.send_replace(false);
    world.stands(v1::SessionState::Online).await;
    world.send("b").await.unwrap();
    // It never went out: nothing of it is remembered.
    let stored = world.stored_sends().await;
    let ids: Vec<_> = stored.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["b"]);
    assert!(UnixMillis(stored[0].1.asked_ms) >= before);
}

#[tokio::test(start_paused = true)]
async fn a_logout_does_not_deny_a_message_that_is_out() {
    let world = World::online().await;
    world.upstream.silent.store(true, Ordering::SeqCst);
    let log_out = async {
        world.arrives(2).await;
        world.gateway.logout(&World::key()).await.unwrap();
    };
    let (first, second, ()) = tokio::join!(world.send(""), world.send("a"), log_out);
    assert_eq!(first.unwrap_err().reason(), "UPSTREAM_UNANSWERED");
    assert_eq!(second.unwrap_err().reason(), "UPSTREAM_UNANSWERED");
    // A repetition is the same message.
    world.upstream.silent.store(false, Ordering::SeqCst);
    assert_eq!(world.log_in().await, 0);
    assert_eq!(world.send("a").await.unwrap().outcome.code, 0);
    let arrived = world.arrived();
    assert_eq!(arrived.len(), 3);
    assert!(arrived[..2].contains(&arrived[2]), "{arrived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_logout_ends_a_message_that_is_not_out() {
    let world = World::online().await;
    world.upstream.stalled.send_replace(true);
    world.stands(v1::SessionState::BackingOff).await;
    let log_out = async {
        tokio::time::sleep(SECOND).await;
        world.gateway.logout(&World::key()).await.unwrap();
    };
    let (sent, ()) = tokio::join!(world.send("a"), log_out);
    assert_eq!(sent.unwrap_err().reason(), "NOT_LOGGED_IN");
    world.upstream.stalled.send_replace(false);
    assert_eq!(world.log_in().await, 0);
    assert_eq!(world.stored_sends().await, [], "nothing is known of it");
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_full_mailbox_is_stored_again_too() {
    let world = World::online().await;
    // Another record than the session's shows when that is stored again.
    let record = crate::store::StoredSession {
        account: World::key().account,
        record: Vec::new(),
    };
    let batch = Batch {
        records: vec![record],
        ..Batch::default()
    };
    world.store.commit(&world.lease, &batch).await.unwrap();
    let key = World::key();
    let mut calls: Vec<_> = (0..20)
        .map(|_| Box::pin(world.gateway.invoke(&key, "any.thing".into(), "{}".into())))
        .collect();
    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
    world.gateway.save_all(&world.lease.partition);
    for call in calls {
        let _answered_or_refused = call.await;
    }
    tokio::time::sleep(SECOND).await;
    let stored = world.store.sessions(&world.lease.partition).await.unwrap();
    assert!(!stored[0].record.is_empty());
}
