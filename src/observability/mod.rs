//! imgate seen from outside: logs, metrics, and the operations port with liveness and readiness.

pub mod logging;
pub mod metrics;
pub mod ops_server;
pub mod readiness;
