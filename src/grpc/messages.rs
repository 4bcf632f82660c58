//! `imgate.v1.MessageService`.

use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::deadline::Deadline;
use super::{audit, caller, convert};
use crate::proto::v1;
use crate::proto::v1::message_service_server::MessageService;
use crate::runtime::handle::Gateway;
use crate::tenants::audit::Action;

/// Serves messages.
#[derive(Clone, Debug)]
pub(super) struct Messages {
    pub(super) gateway: Gateway,
}

#[tonic::async_trait]
impl MessageService for Messages {
    async fn send(
        &self,
        request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        let deadline = request.extensions().get::<Deadline>();
        let deadline = deadline.and_then(|deadline| deadline.0);
        let (caller, request) = caller(request)?;
        let key = caller.session(convert::account(&request.account)?);
        let message = convert::outgoing(request)?;
        // The caller's, or the method's own.
        let deadline = deadline.unwrap_or_else(Instant::now);
        let sent = self.gateway.send(&key, message, deadline).await?;
        let seconds = i64::try_from(sent.sent_at).unwrap_or_default();
        Ok(Response::new(v1::SendResponse {
            code: sent.outcome.code,
            desc: sent.outcome.desc,
            message_id: sent.message_id,
            sent_at: (seconds > 0).then_some(Timestamp { seconds, nanos: 0 }),
            upstream_sequence: sent.upstream_sequence,
        }))
    }

    async fn invoke(
        &self,
        request: Request<v1::InvokeRequest>,
    ) -> Result<Response<v1::InvokeResponse>, Status> {
        let asked = request.get_ref();
        let event = audit::begin(Action::Invoke, &request, &asked.account);
        let event = audit::object(event, &asked.command);
        let answer = self.do_invoke(request).await;
        audit::answered(event, &answer, |invoked| Some(invoked.code));
        answer
    }
}

impl Messages {
    async fn do_invoke(
        &self,
        request: Request<v1::InvokeRequest>,
    ) -> Result<Response<v1::InvokeResponse>, Status> {
        let (caller, request) = caller(request)?;
        let key = caller.session(convert::account(&request.account)?);
        let (command, body) = convert::invocation(request.command, request.body_json)?;
        let invoked = self.gateway.invoke(&key, command, body).await?;
        Ok(Response::new(v1::InvokeResponse {
            code: invoked.outcome.code,
            desc: invoked.outcome.desc,
            body_json: invoked.body_json,
        }))
    }
}
