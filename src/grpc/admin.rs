//! `imgate.v1.AdminService`: the operator's view across tenants.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::{Code, Request, Response, Status};

use super::convert::{self, Invalid};
use super::deadline::Deadline;
use super::listener::Retired;
use super::metrics::Call;
use super::status::{ConnectionRetired, DeadlinePassed, Unserved};
use super::{audit, operators};
use crate::proto::v1;
use crate::proto::v1::admin_service_server::AdminService;
use crate::runtime::handle::{CallError, Gateway, RotationReport, RotationWatch};
use crate::tenants::audit::{Action, Event, Outcome};
use crate::tenants::token::Tokens;
use crate::types::TenantId;

/// Serves the operator.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) gateway: Gateway,
    pub(super) tokens: Tokens,
}

type Report = Result<v1::RotateKeysResponse, Status>;

/// A rotation that somebody watches.
struct Watched {
    rotation: RotationWatch,
    event: Option<Event>,
    deadline: Deadline,
    /// Of its connection.
    retired: Retired,
    call: Option<Call>,
    ended: bool,
}

#[tonic::async_trait]
impl AdminService for Admin {
    type RotateKeysStream = Pin<Box<dyn Stream<Item = Report> + Send>>;

    async fn list_replicas(
        &self,
        request: Request<v1::ListReplicasRequest>,
    ) -> Result<Response<v1::ListReplicasResponse>, Status> {
        operators(request)?;
        Err(Unserved("read `/metrics` of each replica").into())
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let request = operators(request)?;
        let tenant = (!request.tenant.is_empty()).then(|| TenantId::new(&request.tenant));
        let held = self.gateway.partitions(tenant.as_ref()).await;
        let partitions = held.map_err(of_tenant)?.into_iter();
        Ok(Response::new(v1::ListPartitionsResponse {
            partitions: partitions.map(convert::partition).collect(),
        }))
    }

    async fn list_tenant_sessions(
        &self,
        request: Request<v1::ListTenantSessionsRequest>,
    ) -> Result<Response<v1::ListTenantSessionsResponse>, Status> {
        let request = operators(request)?;
        let tenant = TenantId::new(&request.tenant);
        let page = convert::page(
            &self.tokens,
            &tenant,
            request.page_size,
            &request.page_token,
        )?;
        let (sessions, next_page_token) =
            convert::sessions_page(&self.gateway, &self.tokens, &tenant, &page)
                .map_err(of_tenant)?;
        Ok(Response::new(v1::ListTenantSessionsResponse {
            sessions,
            next_page_token,
        }))
    }

    async fn rotate_keys(
        &self,
        request: Request<v1::RotateKeysRequest>,
    ) -> Result<Response<Self::RotateKeysStream>, Status> {
        let event = audit::begin_as_operator(Action::RotateKeys, &request);
        let extensions = request.extensions();
        let deadline = extensions.get::<Deadline>().copied();
        let retired = Retired::of(extensions);
        let call = extensions.get::<Call>().cloned();
        operators(request)?;
        let watched = Watched {
            rotation: self.gateway.reseal(),
            event,
            deadline: deadline.unwrap_or(Deadline(None)),
            retired,
            call,
            ended: false,
        };
        let reports = stream::unfold(watched, |mut watched| async move {
            let report = watched.next().await?;
            Some((report, watched))
        });
        Ok(Response::new(Box::pin(reports)))
    }

    async fn purge_tenant(
        &self,
        request: Request<v1::PurgeTenantRequest>,
    ) -> Result<Response<v1::PurgeTenantResponse>, Status> {
        let event = audit::begin_as_operator(Action::PurgeTenant, &request);
        let event = audit::object(event, &request.get_ref().tenant);
        let answer = self.purge(request).await;
        audit::answered(event, &answer, |_| None);
        answer
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        operators(request)?;
        Err(Unserved("send the replica SIGTERM").into())
    }

    async fn relogin(
        &self,
        request: Request<v1::ReloginRequest>,
    ) -> Result<Response<v1::ReloginResponse>, Status> {
        operators(request)?;
        Err(Unserved("have the tenant call Logout and Login").into())
    }
}

impl Admin {
    async fn purge(
        &self,
        request: Request<v1::PurgeTenantRequest>,
    ) -> Result<Response<v1::PurgeTenantResponse>, Status> {
        let request = operators(request)?;
        let tenant = TenantId::new(&request.tenant);
        if request.tenant.is_empty() || tenant.is_reserved() {
            return Err(Invalid::new("tenant", "must be the ID of a tenant").into());
        }
        let partitions = self.gateway.purge(&tenant).await?;
        Ok(Response::new(v1::PurgeTenantResponse {
            partitions: partitions.into(),
        }))
    }
}

impl Watched {
    /// The next report; an error or the summary is the last.
    async fn next(&mut self) -> Option<Report> {
        if self.ended {
            return None;
        }
        let report = tokio::select! {
            biased;
            () = self.deadline.passed() => return Some(self.end(DeadlinePassed::GivenUp.into())),
            () = self.retired.over() => return Some(self.end(ConnectionRetired.into())),
            report = self.rotation.next() => report,
        };
        let Some(report) = report else {
            return Some(self.end(CallError::Stopping.into()));
        };
        if let RotationReport::Summary(summary) = &report {
            self.ended = true;
            self.answered(Code::Ok);
            if let Some(event) = self.event.take() {
                let reason = (!summary.is_complete()).then_some("INCOMPLETE");
                event.ended(Outcome {
                    reason,
                    ..Outcome::OK
                });
            }
        }
        Some(Ok(convert::rotation(report)))
    }

    fn end(&mut self, status: Status) -> Report {
        self.ended = true;
        self.answered(status.code());
        let refused: Result<Response<()>, _> = Err(status.clone());
        audit::answered(self.event.take(), &refused, |()| None);
        Err(status)
    }

    fn answered(&self, code: Code) {
        if let Some(call) = &self.call {
            call.answered(code);
        }
    }
}

/// The gateway's refusal, where it is the tenant that there is not.
fn of_tenant(error: CallError) -> Status {
    match error {
        CallError::UnknownAccount => {
            Invalid::new("tenant", "must be the ID of a tenant in the configuration").into()
        }
        error @ (CallError::Invalid { .. }
        | CallError::SignatureRequired
        | CallError::IssuerUnavailable { .. }
        | CallError::IssuerRefused(_)
        | CallError::CommandNotAllowed(_)
        | CallError::Quota(_)
        | CallError::NotLoggedIn(_)
        | CallError::UpstreamUnanswered
        | CallError::SendOutcomeUnknown
        | CallError::Store(_)
        | CallError::Ended
        | CallError::Stopping) => error.into(),
    }
}
