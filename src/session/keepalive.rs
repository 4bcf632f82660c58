//! Proof of life of a connection: ask after silence, give up when nothing answers.

use std::time::{Duration, Instant};

/// When to ask and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepalivePolicy {
    /// Silence after which the upstream is asked for a sign of life. Any frame ends a silence.
    pub idle: Duration,
    /// How long the answer may take before the connection counts as lost.
    pub answer_timeout: Duration,
}

/// The bookkeeping of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    last_received: Instant,
    asked_at: Option<Instant>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveDue {
    /// Nothing yet.
    Nothing,
    /// Send a heartbeat.
    Ask,
    /// The connection is dead.
    GiveUp,
}

impl Keepalive {
    /// A connection that was heard of just now.
    pub const fn new(now: Instant) -> Self {
        Self {
            last_received: now,
            asked_at: None,
        }
    }

    /// Any frame has come.
    pub const fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.asked_at = None;
    }

    /// When something is next due.
    pub fn next_due(&self, policy: &KeepalivePolicy) -> Instant {
        match self.asked_at {
            Some(asked_at) => asked_at + policy.answer_timeout,
            None => self.last_received + policy.idle,
        }
    }

    /// What is due now. Asking is remembered.
    pub fn due(&mut self, now: Instant, policy: &KeepalivePolicy) -> KeepaliveDue {
        if now < self.next_due(policy) {
            return KeepaliveDue::Nothing;
        }
        if self.asked_at.is_some() {
            return KeepaliveDue::GiveUp;
        }
        self.asked_at = Some(now);
        KeepaliveDue::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_after_silence_and_gives_up_without_an_answer() {
        let policy = KeepalivePolicy {
            idle: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(3),
        };
        let start = tokio::time::Instant::now().into_std();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keepalive = Keepalive::new(start);
        assert_eq!(keepalive.due(at(9), &policy), KeepaliveDue::Nothing);
        assert_eq!(keepalive.due(at(10), &policy), KeepaliveDue::Ask);
        assert_eq!(keepalive.due(at(12), &policy), KeepaliveDue::Nothing);
        keepalive.received(at(12));
        assert_eq!(keepalive.due(at(22), &policy), KeepaliveDue::Ask);
        assert_eq!(keepalive.due(at(25), &policy), KeepaliveDue::GiveUp);
    }
}
