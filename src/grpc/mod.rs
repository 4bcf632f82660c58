//! The bot-facing API: who calls, what they ask, and how they are answered. Thin: it decides nothing about
//! sessions or events.

mod admin;
mod audit;
mod auth_layer;
mod convert;
mod deadline;
mod events;
pub mod listener;
mod messages;
mod method;
pub mod metrics;
mod peer;
mod refusals;
pub mod server;
mod sessions;
mod standing;
mod status;

use tonic::{Request, Status};

use crate::tenants::auth::{Operator, Principal};

/// Takes a request apart: who calls, and what they say.
fn caller<T>(request: Request<T>) -> Result<(Principal, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let principal = extensions.remove::<Principal>();
    // The layer lets nobody through without one; a call that came another way is refused all the same.
    let principal = principal.ok_or_else(|| Status::unauthenticated("unknown caller"))?;
    Ok((principal, message))
}

/// Takes an operator's request apart. No caller of a tenant comes through.
fn operators<T>(request: Request<T>) -> Result<T, Status> {
    let (_, mut extensions, message) = request.into_parts();
    let operator = extensions.remove::<Operator>();
    let refused = || Status::unauthenticated("unknown operator");
    operator.ok_or_else(refused).map(|_| message)
}
