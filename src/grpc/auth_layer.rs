//! What every call passes before its handler: who calls, until when, and counting how it ended.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use tonic::{Code, Status};

use super::deadline::Deadline;
use super::method::{self, Method};
use super::metrics::Call;
use super::status::{DeadlinePassed, Panicked};
use crate::tenants::auth::{AuthError, Credentials, Principal};
use crate::tenants::directory::Directory;

/// How long a call that needs no key may take until its answer begins.
const KEYLESS_DEADLINE: Duration = Duration::from_secs(30);

/// Lets a call through to its handler with a [`Principal`], a [`Deadline`] and a [`Call`] in its extensions, or answers it.
pub(super) async fn guard(
    State(directory): State<Directory>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(method) = method::find(request.uri().path()) else {
        // Whoever needs no key is not waited for without end either.
        return match tokio::time::timeout(KEYLESS_DEADLINE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Status::from(DeadlinePassed::GivenUp).into_http(),
        };
    };
    let call = Call::begin(method);
    let principal = match authenticate(&directory, request.headers(), method) {
        Ok(principal) => principal,
        Err(error) => return refuse(&call, error.into()),
    };
    let deadline = Deadline::of(request.headers(), method.default_deadline);
    let extensions = request.extensions_mut();
    extensions.insert(principal);
    extensions.insert(deadline);
    extensions.insert(call.clone());

    // A panic ends its own call; without this it would end every call of the connection.
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = tokio::select! {
        biased;
        handled = handled => match handled {
            Ok(response) => response,
            Err(_) => return refuse(&call, Panicked.into()),
        },
        () = deadline.passed() => {
            let passed = if method.goes_on {
                DeadlinePassed::LoginGoesOn
            } else {
                DeadlinePassed::GivenUp
            };
            return refuse(&call, passed.into());
        }
    };
    let code = code_of(response.headers());
    // A stream that has begun well says itself how it ends.
    if method.default_deadline.is_some() || code != Code::Ok {
        call.answered(code);
    }
    response
}

fn authenticate(
    directory: &Directory,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Principal, AuthError> {
    let authorization = match headers.get("authorization") {
        Some(value) => Some(value.to_str().map_err(|_| AuthError::NotBearer)?),
        None => None,
    };
    // A name that is not text is no tenant's.
    let tenant = headers
        .get("imgate-tenant")
        .map(|name| name.to_str().unwrap_or_default());
    let principal = directory.authenticate(Credentials {
        authorization,
        tenant,
    })?;
    principal.require(method.scope)?;
    Ok(principal)
}

fn refuse(call: &Call, status: Status) -> Response {
    call.answered(status.code());
    status.into_http()
}

/// The code of an answer without a body; an answer with one has begun well.
fn code_of(headers: &HeaderMap) -> Code {
    headers
        .get("grpc-status")
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::any;
    use tokio::time::Instant;
    use tonic::codegen::Service as _;

    use super::*;
    use crate::tenants::auth::{KeyDigest, Scope};
    use crate::tenants::directory::{ApiKey, Tenant};
    use crate::types::TenantId;

    const LOGIN: &str = "/imgate.v1.SessionService/Login";
    const SUBSCRIBE: &str = "/imgate.v1.EventService/Subscribe";
    const ACKNOWLEDGE: &str = "/imgate.v1.EventService/Acknowledge";

    async fn who(request: Request) -> String {
        let principal = request.extensions().get::<Principal>().unwrap();
        format!("{} by {}", principal.tenant, principal.key_id)
    }

    async fn hang() {
        std::future::pending().await
    }

    async fn fall() {
        panic!("on purpose");
    }

    async fn call(
        handler: axum::routing::MethodRouter,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let key = |id: &str, scopes: &[Scope]| ApiKey {
            id: id.into(),
            digest: KeyDigest::of(id),
            scopes: scopes.into(),
        };
        let directory = Directory::new(vec![Tenant {
            id: TenantId::new("acme"),
            partitions: 8,
            max_subscriptions: 100,
            keys: vec![key("all", &Scope::ALL), key("events", &[Scope::Events])],
            open: false,
        }])
        .unwrap();
        let mut router = Router::new()
            .route(path, handler)
            .layer(axum::middleware::from_fn_with_state(directory, guard));
        let mut request = axum::http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router
            .call(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    fn outcome(response: &Response) -> Code {
        code_of(response.headers())
    }

    #[tokio::test]
    async fn the_handler_learns_who_calls() {
        let headers = [("authorization", "Bearer all")];
        let response = call(any(who), LOGIN, &headers).await;
        let body = axum::body::to_bytes(response.into_body(), 100).await;
        assert_eq!(body.unwrap(), "acme by all");
    }

    #[tokio::test]
    async fn nobody_reaches_a_handler_without_a_key_that_allows_it() {
        for (headers, code) in [
            (vec![], Code::Unauthenticated),
            (vec![("authorization", "Basic all")], Code::Unauthenticated),
            (
                vec![("authorization", "Bearer \u{e9}")],
                Code::Unauthenticated,
            ),
            (
                vec![("authorization", "Bearer none")],
                Code::Unauthenticated,
            ),
            (
                vec![("authorization", "Bearer events")],
                Code::PermissionDenied,
            ),
            (
                vec![("authorization", "Bearer all"), ("imgate-tenant", "other")],
                Code::PermissionDenied,
            ),
        ] {
            let response = call(any(fall), LOGIN, &headers).await;
            assert_eq!(outcome(&response), code, "{headers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline() {
        let key = ("authorization", "Bearer all");
        for (path, headers, seconds) in [
            (LOGIN, vec![key], 60),
            (ACKNOWLEDGE, vec![key], 30),
            (LOGIN, vec![key, ("grpc-timeout", "5M")], 300),
            (ACKNOWLEDGE, vec![key, ("grpc-timeout", "2S")], 2),
        ] {
            let began = Instant::now();
            let response = call(any(hang), path, &headers).await;
            assert_eq!(outcome(&response), Code::DeadlineExceeded);
            let early = Duration::from_secs(seconds) - began.elapsed();
            assert!(early <= Duration::from_millis(5), "{early:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_no_deadline_unless_the_caller_sets_one() {
        let headers = [("authorization", "Bearer all")];
        let endless = call(any(hang), SUBSCRIBE, &headers);
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, endless).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_no_key_has_no_endless_time() {
        let began = Instant::now();
        let response = call(any(hang), "/grpc.health.v1.Health/Check", &[]).await;
        assert_eq!(outcome(&response), Code::DeadlineExceeded);
        assert_eq!(began.elapsed(), KEYLESS_DEADLINE);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let headers = [("authorization", "Bearer all")];
        let response = call(any(fall), LOGIN, &headers).await;
        assert_eq!(outcome(&response), Code::Internal);
    }
}
