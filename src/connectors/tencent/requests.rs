//! Requests that wait for their answer.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::connectors::RequestId;
use crate::connectors::tencent::outgoing::Identity;

/// A request that has been made.
#[derive(Debug)]
pub(super) struct Pending {
    /// What was asked; its answer names the same.
    pub(super) servcmd: String,
    /// The body as sent, for the re-sending of messages.
    pub(super) body: String,
    /// When the answer is not waited for any longer; `None` where somebody else keeps the time.
    pub(super) deadline: Option<Instant>,
    /// What the answer is for.
    pub(super) purpose: Purpose,
}

/// What a request was made for.
#[derive(Debug)]
pub(super) enum Purpose {
    Login,
    /// A login by ticket on a connection that is online, because the upstream asked for it.
    Reassert,
    Logout,
    Heartbeat,
    Hello,
    CatchUp,
    Send {
        id: RequestId,
        identity: Identity,
        group: Option<String>,
    },
    Invoke(RequestId),
}

/// All requests in flight, by their number.
#[derive(Debug, Default)]
pub(super) struct Requests(BTreeMap<u64, Pending>);

impl Requests {
    pub(super) fn insert(&mut self, seq: u64, pending: Pending) {
        self.0.insert(seq, pending);
    }

    /// Takes out the request that an answer belongs to.
    pub(super) fn answered(&mut self, seq: u64, servcmd: &str) -> Option<Pending> {
        if self.0.get(&seq)?.servcmd != servcmd {
            return None;
        }
        self.0.remove(&seq)
    }

    /// Messages that are to be sent again as they were, oldest first.
    pub(super) fn sends(&self) -> impl Iterator<Item = (u64, &Pending)> {
        self.0
            .iter()
            .filter(|(_, pending)| matches!(pending.purpose, Purpose::Send { .. }))
            .map(|(seq, pending)| (*seq, pending))
    }

    /// The connection is gone: only messages outlive it. Answers what was lost with it.
    pub(super) fn disconnected(&mut self) -> Vec<RequestId> {
        let mut lost = Vec::new();
        self.0.retain(|_, pending| match &pending.purpose {
            Purpose::Send { .. } => true,
            Purpose::Invoke(id) => {
                lost.push(*id);
                false
            }
            Purpose::Login
            | Purpose::Reassert
            | Purpose::Logout
            | Purpose::Heartbeat
            | Purpose::Hello
            | Purpose::CatchUp => false,
        });
        lost
    }

    /// Takes out what is overdue.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Pending> {
        let due = |pending: &Pending| pending.deadline.is_some_and(|at| at <= now);
        let seqs: Vec<u64> = self
            .0
            .iter()
            .filter(|(_, pending)| due(pending))
            .map(|(seq, _)| *seq)
            .collect();
        seqs.into_iter()
            .filter_map(|seq| self.0.remove(&seq))
            .collect()
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|pending| pending.deadline).min()
    }
}
