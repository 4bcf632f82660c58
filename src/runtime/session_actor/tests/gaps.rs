//! What could not be stored and is given up is told as a gap, with its count.

use v1::event::Kind;

use super::*;

/// The kinds of events in the log, a gap with its count.
async fn log(world: &World) -> Vec<String> {
    let read = world.store.read(&world.lease.partition, 0, 10_000).await;
    let entries = read.unwrap().entries;
    let name = |payload: &[u8]| {
        let event = v1::Event::decode(payload).unwrap();
        assert_eq!(event.account, "bot1");
        match event.kind.unwrap() {
            Kind::Message(_) => "message".to_owned(),
            Kind::SessionChanged(_) => "changed".to_owned(),
            Kind::Gap(gap) => format!("{}:{}", gap.reason().as_str_name(), gap.count),
            Kind::SignatureExpired(_) | Kind::KickedOffline(_) | Kind::UpstreamNotice(_) => {
                panic!("unexpected")
            }
        }
    };
    entries.iter().map(|entry| name(&entry.payload)).collect()
}

#[tokio::test(start_paused = true)]
async fn notices_that_find_no_place_are_told_as_one_gap_where_they_were() {
    let world = World::new().await;
    world.log_in().await;
    let before = log(&world).await;
    assert!(before.iter().all(|kind| kind == "changed"));
    // Each drop of the connection is some notices, and none can be stored.
    world.store.set_hanging(true);
    world.upstream.fickle.store(true, Ordering::SeqCst);
    world.upstream.stalled.send_replace(true);
    world.stands(v1::SessionState::BackingOff).await;
    world.upstream.stalled.send_replace(false);
    // The signature lives a day, and its end is another notice.
    tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
    world.upstream.fickle.store(false, Ordering::SeqCst);
    world.stands(v1::SessionState::Online).await;
    world.store.set_hanging(false);
    tokio::time::sleep(Duration::from_secs(10)).await;

    let after = log(&world).await.split_off(before.len());
    let gaps: Vec<_> = after.iter().filter(|kind| *kind != "changed").collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = after.iter().position(|kind| kind != "changed").unwrap();
    let count = after[gap].strip_prefix("GAP_REASON_NOT_STORED:").unwrap();
    assert!(count.parse::<u64>().unwrap() > 100, "{count}");
    assert_eq!(after.len() - gap - 1, 256, "the newest are kept");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_cannot_take_is_told_as_a_gap_by_the_next_append() {
    let mut world = World::new().await;
    world.log_in().await;
    let before = log(&world).await.len();
    world.store.set_corrupt(true);
    world.push(1);
    world.push(2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        world.acks.try_recv().is_err(),
        "acknowledged and not stored"
    );
    world.store.set_corrupt(false);
    world.push(3);
    assert!(world.acks.recv().await.expect(ALL).contains("\"3\""));
    let after = log(&world).await.split_off(before);
    assert_eq!(after, ["GAP_REASON_NOT_STORED:2", "message"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_lost_itself_is_told_by_another() {
    let mut world = World::new().await;
    world.log_in().await;
    let before = log(&world).await.len();
    world.store.set_corrupt(true);
    for random in 1..=3 {
        world.push(random);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.store.set_corrupt(false);
    world.push(4);
    world.acks.recv().await.expect(ALL);
    let after = log(&world).await.split_off(before);
    assert_eq!(after, ["GAP_REASON_NOT_STORED:3", "message"]);
}
