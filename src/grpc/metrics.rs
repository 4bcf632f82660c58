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
/// Times that accepting has paused for `connections_per_second`.
pub const ACCEPT_PAUSES: &str = "imgate_grpc_accept_pauses_total";
/// Open connections, those that have not begun yet included.
pub const CONNECTIONS: &str = "imgate_grpc_connections";
/// Connections closed at once; label `reason`.
pub const CONNECTIONS_REFUSED: &str = "imgate_grpc_connections_refused_total";
/// Connections that ended before they could be served; label `reason`.
pub const HANDSHAKE_FAILURES: &str = "imgate_grpc_handshake_failures_total";
/// Connections that were served and have ended; label `reason`.
pub const CONNECTIONS_ENDED: &str = "imgate_grpc_connections_ended_total";
/// Fresh certificates, keys and authorities; label `outcome`.
pub const TLS_RELOADS: &str = "imgate_grpc_tls_reloads_total";
/// When the certificate ends, or the first of its chain to end, in Unix time.
pub const CERTIFICATE_EXPIRY: &str = "imgate_grpc_certificate_expiry_timestamp_seconds";

/// Why a connection ended before it could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    /// It took longer than it may.
    TooLate,
    /// The client went away, as one does that only looks whether the port is open.
    Closed,
    /// The TLS handshake failed: no TLS, no trust, or no certificate.
    Tls,
    /// What the client speaks is not HTTP/2.
    NotHttp2,
}

impl HandshakeFailure {
    const ALL: [Self; 4] = [Self::TooLate, Self::Closed, Self::Tls, Self::NotHttp2];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::TooLate => "timeout",
            Self::Closed => "closed",
            Self::Tls => "tls",
            Self::NotHttp2 => "not_http2",
        }
    }
}

/// Why a connection that was served has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client has closed it.
    Closed,
    /// It was of age, and its calls came to their end.
    Retired,
    /// The server stops, and its calls came to their end.
    Stopped,
    /// Its calls did not come to their end within the grace.
    Cut,
    /// The client gave no sign of life.
    Silent,
    /// It broke.
    Lost,
    /// The client opened and reset streams too fast, or against its bounds.
    Flood,
    /// The client broke the rules of HTTP/2.
    Protocol,
}

impl Ended {
    const ALL: [Self; 8] = [
        Self::Closed,
        Self::Retired,
        Self::Stopped,
        Self::Cut,
        Self::Silent,
        Self::Lost,
        Self::Flood,
        Self::Protocol,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Retired => "retired",
            Self::Stopped => "stopped",
            Self::Cut => "cut",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Flood => "flood",
            Self::Protocol => "protocol",
        }
    }
}

/// Declares the metrics and sets the commonest counters to zero.
pub fn describe_metrics() {
    describe_connection_metrics();
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

fn describe_connection_metrics() {
    for (name, text) in [
        (ACCEPT_ERRORS, "API connections that could not be accepted"),
        (
            ACCEPT_PAUSES,
            "Times that accepting API connections has paused, for there were too many in a second",
        ),
        (
            CONNECTIONS_REFUSED,
            "API connections closed at once, by reason",
        ),
        (
            HANDSHAKE_FAILURES,
            "API connections that ended before they could be served, by reason",
        ),
        (
            CONNECTIONS_ENDED,
            "API connections that were served and have ended, by reason",
        ),
        (
            TLS_RELOADS,
            "Fresh certificates, keys and client authorities of the API, by outcome",
        ),
    ] {
        describe_counter!(name, Unit::Count, text);
    }
    describe_gauge!(CONNECTIONS, Unit::Count, "Open API connections");
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "When the API's certificate ends, in Unix time"
    );
    counter!(ACCEPT_ERRORS).absolute(0);
    counter!(ACCEPT_PAUSES).absolute(0);
    gauge!(CONNECTIONS).set(0.0);
    counter!(CONNECTIONS_REFUSED, "reason" => "full").absolute(0);
    for failure in HandshakeFailure::ALL {
        counter!(HANDSHAKE_FAILURES, "reason" => failure.label()).absolute(0);
    }
    for ended in Ended::ALL {
        counter!(CONNECTIONS_ENDED, "reason" => ended.label()).absolute(0);
    }
    for outcome in ["ok", "refused"] {
        counter!(TLS_RELOADS, "outcome" => outcome).absolute(0);
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
