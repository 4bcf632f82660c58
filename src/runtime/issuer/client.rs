//! The connection to a tenant's signature service, and one call over it.

use std::fmt;
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::codegen::{BoxFuture, Context, Poll, Service, StdError};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use super::{Ask, CallbackOptions, IssuerError};
use crate::error::with_causes;
use crate::proto::v1;
use crate::proto::v1::signature_issuer_service_client::SignatureIssuerServiceClient;
use crate::session::effect::RenewReason;
use crate::types::Secret;

/// The greatest answer that is read, in bytes; a signature has some 200, and at most 16 KiB.
const MAX_ANSWER: usize = 32 << 10;
/// The most header bytes of an answer that are read.
const MAX_HEADERS: u32 = 16 << 10;
/// The shortest time after which a connection with a call on it is asked for a sign of life.
const LEAST_KEEPALIVE: Duration = Duration::from_millis(500);

/// Calls a tenant's service. Connects when there is something to ask, and again after a loss.
#[derive(Clone)]
pub(super) struct Client {
    service: SignatureIssuerServiceClient<OnlyOk>,
    authorization: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(super) fn new(options: CallbackOptions) -> Result<Self, IssuerError> {
        let refuse = |error: tonic::transport::Error| IssuerError::Callback(with_causes(&error));
        let timeout = options.timeout;
        // A connection that is dead is found out while a call waits on it; one that is at rest is left alone, for
        // servers close connections that ask too often.
        let keepalive = (timeout / 2).max(LEAST_KEEPALIVE);
        let secure = options.url.starts_with("https://");
        let mut endpoint = Endpoint::from_shared(options.url)
            .map_err(refuse)?
            .connect_timeout(timeout)
            .http2_keep_alive_interval(keepalive)
            .keep_alive_timeout(keepalive)
            .keep_alive_while_idle(false)
            .http2_max_header_list_size(MAX_HEADERS)
            .user_agent(concat!("imgate/", env!("CARGO_PKG_VERSION")))
            .map_err(refuse)?;
        if secure {
            let tls = tls(options.ca_pem.as_deref(), options.identity.as_ref());
            endpoint = endpoint.tls_config(tls).map_err(refuse)?;
        }
        let authorization = options.token.as_ref().map(bearer).transpose()?;
        let service = SignatureIssuerServiceClient::new(OnlyOk(endpoint.connect_lazy()))
            .max_decoding_message_size(MAX_ANSWER);
        Ok(Self {
            service,
            authorization,
            timeout,
        })
    }

    /// Makes one call.
    pub(super) async fn call(&self, ask: &Ask, sdk_app_id: u64) -> Result<Secret<String>, Status> {
        let mut request = tonic::Request::new(v1::IssueSignatureRequest {
            account: ask.account.as_str().to_owned(),
            sdk_app_id,
            reason: reason(ask.reason).into(),
            attempt: ask.attempt,
        });
        request.set_timeout(self.timeout);
        if let Some(authorization) = &self.authorization {
            let headers = request.metadata_mut();
            headers.insert("authorization", authorization.clone());
        }
        let mut service = self.service.clone();
        // The service is told the deadline, and this side does not rely on it.
        match tokio::time::timeout(self.timeout, service.issue_signature(request)).await {
            Ok(Ok(answer)) => Ok(Secret::new(answer.into_inner().signature)),
            // The library's own timer for the same deadline.
            Ok(Err(status)) if status.code() == Code::Cancelled => Err(out_of_time()),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(out_of_time()),
        }
    }
}

fn out_of_time() -> Status {
    Status::deadline_exceeded("not answered in time")
}

fn bearer(token: &Secret<String>) -> Result<MetadataValue<Ascii>, IssuerError> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = MetadataValue::try_from(text.as_str())
        .map_err(|_| IssuerError::Callback("the token must be of visible ASCII".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(ca: Option<&[u8]>, identity: Option<&(Vec<u8>, Secret<Vec<u8>>)>) -> ClientTlsConfig {
    let tls = ClientTlsConfig::new();
    let tls = match ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
        None => tls.with_native_roots(),
    };
    match identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key.expose())),
        None => tls,
    }
}

const fn reason(reason: RenewReason) -> v1::IssueReason {
    match reason {
        RenewReason::FirstLogin => v1::IssueReason::FirstLogin,
        RenewReason::Expiring => v1::IssueReason::Expiring,
        RenewReason::Expired => v1::IssueReason::Expired,
        RenewReason::Refused => v1::IssueReason::Refused,
    }
}

/// What is known on this side of why there was no answer: never what the service says, for it may have put anything
/// there.
pub(super) fn local_cause(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() || error.is::<NotGrpc>() {
            return Some(error.to_string());
        }
        cause = error.source();
    }
    None
}

/// The answer is none of a gRPC service: a proxy's, a login page's.
#[derive(Debug, thiserror::Error)]
#[error("HTTP status {0}")]
struct NotGrpc(StatusCode);

/// Refuses every answer whose HTTP status is not 200, whatever it holds. A redirect is not followed.
#[derive(Clone, Debug)]
struct OnlyOk(Channel);

impl Service<Request<Body>> for OnlyOk {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Response<Body>, StdError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = self.0.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            match answer.status() {
                StatusCode::OK => Ok(answer),
                status => Err(NotGrpc(status).into()),
            }
        })
    }
}
