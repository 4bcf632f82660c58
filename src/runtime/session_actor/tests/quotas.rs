//! What a tenant's limits do to logins and sends.

use super::*;
use crate::runtime::handle::CallError;
use crate::runtime::usage;
use crate::tenants::quotas::Quota;
use crate::types::WallClock;

fn limits(world: &World) -> impl Fn(Limits) {
    let tenant = Arc::clone(&world.gateway.tenants()[0].tenant);
    let quotas = Arc::clone(&tenant.quotas);
    move |limits| quotas.set_limits(limits)
}

fn capped(daily_active_users: u64) -> Limits {
    Limits {
        daily_active_users: Some(daily_active_users),
        refuse_daily_active_users: true,
        ..Limits::NONE
    }
}

async fn log_in(world: &World, account: &str) -> Result<i32, Quota> {
    let key = SessionKey {
        tenant: TenantId::new("t"),
        account: AccountId::new(account),
    };
    match world.gateway.login(&key, None).await {
        Ok((outcome, _)) => Ok(outcome.code),
        Err(CallError::Quota(exceeded)) => Err(exceeded.quota),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_costs_none_is_not_counted() {
    let world = World::new().await;
    limits(&world)(Limits {
        logins_per_minute: 2,
        ..Limits::NONE
    });
    // One that leads to a login by signature, and many that do not.
    for _ in 0..20 {
        assert_eq!(log_in(&world, "bot1").await, Ok(0));
    }
    assert_eq!(log_in(&world, "bot2").await, Ok(0));
    assert_eq!(log_in(&world, "bot3").await, Err(Quota::Logins));
    // Who is online is answered all the same.
    assert_eq!(log_in(&world, "bot2").await, Ok(0));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(log_in(&world, "bot3").await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_new_account_is_refused_at_the_cap_and_one_that_was_counted_goes_on() {
    let world = World::new().await;
    limits(&world)(capped(1));
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    assert_eq!(log_in(&world, "bot2").await, Err(Quota::DailyActiveUsers));
    // The refused one leaves nothing behind.
    let two = SessionKey {
        tenant: TenantId::new("t"),
        account: AccountId::new("bot2"),
    };
    assert!(matches!(
        world.gateway.session(&two),
        Err(CallError::UnknownAccount)
    ));
    world.gateway.logout(&World::key()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    assert_eq!(log_in(&world, "bot2").await, Err(Quota::DailyActiveUsers));
    limits(&world)(capped(2));
    assert_eq!(log_in(&world, "bot2").await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_the_upstream_refuses_makes_room_and_does_not_count_as_active() {
    let world = World::new().await;
    limits(&world)(capped(1));
    // The key does not match: it parks.
    *world.upstream.refusals.lock().unwrap() = vec![70009];
    assert_eq!(log_in(&world, "bot1").await, Ok(70009));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(log_in(&world, "bot2").await, Ok(0));
    // It was sent a login today, but none was accepted.
    assert_eq!(log_in(&world, "bot1").await, Err(Quota::DailyActiveUsers));
}

#[tokio::test(start_paused = true)]
async fn who_was_active_is_noted_in_the_store_and_known_to_the_next_process() {
    let mut world = World::new().await;
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    let noted = async |world: &World| {
        let today = WallClock.now().day();
        let tenant = TenantId::new("t");
        let noted = world.store.note_active(&tenant, today, &[]);
        noted.await.unwrap()
    };
    assert_eq!(noted(&world).await, 0);
    let shared: Arc<dyn Store> = world.store.clone();
    usage::start(world.gateway.clone(), Arc::clone(&shared), &world.tasks);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(noted(&world).await, 1);

    // A store that is away costs no login, and is told later.
    world.store.set_available(false);
    let tenant = Arc::clone(&world.gateway.tenants()[0].tenant);
    let other = AccountId::new("other");
    assert!(tenant.quotas.note_active(&other, WallClock.now(), None));
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.store.set_available(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(noted(&world).await, 2);

    world.gateway.stop().await;
    world.restart().await;
    limits(&world)(capped(2));
    usage::start(world.gateway.clone(), shared, &world.tasks);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(log_in(&world, "bot2").await, Err(Quota::DailyActiveUsers));
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_of_a_session_that_is_logged_in_goes_on_at_the_cap() {
    let world = World::new().await;
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    // The cap is reached by others.
    limits(&world)(capped(1));
    let tenant = Arc::clone(&world.gateway.tenants()[0].tenant);
    let today = WallClock.now().day();
    tenant.quotas.active_known(today, 100, today);
    // Past the life of its signature, which is renewed.
    tokio::time::sleep(DAY + Duration::from_secs(60)).await;
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    assert_eq!(log_in(&world, "bot2").await, Err(Quota::DailyActiveUsers));
}

#[tokio::test(start_paused = true)]
async fn sends_and_raw_commands_are_of_one_rate() {
    let world = World::new().await;
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    limits(&world)(Limits {
        sends_per_second: 2,
        ..Limits::NONE
    });
    let invoke = || async {
        let (command, body) = ("im_any.thing".to_owned(), "{}".to_owned());
        // Nobody answers it; it is the refusal that matters.
        let key = World::key();
        let answer = world.gateway.invoke(&key, command, body);
        match tokio::time::timeout(Duration::from_millis(1), answer).await {
            Ok(Err(CallError::Quota(exceeded))) => Some(exceeded),
            Ok(_) | Err(_) => None,
        }
    };
    assert_eq!(invoke().await, None);
    assert_eq!(invoke().await, None);
    let refused = invoke().await.unwrap();
    assert_eq!(refused.quota, Quota::Sends);
    assert!(refused.retry_after <= Duration::from_millis(500));
    tokio::time::sleep(refused.retry_after).await;
    assert_eq!(invoke().await, None);
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_set_anew_hold_for_what_was_used_before() {
    let world = World::new().await;
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
    let shared: Arc<dyn Store> = world.store.clone();
    let anew = Settings {
        limits: Limits {
            logins_per_minute: 1,
            subscribers: 0,
            ..capped(1)
        },
        ..settings(&world.upstream, &shared)
    };
    let tenant = TenantId::new("t");
    let open = world.gateway.subscribe(&tenant).unwrap();
    world.gateway.set(&tenant, anew, &LogOptions::default());
    assert!(world.gateway.subscribe(&tenant).is_err());
    drop(open);
    // The one login of the limits before is still counted, if only just.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log_in(&world, "bot2").await, Err(Quota::DailyActiveUsers));
    assert_eq!(log_in(&world, "bot2").await, Err(Quota::Logins));
    assert_eq!(log_in(&world, "bot1").await, Ok(0));
}
