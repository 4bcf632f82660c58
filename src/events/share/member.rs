//! A member of a shared subscription: the task that attends, claims, lets go and leaves.
//!
//! It is a task, and not a part of the stream's own doing, so that a subscriber may take its time with a batch, and
//! so that it leaves in order when the stream is just dropped.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug, info, info_span};

use super::super::assignment;
use super::super::named::Named;
use super::{Holds, TTL};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{Position, StoreError};
use crate::types::MemberId;

/// How often a member shows itself and looks who else is there. It is one small operation, so it is done more often
/// than the time to live asks for: who joins is seen within this time.
const ATTEND_EVERY: Duration = Duration::from_secs(1);
/// The same while partitions change hands.
const HURRY: Duration = Duration::from_millis(250);
/// How long leaving may take; what the store was not told by then runs out.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

struct Member {
    named: Named,
    id: MemberId,
    /// The partitions that are split among the members.
    partitions: Vec<u16>,
    /// Where they were acknowledged when that was last seen.
    acknowledged: BTreeMap<u16, Position>,
    holds: Arc<watch::Sender<Holds>>,
    /// What may be this member's in the store.
    claimed: BTreeSet<u16>,
    /// Who was there when that was last seen.
    members: Vec<MemberId>,
    /// What it is to have.
    wanted: BTreeSet<u16>,
}

/// What became of a claim.
enum Claimed {
    /// It is held from now on, and is acknowledged up to there.
    Taken(Position),
    /// It is another's.
    Refused,
    /// It is as it was, or that is not known.
    AsBefore,
}

/// Starts a member, which leaves when the stream has dropped its receiver or when the tasks are told to stop.
pub(super) fn start(
    named: Named,
    partitions: HashSet<u16>,
    acknowledged: BTreeMap<u16, Position>,
    holds: Arc<watch::Sender<Holds>>,
    tasks: &Tasks,
) {
    let mut partitions: Vec<u16> = partitions.into_iter().collect();
    partitions.sort_unstable();
    let id = MemberId::new(format!("{:032x}", rand::random::<u128>()));
    let span =
        info_span!("share", tenant = %named.logs.tenant, subscription = named.name, member = %id);
    let member = Member {
        named,
        id,
        partitions,
        acknowledged,
        holds,
        claimed: BTreeSet::new(),
        members: Vec::new(),
        wanted: BTreeSet::new(),
    };
    let task = member.run(tasks.clone()).instrument(span);
    tasks.spawn("subscription member", TaskKind::Work, task);
}

impl Member {
    async fn run(mut self, tasks: Tasks) {
        let holds = Arc::clone(&self.holds);
        // What is broken off is among what was claimed, and is given back with that.
        tokio::select! {
            biased;
            () = tasks.stopping() => {}
            () = holds.closed() => {}
            () = self.stay() => {}
        }
        if timeout(LEAVE_WITHIN, self.leave()).await.is_err() {
            info!("the store did not answer; what this member had runs out");
        }
    }

    /// Goes on for ever.
    async fn stay(&mut self) {
        loop {
            self.round().await;
            let pause = if self.is_settled() {
                ATTEND_EVERY
            } else {
                HURRY
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks who is there, and sees to it that this member has its share.
    async fn round(&mut self) {
        self.attend().await;
        self.holds.send_if_modified(Holds::lapse);
        self.holds
            .send_if_modified(|holds| holds.let_go(&self.wanted));
        let due = self.holds.borrow().due(&self.wanted);
        self.claimed.extend(&due);
        let claims = due.iter().map(|&number| self.claim(number));
        for (number, claimed) in due.iter().zip(join_all(claims).await) {
            match claimed {
                Claimed::Taken(position) => {
                    self.acknowledged.insert(*number, position);
                }
                Claimed::Refused => {
                    self.claimed.remove(number);
                }
                Claimed::AsBefore => {}
            }
        }
        self.hand_over().await;
        self.give_back().await;
    }

    async fn attend(&mut self) {
        let named = &self.named;
        let attended = named
            .store
            .attend(&named.logs.tenant, &named.name, &self.id, Some(TTL));
        match attended.await {
            Ok(members) if members != self.members => {
                self.wanted = assignment::share_of(&self.id, &members, &self.partitions);
                debug!(members = members.len(), wanted = ?self.wanted, "the members have changed");
                self.members = members;
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "the store does not say who shares the subscription"),
        }
    }

    /// Takes or keeps a partition.
    async fn claim(&self, number: u16) -> Claimed {
        let asked_at = Instant::now();
        let (store, partition) = (&self.named.store, self.named.logs.partition(number));
        let claimed = store.claim_share(&partition, &self.named.name, &self.id, TTL);
        match claimed.await {
            Ok(true) => {}
            Ok(false) => {
                self.holds
                    .send_if_modified(|holds| holds.held.remove(&number).is_some());
                return Claimed::Refused;
            }
            Err(error) => {
                debug!(number, %error, "a partition is not claimed; trying again");
                return Claimed::AsBefore;
            }
        }
        let mut kept = false;
        self.holds.send_if_modified(|holds| {
            kept = holds.renew(number, asked_at);
            false
        });
        if kept || !self.wanted.contains(&number) {
            return Claimed::AsBefore;
        }
        let position = match self.named.stored_in(number).await {
            Ok(Some(position)) => position,
            // Deleted, or lost by the store: nothing is left out that was not acknowledged when it was last seen.
            Ok(None) => self.acknowledged.get(&number).copied().unwrap_or_default(),
            Err(error) => {
                debug!(number, %error, "a partition is not begun; trying again");
                return Claimed::AsBefore;
            }
        };
        debug!(number, ?position, "partition taken");
        self.holds
            .send_modify(|holds| holds.hold(number, asked_at, position));
        Claimed::Taken(position)
    }

    /// Ends to hold what is let go, when it is acknowledged or when that takes too long.
    async fn hand_over(&self) {
        let leaving = self.holds.borrow().leaving();
        let hand_overs = leaving
            .into_iter()
            .map(|(number, delivered, leaves_by)| async move {
                let done = match self.is_acknowledged(number, delivered).await {
                    Ok(acknowledged) => acknowledged,
                    Err(error) => {
                        debug!(number, %error, "the store does not say what is acknowledged");
                        false
                    }
                };
                if !done && Instant::now() < leaves_by {
                    return;
                }
                if !done {
                    info!(number, "a partition goes to another member unacknowledged");
                }
                self.holds.send_modify(|holds| {
                    holds.held.remove(&number);
                });
            });
        join_all(hand_overs).await;
    }

    async fn is_acknowledged(
        &self,
        number: u16,
        delivered: Option<Position>,
    ) -> Result<bool, StoreError> {
        let Some(delivered) = delivered else {
            return Ok(true);
        };
        let stored = self.named.stored_in(number).await?;
        // Nobody can acknowledge one that was deleted.
        Ok(stored.is_none_or(|stored| {
            stored.log == delivered.log && stored.sequence >= delivered.sequence
        }))
    }

    /// Tells the store what may be free.
    async fn give_back(&mut self) {
        let mut idle = self.claimed.clone();
        idle.retain(|number| {
            !self.wanted.contains(number) && !self.holds.borrow().held.contains_key(number)
        });
        let released = join_all(idle.iter().map(|&number| self.release(number))).await;
        for (number, released) in idle.iter().zip(released) {
            match released {
                Ok(()) => {
                    self.claimed.remove(number);
                }
                Err(error) => debug!(number, %error, "a partition is not given back yet"),
            }
        }
    }

    async fn release(&self, number: u16) -> Result<(), StoreError> {
        let (store, partition) = (&self.named.store, self.named.logs.partition(number));
        store
            .release_share(&partition, &self.named.name, &self.id)
            .await
    }

    /// Whether all that is to be this member's is, and nothing else.
    fn is_settled(&self) -> bool {
        let holds = self.holds.borrow();
        let kept = holds
            .held
            .iter()
            .filter(|(_, hold)| hold.leaves_by.is_none());
        holds.leaving().is_empty() && kept.map(|(number, _)| number).eq(&self.wanted)
    }

    /// Stops at once and gives everything back, so that the others need not wait.
    async fn leave(&mut self) {
        self.holds.send_modify(|holds| holds.held.clear());
        self.wanted.clear();
        self.give_back().await;
        let named = &self.named;
        let left = named
            .store
            .attend(&named.logs.tenant, &named.name, &self.id, None);
        if let Err(error) = left.await {
            debug!(%error, "a member is left to run out");
        }
    }
}
