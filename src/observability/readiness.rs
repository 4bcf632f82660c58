//! Whether this process should get calls: a few named conditions, each met or not for a reason.

use std::sync::Arc;

use metrics::{Unit, describe_gauge, gauge};
use serde::Serialize;
use tokio::sync::watch;

/// What must hold for the process to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The store answers.
    Store,
    /// gRPC is listening.
    Listener,
    /// The sessions that were desired before the start are held again: connecting, not all online.
    SessionsRestored,
    /// What is appended to the log is delivered: the replica's own event came through lately.
    Delivery,
    /// The process has not been asked to stop. Met from the beginning.
    NotDraining,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Store,
        Self::Listener,
        Self::SessionsRestored,
        Self::Delivery,
        Self::NotDraining,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Listener => "listener",
            Self::SessionsRestored => "sessions_restored",
            Self::Delivery => "delivery",
            Self::NotDraining => "not_draining",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Store => 0,
            Self::Listener => 1,
            Self::SessionsRestored => 2,
            Self::Delivery => 3,
            Self::NotDraining => 4,
        }
    }
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmet {
    /// Which.
    pub condition: Condition,
    /// Why, for an operator.
    pub reason: String,
}

/// Why each condition does not hold; `None` where it does.
type Reasons = [Option<String>; Condition::ALL.len()];

/// The conditions of one process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Readiness {
    reasons: Arc<watch::Sender<Reasons>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// As at a start: nothing holds yet, but that nobody has asked to stop.
    pub fn new() -> Self {
        let readiness = Self {
            reasons: Arc::new(watch::Sender::new(Reasons::default())),
        };
        for condition in Condition::ALL {
            match condition {
                Condition::Store
                | Condition::Listener
                | Condition::SessionsRestored
                | Condition::Delivery => {
                    readiness.unmet(condition, "not yet");
                }
                Condition::NotDraining => readiness.met(condition),
            }
        }
        readiness
    }

    /// The condition holds.
    pub fn met(&self, condition: Condition) {
        self.set(condition, None);
    }

    /// The condition does not hold, for a reason that an operator sees.
    pub fn unmet(&self, condition: Condition, reason: impl Into<String>) {
        self.set(condition, Some(reason.into()));
    }

    fn set(&self, condition: Condition, reason: Option<String>) {
        let value = if reason.is_none() { 1.0 } else { 0.0 };
        self.reasons.send_if_modified(|reasons| {
            gauge!("imgate_ops_ready_condition_met", "condition" => condition.label()).set(value);
            let Some(slot) = reasons.get_mut(condition.place()) else {
                return false;
            };
            let changed = *slot != reason;
            *slot = reason;
            changed
        });
    }

    /// What does not hold now; empty when ready.
    pub fn unmet_now(&self) -> Vec<Unmet> {
        let reasons = self.reasons.borrow();
        Condition::ALL
            .into_iter()
            .zip(reasons.iter())
            .filter_map(|(condition, reason)| {
                let reason = reason.clone()?;
                Some(Unmet { condition, reason })
            })
            .collect()
    }

    /// Whether everything holds.
    pub fn is_ready(&self) -> bool {
        self.reasons.borrow().iter().all(Option::is_none)
    }

    /// Waits until everything holds.
    pub async fn ready(&self) {
        self.is(true).await;
    }

    /// Waits until something does not hold.
    pub async fn not_ready(&self) {
        self.is(false).await;
    }

    async fn is(&self, ready: bool) {
        let mut changes = self.reasons.subscribe();
        // The sender lives as long as self, so the wait cannot fail.
        let _ = changes
            .wait_for(|reasons| reasons.iter().all(Option::is_none) == ready)
            .await;
    }
}

/// Describes the metrics of this module.
pub(super) fn describe_metrics() {
    describe_gauge!(
        "imgate_ops_ready_condition_met",
        Unit::Count,
        "1 while the condition of readiness holds, else 0; by condition. Ready is all of them."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_is_when_everything_holds() {
        let readiness = Readiness::new();
        assert_eq!(readiness.unmet_now().len(), 4);
        for condition in Condition::ALL {
            assert_eq!(Condition::ALL[condition.place()], condition);
            readiness.met(condition);
        }
        readiness.ready().await;
        assert!(readiness.is_ready());

        readiness.unmet(Condition::Store, "no answer for 5 s");
        readiness.not_ready().await;
        let unmet = Unmet {
            condition: Condition::Store,
            reason: "no answer for 5 s".to_owned(),
        };
        assert_eq!(readiness.unmet_now(), [unmet]);
    }

    #[tokio::test]
    async fn a_waiter_sees_the_change() {
        let readiness = Readiness::new();
        let other = readiness.clone();
        let waits = async { readiness.ready().await };
        let changes = async {
            for condition in Condition::ALL {
                tokio::task::yield_now().await;
                other.met(condition);
            }
        };
        tokio::join!(waits, changes);
    }
}
