//! The contract's part on shared subscriptions: who is there, and who has which partition.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::types::{MemberId, TenantId};

use crate::fixture::*;

const BRIEF: Duration = Duration::from_millis(30);

fn tenant() -> TenantId {
    TenantId::new("tenant")
}

fn member(name: &str) -> MemberId {
    MemberId::new(name)
}

fn names(members: &[MemberId]) -> Vec<&str> {
    members.iter().map(MemberId::as_str).collect()
}

async fn attend(store: &Shared, name: &str, ttl: Duration) -> Vec<MemberId> {
    let attended = store
        .attend(&tenant(), "main", &member(name), Some(ttl))
        .await;
    attended.unwrap()
}

async fn claim_share(store: &Shared, name: &str, ttl: Duration) -> bool {
    let claimed = store.claim_share(&here(), "main", &member(name), ttl).await;
    claimed.unwrap()
}

pub(crate) async fn members_come_and_go(store: Shared) {
    let there = || async { store.members(&tenant(), "main").await.unwrap() };
    let leave = |name: &'static str| {
        let store = store.clone();
        async move {
            let left = store.attend(&tenant(), "main", &member(name), None).await;
            left.unwrap()
        }
    };
    assert!(there().await.is_empty());
    assert!(leave("nobody").await.is_empty());
    assert_eq!(names(&attend(&store, "b", LONG).await), ["b"]);
    assert_eq!(
        names(&attend(&store, "é 1:\n", LONG).await),
        ["b", "é 1:\n"]
    );
    assert_eq!(
        names(&attend(&store, "a", LONG).await),
        ["a", "b", "é 1:\n"]
    );
    // To stay is not to come twice.
    assert_eq!(
        names(&attend(&store, "a", LONG).await),
        ["a", "b", "é 1:\n"]
    );
    assert_eq!(names(&there().await), ["a", "b", "é 1:\n"]);
    assert_eq!(names(&leave("b").await), ["a", "é 1:\n"]);
    assert_eq!(names(&leave("b").await), ["a", "é 1:\n"]);
    assert_eq!(names(&leave("a").await), ["é 1:\n"]);
    assert!(leave("é 1:\n").await.is_empty());
    assert!(there().await.is_empty());
}

pub(crate) async fn a_member_that_does_not_stay_runs_out(store: Shared) {
    attend(&store, "long", LONG).await;
    attend(&store, "brief", BRIEF).await;
    eventually("the member runs out", || async {
        let there = store.members(&tenant(), "main").await.unwrap();
        (names(&there) == ["long"]).then_some(())
    })
    .await;
    assert_eq!(names(&attend(&store, "new", LONG).await), ["long", "new"]);
    // Who stays lasts from then on, for longer or not so long.
    attend(&store, "new", BRIEF).await;
    attend(&store, "brief", BRIEF).await;
    attend(&store, "brief", LONG).await;
    eventually("the member runs out", || async {
        let there = store.members(&tenant(), "main").await.unwrap();
        (names(&there) == ["brief", "long"]).then_some(())
    })
    .await;
    // So does the last one.
    for name in ["brief", "long"] {
        attend(&store, name, BRIEF).await;
    }
    eventually("nobody is left", || async {
        let there = store.members(&tenant(), "main").await.unwrap();
        there.is_empty().then_some(())
    })
    .await;
}

pub(crate) async fn members_are_of_one_subscription(store: Shared) {
    let tenants = ["", "a", "a:1", "1:a", "租户"];
    let subscriptions = ["", "a", "1:a", "a1", "1"];
    for tenant in tenants {
        for subscription in subscriptions {
            let own = member(&format!("{tenant}/{subscription}"));
            let tenant = TenantId::new(tenant);
            let attended = store.attend(&tenant, subscription, &own, Some(LONG)).await;
            assert_eq!(attended.unwrap(), [own]);
        }
    }
    for tenant in tenants {
        for subscription in subscriptions {
            let own = member(&format!("{tenant}/{subscription}"));
            let tenant = TenantId::new(tenant);
            let there = store.members(&tenant, subscription).await.unwrap();
            assert_eq!(there, [own]);
        }
    }
    let none = store.members(&TenantId::new("b"), "a").await.unwrap();
    assert!(none.is_empty());
}

pub(crate) async fn a_share_is_one_members(store: Shared) {
    assert!(claim_share(&store, "a", LONG).await);
    assert!(!claim_share(&store, "b", LONG).await);
    assert!(claim_share(&store, "a", LONG).await);
    let release = |name: &'static str| {
        let store = store.clone();
        async move {
            let released = store.release_share(&here(), "main", &member(name)).await;
            released.unwrap();
        }
    };
    // It is not b's to give back.
    release("b").await;
    assert!(!claim_share(&store, "b", LONG).await);
    release("a").await;
    release("a").await;
    assert!(claim_share(&store, "b \n:é", LONG).await);
    assert!(!claim_share(&store, "a", LONG).await);
}

pub(crate) async fn one_of_many_members_gets_a_share(store: Shared) {
    let members: Vec<String> = (0..20).map(|n| format!("member-{n}")).collect();
    let claims = join_all(members.iter().map(|name| claim_share(&store, name, LONG))).await;
    assert_eq!(claims.iter().filter(|granted| **granted).count(), 1);
    let winner = claims.iter().position(|granted| *granted).unwrap();
    assert!(claim_share(&store, &members[winner], LONG).await);
}

pub(crate) async fn a_share_that_is_not_kept_runs_out(store: Shared) {
    assert!(claim_share(&store, "a", BRIEF).await);
    eventually("the share runs out", || async {
        claim_share(&store, "b", LONG).await.then_some(())
    })
    .await;
    assert!(!claim_share(&store, "a", LONG).await);
    // Kept for a shorter time, it runs out after that.
    assert!(claim_share(&store, "b", BRIEF).await);
    eventually("the share runs out", || async {
        claim_share(&store, "a", BRIEF).await.then_some(())
    })
    .await;
    // Kept for a longer time, it outlasts another that was claimed for the shorter one.
    assert!(claim_share(&store, "a", LONG).await);
    let other = |name, ttl| {
        let (store, member) = (store.clone(), member(name));
        async move {
            let claimed = store.claim_share(&here(), "other", &member, ttl).await;
            claimed.unwrap()
        }
    };
    assert!(other("a", BRIEF).await);
    eventually("the other share runs out", || async {
        other("b", LONG).await.then_some(())
    })
    .await;
    assert!(!claim_share(&store, "b", LONG).await);
}

pub(crate) async fn shares_are_apart(store: Shared) {
    let mut claims = Vec::new();
    for (tenant, number) in [("a", 0), ("a", 1), ("a:1", 0), ("b", 0)] {
        for subscription in ["x", "x:y", "", "é 名", "X"] {
            let own = member(&format!("{tenant}/{number}/{subscription}"));
            let place = partition(tenant, number);
            let claimed = store.claim_share(&place, subscription, &own, LONG).await;
            assert!(claimed.unwrap(), "{own}");
            claims.push((place, subscription, own));
        }
    }
    for (place, subscription, own) in claims {
        let other = member("other");
        let claimed = store.claim_share(&place, subscription, &other, LONG).await;
        assert!(!claimed.unwrap(), "{own}");
        let kept = store.claim_share(&place, subscription, &own, LONG).await;
        assert!(kept.unwrap(), "{own}");
    }
}
