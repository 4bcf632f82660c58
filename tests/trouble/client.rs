//! A bot backend: the gateway's API as a caller has it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::fixture::*;

type Keyed = InterceptedService<Channel, Key>;

#[derive(Clone)]
struct Key(String);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0))
            .map_err(|error| Status::internal(error.to_string()))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A bot backend.
#[derive(Clone)]
pub(crate) struct Client {
    sessions: v1::session_service_client::SessionServiceClient<Keyed>,
    events: v1::event_service_client::EventServiceClient<Keyed>,
    messages: v1::message_service_client::MessageServiceClient<Keyed>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, tenant: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let keyed = InterceptedService::new(channel, Key(key_of(tenant)));
        Self {
            sessions: v1::session_service_client::SessionServiceClient::new(keyed.clone()),
            events: v1::event_service_client::EventServiceClient::new(keyed.clone()),
            messages: v1::message_service_client::MessageServiceClient::new(keyed),
        }
    }

    pub(crate) async fn login(
        &self,
        account: &str,
        signature: &str,
    ) -> Result<v1::LoginResponse, Status> {
        self.login_within(PATIENCE, account, signature).await
    }

    /// A login with the caller's deadline.
    pub(crate) async fn login_within(
        &self,
        deadline: Duration,
        account: &str,
        signature: &str,
    ) -> Result<v1::LoginResponse, Status> {
        let mut request = Request::new(v1::LoginRequest {
            account: account.into(),
            signature: signature.into(),
        });
        request.set_timeout(deadline);
        Ok(self.sessions.clone().login(request).await?.into_inner())
    }

    /// A login that succeeds.
    pub(crate) async fn online(&self, account: &str) {
        let answer = self.login(account, &sig(account)).await.unwrap();
        assert_eq!((answer.code, answer.desc.as_str()), (0, ""));
        assert_eq!(answer.session.unwrap().state(), SessionState::Online);
    }

    pub(crate) async fn logout(&self, account: &str) -> Result<v1::Session, Status> {
        let account = account.into();
        let request = v1::LogoutRequest { account };
        let answer = self.sessions.clone().logout(request).await?.into_inner();
        Ok(answer.session.unwrap())
    }

    pub(crate) async fn renew(
        &self,
        account: &str,
        signature: &str,
    ) -> Result<v1::Session, Status> {
        let request = v1::RenewSignatureRequest {
            account: account.into(),
            signature: signature.into(),
        };
        let answer = self.sessions.clone().renew_signature(request).await?;
        Ok(answer.into_inner().session.unwrap())
    }

    pub(crate) async fn session(&self, account: &str) -> Result<v1::Session, Status> {
        let account = account.into();
        let request = v1::GetSessionRequest { account };
        let answer = self.sessions.clone().get_session(request).await?;
        Ok(answer.into_inner().session.unwrap())
    }

    pub(crate) async fn list(
        &self,
        page_size: i32,
        page_token: &str,
    ) -> Result<v1::ListSessionsResponse, Status> {
        let request = v1::ListSessionsRequest {
            page_size,
            page_token: page_token.into(),
        };
        let answer = self.sessions.clone().list_sessions(request).await?;
        Ok(answer.into_inner())
    }

    /// Waits until the session is as wanted.
    pub(crate) async fn until(
        &self,
        account: &str,
        wanted: impl Fn(&v1::Session) -> bool,
    ) -> v1::Session {
        let mut last = None;
        let found = poll(async || {
            let session = self.session(account).await;
            let found = session.clone().ok().filter(|session| wanted(session));
            last = Some(session);
            found
        });
        let found = found.await;
        found.unwrap_or_else(|| panic!("{account} stays {last:?}"))
    }

    pub(crate) async fn until_state(&self, account: &str, state: SessionState) -> v1::Session {
        self.until(account, |session| session.state() == state)
            .await
    }

    pub(crate) async fn send(
        &self,
        from: &str,
        to: &str,
        text: &str,
        client_message_id: &str,
    ) -> Result<v1::SendResponse, Status> {
        self.send_within(PATIENCE, from, to, text, client_message_id)
            .await
    }

    /// A send with the caller's deadline.
    pub(crate) async fn send_within(
        &self,
        deadline: Duration,
        from: &str,
        to: &str,
        text: &str,
        client_message_id: &str,
    ) -> Result<v1::SendResponse, Status> {
        let text = v1::TextElement { text: text.into() };
        let mut request = Request::new(v1::SendRequest {
            account: from.into(),
            conversation: Some(v1::send_request::Conversation::To(to.into())),
            elements: vec![v1::Element {
                kind: Some(v1::element::Kind::Text(text)),
            }],
            client_message_id: client_message_id.into(),
            ..v1::SendRequest::default()
        });
        request.set_timeout(deadline);
        Ok(self.messages.clone().send(request).await?.into_inner())
    }

    pub(crate) async fn invoke(
        &self,
        account: &str,
        command: &str,
    ) -> Result<v1::InvokeResponse, Status> {
        let request = v1::InvokeRequest {
            account: account.into(),
            command: command.into(),
            body_json: "{}".into(),
        };
        Ok(self.messages.clone().invoke(request).await?.into_inner())
    }

    /// Events from now on.
    pub(crate) async fn subscribe(&self) -> Events {
        let at = v1::StartAt::Latest.into();
        let start = v1::subscribe_request::Start::At(at);
        self.subscribe_from(start).await.unwrap()
    }

    pub(crate) async fn subscribe_from(
        &self,
        start: v1::subscribe_request::Start,
    ) -> Result<Events, Status> {
        let request = v1::SubscribeRequest {
            start: Some(start),
            // So long that no heartbeat's look at the store finds what the subscriber was to be woken for.
            heartbeat: Some(Duration::from_secs(300).try_into().unwrap()),
            ..v1::SubscribeRequest::default()
        };
        let mut stream = self.events.clone().subscribe(request).await?.into_inner();
        // The first response says that the place is taken.
        let first = within(stream.message()).await?.unwrap();
        Ok(Events {
            stream,
            cursor: first.cursor,
            waiting: first.events.into(),
        })
    }
}

/// A subscription.
pub(crate) struct Events {
    stream: tonic::Streaming<v1::SubscribeResponse>,
    pub(crate) cursor: String,
    waiting: VecDeque<v1::Event>,
}

impl Events {
    pub(crate) async fn next(&mut self) -> v1::Event {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            let batch = within(self.stream.message()).await.unwrap();
            let batch = batch.expect("the subscription has ended");
            self.cursor = batch.cursor;
            self.waiting = batch.events.into();
        }
    }

    /// The next event, or none when the gateway has ended the subscription.
    pub(crate) async fn next_or_end(&mut self) -> Option<v1::Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let batch = within(self.stream.message()).await.ok().flatten()?;
            self.cursor = batch.cursor;
            self.waiting = batch.events.into();
        }
    }

    /// The next event of an account that `pick` takes; others are passed over.
    pub(crate) async fn next_of<T>(
        &mut self,
        account: &str,
        pick: impl Fn(Kind) -> Option<T>,
    ) -> T {
        loop {
            let event = self.next().await;
            if event.account == account
                && let Some(found) = event.kind.and_then(&pick)
            {
                return found;
            }
        }
    }

    /// The next message's text.
    pub(crate) async fn text(&mut self, account: &str) -> String {
        self.next_of(account, text_of).await
    }

    /// Reads texts until the one given, which is the last of the answer. Repetitions are left out.
    pub(crate) async fn texts_until(&mut self, account: &str, last: &str) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            let text = self.text(account).await;
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }

    pub(crate) async fn signature_expired(&mut self, account: &str) -> v1::SignatureExpired {
        let pick = |kind| match kind {
            Kind::SignatureExpired(expired) => Some(expired),
            _ => None,
        };
        self.next_of(account, pick).await
    }
}
