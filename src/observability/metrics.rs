//! The recorder behind `/metrics`: buckets, descriptions, and the metrics of the process itself.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::error::{Classified, ErrorKind};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::types::WallClock;

/// How often histograms are drained. Until then each sample is kept, and nothing else runs while they are counted: of a busy
/// second it takes a millisecond.
const UPKEEP: Duration = Duration::from_millis(250);

/// Upper bounds for `*_seconds`: from a store operation in memory to a login that waits for its turn.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// Upper bounds for `*_bytes`.
const BYTES: [f64; 8] = [
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    4_194_304.0,
];
/// Upper bounds for everything else, which is counts: events in a batch and the like.
const COUNTS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 250.0, 1000.0];

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The recorder cannot be built.
    #[error("the metrics recorder: {0}")]
    Build(#[from] BuildError),
    /// The process has a recorder already.
    #[error("the process has a metrics recorder already")]
    Installed,
}

impl Classified for MetricsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Build(_) | Self::Installed => ErrorKind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the gateway's metrics cannot be set up; ask the operator".into()
    }
}

/// Describes the metrics of all rooms: one line for each room that has some.
fn describe_all() {
    describe_metrics();
    super::readiness::describe_metrics();
    crate::config::metrics::describe_metrics();
    crate::cluster::ownership::describe_metrics();
    crate::events::metrics::describe_metrics();
    crate::grpc::metrics::describe_metrics();
    crate::runtime::metrics::describe_metrics();
    crate::store::metrics::describe_metrics();
    crate::tenants::jwt::metrics::describe_metrics();
    crate::tenants::metrics::describe_metrics();
}

fn describe_metrics() {
    describe_gauge!(
        "imgate_build_info",
        Unit::Count,
        "Always 1; the label `version` is the version that runs."
    );
    describe_gauge!(
        "imgate_process_start_time_seconds",
        Unit::Seconds,
        "When the process started, Unix time."
    );
    describe_counter!(
        "imgate_runtime_task_panics_total",
        Unit::Count,
        "Tasks that ended in a panic, by the task's name. Any is a bug."
    );
}

/// Records everything that the process counts and measures from now on. Once in a process. Call
/// [`keep_up`] with the handle afterwards.
pub fn install() -> Result<PrometheusHandle, MetricsError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Installed)?;
    start();
    Ok(handle)
}

/// Keeps the recorder's memory bounded until `tasks` stop.
pub fn keep_up(tasks: &Tasks, handle: PrometheusHandle) {
    let stop = tasks.clone();
    tasks.spawn("metrics_upkeep", TaskKind::Work, async move {
        while tokio::time::timeout(UPKEEP, stop.stopping()).await.is_err() {
            handle.run_upkeep();
        }
    });
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .set_buckets(&COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .build_recorder())
}

/// Describes all metrics, and sets those that never change.
fn start() {
    describe_all();
    gauge!("imgate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let now = Duration::from_millis(WallClock.now().0);
    gauge!("imgate_process_start_time_seconds").set(now.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_described_and_histograms_have_buckets() {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            start();
            metrics::histogram!("imgate_test_wait_seconds").record(0.3);
            metrics::histogram!("imgate_test_frame_bytes").record(65.0);
            metrics::histogram!("imgate_test_batch_events").record(3.0);
        });
        let text = recorder.handle().render();
        for line in [
            "# TYPE imgate_build_info gauge",
            concat!(
                "imgate_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
            "# HELP imgate_process_start_time_seconds When the process started, Unix time.",
            "imgate_test_wait_seconds_bucket{le=\"0.25\"} 0",
            "imgate_test_wait_seconds_bucket{le=\"0.5\"} 1",
            "imgate_test_frame_bytes_bucket{le=\"256\"} 1",
            "imgate_test_batch_events_bucket{le=\"5\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
