//! All implementations do the same: random operations on each, and the same answers from each.

use std::collections::HashMap;
use std::sync::Arc;

use imgate::store::memory::MemoryStore;
use imgate::store::{Batch, Claim, Lease, LogId, Position, StoreError};
use imgate::types::{AccountId, Epoch, PartitionId, UnixMillis};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::fixture::*;

/// One operation. Leases and logs are named by what was answered before.
#[derive(Debug)]
enum Step {
    Claim(PartitionId, &'static str, Epoch),
    Renew(Lease),
    Release(Lease),
    Commit(Lease, Batch),
    Trim(Lease, u64),
    Advance(PartitionId, &'static str, u64, u64),
    Look(PartitionId, u64, usize),
}

/// A store with the names of its logs, which are random and so differ between stores: the n-th log that was
/// seen is n.
struct Twin {
    name: &'static str,
    store: Shared,
    logs: Vec<LogId>,
}

impl Twin {
    fn log_name(&mut self, log: LogId) -> usize {
        if let Some(known) = self.logs.iter().position(|&known| known == log) {
            return known;
        }
        self.logs.push(log);
        self.logs.len() - 1
    }

    fn log(&self, name: u64) -> LogId {
        let known = self.logs.get(usize::try_from(name).unwrap());
        known.copied().unwrap_or(LogId(name))
    }

    async fn take(&mut self, step: &Step) -> String {
        match step {
            Step::Claim(place, owner, floor) => {
                match self.store.claim(place, &replica(owner), LONG, *floor).await {
                    Ok(Claim::Granted(lease)) => format!("{lease:?}"),
                    Ok(Claim::Held { owner, .. }) => format!("held by {owner}"),
                    Err(error) => error.to_string(),
                }
            }
            Step::Renew(lease) => said(self.store.renew(lease, LONG).await),
            Step::Release(lease) => said(self.store.release(lease).await),
            Step::Commit(lease, batch) => match self.store.commit(lease, batch).await {
                Ok(done) => format!("{} {}", self.log_name(done.log), done.last_sequence),
                Err(error) => error.to_string(),
            },
            Step::Trim(lease, first) => said(self.store.trim(lease, *first).await),
            Step::Advance(place, name, log, sequence) => {
                let position = Position {
                    log: self.log(*log),
                    sequence: *sequence,
                };
                let moved = self
                    .store
                    .advance_subscription(place, name, &position, UnixMillis(1));
                said(moved.await)
            }
            Step::Look(place, after, limit) => self.look(place, *after, *limit).await,
        }
    }

    async fn look(&mut self, place: &PartitionId, after: u64, limit: usize) -> String {
        let sessions = self.store.sessions(place).await.unwrap();
        let one = self.store.session(place, &AccountId::new("bot1")).await;
        let entries = self.store.read(place, after, limit).await.unwrap().entries;
        let bounds = self.store.log_bounds(place).await.unwrap();
        let mut said = format!(
            "{sessions:?} {one:?} {entries:?} {} {}..={}",
            self.log_name(bounds.log),
            bounds.first_sequence,
            bounds.last_sequence
        );
        for name in ["x", "y"] {
            if let Some(at) = self.store.subscription(place, name).await.unwrap() {
                said += &format!(" {name} {} {}", self.log_name(at.log), at.sequence);
            }
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

fn next_step(rng: &mut StdRng, leases: &HashMap<u64, Lease>) -> Step {
    let places = [("a", 0), ("a", 1), ("a:1", 0)];
    let (tenant, number) = places[rng.random_range(0..places.len())];
    let place = partition(tenant, number);
    let owner = ["r1", "r2"][rng.random_range(0..2)];
    let newest = leases.len() as u64;
    // A recent lease as a rule, sometimes an old one.
    let lease = (newest > 0).then(|| {
        let oldest = if rng.random_bool(0.8) {
            newest.saturating_sub(3)
        } else {
            0
        };
        leases[&rng.random_range(oldest..newest)].clone()
    });
    match (rng.random_range(0..100), lease) {
        (0..5, Some(lease)) => Step::Release(lease),
        (5..15, Some(lease)) => Step::Renew(lease),
        (15..50, Some(lease)) => Step::Commit(lease, random_batch(rng)),
        (50..58, Some(lease)) => Step::Trim(lease, rng.random_range(0..40)),
        (58..70, _) => Step::Advance(
            place,
            ["x", "y"][rng.random_range(0..2)],
            rng.random_range(0..5),
            rng.random_range(0..40),
        ),
        (70..90, _) => Step::Look(place, rng.random_range(0..20), rng.random_range(0..10)),
        _ => Step::Claim(place, owner, Epoch(rng.random_range(0..30))),
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
    Batch {
        now: UnixMillis(rng.random_range(0..1 << 50)),
        records,
        events,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_implementations_answer_alike() {
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let (redis, _server) = redis().await;
    let (embedded, _folder) = embedded();
    let twin = |name, store| Twin {
        name,
        store,
        logs: vec![LogId(0)],
    };
    let mut memory = twin("memory", Arc::new(MemoryStore::new()));
    let mut others = [twin("redis", redis), twin("embedded", embedded)];
    let mut leases = HashMap::new();
    for number in 0..800 {
        let step = next_step(&mut rng, &leases);
        let expected = memory.take(&step).await;
        for other in &mut others {
            let answer = other.take(&step).await;
            let name = other.name;
            assert_eq!(
                answer, expected,
                "{name}, seed {seed}, step {number}: {step:?}"
            );
        }
        if let Step::Claim(place, owner, _) = &step
            && let Some(epoch) = granted_epoch(&expected)
        {
            let lease = Lease {
                partition: place.clone(),
                owner: replica(owner),
                epoch,
            };
            leases.insert(leases.len() as u64, lease);
        }
    }
    assert!(
        memory.logs.len() >= 4,
        "too little was written, seed {seed}"
    );
}

/// The epoch in an answer to a claim.
fn granted_epoch(answer: &str) -> Option<Epoch> {
    let number = answer.split_once("Epoch(")?.1.split_once(')')?.0;
    Some(Epoch(number.parse().unwrap()))
}
