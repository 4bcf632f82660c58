//! From our errors to a gRPC status: the only such mapping.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::error;

use super::convert::Invalid;
use crate::error::{Classified, ErrorKind};
use crate::events::service::EventsError;
use crate::runtime::handle::{CallError, PurgeError};
use crate::tenants::auth::AuthError;
use crate::tenants::metrics;
use crate::tenants::quotas::Exceeded;

/// The domain in every ErrorInfo.
const DOMAIN: &str = "imgate";

/// The deadline has passed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum DeadlinePassed {
    /// What was asked for was given up.
    #[error("the deadline passed; what was asked for may or may not have been done")]
    GivenUp,
    /// The login goes on without the caller.
    #[error("the deadline passed; the login goes on, and calling Login again joins it")]
    LoginGoesOn,
}

impl Classified for DeadlinePassed {
    fn kind(&self) -> ErrorKind {
        ErrorKind::TimedOut
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::GivenUp => None,
            Self::LoginGoesOn => Some(Duration::from_secs(1)),
        }
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// The connection has had its time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "this connection has reached its greatest age (grpc.max_connection_age); call again, Subscribe with the last cursor"
)]
pub(super) struct ConnectionRetired;

impl Classified for ConnectionRetired {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// A handler has panicked: a bug.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the gateway failed in an unforeseen way; ask the operator")]
pub(super) struct Panicked;

impl Classified for Panicked {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// The method is declared, and this version does not serve it; instead the operator can do this.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this version of imgate does not serve this method yet: {0}")]
pub(super) struct Unserved(pub(super) &'static str);

impl From<Unserved> for Status {
    fn from(error: Unserved) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info("UNIMPLEMENTED", DOMAIN, HashMap::new());
        Self::with_error_details(Code::Unimplemented, error.to_string(), details)
    }
}

/// What a status says beyond the kind, the text and the time to wait.
struct Extra {
    reason: &'static str,
    /// The field that is wrong, and the remedy.
    field: Option<(String, String)>,
    metadata: Option<(&'static str, String)>,
    /// The limit that was reached, and the text that says so.
    exceeded: Option<Exceeded>,
}

impl Extra {
    const fn reason(reason: &'static str) -> Self {
        Self {
            reason,
            field: None,
            metadata: None,
            exceeded: None,
        }
    }
}

impl From<Invalid> for Status {
    fn from(error: Invalid) -> Self {
        let extra = Extra {
            field: Some((error.field.clone(), error.remedy.clone())),
            ..Extra::reason("INVALID_FIELD")
        };
        status(&error, extra)
    }
}

impl From<PurgeError> for Status {
    fn from(error: PurgeError) -> Self {
        status(&error, Extra::reason(error.reason()))
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let mut extra = Extra::reason(error.reason());
        match &error {
            CallError::Invalid { field, remedy } => {
                extra.field = Some(((*field).into(), remedy.clone()));
            }
            CallError::CommandNotAllowed(command) => {
                extra.metadata = Some(("command", command.clone()));
            }
            CallError::Quota(exceeded) => extra.exceeded = Some(exceeded.clone()),
            CallError::SignatureRequired
            | CallError::IssuerUnavailable { .. }
            | CallError::IssuerRefused(_)
            | CallError::UnknownAccount
            | CallError::NotLoggedIn(_)
            | CallError::UpstreamUnanswered
            | CallError::SendOutcomeUnknown
            | CallError::Store(_)
            | CallError::Ended
            | CallError::Stopping => {}
        }
        status(&error, extra)
    }
}

impl From<EventsError> for Status {
    fn from(error: EventsError) -> Self {
        let mut extra = Extra::reason(error.reason());
        match &error {
            EventsError::Cursor(_) | EventsError::CursorPartitions => {
                extra.field = Some(("cursor".into(), error.to_string()));
            }
            EventsError::Quota(exceeded) => extra.exceeded = Some(exceeded.clone()),
            EventsError::UnknownSubscription | EventsError::Store(_) | EventsError::Draining => {}
        }
        status(&error, extra)
    }
}

impl From<Exceeded> for Status {
    fn from(exceeded: Exceeded) -> Self {
        CallError::from(exceeded).into()
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        let mut extra = Extra::reason(error.reason());
        match error {
            AuthError::ScopeMissing(scope) => {
                extra.metadata = Some(("scope", scope.name().into()));
            }
            AuthError::KeyMissing
            | AuthError::NotBearer
            | AuthError::KeyUnknown
            | AuthError::KeyNotYetValid
            | AuthError::KeyExpired
            | AuthError::CertificateUnknown
            | AuthError::JwtInvalid(_)
            | AuthError::JwtKeyUnknown
            | AuthError::JwtNotYetValid
            | AuthError::JwtExpired
            | AuthError::JwtSubjectUnknown
            | AuthError::JwtKeysUnavailable
            | AuthError::OtherTenant
            | AuthError::TenantNotNamed
            | AuthError::OperatorRequired
            | AuthError::TenantRequired => {}
        }
        status(&error, extra)
    }
}

impl From<DeadlinePassed> for Status {
    fn from(error: DeadlinePassed) -> Self {
        let reason = match error {
            DeadlinePassed::GivenUp => "DEADLINE_EXCEEDED",
            DeadlinePassed::LoginGoesOn => "LOGIN_PENDING",
        };
        status(&error, Extra::reason(reason))
    }
}

impl From<ConnectionRetired> for Status {
    fn from(error: ConnectionRetired) -> Self {
        status(&error, Extra::reason("CONNECTION_RETIRED"))
    }
}

impl From<Panicked> for Status {
    fn from(error: Panicked) -> Self {
        status(&error, Extra::reason("INTERNAL"))
    }
}

fn status(error: &impl Classified, extra: Extra) -> Status {
    let kind = error.kind();
    if kind == ErrorKind::Internal {
        error!(%error, reason = extra.reason, "a call failed");
    }
    let mut metadata: HashMap<String, String> = extra
        .metadata
        .into_iter()
        .map(|(key, value)| (key.into(), value))
        .collect();
    let mut details = ErrorDetails::new();
    if let Some((field, remedy)) = extra.field {
        metadata.insert("field".into(), field.clone());
        details.add_bad_request_violation(field, remedy);
    }
    if let Some(exceeded) = extra.exceeded {
        metrics::refused(exceeded.quota);
        metadata.insert("limit".into(), exceeded.limit.to_string());
        let subject = format!("tenants/{}", exceeded.tenant);
        details.add_quota_failure_violation(subject, exceeded.to_string());
    }
    details.set_error_info(extra.reason, DOMAIN, metadata);
    if let Some(wait) = error.retry_after() {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(code(kind), error.public_text(), details)
}

const fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Precondition => Code::FailedPrecondition,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::TimedOut => Code::DeadlineExceeded,
        ErrorKind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::tenants::auth::Scope;
    use crate::tenants::quotas::Quota;
    use crate::types::TenantId;

    #[test]
    fn a_bad_field_is_named_with_its_remedy() {
        let status = Status::from(Invalid::new("account", "must not be empty"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("INVALID_FIELD", "imgate"));
        assert_eq!(info.metadata["field"], "account");
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "account");
        assert_eq!(violation.description, "must not be empty");
    }

    #[test]
    fn what_passes_says_when_to_come_back_and_hides_the_inside() {
        let away = StoreError::Unavailable("10.0.0.7:6379 refused".into());
        let status = Status::from(CallError::Store(away));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains("10.0.0.7"));
        let details = status.get_error_details();
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(details.error_info().unwrap().reason, "STORE_UNAVAILABLE");

        let away = StoreError::Unavailable("10.0.0.7:6379 refused".into());
        let status = Status::from(EventsError::Store(away));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains("10.0.0.7"));
    }

    #[test]
    fn a_quota_is_named_with_the_key_to_raise_and_when_to_come_back() {
        let tenant = TenantId::new("acme");
        for quota in Quota::ALL {
            let exceeded = Exceeded::count(&tenant, quota, 7);
            let wait = exceeded.retry_after;
            let status = Status::from(exceeded);
            assert_eq!(status.code(), Code::ResourceExhausted);
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(info.reason, quota.reason());
            assert_eq!(info.metadata["limit"], "7");
            let violation = &details.quota_failure().unwrap().violations[0];
            assert_eq!(violation.subject, "tenants/acme");
            let key = format!("limits.{}", quota.label());
            assert!(violation.description.contains(&key), "{violation:?}");
            assert_eq!(details.retry_info().unwrap().retry_delay, Some(wait));
        }
    }

    #[test]
    fn a_missing_scope_is_named() {
        let status = Status::from(AuthError::ScopeMissing(Scope::Events));
        assert_eq!(status.code(), Code::PermissionDenied);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["scope"], "events");
    }

    #[test]
    fn a_login_past_its_deadline_says_that_it_goes_on() {
        let status = Status::from(DeadlinePassed::LoginGoesOn);
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "LOGIN_PENDING");
        let status = Status::from(DeadlinePassed::GivenUp);
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
}
