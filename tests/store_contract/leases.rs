//! The contract's part on ownership: claim, renew, release, and what they mean for writes.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::store::{Claim, Renewal};
use imgate::types::Epoch;

use crate::fixture::*;

const BRIEF: Duration = Duration::from_millis(30);

pub(crate) async fn a_free_partition_is_granted_and_a_held_one_is_not(store: Shared) {
    let name = "replica 1:2 \n é";
    let lease = granted(claim(&store, name, LONG).await);
    assert_eq!((&lease.partition, &lease.owner), (&here(), &replica(name)));
    match claim(&store, "other", LONG).await {
        Claim::Held { owner, remaining } => {
            assert_eq!(owner, replica(name));
            assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
        }
        other @ (Claim::Granted(_) | Claim::Unknown) => panic!("not held: {other:?}"),
    }
    append(&store, &lease, ["still mine"]).await;
}

pub(crate) async fn a_restarted_owner_gets_a_greater_epoch(store: Shared) {
    let old = granted(claim(&store, "a", LONG).await);
    let new = granted(claim(&store, "a", LONG).await);
    assert!(new.epoch > old.epoch);
    assert_eq!(store.renew(&old, LONG).await.unwrap(), Renewal::Lost);
    assert_eq!(store.renew(&new, LONG).await.unwrap(), Renewal::Renewed);
    assert_eq!(
        fenced(store.commit(&old, &events(["x"])).await, &old),
        Some(new.epoch)
    );
    append(&store, &new, ["y"]).await;
}

pub(crate) async fn a_lease_runs_out(store: Shared) {
    let old = granted(claim(&store, "a", BRIEF).await);
    let new = eventually("the lease runs out", || async {
        match claim(&store, "b", LONG).await {
            Claim::Granted(lease) => Some(lease),
            Claim::Held { owner, remaining } => {
                assert_eq!(owner, replica("a"));
                assert!(remaining <= BRIEF, "{remaining:?}");
                None
            }
            Claim::Unknown => panic!("the epoch is forgotten"),
        }
    })
    .await;
    assert!(new.epoch > old.epoch);
    assert_eq!(store.renew(&old, LONG).await.unwrap(), Renewal::Lost);
    assert_eq!(store.renew(&new, LONG).await.unwrap(), Renewal::Renewed);
}

pub(crate) async fn one_of_many_claimers_wins(store: Shared) {
    let names: Vec<String> = (0..20).map(|n| format!("replica-{n}")).collect();
    let claims = join_all(names.iter().map(|name| claim(&store, name, LONG))).await;
    let mut winners = claims.iter().filter_map(|claim| match claim {
        Claim::Granted(lease) => Some(lease.owner.clone()),
        Claim::Held { .. } | Claim::Unknown => None,
    });
    let winner = winners.next().unwrap();
    assert_eq!(winners.next(), None);
    for claim in &claims {
        if let Claim::Held { owner, .. } = claim {
            assert_eq!(*owner, winner);
        }
    }
}

pub(crate) async fn a_claim_goes_above_the_floor(store: Shared) {
    let claim = |floor| {
        let store = store.clone();
        async move {
            let claim = store
                .claim(&here(), &replica("a"), LONG, Some(Epoch(floor)))
                .await;
            granted(claim.unwrap()).epoch.0
        }
    };
    let high = claim(1 << 40).await;
    assert!(high > 1 << 40);
    let higher = claim(7).await;
    assert!(higher > high);
    // Neighbours of a power of two that a floating point number cannot tell apart.
    let beyond = (1 << 53) + 1;
    let highest = claim(beyond).await;
    assert!(highest > beyond);
    assert!(claim(highest).await > highest);
}

pub(crate) async fn nothing_is_given_out_without_a_floor_where_no_epoch_is_known(store: Shared) {
    let claim = |name: &'static str, floor| {
        let (store, owner) = (store.clone(), replica(name));
        async move {
            let claim = store.claim(&here(), &owner, LONG, floor).await;
            claim.unwrap()
        }
    };
    for _ in 0..2 {
        assert_eq!(claim("a", None).await, Claim::Unknown);
    }
    let first = granted(claim("a", Some(Epoch(0))).await);
    assert!(matches!(claim("b", None).await, Claim::Held { .. }));
    // Whatever became of the lease, the store knows that there was one.
    let again = granted(claim("a", None).await);
    store.release(&again).await.unwrap();
    let next = granted(claim("b", None).await);
    assert!(first.epoch < again.epoch && again.epoch < next.epoch);
}

pub(crate) async fn a_renewed_lease_lasts(store: Shared) {
    let lease = granted(claim(&store, "a", Duration::from_secs(20)).await);
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Renewed);
    match claim(&store, "b", LONG).await {
        Claim::Held { remaining, .. } => assert!(remaining > LONG / 2, "{remaining:?}"),
        other @ (Claim::Granted(_) | Claim::Unknown) => panic!("not held: {other:?}"),
    }
}

pub(crate) async fn an_unknown_lease_is_missing_and_may_still_write(store: Shared) {
    let lease = granted(claim(&store, "a", LONG).await);
    eventually("the lease runs out", || async {
        match store.renew(&lease, Duration::from_millis(1)).await.unwrap() {
            Renewal::Missing => Some(()),
            Renewal::Renewed => None,
            Renewal::Lost => panic!("nobody else was there"),
        }
    })
    .await;
    // Nobody has a later epoch, so nobody's writes can be harmed.
    append(&store, &lease, ["late"]).await;
    let again = granted(claim(&store, "a", LONG).await);
    assert!(again.epoch > lease.epoch);
}

pub(crate) async fn a_released_partition_is_free(store: Shared) {
    let lease = granted(claim(&store, "a", LONG).await);
    store.release(&lease).await.unwrap();
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Missing);
    let next = granted(claim(&store, "b", LONG).await);
    assert!(next.epoch > lease.epoch);
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Lost);
}

pub(crate) async fn a_lease_of_another_is_not_released(store: Shared) {
    let old = granted(claim(&store, "a", LONG).await);
    let new = granted(claim(&store, "a", LONG).await);
    store.release(&old).await.unwrap();
    assert_eq!(store.renew(&new, LONG).await.unwrap(), Renewal::Renewed);

    let mut forged = new.clone();
    forged.owner = replica("b");
    store.release(&forged).await.unwrap();
    assert!(matches!(claim(&store, "b", LONG).await, Claim::Held { .. }));
    assert_eq!(store.renew(&forged, LONG).await.unwrap(), Renewal::Lost);
}

pub(crate) async fn a_stale_owner_writes_nothing(store: Shared) {
    let old = granted(claim(&store, "a", LONG).await);
    let mut first = events(["kept"]);
    first.records.push(session("bot", "kept"));
    store.commit(&old, &first).await.unwrap();
    store.release(&old).await.unwrap();
    let new = granted(claim(&store, "b", LONG).await);

    let mut late = events(["late", "later"]);
    late.records = vec![session("bot", "late"), session("new", "late")];
    late.sends = vec![send("bot", "id", "late")];
    let current = fenced(store.commit(&old, &late).await, &old);
    assert_eq!(current, Some(new.epoch));
    let trimmed = store.trim(&old, &newest(0)).await;
    assert_eq!(fenced(trimmed, &old), Some(new.epoch));

    let kept = vec![session("bot", "kept")];
    assert_eq!(store.sessions(&here()).await.unwrap(), kept);
    assert_eq!(store.sends(&here()).await.unwrap(), []);
    assert_eq!(log(&store, &here()).await, [(1, "kept".to_owned())]);

    let mut ahead = new.clone();
    ahead.epoch = Epoch(new.epoch.0 + 1);
    let current = fenced(store.commit(&ahead, &late).await, &ahead);
    assert_eq!(current, Some(new.epoch));
}

pub(crate) async fn a_partition_never_claimed_takes_no_write(store: Shared) {
    let mut lease = granted(claim(&store, "a", LONG).await);
    lease.partition = partition("tenant", 4);
    assert_eq!(
        fenced(store.commit(&lease, &events(["x"])).await, &lease),
        None
    );
    assert_eq!(fenced(store.trim(&lease, &newest(0)).await, &lease), None);
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Missing);
    store.release(&lease).await.unwrap();
    assert!(log(&store, &lease.partition).await.is_empty());
}
