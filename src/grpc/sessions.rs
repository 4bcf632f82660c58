//! `imgate.v1.SessionService`.

use tonic::{Request, Response, Status};

use super::{caller, convert};
use crate::proto::v1;
use crate::proto::v1::session_service_server::SessionService;
use crate::runtime::handle::Gateway;
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

    async fn logout(
        &self,
        request: Request<v1::LogoutRequest>,
    ) -> Result<Response<v1::LogoutResponse>, Status> {
        let (caller, request) = caller(request)?;
        let key = caller.session(convert::account(&request.account)?);
        let session = Some(self.gateway.logout(&key).await?);
        Ok(Response::new(v1::LogoutResponse { session }))
    }

    async fn renew_signature(
        &self,
        request: Request<v1::RenewSignatureRequest>,
    ) -> Result<Response<v1::RenewSignatureResponse>, Status> {
        let (caller, request) = caller(request)?;
        let signature = convert::signature(request.signature)?;
        let key = caller.session(convert::account(&request.account)?);
        let session = Some(self.gateway.renew_signature(&key, signature).await?);
        Ok(Response::new(v1::RenewSignatureResponse { session }))
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
        // One more than asked for tells whether there is another page.
        let mut sessions = self
            .gateway
            .sessions(tenant, page.after.as_deref(), page.size + 1)?;
        let more = sessions.len() > page.size;
        sessions.truncate(page.size);
        let last = sessions.last().filter(|_| more);
        Ok(Response::new(v1::ListSessionsResponse {
            next_page_token: last
                .map(|last| convert::next_page_token(&self.tokens, tenant, &last.account))
                .unwrap_or_default(),
            sessions,
        }))
    }
}
