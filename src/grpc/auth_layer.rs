//! What every call passes before its handler: who calls, until when, and counting how it ended.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tonic::{Code, Status};

use super::deadline::Deadline;
use super::method::{self, Access, Method};
use super::metrics::Call;
use super::peer;
use super::refusals::Refusals;
use super::standing::Standing;
use super::status::{DeadlinePassed, Panicked};
use crate::tenants::auth::{AuthError, Credentials};
use crate::tenants::directory::Directory;
use crate::types::WallClock;

/// How much a caller who is refused may still say, in bytes; far more than any call that is not of a message.
const HEARD_OUT_BYTES: usize = 64 * 1024;
/// And for how long.
const HEARD_OUT_WITHIN: Duration = Duration::from_secs(1);
/// How long a call that needs no key may take until its answer begins.
const KEYLESS_DEADLINE: Duration = Duration::from_secs(30);

/// What every call is held against.
#[derive(Clone, Debug)]
pub(super) struct Door {
    /// Who may call.
    pub(super) directory: Directory,
    /// Where those are noted who may not, for nobody knows them.
    pub(super) refusals: Refusals,
}

/// Lets a call through to its handler with a [`Principal`] or an [`Operator`], a [`Deadline`] and a [`Call`] in its extensions,
/// or answers it.
///
/// [`Principal`]: crate::tenants::auth::Principal
/// [`Operator`]: crate::tenants::auth::Operator
pub(super) async fn guard(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let Some(method) = method::find(request.uri().path()) else {
        // Whoever needs no key is not waited for without end either.
        return match tokio::time::timeout(KEYLESS_DEADLINE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Status::from(DeadlinePassed::GivenUp).into_http(),
        };
    };
    let call = Call::begin(method);
    if let Err(error) = admit(&door.directory, &mut request, method) {
        door.refusals
            .note(error, peer::address(request.extensions()));
        hear_out(request.into_body()).await;
        return refuse(&call, error.into());
    }
    let deadline = Deadline::of(request.headers(), method.default_deadline);
    let extensions = request.extensions_mut();
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

/// Takes in what a caller who is refused has still to say, within bounds. What comes for a call that was answered already counts
/// against its connection, on which there may be others, and too much of it ends that.
async fn hear_out(mut body: Body) {
    let heard = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > HEARD_OUT_BYTES {
                break;
            }
        }
    };
    // Whoever is slow gets its answer all the same.
    let _slow = tokio::time::timeout(HEARD_OUT_WITHIN, heard).await;
}

/// Finds out who calls, and puts them into the request's extensions if they may.
fn admit(directory: &Directory, request: &mut Request, method: &Method) -> Result<(), AuthError> {
    let headers = request.headers();
    let authorization = match headers.get("authorization") {
        Some(value) => Some(value.to_str().map_err(|_| AuthError::NotBearer)?),
        None => None,
    };
    let certificate = match authorization {
        Some(_) => None,
        None => peer::names(request.extensions()),
    };
    // A name that is not text is no tenant's.
    let tenant = headers
        .get("imgate-tenant")
        .map(|name| name.to_str().unwrap_or_default());
    let credentials = Credentials {
        authorization,
        certificate: certificate.as_ref(),
        tenant,
    };
    let caller = directory.authenticate(WallClock.now(), credentials)?;
    match method.access {
        Access::Tenant(scope) => {
            let principal = caller.for_tenant(scope)?;
            let standing = method.default_deadline.is_none().then(|| {
                let tenant = principal.tenant.clone();
                Standing::of(directory, headers, certificate, tenant, scope)
            });
            let extensions = request.extensions_mut();
            extensions.insert(principal);
            if let Some(standing) = standing {
                extensions.insert(standing);
            }
        }
        Access::Operator => {
            let operator = caller.for_operator()?;
            request.extensions_mut().insert(operator);
        }
    }
    Ok(())
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
    use axum::routing::any;
    use tokio::time::Instant;
    use tonic::codegen::Service as _;

    use super::*;
    use crate::runtime::supervisor::Tasks;
    use crate::tenants::auth::{Operator, Principal, Scope};
    use crate::tenants::directory::{ApiKey, Callers, ClientCertificate, Contents, Tenant};
    use crate::tenants::keys::{Key, KeyDigest};
    use crate::tenants::peer::PeerNames;
    use crate::types::TenantId;

    const LOGIN: &str = "/imgate.v1.SessionService/Login";
    const SUBSCRIBE: &str = "/imgate.v1.EventService/Subscribe";
    const ACKNOWLEDGE: &str = "/imgate.v1.EventService/Acknowledge";
    const DRAIN: &str = "/imgate.v1.AdminService/Drain";

    async fn who(request: Request) -> String {
        let extensions = request.extensions();
        match (extensions.get::<Principal>(), extensions.get::<Operator>()) {
            (Some(principal), None) => format!("{} by {}", principal.tenant, principal.key_id),
            (None, Some(operator)) => format!("operator {}", operator.id),
            both => panic!("{both:?}"),
        }
    }

    async fn hang() {
        std::future::pending().await
    }

    async fn fall() {
        panic!("on purpose");
    }

    fn directory() -> Directory {
        let key = |id: &str| Key::new(id.into(), KeyDigest::of(id));
        let tenant_key = |id: &str, scopes: &[Scope]| ApiKey {
            key: key(id),
            scopes: scopes.into(),
        };
        let acme = Tenant {
            id: TenantId::new("acme"),
            partitions: 8,
            max_subscriptions: 100,
            callers: Callers {
                keys: vec![
                    tenant_key("all", &Scope::ALL),
                    tenant_key("events", &[Scope::Events]),
                ],
                certificates: vec![ClientCertificate {
                    id: "echo".into(),
                    name: "echo.test".into(),
                    scopes: vec![Scope::Sessions],
                }],
                ..Callers::default()
            },
            open: false,
        };
        Directory::new(Contents {
            tenants: vec![acme],
            operators: vec![key("ops")],
            ..Contents::default()
        })
        .unwrap()
    }

    fn requested(path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = axum::http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    async fn ask(handler: axum::routing::MethodRouter, request: Request) -> Response {
        let tasks = Tasks::new();
        let door = Door {
            directory: directory(),
            refusals: Refusals::start(&tasks),
        };
        let mut router = Router::new()
            .route(request.uri().path(), handler)
            .layer(axum::middleware::from_fn_with_state(door, guard));
        let response = router.call(request).await.unwrap();
        tasks.stop();
        response
    }

    async fn call(
        handler: axum::routing::MethodRouter,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        ask(handler, requested(path, headers)).await
    }

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 100).await;
        String::from_utf8(body.unwrap().to_vec()).unwrap()
    }

    fn outcome(response: &Response) -> Code {
        code_of(response.headers())
    }

    #[tokio::test]
    async fn the_handler_learns_who_calls() {
        let response = call(any(who), LOGIN, &[("authorization", "Bearer all")]).await;
        assert_eq!(text(response).await, "acme by all");
        let response = call(any(who), DRAIN, &[("authorization", "Bearer ops")]).await;
        assert_eq!(text(response).await, "operator ops");
    }

    /// What the listener puts into the extensions is believed; a header of the same meaning there is not.
    #[tokio::test]
    async fn a_certificate_counts_where_there_is_no_key() {
        let certified = |headers: &[(&str, &str)], path: &str| {
            let mut request = requested(path, headers);
            let names: PeerNames = ["other.test", "echo.test"].into_iter().collect();
            request.extensions_mut().insert(names);
            request
        };
        let response = ask(any(who), certified(&[], LOGIN)).await;
        assert_eq!(text(response).await, "acme by echo");
        let keyed = certified(&[("authorization", "Bearer all")], SUBSCRIBE);
        assert_eq!(text(ask(any(who), keyed).await).await, "acme by all");
        for (headers, path, code) in [
            (&[][..], SUBSCRIBE, Code::PermissionDenied),
            (&[], DRAIN, Code::PermissionDenied),
            (
                &[("authorization", "Bearer none")],
                LOGIN,
                Code::Unauthenticated,
            ),
            (&[("imgate-tenant", "other")], LOGIN, Code::PermissionDenied),
        ] {
            let response = ask(any(fall), certified(headers, path)).await;
            assert_eq!(outcome(&response), code, "{headers:?} {path}");
        }
    }

    #[tokio::test]
    async fn a_method_is_a_tenants_or_the_operators() {
        for (path, key, code) in [
            (DRAIN, None, Code::Unauthenticated),
            (DRAIN, Some("Bearer none"), Code::Unauthenticated),
            (DRAIN, Some("Bearer all"), Code::PermissionDenied),
            (LOGIN, Some("Bearer ops"), Code::PermissionDenied),
        ] {
            let headers: Vec<_> = key.map(|key| ("authorization", key)).into_iter().collect();
            let response = call(any(fall), path, &headers).await;
            assert_eq!(outcome(&response), code, "{path} {key:?}");
        }
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
