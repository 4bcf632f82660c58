//! The part of a shared subscription that one stream has: its holds on partitions.
//!
//! Each stream that shares a subscription is a member, on whichever replica. What they agree on is in the store: who
//! is there, who has which partition, and how far each is acknowledged. A task of the member's own ([`member`]) sees
//! to it; the stream reads what the task holds, and only as long as that is sure: whatever it has read of a partition
//! that is not held any more is not delivered, and the next holder begins at what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::named::Named;
use crate::runtime::supervisor::Tasks;
use crate::store::Position;

mod member;

/// How long the store keeps a member and what it has without hearing of it: so long a replica that was killed keeps
/// its partitions from the others.
const TTL: Duration = Duration::from_secs(10);
/// By so much earlier than the store a member takes its claim to have run out.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a partition that is let go waits for what was delivered of it to be acknowledged. Then the next holder
/// delivers it again: a member that is stuck must not keep the others waiting.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A stream's share. When it is dropped the member leaves, and what it had is free.
#[derive(Debug)]
pub(super) struct Share {
    holds: Arc<watch::Sender<Holds>>,
    changed: watch::Receiver<Holds>,
    /// The partitions that the stream reads, and under which claim.
    reading: BTreeMap<u16, u64>,
}

/// What a stream has to do about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Read it, from there on.
    Follow(u16, Position),
    /// Do not read it any more.
    Unfollow(u16),
}

/// A member's partitions, by number.
#[derive(Debug, Default)]
struct Holds {
    held: BTreeMap<u16, Hold>,
    /// How many claims there were.
    claims: u64,
}

/// A partition that a member has.
#[derive(Debug)]
struct Hold {
    /// Which of the member's claims it is by; another may have had the partition before each.
    claim: u64,
    /// How far the stream has come.
    position: Position,
    /// How far it has to be acknowledged before another may go on; `None` if nothing was delivered.
    delivered: Option<Position>,
    /// When to claim it again, so that it is kept.
    renew_at: Instant,
    /// Not to be delivered from then on, unless it was claimed again.
    until: Instant,
    /// When it is being let go: it is not delivered any more, and given back at this moment at the latest.
    leaves_by: Option<Instant>,
}

impl Share {
    /// Enters a member. It is to have its part of the partitions in `wanted`, of which `positions` says where they
    /// are acknowledged.
    pub(super) fn join(
        named: Named,
        wanted: HashSet<u16>,
        positions: BTreeMap<u16, Position>,
        tasks: &Tasks,
    ) -> Self {
        let holds = Arc::new(watch::Sender::new(Holds::default()));
        let changed = holds.subscribe();
        member::start(named, wanted, positions, Arc::clone(&holds), tasks);
        Self {
            holds,
            changed,
            reading: BTreeMap::new(),
        }
    }

    /// Waits until [`Share::changes`] may have something. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // Not while this value has the sender too.
            std::future::pending::<()>().await;
        }
    }

    /// What the stream has to do since the last time.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let holds = self.changed.borrow_and_update();
        let claims: BTreeMap<u16, u64> = holds.deliverable().collect();
        let gone = self
            .reading
            .iter()
            .filter(|(number, claim)| claims.get(number) != Some(claim));
        let mut changes: Vec<Change> = gone.map(|(&number, _)| Change::Unfollow(number)).collect();
        let begun = holds.held.iter().filter(|(number, hold)| {
            claims.contains_key(number) && self.reading.get(number) != Some(&hold.claim)
        });
        changes.extend(begun.map(|(&number, hold)| Change::Follow(number, hold.position)));
        drop(holds);
        self.reading = claims;
        changes
    }

    /// Whether a read of a partition may be delivered, which moves the stream to `position`. `has_events` says that
    /// there is something in it to acknowledge. If not, the stream stays where it was, and has changes to look at.
    pub(super) fn confirm(&self, number: u16, position: Position, has_events: bool) -> bool {
        let claim = self.reading.get(&number).copied();
        let mut confirmed = false;
        self.holds.send_if_modified(|holds| {
            let hold = holds.held.get_mut(&number);
            if let Some(hold) = hold.filter(|hold| Some(hold.claim) == claim && hold.is_sure()) {
                confirmed = true;
                hold.position = position;
                if has_events {
                    hold.delivered = Some(position);
                }
            }
            // The one who waits for changes is the stream itself.
            false
        });
        confirmed
    }
}

impl Hold {
    /// Whether the stream may deliver.
    fn is_sure(&self) -> bool {
        self.leaves_by.is_none() && Instant::now() < self.until
    }
}

impl Holds {
    /// The partitions that the stream is to read, each with its claim.
    fn deliverable(&self) -> impl Iterator<Item = (u16, u64)> {
        let held = self.held.iter().filter(|(_, hold)| hold.is_sure());
        held.map(|(&number, hold)| (number, hold.claim))
    }

    /// Drops what could not be kept in time. True if there was any.
    fn lapse(&mut self) -> bool {
        let (before, now) = (self.held.len(), Instant::now());
        self.held.retain(|_, hold| now < hold.until);
        self.held.len() < before
    }

    /// Begins to let go what is not wanted, and keeps what is wanted again. True if anything changed.
    fn let_go(&mut self, wanted: &BTreeSet<u16>) -> bool {
        let mut changed = false;
        for (number, hold) in &mut self.held {
            let stays = wanted.contains(number);
            if stays != hold.leaves_by.is_none() {
                changed = true;
                hold.leaves_by = (!stays).then(|| Instant::now() + HAND_OVER);
            }
        }
        changed
    }

    /// What has to be claimed now: what is wanted and not held, and what is held and to be kept.
    fn due(&self, wanted: &BTreeSet<u16>) -> Vec<u16> {
        let now = Instant::now();
        let free = wanted
            .iter()
            .filter(|number| !self.held.contains_key(number));
        let kept = self.held.iter().filter(|(_, hold)| hold.renew_at <= now);
        free.chain(kept.map(|(number, _)| number))
            .copied()
            .collect()
    }

    /// Notes that a claim asked for at `asked_at` was granted. False if the partition was not held in between, so
    /// that another may have had it.
    fn renew(&mut self, number: u16, asked_at: Instant) -> bool {
        let hold = self.held.get_mut(&number);
        let Some(hold) = hold.filter(|hold| Instant::now() < hold.until) else {
            return false;
        };
        hold.renew_at = asked_at + TTL / 3;
        hold.until = asked_at + TTL - MARGIN;
        true
    }

    /// Holds a partition anew, which is acknowledged up to `position`.
    fn hold(&mut self, number: u16, asked_at: Instant, position: Position) {
        self.claims += 1;
        let hold = Hold {
            claim: self.claims,
            position,
            delivered: None,
            renew_at: asked_at + TTL / 3,
            until: asked_at + TTL - MARGIN,
            leaves_by: None,
        };
        self.held.insert(number, hold);
    }

    /// What is being let go: how far it has to be acknowledged, and until when that is waited for.
    fn leaving(&self) -> Vec<(u16, Option<Position>, Instant)> {
        let leaving = self.held.iter();
        leaving
            .filter_map(|(&number, hold)| Some((number, hold.delivered, hold.leaves_by?)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
