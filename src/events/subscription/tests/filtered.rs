//! Subscribers that take the events of some accounts: what is for others neither wakes them nor holds their place back.

use super::*;

const ACCOUNTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn home(world: &World, account: &str) -> u16 {
    let key = SessionKey {
        tenant: tenant(),
        account: AccountId::new(account),
    };
    key.partition(world.partitions).number
}

/// Two accounts in different partitions.
fn apart(world: &World) -> (&'static str, &'static str) {
    let (first, rest) = ACCOUNTS.split_first().unwrap();
    let other = rest
        .iter()
        .find(|other| home(world, other) != home(world, first));
    (first, other.unwrap())
}

async fn open(world: &World, start: Start, accounts: &[&str]) -> Subscription {
    let accounts = accounts.iter().map(|&account| AccountId::new(account));
    let options = SubscribeOptions {
        accounts: accounts.collect(),
        ..options(start)
    };
    world.open_with(options).await
}

/// An event of an account, as the writer on this replica appends it.
async fn add(world: &World, account: &str, text: &str) {
    let event = message(account, text);
    world.add_events(home(world, account), &[event]).await;
}

fn at(world: &World, cursor: &str, number: u16) -> u64 {
    world.decode(cursor).marks[&number].position.sequence
}

#[tokio::test(start_paused = true)]
async fn what_is_for_others_wakes_nobody_and_is_passed_without_a_read() {
    let world = world(1);
    add(&world, "a", "before").await;
    let mut live = open(&world, Start::Latest, &["a"]).await;
    assert!(live.next().now_or_never().is_none());
    let reads = world.store.reads();
    // Far more than a tail holds.
    for _ in 0..6000 {
        add(&world, "b", "x").await;
    }
    assert!(live.news.changed().now_or_never().is_none());
    let (none, cursor) = next(&mut live).await;
    assert_eq!((none.len(), at(&world, &cursor, 0)), (0, 6001));
    for _ in 0..6000 {
        add(&world, "b", "x").await;
    }
    add(&world, "a", "own").await;
    add(&world, "b", "x").await;
    let (own, cursor) = next(&mut live).await;
    assert_eq!((own.len(), at(&world, &cursor, 0)), (1, 12_003));
    assert_eq!(world.store.reads(), reads);
    assert_eq!(all(&mut world.resume(&cursor).await).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_passes_what_is_for_others_in_all_partitions() {
    let world = world(2);
    let (one, other) = apart(&world);
    let mut live = open(&world, Start::Latest, &[one, other]).await;
    for account in [one, other] {
        add(&world, account, "first").await;
        assert_eq!(texts(&mut live).await, ["first"]);
    }
    assert!(live.next().now_or_never().is_none());
    let stranger = ACCOUNTS.into_iter().find(|account| {
        ![one, other].contains(account) && home(&world, account) == home(&world, other)
    });
    add(&world, stranger.unwrap(), "x").await;
    add(&world, one, "own").await;
    let (own, cursor) = next(&mut live).await;
    assert_eq!(own, ["own"]);
    assert_eq!(at(&world, &cursor, home(&world, other)), 2);
    // What is for it there and was not delivered yet is not passed.
    add(&world, one, "this").await;
    add(&world, other, "that").await;
    let mut got = Vec::new();
    for _ in 0..2 {
        let (own, cursor) = next(&mut live).await;
        got.extend(own);
        let rest = all(&mut open(&world, Start::Cursor(cursor), &[one, other]).await).await;
        assert_eq!(got.len() + rest.len(), 2, "{rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_began_anew_is_told_though_nothing_in_it_is_for_one() {
    let world = world(1);
    add(&world, "a", "before").await;
    let mut live = open(&world, Start::Latest, &["a"]).await;
    assert!(live.next().now_or_never().is_none());
    world.store.lose_data();
    world.change_owners();
    add(&world, "b", "x").await;
    assert_eq!(texts(&mut live).await, ["gap LOG_RESET 2-0 0"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever appends, and however often the subscriber resumes: it gets what is its own, once and in order per account,
    /// and nothing else.
    #[test]
    fn each_gets_its_own_and_nothing_is_passed(
        steps in prop::collection::vec((0..ACCOUNTS.len(), 0..9_u8, 1..12_usize), 1..120),
        tail in prop::sample::select(vec![2_usize, 64]),
    ) {
        on_paused_time(async {
            let world = world_with(3, Hub::with_budget(tail * 1024));
            let own = &ACCOUNTS[..2];
            let mut expected: [Vec<String>; 2] = Default::default();
            let mut got = expected.clone();
            let mut live = open(&world, Start::Latest, own).await;
            for (step, (account, action, count)) in steps.into_iter().enumerate() {
                let name = ACCOUNTS[account];
                let number = home(&world, name);
                let texts = (0..count).map(|n| format!("{step}.{n}"));
                let texts: Vec<String> = texts.collect();
                let events: Vec<_> = texts.iter().map(|text| message(name, text)).collect();
                let payloads: Vec<_> = events.iter().map(v1::Event::encode_to_vec).collect();
                match action {
                    0..=3 => world.add_events(number, &events).await,
                    4 => {
                        let end = world.append(number, &payloads).await;
                        world.hub.publish(&partition(number), end);
                    }
                    5 => {
                        world.append(number, &payloads).await;
                    }
                    _ => {
                        let delivery = live.next().await.unwrap();
                        book(&delivery, &mut got);
                        if action == 8 {
                            live = open(&world, Start::Cursor(delivery.cursor), own).await;
                        }
                    }
                }
                if let (Some(expected), 0..=5) = (expected.get_mut(account), action) {
                    expected.extend(texts);
                }
            }
            // What nobody told of is found at the second heartbeat.
            for _ in 0..2 {
                loop {
                    let delivery = live.next().await.unwrap();
                    book(&delivery, &mut got);
                    if delivery.events.is_empty() {
                        break;
                    }
                }
            }
            assert_eq!(got, expected);
            // The place is behind all that there was.
            let cursor = live.next().await.unwrap().cursor;
            let followed = own.iter().map(|account| home(&world, account));
            for number in followed {
                let end = world.ends.lock().unwrap().get(&number).copied();
                assert_eq!(at(&world, &cursor, number), end.unwrap_or_default().sequence);
            }
        });
    }
}

fn book(delivery: &Delivery, got: &mut [Vec<String>; 2]) {
    for event in &delivery.events {
        let account = event.decode().unwrap().account;
        let own = ACCOUNTS.iter().position(|&own| own == account);
        got[own.unwrap()].push(gist(event));
    }
}
