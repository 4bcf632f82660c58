//! Subscriptions on paused time.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::error::{Classified as _, ErrorKind};
use crate::events::payload;
use crate::events::service::{Events, Start, SubscribeOptions, TenantLogs};
use crate::events::source::RETRY_MAX;
use crate::events::testing::{
    append_after, events, gist, lease, message, on_paused_time, partition, sealer, tenant,
};
use crate::store::memory::MemoryStore;
use crate::store::{Position, Retention, Store as _};
use crate::types::{AccountId, Secret, SessionKey, UnixMillis};

mod crowd;
mod filtered;
mod losses;

const HEARTBEAT: Duration = Duration::from_secs(15);

struct World {
    store: Arc<MemoryStore>,
    hub: Hub,
    tasks: Tasks,
    tokens: Tokens,
    events: Events,
    partitions: u16,
    /// Where the owner of each partition has seen its log end.
    ends: Mutex<BTreeMap<u16, Position>>,
}

fn world(partitions: u16) -> World {
    world_with(partitions, Hub::new())
}

fn world_with(partitions: u16, hub: Hub) -> World {
    let (store, tasks) = (Arc::new(MemoryStore::new()), Tasks::new());
    World {
        events: events(store.clone(), &hub, &tasks),
        tokens: Tokens::for_tests(),
        store,
        hub,
        tasks,
        partitions,
        ends: Mutex::default(),
    }
}

fn options(start: Start) -> SubscribeOptions {
    SubscribeOptions {
        start,
        accounts: HashSet::new(),
        kinds: Vec::new(),
        max_batch: 100,
        heartbeat: HEARTBEAT,
    }
}

impl World {
    /// Appends as the log's writer on this replica does.
    async fn add(&self, number: u16, texts: &[&str]) {
        let events: Vec<_> = texts.iter().map(|text| message("bot1", text)).collect();
        self.add_events(number, &events).await;
    }

    async fn add_events(&self, number: u16, events: &[v1::Event]) {
        let events: Vec<_> = events.iter().map(v1::Event::encode_to_vec).collect();
        let end = self.append(number, &events).await;
        self.hub.appended(&partition(number), end, events);
    }

    /// Appends as a writer on another replica does, which the store tells of.
    async fn add_elsewhere(&self, number: u16, texts: &[&str]) {
        let end = self.add_unheard(number, texts).await;
        self.hub.publish(&partition(number), end);
    }

    /// The same while the store hangs: it is told first, and is there when the store answers.
    async fn add_elsewhere_later(&self, number: u16, texts: &[&str]) {
        self.store.set_hanging(false);
        let end = self.add_unheard(number, texts).await;
        self.store.set_hanging(true);
        self.hub.publish(&partition(number), end);
    }

    /// The same, and nobody tells of it.
    async fn add_unheard(&self, number: u16, texts: &[&str]) -> Position {
        let events = texts.iter().map(|text| message("bot1", text));
        let events: Vec<_> = events.map(|event| event.encode_to_vec()).collect();
        self.append(number, &events).await
    }

    async fn append(&self, number: u16, payloads: &[Vec<u8>]) -> Position {
        let seen = self.ends.lock().unwrap().get(&number).copied();
        let seen = seen.unwrap_or_default();
        let end = append_after(&self.store, &partition(number), seen, payloads).await;
        self.ends.lock().unwrap().insert(number, end);
        end
    }

    /// Gives the partitions to others, who do not know where the logs had ended.
    fn change_owners(&self) {
        self.ends.lock().unwrap().clear();
    }

    fn decode(&self, cursor: &str) -> Cursor {
        Cursor::decode(&self.tokens, &tenant(), cursor).unwrap()
    }

    async fn trim(&self, number: u16, first_kept: u64) {
        let lease = lease(&self.store, &partition(number)).await;
        let bounds = self.store.log_bounds(&partition(number)).await.unwrap();
        let retention = Retention {
            events: (bounds.last_sequence + 1).saturating_sub(first_kept),
            bytes: u64::MAX,
            since: UnixMillis(0),
        };
        self.store.trim(&lease, &retention).await.unwrap();
    }

    fn logs(&self) -> TenantLogs {
        TenantLogs {
            tenant: tenant(),
            partitions: self.partitions,
            max_subscriptions: 100,
        }
    }

    async fn try_open(&self, options: SubscribeOptions) -> Result<Subscription, EventsError> {
        self.events.subscribe(&self.logs(), options).await
    }

    /// A subscription that has said where it begins.
    async fn open(&self, start: Start) -> Subscription {
        self.open_with(options(start)).await
    }

    async fn open_with(&self, options: SubscribeOptions) -> Subscription {
        let mut subscription = self.try_open(options).await.unwrap();
        let first = subscription.next().now_or_never().unwrap().unwrap();
        assert_eq!(first.events, []);
        subscription
    }

    async fn resume(&self, cursor: &str) -> Subscription {
        self.open(Start::Cursor(cursor.into())).await
    }

    async fn acknowledge(&self, name: &str, cursor: &str) -> Result<(), EventsError> {
        self.events.acknowledge(&self.logs(), name, cursor).await
    }
}

async fn next(subscription: &mut Subscription) -> (Vec<String>, String) {
    let delivery = subscription.next().await.unwrap();
    let gists = delivery.events.iter().map(gist).collect();
    (gists, delivery.cursor)
}

async fn texts(subscription: &mut Subscription) -> Vec<String> {
    next(subscription).await.0
}

/// All that comes before the next heartbeat.
async fn all(subscription: &mut Subscription) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let batch = texts(subscription).await;
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

#[tokio::test(start_paused = true)]
async fn latest_gets_what_comes_and_earliest_what_is_there() {
    let world = world(2);
    world.add(0, &["a", "b"]).await;
    let mut latest = world.open(Start::Latest).await;
    let mut earliest = world.open(Start::Earliest).await;
    world.add(0, &["c"]).await;
    assert_eq!(texts(&mut latest).await, ["c"]);
    assert_eq!(texts(&mut earliest).await, ["a", "b", "c"]);
    world.add(1, &["d"]).await;
    assert_eq!(texts(&mut latest).await, ["d"]);
    assert_eq!(texts(&mut earliest).await, ["d"]);
    // Earliest of a trimmed log has no gap: it asks for what there is.
    world.trim(0, 3).await;
    let mut earliest = world.open(Start::Earliest).await;
    assert_eq!(all(&mut earliest).await, ["c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn events_carry_the_sequence_of_their_entry() {
    let world = world(1);
    world.add(0, &["a", "b"]).await;
    let mut earliest = world.open(Start::Earliest).await;
    let batch = earliest.next().await.unwrap().events;
    let sequences: Vec<u64> = batch
        .iter()
        .map(|event| event.decode().unwrap().sequence)
        .collect();
    assert_eq!(sequences, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_resumes_behind_what_was_delivered() {
    let world = world(1);
    world.add(0, &["a", "b"]).await;
    let (_, cursor) = next(&mut world.open(Start::Earliest).await).await;
    world.add(0, &["c"]).await;
    assert_eq!(all(&mut world.resume(&cursor).await).await, ["c"]);
    // The cursor of a subscription to an empty log is good as well.
    let world = self::world(1);
    let mut first = world.try_open(options(Start::Latest)).await.unwrap();
    let (_, cursor) = next(&mut first).await;
    world.add(0, &["a"]).await;
    assert_eq!(all(&mut world.resume(&cursor).await).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn bad_cursors_are_refused() {
    let world = world(2);
    world.add(0, &["a"]).await;
    let (_, good) = next(&mut world.open(Start::Earliest).await).await;
    let cursor = world.decode(&good);
    let mut fewer = cursor.clone();
    fewer.marks.remove(&1);
    let refused = async |text: String| {
        let acknowledged = world.acknowledge("s", &text).await.unwrap_err();
        let opened = world.try_open(options(Start::Cursor(text))).await;
        let opened = opened.unwrap_err();
        assert_eq!(acknowledged.reason(), opened.reason());
        assert_eq!(opened.kind(), ErrorKind::InvalidInput);
        opened.reason()
    };
    let tokens = &world.tokens;
    let forgers = Tokens::new(&Secret::new([8; 32]), []);
    for bad in [
        fewer.encode(tokens, &tenant()),
        cursor.encode(tokens, &TenantId::new("other")),
        cursor.encode(&forgers, &tenant()),
        String::new(),
        good[1..].into(),
        good[..good.len() - 1].into(),
    ] {
        assert_eq!(refused(bad).await, "INVALID_CURSOR");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_retained_any_more_is_a_gap() {
    let world = world(1);
    world.add(0, &["a", "b", "c", "d"]).await;
    let one = SubscribeOptions {
        max_batch: 1,
        ..options(Start::Earliest)
    };
    let mut slow = world.open_with(one).await;
    let (first, cursor) = next(&mut slow).await;
    assert_eq!(first, ["a"]);
    world.trim(0, 4).await;
    assert_eq!(all(&mut slow).await, ["gap RETENTION 2-3 2", "d"]);
    let resumed = all(&mut world.resume(&cursor).await).await;
    assert_eq!(resumed, ["gap RETENTION 2-3 2", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_began_anew_is_a_gap() {
    let world = world(1);
    world.add(0, &["a", "b"]).await;
    let mut live = world.open(Start::Earliest).await;
    let (_, cursor) = next(&mut live).await;
    world.store.lose_data();
    world.change_owners();
    world.add(0, &["x", "y", "z"]).await;
    let expected = ["gap LOG_RESET 3-0 0", "x", "y", "z"];
    assert_eq!(all(&mut live).await, expected);
    assert_eq!(all(&mut world.resume(&cursor).await).await, expected);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_heartbeats_with_the_present_cursor() {
    let world = world(2);
    world.add(1, &["a"]).await;
    let mut live = world.open(Start::Earliest).await;
    let (_, cursor) = next(&mut live).await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(next(&mut live).await, (vec![], cursor.clone()));
        assert_eq!(began.elapsed(), HEARTBEAT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_events_and_not_heartbeats() {
    let world = world(1);
    let mut slow = world.open(Start::Latest).await;
    for text in ["a", "b", "c"] {
        world.add(0, &[text]).await;
        tokio::time::sleep(10 * HEARTBEAT).await;
        assert_eq!(texts(&mut slow).await, [text]);
    }
}

#[tokio::test(start_paused = true)]
async fn growth_that_nobody_tells_of_is_found_at_a_heartbeat() {
    let world = world(1);
    let mut live = world.open(Start::Latest).await;
    assert!(live.next().now_or_never().is_none());
    world.add_unheard(0, &["a"]).await;
    assert_eq!(texts(&mut live).await, Vec::<String>::new());
    assert_eq!(texts(&mut live).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_bounded_in_count_and_bytes() {
    let world = world(1);
    world.add(0, &["a", "b", "c"]).await;
    let mut two = world
        .open_with(SubscribeOptions {
            max_batch: 2,
            ..options(Start::Earliest)
        })
        .await;
    assert_eq!(texts(&mut two).await, ["a", "b"]);
    assert_eq!(texts(&mut two).await, ["c"]);

    let (large, huge) = ("x".repeat(100_000), "y".repeat(300_000));
    world.add(0, &[&large, &large, &large, &huge, "z"]).await;
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let batch = two.next().await.unwrap().events;
        lengths.push(batch.iter().map(|event| gist(event).len()).sum::<usize>());
    }
    assert_eq!(lengths, [200_000, 100_000, 300_000, 1]);
}

#[tokio::test(start_paused = true)]
async fn no_partition_starves_another() {
    let world = world(3);
    for _ in 0..10 {
        world.add(0, &["a"; 10]).await;
    }
    world.add(1, &["b"]).await;
    world.add(2, &["c"]).await;
    let mut live = world
        .open_with(SubscribeOptions {
            max_batch: 10,
            ..options(Start::Earliest)
        })
        .await;
    let mut firsts = Vec::new();
    for _ in 0..4 {
        firsts.push(texts(&mut live).await.remove(0));
    }
    assert_eq!(firsts, ["a", "b", "c", "a"]);
}

#[tokio::test(start_paused = true)]
async fn filters_let_through_what_was_asked_for() {
    let world = world(8);
    let home = |account: &str| {
        let account = AccountId::new(account);
        let tenant = tenant();
        SessionKey { tenant, account }.partition(8)
    };
    for n in 0..50 {
        let account = format!("bot{n}");
        let event = message(&account, &account);
        world.add_events(home(&account).number, &[event]).await;
    }
    let mut wanted = options(Start::Earliest);
    wanted.accounts = ["bot7", "bot33"].map(AccountId::new).into();
    let mut live = world.open_with(wanted.clone()).await;
    let mut got = all(&mut live).await;
    got.sort();
    assert_eq!(got, ["bot33", "bot7"]);

    wanted.kinds = vec![v1::EventKind::Notice];
    let mut none = world.open_with(wanted).await;
    let (events, cursor) = next(&mut none).await;
    assert_eq!(events, Vec::<String>::new());
    // What was filtered out is behind the cursor; what was never looked at is not.
    let rest = all(&mut world.resume(&cursor).await).await;
    assert!(!rest.iter().any(|text| text == "bot7" || text == "bot33"));
    assert!(!rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_lets_nothing_through_does_not_silence_the_heartbeats() {
    let world = world(1);
    for _ in 0..20 {
        world.add(0, &["a"; 500]).await;
    }
    let mut live = world
        .open_with(SubscribeOptions {
            kinds: vec![v1::EventKind::Notice],
            ..options(Start::Earliest)
        })
        .await;
    let began = Instant::now();
    let (events, cursor) = next(&mut live).await;
    assert_eq!((events.len(), began.elapsed()), (0, HEARTBEAT));
    let cursor = world.decode(&cursor);
    assert_eq!(cursor.marks[&0].position.sequence, 10_000);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_heartbeats_go_on_and_nothing_is_lost() {
    let world = world(2);
    world.add(0, &["a"]).await;
    let mut live = world.open(Start::Earliest).await;
    let (_, cursor) = next(&mut live).await;
    world.add_elsewhere(0, &["b"]).await;
    world.store.set_available(false);
    for _ in 0..3 {
        assert_eq!(next(&mut live).await, (vec![], cursor.clone()));
    }
    // A new subscription is told.
    let refused = world.try_open(options(Start::Latest)).await.unwrap_err();
    assert_eq!(refused.reason(), "STORE_UNAVAILABLE");
    world.store.set_available(true);
    let back = Instant::now();
    assert_eq!(texts(&mut live).await, ["b"]);
    assert!(back.elapsed() <= RETRY_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_stop_the_heartbeats() {
    let world = world(1);
    let mut live = world.open(Start::Latest).await;
    world.add(0, &["a"]).await;
    world.store.set_hanging(true);
    for _ in 0..3 {
        assert_eq!(texts(&mut live).await, Vec::<String>::new());
    }
    world.store.set_hanging(false);
    assert_eq!(texts(&mut live).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_subscription_with_a_reason() {
    let world = world(1);
    let mut live = world.open(Start::Latest).await;
    let (ended, ()) = tokio::join!(live.next(), async { world.tasks.stop() });
    assert_eq!(ended.unwrap_err().reason(), "DRAINING");
    assert_eq!(live.next().await.unwrap_err().reason(), "DRAINING");
}

#[tokio::test(start_paused = true)]
async fn a_named_subscription_stands_where_it_was_acknowledged() {
    let world = world(2);
    world.add(0, &["before"]).await;
    let named = || Start::Named("workers".into());
    let unknown = world.open(Start::Latest).await.next().await.unwrap().cursor;
    let refused = world.acknowledge("workers", &unknown).await.unwrap_err();
    assert_eq!(refused.reason(), "UNKNOWN_SUBSCRIPTION");

    let mut first = world.open(named()).await;
    world.add(0, &["a", "b"]).await;
    world.add(1, &["c"]).await;
    let (batch, cursor) = next(&mut first).await;
    assert_eq!(batch, ["a", "b"]);
    // Not acknowledged yet: all of it again.
    let again = all(&mut world.open(named()).await).await;
    assert_eq!(again, ["a", "b", "c"]);
    world.acknowledge("workers", &cursor).await.unwrap();
    assert_eq!(all(&mut world.open(named()).await).await, ["c"]);
    // It never moves back.
    world.acknowledge("workers", &unknown).await.unwrap();
    assert_eq!(all(&mut world.open(named()).await).await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_leaves_nothing_behind() {
    let world = world(1);
    let mut live = world.open(Start::Latest).await;
    world.store.set_hanging(true);
    world.add_elsewhere_later(0, &["a"]).await;
    assert!(live.next().now_or_never().is_none());
    drop(live);
    assert_eq!(Arc::strong_count(&world.store), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is appended, here or elsewhere, trimmed and lost meanwhile, and however often the subscriber resumes
    /// from the last cursor it saw: each event is delivered once, in order per partition, or lies in a gap.
    #[test]
    fn a_resumed_subscription_misses_nothing(
        steps in prop::collection::vec((0..3_u16, 0..8_u8, 1..7_usize), 1..80),
    ) {
        on_paused_time(async {
            let world = world(3);
            let mut ends = [0_u64; 3];
            let mut seen = [0_u64; 3];
            let mut options = options(Start::Latest);
            options.max_batch = 4;
            let mut live = world.open_with(options.clone()).await;
            for (number, step, count) in steps {
                let index = usize::from(number);
                let texts: Vec<String> = (1..=count as u64)
                    .map(|n| (ends[index] + n).to_string())
                    .collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                match step {
                    0..=3 => {
                        match step {
                            0 | 1 => world.add(number, &texts).await,
                            2 => world.add_elsewhere(number, &texts).await,
                            _ => {
                                world.add_unheard(number, &texts).await;
                            }
                        }
                        ends[index] += count as u64;
                    }
                    4 => world.store.lose_newest(&partition(number), count),
                    5 => world.trim(number, ends[index].saturating_sub(count as u64)).await,
                    _ => {
                        let delivery = live.next().await.unwrap();
                        check(&world, &delivery, &mut seen);
                        if count % 2 == 0 {
                            options.start = Start::Cursor(delivery.cursor);
                            live = world.open_with(options.clone()).await;
                        }
                    }
                }
            }
            // What was lost at the end of a log is told when it grows again.
            for number in 0..3 {
                world.add(number, &["last"]).await;
                ends[usize::from(number)] += 1;
            }
            for _ in 0..2 {
                // What nobody told of is found at the second heartbeat.
                loop {
                    let delivery = live.next().await.unwrap();
                    check(&world, &delivery, &mut seen);
                    if delivery.events.is_empty() {
                        break;
                    }
                }
            }
            assert_eq!(seen, ends);
        });
    }
}

/// Books a delivery, which is of one partition: the one that the cursor moved in.
fn check(world: &World, delivery: &Delivery, seen: &mut [u64; 3]) {
    let positions = world.decode(&delivery.cursor).positions();
    let moved = (0..3).find(|&n| positions[&n].sequence != seen[usize::from(n)]);
    let Some(moved) = moved else {
        assert_eq!(delivery.events, []);
        return;
    };
    let seen = &mut seen[usize::from(moved)];
    for event in &delivery.events {
        let event = event.decode().unwrap();
        let (from, to) = match event.kind.unwrap() {
            v1::event::Kind::Gap(gap) => (gap.from_sequence, gap.to_sequence),
            v1::event::Kind::Message(_)
            | v1::event::Kind::SessionChanged(_)
            | v1::event::Kind::SignatureExpired(_)
            | v1::event::Kind::KickedOffline(_)
            | v1::event::Kind::UpstreamNotice(_) => (event.sequence, event.sequence),
        };
        assert_eq!(from, *seen + 1);
        *seen = to;
    }
    assert_eq!(positions[&moved].sequence, *seen);
}
