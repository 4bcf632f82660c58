//! Calls that are written down with who made them and how they ended.

use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{metrics, peer};
use crate::tenants::audit::{Action, By, Event, Outcome};
use crate::tenants::auth::{Operator, Principal};
use crate::types::AccountId;

/// The longest name of a command that is written, in bytes.
const MAX_OBJECT: usize = 64;

/// A call of a tenant's begins. What is no account's name is left out, for it can be anything.
pub(super) fn begin<T>(action: Action, request: &Request<T>, account: &str) -> Option<Event> {
    let caller = request.extensions().get::<Principal>()?;
    let event = Event::new(action, By::from(caller));
    let account = AccountId::parse(account).ok();
    let event = event.tenant(&caller.tenant).account(account.as_ref());
    Some(event.peer(peer::address(request.extensions())))
}

/// A call of an operator's begins.
pub(super) fn begin_as_operator<T>(action: Action, request: &Request<T>) -> Option<Event> {
    let operator = request.extensions().get::<Operator>()?;
    let event = Event::new(action, By::from(operator));
    Some(event.peer(peer::address(request.extensions())))
}

/// Names what else it is done to. What is no name is left out.
pub(super) fn object(event: Option<Event>, name: &str) -> Option<Event> {
    let is_name = name.len() <= MAX_OBJECT && name.bytes().all(|byte| byte.is_ascii_graphic());
    event.map(|event| {
        if is_name && !name.is_empty() {
            event.object(name)
        } else {
            event
        }
    })
}

/// A call has been answered; `upstream` has the upstream's code in a good answer, if there is one.
pub(super) fn answered<T>(
    event: Option<Event>,
    answer: &Result<Response<T>, Status>,
    upstream: impl FnOnce(&T) -> Option<i32>,
) {
    let Some(event) = event else { return };
    match answer {
        Ok(answer) => event.ended(Outcome {
            upstream_code: upstream(answer.get_ref()),
            ..Outcome::OK
        }),
        Err(status) => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.as_str());
            event.ended(Outcome {
                code: metrics::label(status.code()),
                reason,
                ..Outcome::default()
            });
        }
    }
}
