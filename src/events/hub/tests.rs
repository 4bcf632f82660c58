//! Writers and subscribers that find each other.

use futures_util::FutureExt as _;
use prost::Message as _;

use super::*;
use crate::events::encoded::account_print;
use crate::events::listeners::Told;
use crate::events::testing::message;
use crate::store::LogId;
use crate::types::TenantId;

fn partition(tenant: &str, number: u16) -> PartitionId {
    PartitionId {
        tenant: TenantId::new(tenant),
        number,
    }
}

fn end(sequence: u64) -> Position {
    Position {
        log: LogId(7),
        sequence,
    }
}

fn events(count: usize) -> Vec<Vec<u8>> {
    vec![message("bot", "hello").encode_to_vec(); count]
}

fn follow(hub: &Hub, tenant: &str, number: u16, news: &News) -> Followed {
    hub.follow(&partition(tenant, number), [].into(), news)
}

fn woken(news: &News) -> bool {
    news.changed().now_or_never().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_woken_once_for_all_that_is_new() {
    let (hub, news) = (Hub::new(), News::default());
    let followed = [0, 3].map(|number| follow(&hub, "a", number, &news));
    let told = || followed.each_ref().map(|log| log.listener.ask());
    assert!(!woken(&news));
    hub.publish(&partition("a", 0), end(1));
    hub.appended(&partition("a", 3), end(5), events(2));
    hub.appended(&partition("a", 3), end(6), events(1));
    assert!(woken(&news) && !woken(&news));
    // The tail of the second was empty, and so it looks for itself.
    assert_eq!(told(), [Told::after(0), Told::after(0)]);
    hub.appended(&partition("a", 3), end(8), events(2));
    assert!(woken(&news));
    assert_eq!(told(), [Told::default(), Told::after(6)]);
    hub.look_again();
    assert!(woken(&news) && !woken(&news));
    assert_eq!(told(), [Told::after(0), Told::after(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_not_woken_for_the_accounts_of_others() {
    let (hub, news) = (Hub::new(), News::default());
    let accounts = [account_print(b"bot7")];
    let followed = hub.follow(&partition("a", 0), accounts.into(), &news);
    hub.appended(&partition("a", 0), end(5), events(1));
    // The tail was empty.
    assert!(woken(&news));
    assert_eq!(followed.listener.ask(), Told::after(0));
    hub.appended(&partition("a", 0), end(6), events(1));
    assert!(!woken(&news));
    let own = message("bot7", "hello").encode_to_vec();
    hub.appended(&partition("a", 0), end(7), vec![own]);
    assert!(woken(&news));
    assert_eq!(followed.listener.ask().first(), Some(7));
}

#[tokio::test(start_paused = true)]
async fn tenants_do_not_wake_each_other() {
    let (hub, news, others) = (Hub::new(), News::default(), News::default());
    let _followed = follow(&hub, "a", 0, &news);
    let _by_others = follow(&hub, "b", 0, &others);
    hub.publish(&partition("b", 0), end(1));
    hub.appended(&partition("b", 0), end(2), events(1));
    assert!(!woken(&news) && woken(&others));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_is_not_kept() {
    let hub = Hub::new();
    hub.appended(&partition("a", 0), end(5), events(5));
    hub.publish(&partition("a", 1), end(5));
    assert_eq!(hub.held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tail_lives_as_long_as_somebody_follows() {
    let hub = Hub::new();
    let news = News::default();
    let one = follow(&hub, "a", 0, &news);
    hub.appended(&partition("a", 0), end(5), events(2));
    assert_eq!(one.tail.held(), [4, 5]);
    let other = follow(&hub, "a", 0, &news);
    drop(one);
    assert_eq!(other.tail.held(), [4, 5]);
    assert!(hub.held().1 > 0);
    drop(other);
    assert_eq!(hub.held(), (0, 0));
    // The next begins with nothing.
    let anew = follow(&hub, "a", 0, &news);
    assert_eq!(anew.tail.held(), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn logs_that_are_followed_and_written_elsewhere_are_counted() {
    let hub = Hub::new();
    let foreign = hub.foreign();
    let counted = || *foreign.borrow();
    let here = hub.write(&partition("a", 0));
    let news = News::default();
    let own = [0, 0].map(|number| follow(&hub, "a", number, &news));
    assert_eq!(counted(), 0);
    let others = [1, 1, 2].map(|number| follow(&hub, "a", number, &news));
    assert_eq!(counted(), 2);
    let gained = hub.write(&partition("a", 1));
    assert_eq!(counted(), 1);
    drop(here);
    assert_eq!(counted(), 2);
    drop(own);
    assert_eq!(counted(), 1);
    drop(gained);
    drop(others);
    assert_eq!(counted(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_a_log_looks_at_it_once_when_its_writer_comes() {
    let (hub, news) = (Hub::new(), News::default());
    let followed = follow(&hub, "a", 0, &news);
    let _written = hub.write(&partition("a", 0));
    assert!(woken(&news));
    assert_eq!(followed.listener.ask(), Told::after(0));
}

#[tokio::test(start_paused = true)]
async fn what_the_store_tells_of_a_log_written_here_is_passed_over_until_its_writer_goes() {
    let (hub, news) = (Hub::new(), News::default());
    let followed = follow(&hub, "a", 0, &news);
    let written = hub.write(&partition("a", 0));
    assert!(woken(&news));
    followed.listener.ask();
    hub.publish(&partition("a", 0), end(1));
    assert!(!woken(&news));
    drop(written);
    assert!(woken(&news));
    assert_eq!(followed.listener.ask(), Told::after(0));
}
