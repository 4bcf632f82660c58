use super::*;
use crate::types::AccountId;

const NOON: UnixMillis = UnixMillis::from_secs(1_795_824_000);
const TODAY: Day = Day(20_785);

fn quotas(limits: Limits) -> Arc<Quotas> {
    Quotas::new(TenantId::new("acme"), limits)
}

fn account(name: &str) -> AccountId {
    AccountId::new(name)
}

#[tokio::test(start_paused = true)]
async fn rates_are_refused_with_the_time_until_there_is_one() {
    let quotas = quotas(Limits {
        logins_per_minute: 6,
        sends_per_second: 4,
        ..Limits::NONE
    });
    for _ in 0..6 {
        quotas.log_in().unwrap();
    }
    for _ in 0..4 {
        quotas.send().unwrap();
    }
    let refused = quotas.log_in().unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_secs(10));
    assert_eq!(
        refused.to_string(),
        "the tenant's limit of 6 logins per minute is reached: call less often, or have limits.logins_per_minute raised"
    );
    assert_eq!(refused.quota.reason(), "LOGINS_PER_MINUTE");
    let refused = quotas.send().unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_millis(250));
    tokio::time::sleep(refused.retry_after).await;
    quotas.send().unwrap();
    quotas.send().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn new_limits_hold_at_once_and_forget_nothing() {
    let few = Limits {
        sends_per_second: 10,
        subscribers: 2,
        ..Limits::NONE
    };
    let quotas = quotas(few);
    quotas.set_share(Share::new(4, 8));
    let sent = (0..20).filter(|_| quotas.send().is_ok()).count();
    assert_eq!(sent, 5);
    let open = [quotas.subscribe().unwrap(), quotas.subscribe().unwrap()];
    quotas.set_limits(Limits {
        sends_per_second: 20,
        subscribers: 1,
        ..Limits::NONE
    });
    quotas.send().unwrap_err();
    tokio::time::sleep(Duration::from_millis(100)).await;
    quotas.send().unwrap();
    quotas.send().unwrap_err();
    let [one, other] = open;
    drop(one);
    assert_eq!(quotas.subscribe().unwrap_err().limit, 1);
    drop(other);
    let _one = quotas.subscribe().unwrap();
    assert_eq!(quotas.subscribers(), 1);
}

fn capped(limit: u64, refuse: bool) -> Arc<Quotas> {
    quotas(Limits {
        daily_active_users: Some(limit),
        refuse_daily_active_users: refuse,
        ..Limits::NONE
    })
}

#[test]
fn of_many_logins_at_once_no_more_go_through_than_may_and_one_that_fails_makes_room() {
    let quotas = capped(3, true);
    let admit = || quotas.admit_active(NOON, None).map(Option::unwrap);
    let mut on_the_way = vec![admit().unwrap(), admit().unwrap(), admit().unwrap()];
    let refused = admit().unwrap_err();
    assert_eq!(refused.quota, Quota::DailyActiveUsers);
    // From eight in the morning to midnight.
    assert_eq!(refused.retry_after, Duration::from_secs(16 * 3600));
    on_the_way.pop();
    on_the_way.push(admit().unwrap());
    admit().unwrap_err();
    // Who has been active today is not counted again.
    assert!(quotas.admit_active(NOON, Some(TODAY)).unwrap().is_none());
    admit().unwrap_err();
    quotas
        .admit_active(NOON, Some(Day(TODAY.0 - 1)))
        .unwrap_err();
}

#[test]
fn an_account_counts_all_the_way_to_the_store_and_once() {
    let quotas = capped(2, true);
    let used = || quotas.daily_active(TODAY).used;
    let admitted = quotas.admit_active(NOON, None).unwrap();
    assert_eq!(used(), 1);
    assert!(quotas.note_active(&account("a"), NOON, admitted));
    // Again, before it was noted: as one that logs in anew after its signature has ended.
    assert!(quotas.note_active(&account("a"), NOON, None));
    assert_eq!(used(), 1);
    let batch = quotas.to_note(10).unwrap();
    assert_eq!((batch.day, &*batch.accounts), (TODAY, &[account("a")][..]));
    assert_eq!(used(), 1);
    quotas.not_noted(batch);
    assert_eq!(used(), 1);
    let batch = quotas.to_note(10).unwrap();
    assert!(quotas.to_note(10).is_none());
    quotas.noted(&batch);
    quotas.active_known(TODAY, 1, TODAY);
    assert_eq!(used(), 1);
    // Another replica has noted one.
    quotas.active_known(TODAY, 2, TODAY);
    quotas.admit_active(NOON, None).unwrap_err();
}

#[test]
fn a_new_day_begins_with_none_and_yesterdays_are_noted_as_yesterdays() {
    let quotas = capped(1, true);
    let admitted = quotas.admit_active(NOON, None).unwrap();
    quotas.note_active(&account("a"), NOON, admitted);
    quotas.active_known(TODAY, 1, TODAY);
    let tomorrow = NOON.plus(NOON.rest_of_day());
    assert_eq!(tomorrow.day(), Day(TODAY.0 + 1));
    let batch = quotas.to_note(10).unwrap();
    assert_eq!(batch.day, TODAY);
    quotas.noted(&batch);
    // What is known of yesterday says nothing of today.
    assert!(!quotas.active_known(TODAY, 1, tomorrow.day()));
    quotas
        .admit_active(tomorrow, Some(TODAY))
        .unwrap()
        .expect("it is new");
}

#[test]
fn batches_are_of_one_day_and_bounded() {
    let quotas = quotas(Limits::NONE);
    for name in ["a", "b", "c"] {
        quotas.note_active(&account(name), NOON, None);
    }
    let tomorrow = NOON.plus(NOON.rest_of_day());
    quotas.note_active(&account("a"), tomorrow, None);
    let sizes: Vec<_> = std::iter::from_fn(|| quotas.to_note(2))
        .map(|batch| (batch.day, batch.accounts.len()))
        .collect();
    assert_eq!(sizes, [(TODAY, 2), (TODAY, 1), (tomorrow.day(), 1)]);
}

#[test]
fn the_warning_comes_at_four_fifths_and_once_a_day() {
    let quotas = capped(100, false);
    let tomorrow = Day(TODAY.0 + 1);
    let warns: Vec<bool> = [
        (TODAY, 79),
        (TODAY, 80),
        (TODAY, 200),
        (tomorrow, 1),
        (tomorrow, 99),
    ]
    .map(|(day, count)| quotas.active_known(day, count, day))
    .into();
    assert_eq!(warns, [false, true, false, false, true]);
    // It is a warning: nobody is refused.
    assert!(quotas.admit_active(NOON, None).unwrap().is_some());
    let without = self::quotas(Limits::NONE);
    assert!(!without.active_known(TODAY, 1_000_000, TODAY));
}

#[test]
fn each_quota_has_a_key_and_a_reason_of_its_own() {
    let labels: std::collections::BTreeSet<_> = Quota::ALL.map(Quota::label).into();
    let reasons: std::collections::BTreeSet<_> = Quota::ALL.map(Quota::reason).into();
    assert_eq!((labels.len(), reasons.len()), (7, 7));
}
