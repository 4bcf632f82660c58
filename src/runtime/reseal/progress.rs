//! How far a rotation is, and who watches it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::types::{PartitionId, UnixMillis};

/// How soon after one report the next may follow.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// How far the rotation of a partition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationState {
    /// Not begun.
    #[default]
    Waiting,
    /// Being gone through.
    UnderWay,
    /// All its records are under the active key.
    Done,
    /// Another replica, or nobody, holds it, and some of its records are under other keys: it is for its owner to do.
    Elsewhere,
    /// Some of its records could not be sealed anew, or could not be read.
    Failed,
}

/// The rotation of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRotation {
    /// How far it is.
    pub state: RotationState,
    /// How many records it has.
    pub records: u64,
    /// How many of them were under other keys at the beginning.
    pub total: u64,
    /// How many of these are sealed anew so far.
    pub done: u64,
    /// How many could not be.
    pub failed: u64,
    /// Events of its log under other keys.
    pub old_events: u64,
    /// When the last of these is gone by its age.
    pub old_events_until: Option<UnixMillis>,
}

/// The rotation as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationSummary {
    /// The ID of the active key.
    pub active_key: String,
    /// How many partitions there are.
    pub partitions: u64,
    /// How many of them are left to other replicas.
    pub elsewhere: u64,
    /// How many of them failed.
    pub partitions_failed: u64,
    /// The sums over all of them.
    pub sums: PartitionRotation,
}

impl RotationSummary {
    /// Whether every record there is, is under the active key.
    pub const fn is_complete(&self) -> bool {
        self.elsewhere == 0 && self.partitions_failed == 0
    }
}

/// What a watcher of a rotation is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationReport {
    /// A partition has moved.
    Partition(PartitionId, PartitionRotation),
    /// The end.
    Summary(RotationSummary),
}

/// One pass through everything.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Which request it answers, and all before.
    pub(super) number: u64,
    pub(super) active_key: String,
    pub(super) partitions: BTreeMap<PartitionId, PartitionRotation>,
    pub(super) finished: bool,
}

/// Watches one rotation until it is finished.
#[derive(Debug)]
pub struct RotationWatch {
    request: u64,
    progress: watch::Receiver<Progress>,
    told: BTreeMap<PartitionId, PartitionRotation>,
    waiting: Vec<RotationReport>,
    ended: bool,
}

impl RotationWatch {
    /// Watches the pass that answers this request.
    pub(super) const fn new(request: u64, progress: watch::Receiver<Progress>) -> Self {
        Self {
            request,
            progress,
            told: BTreeMap::new(),
            waiting: Vec::new(),
            ended: false,
        }
    }

    /// What comes next; the summary is the last. `None` before that if the gateway stops.
    pub async fn next(&mut self) -> Option<RotationReport> {
        loop {
            if let Some(report) = self.waiting.pop() {
                return Some(report);
            }
            if self.ended {
                return None;
            }
            if !self.told.is_empty() {
                // What moves meanwhile is told together.
                tokio::time::sleep(REPORT_EVERY).await;
            }
            self.look().await?;
        }
    }

    /// Waits until something has moved, and notes what.
    async fn look(&mut self) -> Option<()> {
        let (request, told) = (self.request, &mut self.told);
        let moved = |progress: &Progress| {
            progress.number >= request && (progress.finished || progress.partitions != *told)
        };
        let progress = self.progress.wait_for(moved).await.ok()?;
        if progress.finished {
            self.waiting
                .push(RotationReport::Summary(progress.summary()));
            self.ended = true;
        }
        let moved = progress.partitions.iter().rev();
        for (partition, rotation) in moved {
            if told.get(partition) != Some(rotation) {
                let report = RotationReport::Partition(partition.clone(), rotation.clone());
                self.waiting.push(report);
            }
        }
        told.clone_from(&progress.partitions);
        Some(())
    }
}

impl Progress {
    pub(super) fn summary(&self) -> RotationSummary {
        let mut summary = RotationSummary {
            active_key: self.active_key.clone(),
            ..RotationSummary::default()
        };
        for rotation in self.partitions.values() {
            summary.partitions += 1;
            match rotation.state {
                RotationState::Elsewhere => summary.elsewhere += 1,
                RotationState::Waiting | RotationState::UnderWay | RotationState::Failed => {
                    summary.partitions_failed += 1;
                }
                RotationState::Done => {}
            }
            let sums = &mut summary.sums;
            sums.records += rotation.records;
            sums.total += rotation.total;
            sums.done += rotation.done;
            sums.failed += rotation.failed;
            sums.old_events += rotation.old_events;
            sums.old_events_until = sums.old_events_until.max(rotation.old_events_until);
        }
        summary.sums.state = if summary.is_complete() {
            RotationState::Done
        } else {
            RotationState::Failed
        };
        summary
    }
}
