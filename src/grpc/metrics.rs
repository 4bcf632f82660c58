//! The metrics of the API. No label is made of a tenant or an account.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use tokio::time::Instant;
use tonic::Code;

use super::method::{METHODS, Method};
use crate::tenants::auth::AuthError;

/// Requests answered; labels `method` and `code`. A stream counts when it ends.
pub const REQUESTS: &str = "imgate_grpc_requests_total";
/// How long unary requests took; label `method`.
pub const DURATION: &str = "imgate_grpc_request_duration_seconds";
/// Requests being served, streams included; label `method`.
pub const IN_FLIGHT: &str = "imgate_grpc_requests_in_flight";
/// Requests whose caller is not known; label `reason`.
pub const UNAUTHENTICATED: &str = "imgate_grpc_unauthenticated_total";
/// Connections that could not be accepted.
pub const ACCEPT_ERRORS: &str = "imgate_grpc_accept_errors_total";

/// Declares the metrics and sets the commonest counters to zero.
pub fn describe_metrics() {
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "API requests answered, by method and gRPC code"
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time from a unary API request to its answer, by method"
    );
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "API requests being served, streams included, by method"
    );
    describe_counter!(
        UNAUTHENTICATED,
        Unit::Count,
        "API requests whose caller is not known, by reason"
    );
    describe_counter!(
        ACCEPT_ERRORS,
        Unit::Count,
        "API connections that could not be accepted"
    );
    counter!(ACCEPT_ERRORS).absolute(0);
    for reason in AuthError::UNAUTHENTICATED {
        counter!(UNAUTHENTICATED, "reason" => reason).absolute(0);
    }
    for method in &METHODS {
        for code in [
            Code::Ok,
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Internal,
        ] {
            counter!(REQUESTS, "method" => method.name, "code" => label(code)).absolute(0);
        }
    }
}

/// A request being served. It is counted when its last clone is gone; one that was not answered was cancelled
/// by its caller. Found in the request's extensions, so that a stream can hold it for as long as it lasts.
#[derive(Clone, Debug)]
pub(super) struct Call(Arc<Served>);

#[derive(Debug)]
struct Served {
    method: &'static Method,
    began: Instant,
    code: AtomicI32,
}

impl Call {
    pub(super) fn begin(method: &'static Method) -> Self {
        gauge!(IN_FLIGHT, "method" => method.name).increment(1);
        Self(Arc::new(Served {
            method,
            began: Instant::now(),
            code: AtomicI32::new(Code::Cancelled.into()),
        }))
    }

    /// Sets what the request was answered.
    pub(super) fn answered(&self, code: Code) {
        self.0.code.store(code.into(), Ordering::Relaxed);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let name = self.method.name;
        let code = label(Code::from_i32(*self.code.get_mut()));
        gauge!(IN_FLIGHT, "method" => name).decrement(1);
        counter!(REQUESTS, "method" => name, "code" => code).increment(1);
        if self.method.default_deadline.is_some() {
            histogram!(DURATION, "method" => name).record(self.began.elapsed());
        }
    }
}

/// How a code is called in metrics and in the audit.
pub(super) const fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
