//! All implementations do the same: random operations on each, and the same answers from each.

use std::sync::Arc;

use imgate::store::memory::MemoryStore;
use imgate::store::{
    Batch, BatchId, Claim, Lease, LogBounds, LogId, Position, Retention, StoreError,
};
use imgate::types::{AccountId, Epoch, MemberId, PartitionId, TenantId, UnixMillis};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::fixture::*;

/// One operation. Leases and logs are named by their order, for each store gives them numbers of its own.
#[derive(Debug)]
enum Step {
    Claim(PartitionId, &'static str, Option<Epoch>),
    Renew(usize),
    Release(usize),
    /// By a lease, and what it has seen of which log.
    Commit(usize, usize, Batch),
    Trim(usize, Retention),
    Look(PartitionId, u64, usize),
    /// To a place in a log, and when.
    Advance(PartitionId, &'static str, usize, u64, UnixMillis, bool),
    Remove(PartitionId, &'static str, Option<UnixMillis>),
    /// Come or go.
    Attend(TenantId, &'static str, &'static str, bool),
    ClaimShare(PartitionId, &'static str, &'static str),
    ReleaseShare(PartitionId, &'static str, &'static str),
}

/// A store, and what it has given out.
struct Twin {
    name: &'static str,
    store: Shared,
    /// The n-th log that was seen is n.
    logs: Vec<LogId>,
    /// The n-th lease that was granted is n.
    leases: Vec<Lease>,
}

impl Twin {
    fn new(name: &'static str, store: Shared) -> Self {
        Self {
            name,
            store,
            logs: vec![LogId(0)],
            leases: Vec::new(),
        }
    }

    fn log_name(&mut self, log: LogId) -> usize {
        if let Some(known) = self.logs.iter().position(|&known| known == log) {
            return known;
        }
        self.logs.push(log);
        self.logs.len() - 1
    }

    fn log(&self, name: usize) -> LogId {
        let known = self.logs.get(name);
        known.copied().unwrap_or(LogId(name as u64))
    }

    fn at(&mut self, position: Position) -> String {
        format!("{} {}", self.log_name(position.log), position.sequence)
    }

    fn granted(&mut self, lease: Lease) -> String {
        let mut earlier = self.leases.iter();
        assert!(
            earlier.all(|one| one.partition != lease.partition || one.epoch < lease.epoch),
            "{}: {lease:?} is not the latest",
            self.name
        );
        self.leases.push(lease);
        format!("granted {}", self.leases.len() - 1)
    }

    /// What a refusal says, with the name of the lease that is in the way.
    fn refused(&self, place: &PartitionId, error: &StoreError) -> String {
        let StoreError::Fenced { current, .. } = error else {
            return error.to_string();
        };
        let latest = self
            .leases
            .iter()
            .rposition(|lease| lease.partition == *place && Some(lease.epoch) == *current);
        format!("fenced by {latest:?}")
    }

    async fn take(&mut self, step: &Step) -> String {
        let store = self.store.clone();
        match step {
            Step::Claim(place, owner, floor) => {
                match store.claim(place, &replica(owner), LONG, *floor).await {
                    Ok(Claim::Granted(lease)) => self.granted(lease),
                    Ok(Claim::Held { owner, .. }) => format!("held by {owner}"),
                    Ok(Claim::Unknown) => "unknown".to_owned(),
                    Err(error) => error.to_string(),
                }
            }
            Step::Renew(lease) => said(store.renew(&self.leases[*lease], LONG).await),
            Step::Release(lease) => said(store.release(&self.leases[*lease]).await),
            Step::Commit(lease, seen, batch) => {
                let lease = self.leases[*lease].clone();
                let seen = at(self.log(*seen), batch.seen.sequence);
                let batch = Batch {
                    seen,
                    ..batch.clone()
                };
                match store.commit(&lease, &batch).await {
                    Ok(done) => self.at(at(done.log, done.last_sequence)),
                    Err(error) => self.refused(&lease.partition, &error),
                }
            }
            Step::Trim(lease, retention) => {
                let lease = &self.leases[*lease];
                match store.trim(lease, retention).await {
                    Ok(trimmed) => format!("{trimmed:?}"),
                    Err(error) => self.refused(&lease.partition, &error),
                }
            }
            Step::Look(place, after, limit) => self.look(place, *after, *limit).await,
            Step::Advance(place, name, log, sequence, now, only_if_there) => {
                let position = at(self.log(*log), *sequence);
                let moved =
                    store.advance_subscription(place, name, &position, *now, *only_if_there);
                said(moved.await)
            }
            Step::Remove(place, name, since) => {
                said(store.remove_subscription(place, name, *since).await)
            }
            Step::Attend(tenant, name, member, comes) => {
                let member = MemberId::new(member);
                let ttl = comes.then_some(LONG);
                let attended = store.attend(tenant, name, &member, ttl).await;
                let there = store.members(tenant, name).await;
                assert_eq!(attended.as_ref().ok(), there.as_ref().ok());
                said(attended)
            }
            Step::ClaimShare(place, name, member) => {
                let member = MemberId::new(member);
                said(store.claim_share(place, name, &member, LONG).await)
            }
            Step::ReleaseShare(place, name, member) => {
                let member = MemberId::new(member);
                said(store.release_share(place, name, &member).await)
            }
        }
    }

    async fn look(&mut self, place: &PartitionId, after: u64, limit: usize) -> String {
        let sessions = self.store.sessions(place).await.unwrap();
        let one = self.store.session(place, &AccountId::new("bot1")).await;
        let sends = self.store.sends(place).await.unwrap();
        let read = self.store.read(place, after, limit).await.unwrap();
        let bounds = self.store.log_bounds(place).await.unwrap();
        assert_eq!(read.bounds, bounds);
        let LogBounds {
            log,
            first_sequence,
            last_sequence,
        } = bounds;
        let mut said = format!(
            "{sessions:?} {one:?} {sends:?} {:?} {} {first_sequence}..={last_sequence}",
            read.entries,
            self.log_name(log),
        );
        let mut positions = Vec::new();
        for one in self.store.subscriptions(place).await.unwrap() {
            positions.push((one.name.clone(), one.position));
            said += &format!(" {} {} {}", one.name, self.at(one.position), one.used_at.0);
        }
        for name in ["x", "y"] {
            let listed = positions.iter().find(|(listed, _)| listed == name);
            let stands = self.store.subscription(place, name).await.unwrap();
            assert_eq!(stands, listed.map(|(_, position)| *position));
        }
        said
    }
}

fn said<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

fn one_of<T: Copy, const N: usize>(rng: &mut StdRng, choices: [T; N]) -> T {
    choices[rng.random_range(0..N)]
}

fn next_step(rng: &mut StdRng, leases: usize) -> Step {
    let (tenant, number) = one_of(rng, [("a", 0), ("a", 1), ("a:1", 0)]);
    let place = partition(tenant, number);
    let name = one_of(rng, ["x", "y"]);
    let member = one_of(rng, ["m1", "m2", "m3"]);
    // A recent lease as a rule, sometimes an old one.
    let lease = (leases > 0).then(|| {
        let recent = rng.random_bool(0.8);
        let oldest = if recent { leases.saturating_sub(3) } else { 0 };
        rng.random_range(oldest..leases)
    });
    match (rng.random_range(0..100), lease) {
        (0..4, Some(lease)) => Step::Release(lease),
        (4..10, Some(lease)) => Step::Renew(lease),
        (10..38, Some(lease)) => Step::Commit(lease, rng.random_range(0..5), random_batch(rng)),
        (38..46, Some(lease)) => Step::Trim(lease, random_retention(rng)),
        (46..58, _) => Step::Advance(
            place,
            name,
            rng.random_range(0..5),
            rng.random_range(0..40),
            UnixMillis(rng.random_range(0..1000)),
            rng.random_bool(0.5),
        ),
        (58..62, _) => {
            let since = rng.random_bool(0.7);
            let since = since.then(|| UnixMillis(rng.random_range(0..1000)));
            Step::Remove(place, name, since)
        }
        (62..67, _) => Step::Attend(place.tenant, name, member, rng.random_bool(0.6)),
        (67..72, _) => Step::ClaimShare(place, name, member),
        (72..75, _) => Step::ReleaseShare(place, name, member),
        (75..92, _) => Step::Look(place, rng.random_range(0..40), rng.random_range(0..10)),
        _ => {
            let floor = one_of(rng, [None, Some(Epoch(0))]);
            Step::Claim(place, one_of(rng, ["r1", "r2"]), floor)
        }
    }
}

fn random_retention(rng: &mut StdRng) -> Retention {
    Retention {
        events: one_of(rng, [u64::MAX, u64::MAX, 20, 5, 1, 0]),
        bytes: one_of(rng, [u64::MAX, u64::MAX, 1000, 200, 50, 0]),
        since: UnixMillis(one_of(rng, [0, 0, 100, 500, 1000])),
    }
}

fn random_batch(rng: &mut StdRng) -> Batch {
    let mut bytes = |most| {
        let length = rng.random_range(0..most);
        (0..length).map(|_| rng.random()).collect::<Vec<u8>>()
    };
    let events = bytes(4)
        .into_iter()
        .map(|length| bytes(usize::from(length) + 1));
    let events = events.collect();
    let records = bytes(4)
        .into_iter()
        .map(|n| session(&format!("bot{}", n % 3), bytes(20)))
        .collect();
    let additions = bytes(4)
        .into_iter()
        .map(|n| session(&format!("bot{}", n % 4), bytes(5)))
        .collect();
    // Short ones, so that many are forgotten again.
    let sends = bytes(4)
        .into_iter()
        .map(|n| send(&format!("bot{}", n % 2), &format!("{}", n % 3), bytes(3)))
        .collect();
    Batch {
        // Few, so that some come twice in a row.
        id: BatchId {
            writer: rng.random_range(0..3),
            number: rng.random_range(0..4),
        },
        now: UnixMillis(rng.random_range(0..1000)),
        seen: at(LogId(0), rng.random_range(0..60)),
        records,
        additions,
        sends,
        events,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_implementations_answer_alike() {
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let (redis, _server) = redis().await;
    let (embedded, _folder) = embedded();
    let mut memory = Twin::new("memory", Arc::new(MemoryStore::new()));
    let mut others = [Twin::new("redis", redis), Twin::new("embedded", embedded)];
    for number in 0..1_200 {
        let step = next_step(&mut rng, memory.leases.len());
        let expected = memory.take(&step).await;
        for other in &mut others {
            let answer = other.take(&step).await;
            let name = other.name;
            assert_eq!(
                answer, expected,
                "{name}, seed {seed}, step {number}: {step:?}"
            );
        }
    }
    assert!(
        memory.logs.len() >= 3 && memory.leases.len() >= 10,
        "too little was done, seed {seed}"
    );
}
