//! What happens in the life: everything that a secret takes part in.

use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::SessionState;
use imgate::proto::v1::admin_service_client::AdminServiceClient;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::message_service_client::MessageServiceClient;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use serde_json::json;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::world::{
    API_KEY, CALLING_API_KEY, OPERATOR_KEY, OTHER_API_KEY, PATIENCE, WRONG_API_KEY, World, with_key,
};

/// A tenant's clients.
struct Clients {
    key: &'static str,
    sessions: SessionServiceClient<Channel>,
    events: EventServiceClient<Channel>,
    messages: MessageServiceClient<Channel>,
}

impl Clients {
    async fn connect(world: &World, key: &'static str) -> Self {
        let channel = world.channel().await;
        Self {
            key,
            sessions: SessionServiceClient::new(channel.clone()),
            events: EventServiceClient::new(channel.clone()),
            messages: MessageServiceClient::new(channel),
        }
    }

    /// Logs in; answers the upstream's code.
    async fn log_in(&mut self, world: &mut World, account: &str, signature: String) -> i32 {
        let account = account.to_owned();
        let login = v1::LoginRequest { account, signature };
        let answer = self.sessions.login(with_key(self.key, login)).await;
        world.note(answer).unwrap().code
    }

    async fn until(
        &mut self,
        world: &mut World,
        account: &str,
        state: SessionState,
    ) -> v1::Session {
        let began = Instant::now();
        loop {
            let account = account.to_owned();
            let asked = with_key(self.key, v1::GetSessionRequest { account });
            let answer = self.sessions.get_session(asked).await;
            let session = world.note(answer).unwrap().session.unwrap();
            if session.state() == state {
                return session;
            }
            assert!(began.elapsed() < PATIENCE, "{session:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&mut self, world: &mut World, account: &str, to: &str, id: &str) {
        let text = v1::TextElement {
            text: "hello".into(),
        };
        let send = v1::SendRequest {
            account: account.into(),
            conversation: Some(v1::send_request::Conversation::To(to.into())),
            elements: vec![v1::Element {
                kind: Some(v1::element::Kind::Text(text)),
            }],
            client_message_id: id.into(),
            ..v1::SendRequest::default()
        };
        let answer = self.messages.send(with_key(self.key, send)).await;
        assert_eq!(world.note(answer).unwrap().code, 0);
    }

    async fn subscribe(&mut self, world: &mut World) -> Streaming<v1::SubscribeResponse> {
        let subscribe = v1::SubscribeRequest {
            start: Some(v1::subscribe_request::Start::Subscription("all".into())),
            ..v1::SubscribeRequest::default()
        };
        let answer = self.events.subscribe(with_key(self.key, subscribe)).await;
        let mut events = answer.unwrap().into_inner();
        let first = events.message().await.unwrap().unwrap();
        world.note_event(&first);
        events
    }
}

/// Reads events until one is as it should be.
async fn event(
    world: &mut World,
    events: &mut Streaming<v1::SubscribeResponse>,
    wanted: impl Fn(&v1::event::Kind) -> bool,
) {
    let looking = async {
        loop {
            let batch = events.message().await.unwrap().unwrap();
            world.note_event(&batch);
            let mut kinds = batch.events.iter().filter_map(|event| event.kind.as_ref());
            if kinds.any(&wanted) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap();
}

/// Nobody gets in by these, and what they brought is not repeated.
async fn wrong_keys(world: &mut World, acme: &mut Clients) {
    let account = || "alice".to_owned();
    let ask = v1::GetSessionRequest { account: account() };
    let answer = acme
        .sessions
        .get_session(with_key(WRONG_API_KEY, ask))
        .await;
    let refused = world.note(answer).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    // A signature by another key, and what is none at all.
    let forged = world.signature_by("another-key-than-the-app's", "mallory");
    // The upstream refuses it, and the gateway makes a better one.
    acme.log_in(world, "mallory", forged).await;
    let garbage = world.bring("this-is-no-signature-but-somebody's-secret");
    acme.log_in(world, "mallory", garbage.clone()).await;
    let renew = v1::RenewSignatureRequest {
        account: account(),
        signature: garbage,
    };
    let answer = acme
        .sessions
        .renew_signature(with_key(API_KEY, renew))
        .await;
    let refused = world.note(answer).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let spaced = world.bring("a signature with spaces in it, which is refused");
    let login = v1::LoginRequest {
        account: account(),
        signature: spaced,
    };
    let answer = acme.sessions.login(with_key(API_KEY, login)).await;
    let refused = world.note(answer).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // The right key of another tenant.
    let mut request = with_key(OTHER_API_KEY, v1::GetSessionRequest { account: account() });
    let other = "acme".parse().unwrap();
    request.metadata_mut().insert("imgate-tenant", other);
    let answer = acme.sessions.get_session(request).await;
    let refused = world.note(answer).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

pub(crate) async fn first_half(world: &mut World) {
    let mut acme = Clients::connect(world, API_KEY).await;
    let mut bring = Clients::connect(world, OTHER_API_KEY).await;
    // One tenant's signatures are the gateway's own, the other's are brought.
    for account in ["alice", "bob"] {
        assert_eq!(acme.log_in(world, account, String::new()).await, 0);
    }
    let signature = world.signature("carol");
    assert_eq!(bring.log_in(world, "carol", signature).await, 0);
    let mut events = acme.subscribe(world).await;
    let mut brought = bring.subscribe(world).await;
    acme.send(world, "alice", "bob", "send-1").await;
    let is_message = |kind: &v1::event::Kind| matches!(kind, v1::event::Kind::Message(_));
    event(world, &mut events, is_message).await;
    bring.send(world, "carol", "alice", "send-2").await;
    event(world, &mut events, is_message).await;
    wrong_keys(world, &mut acme).await;

    // Asked of the tenant's own service, at first and when it has ended.
    let mut calls = Clients::connect(world, CALLING_API_KEY).await;
    assert_eq!(calls.log_in(world, "dave", String::new()).await, 0);
    world.post("/expire", json!({ "user_id": "dave" })).await;
    calls.send(world, "dave", "alice", "send-5").await;

    // Renewed by the gateway.
    world.post("/expire", json!({ "user_id": "alice" })).await;
    acme.send(world, "alice", "bob", "send-3").await;
    acme.until(world, "alice", SessionState::Online).await;

    // Renewed by the bot, ahead of time and when it is asked.
    let renew = |signature| v1::RenewSignatureRequest {
        account: "carol".into(),
        signature,
    };
    let signature = world.signature("carol");
    let answer = bring
        .sessions
        .renew_signature(with_key(OTHER_API_KEY, renew(signature)));
    let answer = answer.await;
    world.note(answer).unwrap();
    for round in 0..2 {
        world.post("/expire", json!({ "user_id": "carol" })).await;
        world.post("/drop", json!({ "user_id": "carol" })).await;
        if round == 1 {
            let expired = |kind: &v1::event::Kind| matches!(kind, v1::event::Kind::SignatureExpired(expired) if expired.code != 0);
            event(world, &mut brought, expired).await;
            let signature = world.signature("carol");
            let answer = bring
                .sessions
                .renew_signature(with_key(OTHER_API_KEY, renew(signature)));
            let answer = answer.await;
            world.note(answer).unwrap();
        }
        let online = async |world: &mut World, logins| {
            loop {
                let session = bring.until(world, "carol", SessionState::Online).await;
                if session.logins >= logins {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut online = online;
        tokio::time::timeout(PATIENCE, online(world, 2 + round))
            .await
            .unwrap();
    }

    // Kicked, and taken back.
    world.post("/kick", json!({ "user_id": "bob" })).await;
    acme.until(world, "bob", SessionState::Parked).await;
    let kicked = |kind: &v1::event::Kind| matches!(kind, v1::event::Kind::KickedOffline(_));
    event(world, &mut events, kicked).await;
    assert_eq!(acme.log_in(world, "bob", String::new()).await, 0);
}

/// The operator has a look, too.
async fn rotate(world: &mut World) {
    let mut admin = AdminServiceClient::new(world.channel().await);
    let rotate = with_key(OPERATOR_KEY, v1::RotateKeysRequest {});
    let mut reports = admin.rotate_keys(rotate).await.unwrap().into_inner();
    while let Some(report) = reports.message().await.unwrap() {
        world.note_event(&report);
    }
    let list = v1::ListTenantSessionsRequest {
        tenant: "bring".into(),
        ..v1::ListTenantSessionsRequest::default()
    };
    let answer = admin
        .list_tenant_sessions(with_key(OPERATOR_KEY, list))
        .await;
    assert_eq!(world.note(answer).unwrap().sessions.len(), 1);
    let wrong = with_key(API_KEY, v1::ListPartitionsRequest::default());
    let answer = admin.list_partitions(wrong).await;
    let refused = world.note(answer).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

pub(crate) async fn second_half(world: &mut World) {
    let mut acme = Clients::connect(world, API_KEY).await;
    let mut bring = Clients::connect(world, OTHER_API_KEY).await;
    let alice = acme.until(world, "alice", SessionState::Online).await;
    assert!(alice.resumes > 0, "by the ticket: {alice:?}");
    acme.until(world, "bob", SessionState::Online).await;
    bring.until(world, "carol", SessionState::Online).await;
    world.post("/drop", json!({})).await;
    acme.send(world, "alice", "bob", "send-4").await;
    acme.until(world, "bob", SessionState::Online).await;
    bring.until(world, "carol", SessionState::Online).await;
    let invoke = v1::InvokeRequest {
        account: "alice".into(),
        command: "openim.getroammsg".into(),
        body_json: "{}".into(),
    };
    let answer = acme.messages.invoke(with_key(API_KEY, invoke)).await;
    let _whatever = world.note(answer);
    let list = with_key(API_KEY, v1::ListSessionsRequest::default());
    let answer = acme.sessions.list_sessions(list).await;
    assert!(world.note(answer).unwrap().sessions.len() >= 2);
    rotate(world).await;
    let logout = v1::LogoutRequest {
        account: "mallory".into(),
    };
    let answer = acme.sessions.logout(with_key(API_KEY, logout)).await;
    world.note(answer).unwrap();
}
