//! What every call passes before its handler: who calls, until when, and counting how it ended.

use std::panic::AssertUnwindSafe;

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

/// Lets a call through to its handler with a [`Principal`], a [`Deadline`] and a [`Call`] in its extensions, or answers it.
pub(super) async fn guard(
    State(directory): State<Directory>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(method) = method::find(request.uri().path()) else {
        return next.run(request).await;
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
