//! `imgate.v1.SessionService`.

use tonic::{Request, Response, Status};

use super::{audit, caller, convert};
use crate::proto::v1;
use crate::proto::v1::session_service_server::SessionService;
use crate::runtime::handle::Gateway;
use crate::tenants::audit::Action;
use crate::tenants::token::Tokens;

/// Serves sessions.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    pub(super) gateway: Gateway,
    pub(super) tokens: Tokens,
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn login(
        &self,
        request: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::LoginResponse>, Status> {
        let event = audit::begin(Action::Login, &request, &request.get_ref().account);
        let answer = self.do_login(request).await;
        audit::answered(event, &answer, |login| Some(login.code));
        answer
    }

    async fn logout(
        &self,
        request: Request<v1::LogoutRequest>,
    ) -> Result<Response<v1::LogoutResponse>, Status> {
        let event = audit::begin(Action::Logout, &request, &request.get_ref().account);
        let answer = self.do_logout(request).await;
        audit::answered(event, &answer, |_| None);
        answer
    }

    async fn renew_signature(
        &self,
        request: Request<v1::RenewSignatureRequest>,
    ) -> Result<Response<v1::RenewSignatureResponse>, Status> {
        let event = audit::begin(Action::RenewSignature, &request, &request.get_ref().account);
        let answer = self.do_renew_signature(request).await;
        audit::answered(event, &answer, |_| None);
        answer
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let (caller, request) = caller(request)?;
        let key = caller.session(convert::account(&request.account)?);
        let session = Some(self.gateway.session(&key)?);
        Ok(Response::new(v1::GetSessionResponse { session }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let (caller, request) = caller(request)?;
        let tenant = &caller.tenant;
        let page = convert::page(&self.tokens, tenant, request.page_size, &request.page_token)?;
        let (sessions, next_page_token) =
            convert::sessions_page(&self.gateway, &self.tokens, tenant, &page)?;
        Ok(Response::new(v1::ListSessionsResponse {
            sessions,
            next_page_token,
        }))
    }
}

/// What is written down, without that.
impl Sessions {
    async fn do_login(
        &self,
        request: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::LoginResponse>, Status> {
        let (caller, request) = caller(request)?;
        let signature = convert::optional_signature(request.signature)?;
        let key = caller.session(convert::account(&request.account)?);
        let (outcome, session) = self.gateway.login(&key, signature).await?;
        Ok(Response::new(v1::LoginResponse {
            code: outcome.code,
            desc: outcome.desc,
            session: Some(session),
        }))
    }

    async fn do_logout(
        &self,
        request: Request<v1::LogoutRequest>,
    ) -> Result<Response<v1::LogoutResponse>, Status> {
        let (caller, request) = caller(request)?;
        let key = caller.session(convert::account(&request.account)?);
        let session = Some(self.gateway.logout(&key).await?);
        Ok(Response::new(v1::LogoutResponse { session }))
    }

    async fn do_renew_signature(
        &self,
        request: Request<v1::RenewSignatureRequest>,
    ) -> Result<Response<v1::RenewSignatureResponse>, Status> {
        let (caller, request) = caller(request)?;
        let signature = convert::signature(request.signature)?;
        let key = caller.session(convert::account(&request.account)?);
        let session = Some(self.gateway.renew_signature(&key, signature).await?);
        Ok(Response::new(v1::RenewSignatureResponse { session }))
    }
}
