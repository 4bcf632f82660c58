//! A record that cannot be sealed: nothing gathers without a bound, nobody waits for it in vain.

use super::*;
use crate::connectors::tencent::usersig;
use crate::types::WallClock;

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn break_sealer(&self, broken: bool) {
        self.sealer.broken.store(broken, Ordering::SeqCst);
    }

    /// Pushes as much as can be added to a record. What comes next needs a record that is sealed anew.
    async fn fill_the_record(&mut self) {
        // The first has a whole one written, for the cookie that came with the login.
        for random in 0..=32 {
            self.push(random);
            assert!(
                self.acks
                    .recv()
                    .await
                    .expect(ALL)
                    .contains(&format!("\"{random}\""))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sealed_makes_the_upstream_wait() {
    let mut world = World::new().await;
    world.log_in().await;
    world.fill_the_record().await;
    let before = world.events().await;
    let pages = world.upstream.pages.load(Ordering::SeqCst);
    world.break_sealer(true);
    for random in 33..=92 {
        world.push(random);
        tokio::time::sleep(SECOND).await;
    }
    assert!(world.acks.try_recv().is_err(), "acknowledged, not stored");
    world.break_sealer(false);
    tokio::time::sleep(5 * SECOND).await;
    // The first push made the session stop taking in more; the next ones are the upstream's to repeat.
    assert_eq!(world.events().await, before + 1);
    assert!(world.acks.recv().await.expect(ALL).contains("\"33\""));
    assert!(world.acks.try_recv().is_err());
    assert!(
        world.upstream.pages.load(Ordering::SeqCst) > pages,
        "fetched"
    );
    world.push(93);
    assert!(world.acks.recv().await.expect(ALL).contains("\"93\""));
    assert_eq!(world.session().state(), v1::SessionState::Online);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_cannot_be_sealed_is_told_at_once() {
    let world = World::new().await;
    world.log_in().await;
    world.break_sealer(true);
    let key = World::key();
    let began = Instant::now();
    let secret = Secret::new("key".into());
    let signature = usersig::mint(1, &secret, "bot1", WallClock.now(), 2 * DAY, None);
    let renewed = world.gateway.renew_signature(&key, signature).await;
    assert_eq!(renewed.unwrap_err().reason(), "STORE_UNAVAILABLE");
    let logout = world.gateway.logout(&key).await;
    assert_eq!(logout.unwrap_err().reason(), "STORE_UNAVAILABLE");
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    // It is stored as soon as that can be done.
    world.break_sealer(false);
    tokio::time::sleep(2 * SECOND).await;
    let stored = world.store.sessions(&world.lease.partition).await.unwrap();
    let record = SessionRecord::decode(stored[0].record.as_slice()).unwrap();
    assert!(!record.desired);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_sealed_is_let_go_all_the_same() {
    for lost in [false, true] {
        let mut world = World::new().await;
        world.log_in().await;
        world.fill_the_record().await;
        world.break_sealer(true);
        world.push(33);
        tokio::time::sleep(SECOND / 2).await;
        let letting_go = async {
            if lost {
                world.gateway.lose(&world.lease.partition).await;
            } else {
                world.gateway.stop().await;
            }
        };
        let end = tokio::time::timeout(10 * SECOND, letting_go).await;
        assert!(end.is_ok(), "it waits for ever, lost: {lost}");
    }
}
