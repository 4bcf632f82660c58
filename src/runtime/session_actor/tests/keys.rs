//! Sealing keys that change while sessions live, and records that are sealed anew.

use super::*;
use crate::runtime::handle::{PartitionRotation, RotationReport, RotationState, RotationSummary};
use crate::runtime::record;
use crate::types::AccountId;

fn ring(active: &str, ids: &[(&str, u8)]) -> KeyRing {
    let key = |byte: u8| Secret::new(format!("{byte:02x}").repeat(32));
    let keys: Vec<_> = ids.iter().map(|&(id, byte)| (id, key(byte))).collect();
    KeyRing::parse(active, keys.iter().map(|(id, key)| (*id, key))).unwrap()
}

fn key_of(account: &str) -> SessionKey {
    SessionKey {
        account: AccountId::new(account),
        ..World::key()
    }
}

impl World {
    /// Seals by another key from now on, the first one kept.
    fn rotate(&self) {
        let both = ring("new", &[("k", 0), ("new", 1)]);
        self.sealer.replace(both).unwrap();
    }

    /// Seals and opens by another key alone.
    fn take_out(&self) {
        self.sealer.replace(ring("new", &[("new", 1)])).unwrap();
    }

    async fn logged_in(&self, account: &str) {
        let answer = self.gateway.login(&key_of(account), None).await.unwrap();
        assert_eq!(answer.0.code, 0, "{account}");
    }

    async fn at_rest(&self, account: &str) {
        self.logged_in(account).await;
        self.gateway.logout(&key_of(account)).await.unwrap();
    }

    async fn record(&self, account: &str) -> Vec<u8> {
        let account = AccountId::new(account);
        let stored = self.store.session(&self.lease.partition, &account).await;
        stored.unwrap().unwrap()
    }

    /// Which accounts' records are under another key than the active one.
    async fn old(&self) -> Vec<String> {
        let stored = self.store.sessions(&self.lease.partition).await.unwrap();
        let sealer = &self.sealer;
        let old = stored
            .iter()
            .filter(|stored| record::needs_reseal(sealer, &stored.record));
        old.map(|stored| stored.account.to_string()).collect()
    }

    /// Has all records sealed anew; answers what was told last of the partition, and the summary.
    async fn reseal(&self) -> (PartitionRotation, RotationSummary) {
        let mut watch = self.gateway.reseal();
        let mut last = PartitionRotation::default();
        loop {
            match watch.next().await.expect("a summary") {
                RotationReport::Partition(partition, rotation) => {
                    assert_eq!(partition, self.lease.partition);
                    last = rotation;
                }
                RotationReport::Summary(summary) => {
                    assert_eq!(watch.next().await, None);
                    return (last, summary);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_when_the_key_of_its_record_is_taken_out() {
    let mut world = World::new().await;
    world.log_in().await;
    let before = world.record("bot1").await;
    world.take_out();
    let sealer = Arc::clone(&world.sealer);
    assert!(record::decode(&sealer, &World::key(), &before).is_err());

    // It does not read its record, and its next save is under the key that is there.
    assert_eq!(world.session().state(), v1::SessionState::Online);
    world.push(1);
    world.acks.recv().await.expect(ALL);
    assert_eq!(world.session().state(), v1::SessionState::Online);
    assert_eq!(world.old().await, [""; 0]);
    let after = world.record("bot1").await;
    let restored = record::decode(&sealer, &World::key(), &after).unwrap();
    assert!(restored.durable.signature.is_some());
    assert_eq!(restored.ticket.a2, "a2");
    assert_eq!(world.upstream.count(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn all_records_are_sealed_anew_and_else_as_they_were() {
    let world = World::new().await;
    world.logged_in("online").await;
    world.at_rest("resting").await;
    world.logged_in("parked").await;
    world.upstream.refusals.lock().unwrap().push(70009);
    world.gateway.logout(&key_of("parked")).await.unwrap();
    let parked = world.gateway.login(&key_of("parked"), None).await;
    assert_eq!(parked.unwrap().0.code, 70009);

    world.rotate();
    assert_eq!(world.old().await, ["online", "parked", "resting"]);
    let durable = |record: &[u8], account| {
        let restored = record::decode(&world.sealer, &key_of(account), record).unwrap();
        (restored.durable, restored.ticket)
    };
    let mut before = Vec::new();
    for account in ["online", "parked", "resting"] {
        before.push((account, durable(&world.record(account).await, account)));
    }
    let (rotation, summary) = world.reseal().await;
    let expected = PartitionRotation {
        state: RotationState::Done,
        records: 3,
        total: 3,
        done: 3,
        ..PartitionRotation::default()
    };
    assert_eq!(rotation, expected);
    assert!(summary.is_complete());
    assert_eq!(
        (summary.active_key.as_str(), summary.partitions),
        ("new", 1)
    );
    assert_eq!(summary.sums, expected);
    assert_eq!(world.old().await, [""; 0]);
    world.take_out();
    for (account, before) in before {
        assert_eq!(durable(&world.record(account).await, account), before);
    }
    // It is as if nothing had been: who rests can be logged in, and the first is online yet.
    world.logged_in("resting").await;
    let online = world.gateway.session(&key_of("online")).unwrap();
    assert_eq!(online.state(), v1::SessionState::Online);
    assert_eq!(online.logins, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_is_not_done_again() {
    let world = World::new().await;
    world.at_rest("one").await;
    world.at_rest("two").await;
    world.rotate();
    let (first, _) = world.reseal().await;
    assert_eq!((first.total, first.done), (2, 2));
    let commits = world.store.commits().len();
    let (second, summary) = world.reseal().await;
    assert_eq!((second.total, second.done, second.records), (0, 0, 2));
    assert!(summary.is_complete());
    assert_eq!(world.store.commits().len(), commits);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_it_was_by_itself() {
    let mut world = World::new().await;
    world.at_rest("resting").await;
    world.gateway.stop().await;
    let again = gateway(&world.upstream, &world.store, &world.sealer, &world.tasks).await;
    (world.gateway, world.lease, world.keeper) = again;
    world.rotate();
    let stored = world.store.sessions(&world.lease.partition).await.unwrap();
    assert_eq!(world.old().await, ["resting"]);
    let adopted = &world.lease.partition;
    world.gateway.adopt(adopted, stored, Vec::new());
    let patience = Instant::now() + Duration::from_secs(60);
    while !world.old().await.is_empty() {
        assert!(Instant::now() < patience, "nobody seals it anew");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_key_is_gone_fails_and_is_told() {
    let world = World::new().await;
    world.at_rest("lost").await;
    world.at_rest("lucky").await;
    world.take_out();
    // A login writes it anew, as of an account that was never seen.
    world.logged_in("lucky").await;
    let (rotation, summary) = world.reseal().await;
    assert_eq!(rotation.state, RotationState::Failed);
    assert_eq!((rotation.records, rotation.total), (2, 1));
    assert_eq!((rotation.done, rotation.failed), (0, 1));
    assert!(!summary.is_complete());
    assert_eq!(summary.partitions_failed, 1);
    // With the key back it can be done.
    world.rotate();
    assert!(world.reseal().await.1.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_comes_meanwhile_waits_and_is_not_written_over() {
    let world = World::new().await;
    world.at_rest("bot1").await;
    world.rotate();
    let mut watch = world.gateway.reseal();
    while !matches!(
        watch.next().await,
        Some(RotationReport::Partition(_, rotation)) if rotation.total == 1
    ) {}
    // The record has been read, or is just being read, and cannot be stored.
    world.store.set_hanging(true);
    let key = World::key();
    let mut login = std::pin::pin!(world.gateway.login(&key, None));
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, &mut login).await.is_err());
    world.store.set_hanging(false);
    assert_eq!(login.await.unwrap().0.code, 0);
    while watch.next().await.is_some() {}
    let record = SessionRecord::decode(world.record("bot1").await.as_slice()).unwrap();
    assert!(record.desired, "the login was written over");
    assert_eq!(record.logins, 2);
    assert_eq!(world.old().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for() {
    let world = World::new().await;
    world.at_rest("one").await;
    world.rotate();
    world.store.set_available(false);
    let mut watch = world.gateway.reseal();
    let all = async { while watch.next().await.is_some() {} };
    let mut all = std::pin::pin!(all);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut all).await.is_err());
    world.store.set_available(true);
    all.await;
    assert_eq!(world.old().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_of_another_is_left_to_it() {
    let world = World::new().await;
    world.at_rest("bot1").await;
    world.rotate();
    let before = world.record("bot1").await;
    world.gateway.lose(&world.lease.partition).await;
    let (rotation, summary) = world.reseal().await;
    assert_eq!(rotation.state, RotationState::Elsewhere);
    assert_eq!((rotation.total, rotation.done), (1, 0));
    assert_eq!(summary.elsewhere, 1);
    assert!(!summary.is_complete());
    assert_eq!(world.record("bot1").await, before);
}

#[tokio::test(start_paused = true)]
async fn many_records_take_their_time() {
    let world = World::new().await;
    for number in 0..50 {
        world.at_rest(&format!("bot{number}")).await;
    }
    world.rotate();
    let began = Instant::now();
    let (rotation, _) = world.reseal().await;
    assert_eq!(rotation.done, 50);
    // At 200 a second, and the store in memory takes no time.
    assert!(began.elapsed() >= Duration::from_millis(49 * 5));
}
