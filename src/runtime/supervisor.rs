//! The only place that spawns. Every task has a name, an owner that can stop and await it, and a policy for its
//! end.

use std::future::Future;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error};

/// What the end of a task means to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// It may end at any time (a session, a connection). A panic is logged and counted; the rest goes on.
    Work,
    /// It may end when its work is done, but others wait for what it does (a log writer). A panic stops the whole group.
    Vital,
    /// The program is of no use without it (a listener, the lease keeper). Its end stops the whole group.
    Critical,
}

/// A group of tasks with one owner. Clones are handles on the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A group of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group that stops when this one does, but can also be stopped and awaited alone.
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
        }
    }

    /// Spawns a task. It should end soon after [`Tasks::stopping`] does; its span is the caller's current one.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, kind: TaskKind, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        let unwinding = std::panic::AssertUnwindSafe(task).catch_unwind();
        // No async block: that would hold the task's future twice.
        let guarded = unwinding.map(move |ended| {
            if ended.is_err() {
                metrics::counter!("imgate_runtime_task_panics_total", "task" => name).increment(1);
                error!(task = name, "a task panicked");
            }
            let fatal = match kind {
                TaskKind::Work => false,
                TaskKind::Vital => ended.is_err(),
                TaskKind::Critical => true,
            };
            if fatal && !stop.is_cancelled() {
                error!(task = name, "a task that must not end has ended; stopping");
                stop.cancel();
            }
        });
        tokio::spawn(self.tracker.track_future(guarded.in_current_span()))
    }

    /// Asks all tasks to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until somebody has asked the tasks to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether somebody has asked the tasks to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until every task of the group has ended. Call [`Tasks::stop`] first.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_stays_within_its_task() {
        let tasks = Tasks::new();
        tasks
            .spawn("bad", TaskKind::Work, async { panic!("on purpose") })
            .await
            .unwrap();
        assert!(!tasks.is_stopping());
    }

    #[tokio::test]
    async fn a_vital_task_may_end_but_not_by_a_panic() {
        let tasks = Tasks::new();
        let ended = tasks.spawn("done", TaskKind::Vital, async {});
        ended.await.unwrap();
        assert!(!tasks.is_stopping());
        tasks.spawn("bad", TaskKind::Vital, async { panic!("on purpose") });
        tasks.stopping().await;
    }

    #[tokio::test]
    async fn the_end_of_a_critical_task_stops_the_group_and_its_children() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let waiting = child.clone();
        child.spawn(
            "waits",
            TaskKind::Work,
            async move { waiting.stopping().await },
        );
        tasks.spawn("listener", TaskKind::Critical, async {});
        child.ended().await;
        tasks.ended().await;
    }
}
