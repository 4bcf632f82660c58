//! Requests that wait for their answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::connectors::RequestId;
use crate::connectors::tencent::outgoing::Identity;

/// How long the upstream may take for an answer (the vendor's SDK waits as long).
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

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
    Send(Sending),
    Invoke(RequestId),
}

/// A message that is to be sent, or was and is not answered.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: RequestId,
    pub(super) identity: Identity,
    pub(super) group: Option<String>,
    /// It does not go out after this.
    pub(super) until: Instant,
    /// Its answer is of use also after that.
    pub(super) lingers: bool,
    /// It went out on this connection.
    pub(super) out: bool,
    /// It went out on a connection that ended before the answer.
    pub(super) in_doubt: bool,
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

    /// Messages that are to be sent, or sent again as they were, oldest first.
    pub(super) fn sends(&self, now: Instant) -> Vec<u64> {
        let due = |pending: &Pending| matches!(&pending.purpose, Purpose::Send(sending) if sending.until > now);
        let due = self.0.iter().filter(|(_, pending)| due(pending));
        due.map(|(seq, _)| *seq).collect()
    }

    /// A message goes out. Answers its command and body.
    pub(super) fn goes_out(&mut self, seq: u64, now: Instant) -> Option<(String, String)> {
        let pending = self.0.get_mut(&seq)?;
        let Purpose::Send(sending) = &mut pending.purpose else {
            return None;
        };
        sending.out = true;
        if sending.lingers {
            pending.deadline = Some(sending.until.max(now + REQUEST_TIMEOUT));
        }
        Some((pending.servcmd.clone(), pending.body.clone()))
    }

    /// A message may go out until then. Answers its number if it is not out now.
    pub(super) fn extend(&mut self, id: RequestId, until: Instant) -> Option<u64> {
        for (seq, pending) in &mut self.0 {
            if let Purpose::Send(sending) = &mut pending.purpose
                && sending.id == id
            {
                sending.until = sending.until.max(until);
                pending.deadline = pending.deadline.max(Some(sending.until));
                return (!sending.out).then_some(*seq);
            }
        }
        None
    }

    /// Whether a login that the upstream asked for, or a logout, waits for its answer.
    pub(super) fn has_reassert_or_logout(&self) -> bool {
        self.0
            .values()
            .any(|pending| matches!(pending.purpose, Purpose::Reassert | Purpose::Logout))
    }

    /// The session ends: no message goes out any more. Answers which ones there were, and whether each went out.
    pub(super) fn end_sends(&mut self) -> Vec<(RequestId, bool)> {
        let mut ended = Vec::new();
        self.0.retain(|_, pending| match &pending.purpose {
            Purpose::Send(sending) => {
                ended.push((sending.id, sending.out || sending.in_doubt));
                false
            }
            Purpose::Invoke(_)
            | Purpose::Login
            | Purpose::Reassert
            | Purpose::Logout
            | Purpose::Heartbeat
            | Purpose::Hello
            | Purpose::CatchUp => true,
        });
        ended
    }

    /// The connection is gone: only messages outlive it. Answers what was lost with it.
    pub(super) fn disconnected(&mut self) -> Vec<RequestId> {
        let mut lost = Vec::new();
        self.0.retain(|_, pending| match &mut pending.purpose {
            Purpose::Send(sending) => {
                sending.in_doubt |= sending.out;
                sending.out = false;
                true
            }
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
