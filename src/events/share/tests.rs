//! Shared subscriptions on paused time: members on several replicas of one store.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;
use crate::events::hub::Hub;
use crate::events::service::{Events, EventsError, Start, SubscribeOptions, TenantLogs};
use crate::events::subscription::{Delivery, Subscription};
use crate::events::testing::{self, append, gist, message, partition, tenant};
use crate::store::Store as _;
use crate::store::memory::MemoryStore;
use crate::types::MemberId;

const NAME: &str = "workers";
const PARTITIONS: u16 = 8;
/// Within this time everybody knows of a member that came or went in order, and has acted on it.
const SETTLED: Duration = Duration::from_secs(2);

/// A store, and how many events each of its logs has.
struct World {
    store: Arc<MemoryStore>,
    hub: Hub,
    appended: HashMap<u16, usize>,
}

/// A member of the shared subscription, on a replica of its own.
struct Member {
    events: Events,
    tasks: Tasks,
    stream: Subscription,
    /// The last cursor it got.
    cursor: String,
}

fn logs() -> TenantLogs {
    TenantLogs {
        tenant: tenant(),
        partitions: PARTITIONS,
        max_subscriptions: 10,
    }
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            hub: Hub::new(),
            appended: HashMap::new(),
        }
    }

    /// A member that has said where it begins; it has nothing yet.
    async fn join(&self) -> Member {
        let tasks = Tasks::new();
        let events = testing::events(self.store.clone(), &self.hub, &tasks);
        let options = SubscribeOptions {
            start: Start::Shared(NAME.into()),
            accounts: HashSet::new(),
            kinds: Vec::new(),
            max_batch: 100,
            heartbeat: Duration::from_secs(15),
        };
        let mut stream = events.subscribe(&logs(), options).await.unwrap();
        let first = stream.next().now_or_never().unwrap().unwrap();
        assert_eq!(first.events, []);
        Member {
            events,
            tasks,
            stream,
            cursor: first.cursor,
        }
    }

    /// The same, when everybody has what is theirs.
    async fn settled(&self, count: usize) -> Vec<Member> {
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(self.join().await);
        }
        settle().await;
        members
    }

    /// Appends to one log; the text says where: `partition.sequence`.
    async fn add(&mut self, number: u16) {
        self.add_unnoticed([number]).await;
        self.publish([number]).await;
    }

    /// Appends to logs without a word to the streams.
    async fn add_unnoticed(&mut self, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            let count = self.appended.entry(number).or_default();
            *count += 1;
            let text = format!("{number}.{count}");
            append(&self.store, &partition(number), &[message("bot", &text)]).await;
        }
    }

    /// Tells the streams where logs end.
    async fn publish(&self, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            let bounds = self.store.log_bounds(&partition(number)).await.unwrap();
            let end = Position {
                log: bounds.log,
                sequence: bounds.last_sequence,
            };
            self.hub.publish(&partition(number), end);
        }
    }

    async fn add_everywhere(&mut self) {
        for number in 0..PARTITIONS {
            self.add(number).await;
        }
    }

    async fn acknowledged(&self, number: u16) -> u64 {
        let stored = self.store.subscription(&partition(number), NAME).await;
        stored.unwrap().unwrap().sequence
    }

    /// Takes whatever is free as a member that was never heard of before, and is not heard of again.
    async fn seize(&self, numbers: impl IntoIterator<Item = u16>) {
        let dead = MemberId::new("dead");
        self.store
            .attend(&tenant(), NAME, &dead, Some(TTL))
            .await
            .unwrap();
        for number in numbers {
            let partition = partition(number);
            let claim = self.store.claim_share(&partition, NAME, &dead, TTL);
            assert!(claim.await.unwrap(), "{number} is not free");
        }
    }
}

async fn settle() {
    tokio::time::sleep(SETTLED).await;
}

impl Member {
    /// What it gets before a heartbeat or within `patience`.
    async fn delivery(&mut self, patience: Duration) -> Option<Delivery> {
        let delivery = timeout(patience, self.stream.next()).await.ok()?.unwrap();
        self.cursor = delivery.cursor.clone();
        Some(delivery).filter(|delivery| !delivery.events.is_empty())
    }

    /// The texts of what comes without waiting.
    async fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(delivery) = self.delivery(Duration::from_millis(1)).await {
            all.extend(delivery.events.iter().map(gist));
        }
        all
    }

    /// The same, sorted, and acknowledged.
    async fn work(&mut self) -> Vec<String> {
        let mut all = self.all().await;
        self.acknowledge().await.unwrap();
        all.sort();
        all
    }

    async fn acknowledge(&self) -> Result<(), EventsError> {
        self.events.acknowledge(&logs(), NAME, &self.cursor).await
    }
}

/// The partitions of texts.
fn homes(texts: &[String]) -> BTreeSet<u16> {
    let home = |text: &String| text.split_once('.').unwrap().0.parse().unwrap();
    texts.iter().map(home).collect()
}

fn sorted(lists: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut all: Vec<String> = lists.into_iter().flatten().collect();
    all.sort();
    all
}

/// The texts of everybody's events with these sequences.
fn expected(sequences: impl IntoIterator<Item = u64> + Clone) -> Vec<String> {
    sorted((0..PARTITIONS).map(|number| {
        let sequences = sequences.clone().into_iter();
        sequences
            .map(|sequence| format!("{number}.{sequence}"))
            .collect()
    }))
}

/// A stream's side of a share whose task is the test.
fn share() -> Share {
    let holds = Arc::new(watch::Sender::new(Holds::default()));
    Share {
        changed: holds.subscribe(),
        holds,
        reading: BTreeMap::new(),
    }
}

fn at(sequence: u64) -> Position {
    let log = crate::store::LogId(7);
    Position { log, sequence }
}

#[tokio::test(start_paused = true)]
async fn a_read_is_delivered_only_under_the_claim_that_it_began_under() {
    let mut share = share();
    let both = BTreeSet::from([1, 2]);
    share.holds.send_modify(|holds| {
        holds.hold(1, Instant::now(), at(5));
        holds.hold(2, Instant::now(), at(0));
    });
    let begun = [Change::Follow(1, at(5)), Change::Follow(2, at(0))];
    assert_eq!(share.changes(), begun);
    assert_eq!(share.changes(), []);
    assert!(share.confirm(1, at(6), true) && share.confirm(2, at(1), false));
    // Let go: what is read and not yet delivered is not.
    share
        .holds
        .send_if_modified(|holds| holds.let_go(&BTreeSet::from([2])));
    assert!(!share.confirm(1, at(7), true));
    assert_eq!(share.holds.borrow().leaving()[0].1, Some(at(6)));
    assert_eq!(share.changes(), [Change::Unfollow(1)]);
    // Wanted again before it was given back: on from where it stopped.
    share.holds.send_if_modified(|holds| holds.let_go(&both));
    assert_eq!(share.changes(), [Change::Follow(1, at(6))]);
    // Given back and got again between two looks: the read began elsewhere.
    share.holds.send_modify(|holds| {
        holds.held.remove(&1);
        holds.hold(1, Instant::now(), at(3));
    });
    assert!(!share.confirm(1, at(8), true));
    let anew = [Change::Unfollow(1), Change::Follow(1, at(3))];
    assert_eq!(share.changes(), anew);
    // Not claimed again in time.
    tokio::time::sleep(TTL - MARGIN).await;
    assert!(!share.confirm(2, at(2), true));
    assert_eq!(share.changes(), [Change::Unfollow(1), Change::Unfollow(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_comes_too_late_is_a_new_one() {
    let mut holds = Holds::default();
    let asked_at = Instant::now();
    holds.hold(1, asked_at, at(5));
    let one = BTreeSet::from([1]);
    assert_eq!(holds.due(&one), Vec::<u16>::new());
    tokio::time::sleep(TTL / 3).await;
    assert_eq!(holds.due(&one), [1]);
    assert_eq!(holds.due(&BTreeSet::from([1, 2])), [2, 1]);
    assert!(holds.renew(1, Instant::now()));
    tokio::time::sleep(TTL - MARGIN).await;
    assert!(!holds.renew(1, Instant::now()));
    assert!(holds.lapse() && !holds.lapse());
    assert!(!holds.renew(1, Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn members_split_the_partitions_evenly_and_each_event_goes_to_one() {
    for count in [1, 2, 3, 8, 10] {
        let mut world = World::new();
        let mut members = world.settled(count).await;
        let mut shares = vec![Vec::new(); count];
        for _ in 0..3 {
            world.add_everywhere().await;
            for (member, share) in members.iter_mut().zip(&mut shares) {
                share.extend(member.work().await);
            }
        }
        for share in &shares {
            let held = homes(share).len();
            let even = usize::from(PARTITIONS) / count;
            assert!(held == even || held == even + 1, "{held} of {count}");
        }
        assert_eq!(sorted(shares), expected(1..=3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_joins_gets_its_part_when_the_rest_is_acknowledged() {
    let mut world = World::new();
    let mut one = world.settled(1).await.remove(0);
    world.add_everywhere().await;
    assert_eq!(sorted([one.all().await]), expected(1..=1));
    let mut two = world.join().await;
    settle().await;
    // What is to be the second's is delivered to nobody while the first has not acknowledged it.
    world.add_everywhere().await;
    let kept = one.all().await;
    assert_eq!(homes(&kept).len(), 4);
    assert_eq!(two.all().await, Vec::<String>::new());

    one.acknowledge().await.unwrap();
    settle().await;
    assert_eq!(sorted([kept, two.work().await]), expected(2..=2));
    world.add_everywhere().await;
    assert_eq!(
        sorted([one.work().await, two.work().await]),
        expected(3..=3)
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_nothing_to_be_acknowledged_makes_room_at_once() {
    let mut world = World::new();
    let mut one = world.settled(1).await.remove(0);
    world.add_everywhere().await;
    one.work().await;
    let mut two = world.join().await;
    world.add_everywhere().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(homes(&two.work().await).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_member_that_left_had_not_acknowledged_goes_to_the_others() {
    let mut world = World::new();
    let mut members = world.settled(3).await;
    world.add_everywhere().await;
    let mut gone = members.remove(0);
    let first = gone.work().await;
    let kept = sorted([members[0].work().await, members[1].work().await]);
    world.add_everywhere().await;
    let lost = gone.all().await;
    assert_eq!(homes(&lost), homes(&first));
    drop(gone);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let rest = sorted([members[0].work().await, members[1].work().await]);
    assert_eq!(sorted([first, kept]), expected(1..=1));
    assert_eq!(rest, expected(2..=2));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_makes_room_and_says_why() {
    let mut world = World::new();
    let mut members = world.settled(2).await;
    let mut stopped = members.remove(0);
    stopped.tasks.stop();
    let ended = stopped.stream.next().await.unwrap_err();
    assert_eq!(ended.reason(), "DRAINING");
    // Its tasks end by themselves, although its stream is still there.
    timeout(SETTLED, stopped.tasks.ended()).await.unwrap();
    world.add_everywhere().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(members[0].work().await, expected(1..=1));
    let there = world.store.members(&tenant(), NAME).await.unwrap();
    assert_eq!(there.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_member_had_is_taken_over_after_its_time_to_live() {
    let mut world = World::new();
    world.settled(1).await;
    settle().await;
    world.seize(0..PARTITIONS).await;
    let mut heir = world.join().await;
    world.add_everywhere().await;
    tokio::time::sleep(TTL - 2 * SETTLED).await;
    assert_eq!(heir.all().await, Vec::<String>::new());
    tokio::time::sleep(2 * SETTLED).await;
    assert_eq!(heir.work().await, expected(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_acknowledge_holds_the_others_up_for_a_bounded_time() {
    let mut world = World::new();
    let mut stuck = world.settled(1).await.remove(0);
    world.add_everywhere().await;
    stuck.work().await;
    world.add_everywhere().await;
    assert_eq!(sorted([stuck.all().await]), expected(2..=2));
    let mut two = world.join().await;
    tokio::time::sleep(HAND_OVER - SETTLED).await;
    assert_eq!(two.all().await, Vec::<String>::new());
    tokio::time::sleep(2 * SETTLED).await;
    // Again, since the first has not acknowledged it; and not what it has.
    let again = two.work().await;
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|text| text.ends_with(".2")), "{again:?}");
    world.add_everywhere().await;
    let (kept, new) = (stuck.work().await, two.work().await);
    assert_eq!(homes(&new), homes(&again));
    assert_eq!(sorted([kept, new]), expected(3..=3));
}

#[tokio::test(start_paused = true)]
async fn one_who_only_looks_in_takes_nothing_away() {
    let mut world = World::new();
    let mut one = world.settled(1).await.remove(0);
    world.add_everywhere().await;
    // Not acknowledged, so that nothing can be handed over before the second is gone again.
    assert_eq!(one.all().await.len(), 8);
    let two = world.join().await;
    settle().await;
    drop(two);
    settle().await;
    world.add_everywhere().await;
    assert_eq!(one.work().await, expected(2..=2));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_moves_what_the_member_got_and_nothing_else() {
    let mut world = World::new();
    let mut members = world.settled(2).await;
    world.add_everywhere().await;
    let first = members[0].work().await;
    for number in 0..PARTITIONS {
        let got = homes(&first).contains(&number);
        assert_eq!(world.acknowledged(number).await, u64::from(got), "{number}");
    }
    members[1].work().await;
    // A third gets some of the first's partitions. What it has got of them is its own to acknowledge.
    members.push(world.join().await);
    settle().await;
    world.add_everywhere().await;
    let mut got = Vec::new();
    for member in &mut members {
        got.push(member.all().await);
    }
    assert!(homes(&got[0]).len() < homes(&first).len());
    members[0].acknowledge().await.unwrap();
    for number in 0..PARTITIONS {
        let moved = if homes(&got[0]).contains(&number) {
            2
        } else {
            1
        };
        assert_eq!(world.acknowledged(number).await, moved, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_could_not_be_kept_is_not_delivered_under() {
    let mut world = World::new();
    let mut one = world.settled(1).await.remove(0);
    world.add_unnoticed([3]).await;
    // The read is under way when the store goes, and comes back when another has the partition.
    world.store.set_hanging(true);
    world.publish([3]).await;
    assert_eq!(one.all().await, Vec::<String>::new());
    world.store.set_available(false);
    assert_eq!(one.delivery(TTL + MARGIN).await, None);
    world.store.set_available(true);
    world.seize(0..PARTITIONS).await;
    world.store.set_hanging(false);
    assert_eq!(one.work().await, Vec::<String>::new());
    assert_eq!(world.acknowledged(3).await, 0);
    tokio::time::sleep(TTL - SETTLED).await;
    assert_eq!(one.all().await, Vec::<String>::new());
    // The other is dead: it runs out.
    tokio::time::sleep(2 * SETTLED).await;
    assert_eq!(one.work().await, ["3.1"]);
}

/// The stream is not looked after while its read is under way, and the read ends when the partition is another's.
#[tokio::test(start_paused = true)]
async fn what_was_being_read_when_a_partition_was_let_go_is_delivered_once() {
    // Which partitions go is random, and so is whether the one that is being read is among them.
    for _ in 0..12 {
        let mut world = World::new();
        let mut before = world.settled(1).await.remove(0);
        world.add_everywhere().await;
        before.work().await;
        drop(before);
        settle().await;
        world.add_everywhere().await;
        // Who begins reads the store by itself: the tail has nothing that it can go on from.
        let mut one = world.settled(1).await.remove(0);
        world.store.set_hanging(true);
        let mut next = Box::pin(one.stream.next());
        assert!(next.as_mut().now_or_never().is_none());
        let mut two = world.join().await;
        settle().await;
        world.store.set_hanging(false);
        let first = next.await.unwrap();
        one.cursor = first.cursor;
        let first = first.events.iter().map(gist).collect();
        let kept = sorted([first, one.work().await]);
        for number in 0..PARTITIONS {
            let moved = if homes(&kept).contains(&number) { 2 } else { 1 };
            assert_eq!(world.acknowledged(number).await, moved, "{number}");
        }
        assert_eq!(sorted([kept, two.work().await]), expected(2..=2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_being_read_before_a_partition_began_anew_is_dropped() {
    let mut world = World::new();
    let mut one = world.settled(1).await.remove(0);
    world.add(3).await;
    assert_eq!(one.work().await, ["3.1"]);
    world.add(3).await;
    assert_eq!(one.all().await, ["3.2"]);
    world.add_unnoticed([3]).await;
    world.store.set_hanging(true);
    world.publish([3]).await;
    assert_eq!(one.all().await, Vec::<String>::new());
    // It could not be kept, and begins anew behind what is acknowledged.
    world.store.set_available(false);
    tokio::time::sleep(TTL).await;
    world.store.set_available(true);
    settle().await;
    world.store.set_hanging(false);
    assert_eq!(one.work().await, ["3.2", "3.3"]);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_for_a_moment_a_member_keeps_what_it_has() {
    let mut world = World::new();
    let mut members = world.settled(2).await;
    world.add_everywhere().await;
    let before = [members[0].all().await, members[1].all().await];
    world.store.set_available(false);
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.store.set_available(true);
    settle().await;
    world.add_everywhere().await;
    let after = [members[0].all().await, members[1].all().await];
    assert_eq!(
        before.each_ref().map(|texts| homes(texts)),
        after.each_ref().map(|texts| homes(texts))
    );
    assert_eq!(sorted(after), expected(2..=2));
}

#[tokio::test(start_paused = true)]
async fn after_a_store_that_was_away_for_long_all_goes_on_from_what_is_acknowledged() {
    let mut world = World::new();
    let mut members = world.settled(2).await;
    world.add_everywhere().await;
    let first = [members[0].work().await, members[1].work().await];
    assert_eq!(sorted(first), expected(1..=1));
    world.add_everywhere().await;
    for member in &mut members {
        assert_eq!(homes(&member.all().await).len(), 4);
    }
    world.store.set_available(false);
    tokio::time::sleep(3 * TTL).await;
    for member in &mut members {
        assert_eq!(member.all().await, Vec::<String>::new());
    }
    world.store.set_available(true);
    settle().await;
    world.add_everywhere().await;
    let mut got = Vec::new();
    for _ in 0..20 {
        got.push(members[0].work().await);
        got.push(members[1].work().await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut got = sorted(got);
    got.dedup();
    assert_eq!(got, expected(2..=3));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_was_deleted_is_read_on_and_stays_deleted() {
    let mut world = World::new();
    let mut members = world.settled(2).await;
    members[0]
        .events
        .delete_subscription(&logs(), NAME)
        .await
        .unwrap();
    world.add_everywhere().await;
    let got = [members[0].all().await, members[1].all().await];
    assert_eq!(sorted(got), expected(1..=1));
    let refused = members[0].acknowledge().await.unwrap_err();
    assert_eq!(refused.reason(), "UNKNOWN_SUBSCRIPTION");
    // Nobody can say any more what was dealt with: it is delivered again, not left out.
    drop(members.remove(0));
    settle().await;
    assert_eq!(homes(&members[0].all().await).len(), 4);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(members[0].events.subscriptions(&logs()).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn only_what_the_accounts_live_in_is_split() {
    let world = World::new();
    let account = crate::types::AccountId::new("bot1");
    let home = crate::types::SessionKey {
        tenant: tenant(),
        account: account.clone(),
    };
    let home = home.partition(PARTITIONS).number;
    let tasks = Tasks::new();
    let events = testing::events(world.store.clone(), &world.hub, &tasks);
    let options = SubscribeOptions {
        start: Start::Shared(NAME.into()),
        accounts: HashSet::from([account]),
        kinds: Vec::new(),
        max_batch: 100,
        heartbeat: Duration::from_secs(15),
    };
    let _stream = events.subscribe(&logs(), options).await.unwrap();
    settle().await;
    for number in 0..PARTITIONS {
        let other = MemberId::new("other");
        let partition = partition(number);
        let claim = world.store.claim_share(&partition, NAME, &other, TTL);
        assert_eq!(claim.await.unwrap(), number != home, "{number}");
    }
}

/// What a random run has seen.
#[derive(Default)]
struct Books {
    /// Whose the last delivery of each partition was.
    last: HashMap<u16, usize>,
    /// How far each member has come in each partition.
    stands: HashMap<(usize, u16), u64>,
    /// The furthest that each member ever was.
    furthest: HashMap<(usize, u16), u64>,
}

impl Books {
    /// Books what a member got of one partition.
    fn delivered(&mut self, member: usize, number: u16, sequences: &[u64], acknowledged: u64) {
        let stands = self.stands.get(&(member, number)).copied();
        let mut next = sequences[0];
        let anew = next <= acknowledged + 1;
        let on = stands == Some(next - 1) && self.last.get(&number) == Some(&member);
        assert!(
            anew || on,
            "{number}.{next} to {member}, who is at {stands:?} of {acknowledged}"
        );
        for &sequence in sequences {
            assert_eq!(sequence, next);
            next += 1;
        }
        self.last.insert(number, member);
        self.stands.insert((member, number), next - 1);
        let furthest = self.furthest.entry((member, number)).or_default();
        *furthest = (*furthest).max(next - 1);
    }

    fn furthest(&self, member: usize, number: u16) -> u64 {
        self.furthest.get(&(member, number)).copied().unwrap_or(0)
    }
}

/// A random run: its members by number.
struct Run {
    world: World,
    members: Vec<(usize, Member)>,
    joined: usize,
    books: Books,
}

impl Run {
    async fn step(&mut self, step: u8, which: usize) {
        let count = self.members.len();
        match step {
            0 | 1 => {
                self.world
                    .add(u16::try_from(which).unwrap() % PARTITIONS)
                    .await
            }
            2 if count < 4 => self.join().await,
            3 if count > 1 => drop(self.members.remove(which % count)),
            4..=6 if count > 0 => self.deliver(which % count).await,
            7 if count > 0 => self.acknowledge(which % count).await,
            8 => {
                tokio::time::sleep(Duration::from_millis(300) * u32::try_from(which).unwrap()).await
            }
            9 => {
                self.world.store.set_available(false);
                tokio::time::sleep(Duration::from_secs(1) * u32::try_from(which).unwrap()).await;
                self.world.store.set_available(true);
            }
            _ => {}
        }
    }

    async fn join(&mut self) {
        self.joined += 1;
        self.members.push((self.joined, self.world.join().await));
    }

    async fn deliver(&mut self, index: usize) {
        let (id, member) = &mut self.members[index];
        let Some(delivery) = member.delivery(Duration::from_millis(1)).await else {
            return;
        };
        let mut got: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        for event in &delivery.events {
            let text = gist(event);
            let number = text.split_once('.').unwrap().0.parse().unwrap();
            got.entry(number)
                .or_default()
                .push(event.decode().unwrap().sequence);
        }
        for (number, sequences) in got {
            let acknowledged = self.world.acknowledged(number).await;
            self.books.delivered(*id, number, &sequences, acknowledged);
        }
    }

    async fn acknowledge(&mut self, index: usize) {
        let mut before = Vec::new();
        for number in 0..PARTITIONS {
            before.push(self.world.acknowledged(number).await);
        }
        let (id, member) = &self.members[index];
        member.acknowledge().await.unwrap();
        for (number, before) in (0..).zip(before) {
            let after = self.world.acknowledged(number).await;
            assert!(after <= before.max(self.books.furthest(*id, number)));
        }
    }

    /// Lets everybody work until nothing is left.
    async fn finish(&mut self) {
        if self.members.is_empty() {
            self.join().await;
        }
        for _ in 0..200 {
            for index in 0..self.members.len() {
                self.deliver(index).await;
                self.acknowledge(index).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        for (&number, &count) in &self.world.appended {
            assert_eq!(
                self.world.acknowledged(number).await,
                count as u64,
                "{number}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever comes and goes, and whatever the store does: a partition is read in order from what is acknowledged,
    /// by one member at a time, nobody acknowledges what was not theirs, and in the end all is done.
    #[test]
    fn nothing_is_lost_and_nothing_is_out_of_order(
        steps in prop::collection::vec((0..10_u8, 0..16_usize), 1..120),
    ) {
        testing::on_paused_time(async {
            let mut run = Run {
                world: World::new(),
                members: Vec::new(),
                joined: 0,
                books: Books::default(),
            };
            run.join().await;
            for (step, which) in steps {
                run.step(step, which).await;
            }
            run.finish().await;
        });
    }
}
