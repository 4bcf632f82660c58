//! The API over a real connection, as far as it needs no running session: who may call, what is refused and
//! how, events, deadlines, health, reflection, TLS, and the end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers outside of test functions; a test ends at the first thing that is not as it should be"
)]

#[path = "grpc_api/callers.rs"]
mod callers;
#[path = "grpc_api/events.rs"]
mod events;
#[path = "grpc_api/fixture.rs"]
mod fixture;
#[path = "grpc_api/forged.rs"]
mod forged;
#[path = "grpc_api/jwt.rs"]
mod jwt;
#[path = "grpc_api/limits.rs"]
mod limits;
#[path = "grpc_api/raw.rs"]
mod raw;
#[path = "grpc_api/retirement.rs"]
mod retirement;
#[path = "grpc_api/server.rs"]
mod server;
#[path = "grpc_api/subscriptions.rs"]
mod subscriptions;
#[path = "grpc_api/tls.rs"]
mod tls;

use imgate::proto::v1;
use tonic::{Code, Request};

use fixture::{Clients, clients, open_tenant, refusal, served, start};

/// Calls every method with an empty request.
async fn call_all(clients: &mut Clients) -> Vec<(Code, String, String)> {
    let Clients {
        sessions,
        events,
        messages,
        admin: _,
    } = clients;
    vec![
        refusal(sessions.login(v1::LoginRequest::default()).await),
        refusal(sessions.logout(v1::LogoutRequest::default()).await),
        refusal(
            sessions
                .renew_signature(v1::RenewSignatureRequest::default())
                .await,
        ),
        refusal(sessions.get_session(v1::GetSessionRequest::default()).await),
        refusal(
            sessions
                .list_sessions(v1::ListSessionsRequest {
                    page_size: -1,
                    ..v1::ListSessionsRequest::default()
                })
                .await,
        ),
        refusal(
            events
                .subscribe(v1::SubscribeRequest {
                    max_batch_size: -1,
                    ..v1::SubscribeRequest::default()
                })
                .await,
        ),
        refusal(events.acknowledge(v1::AcknowledgeRequest::default()).await),
        refusal(
            events
                .delete_subscription(v1::DeleteSubscriptionRequest::default())
                .await,
        ),
        refusal(messages.send(v1::SendRequest::default()).await),
        refusal(messages.invoke(v1::InvokeRequest::default()).await),
    ]
}

#[tokio::test]
async fn nobody_gets_anywhere_without_a_key() {
    let served = served().await;
    for (key, reason) in [
        (None, "API_KEY_MISSING"),
        (Some("acme-"), "API_KEY_UNKNOWN"),
        (Some("nonsense"), "API_KEY_UNKNOWN"),
    ] {
        let mut nobody = clients(served.channel().await, key);
        for (code, said, field) in call_all(&mut nobody).await {
            assert_eq!((code, &*said, &*field), (Code::Unauthenticated, reason, ""));
        }
    }
}

#[tokio::test]
async fn a_key_allows_what_its_scopes_say() {
    let served = served().await;
    let allowed = [
        ("acme-sessions", 0..5),
        ("acme-events", 5..8),
        ("acme-messages", 8..10),
    ];
    for (key, allowed) in allowed {
        let mut some = served.connect(key).await;
        for (index, (code, reason, _)) in call_all(&mut some).await.into_iter().enumerate() {
            if allowed.contains(&index) {
                assert_eq!(code, Code::InvalidArgument);
            } else {
                assert_eq!((code, &*reason), (Code::PermissionDenied, "SCOPE_MISSING"));
            }
        }
    }
}

#[tokio::test]
async fn an_open_tenant_needs_no_key() {
    let options = imgate::grpc::server::ServerOptions::default;
    let served = start("127.0.0.1:0", vec![open_tenant("dev")], options())
        .await
        .unwrap();
    let mut anybody = clients(served.channel().await, None);
    for (code, ..) in call_all(&mut anybody).await {
        assert_eq!(code, Code::InvalidArgument);
    }
    // Its name may be given, but no other.
    let named = |name: &str| {
        let mut request = Request::new(v1::GetSessionRequest::default());
        let name = name.parse().unwrap();
        request.metadata_mut().insert("imgate-tenant", name);
        request
    };
    let answer = refusal(anybody.sessions.get_session(named("dev")).await);
    assert_eq!(answer.0, Code::InvalidArgument);
    let answer = refusal(anybody.sessions.get_session(named("acme")).await);
    assert_eq!(answer.0, Code::Unauthenticated);
}

#[tokio::test]
async fn every_empty_request_is_told_which_field_is_missing() {
    let served = served().await;
    let answers = call_all(&mut served.connect("acme-key").await).await;
    let fields: Vec<&str> = answers.iter().map(|(_, _, field)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "account",
            "account",
            "signature",
            "account",
            "page_size",
            "max_batch_size",
            "subscription",
            "subscription",
            "account",
            "account",
        ]
    );
    for (code, reason, _) in &answers {
        assert_eq!((*code, &**reason), (Code::InvalidArgument, "INVALID_FIELD"));
    }
}

#[tokio::test]
async fn bad_fields_are_named() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let mut fields = Vec::new();
    for (account, signature) in [
        ("x".repeat(65), String::new()),
        ("a\u{7}".into(), String::new()),
        ("bot".into(), "x".repeat(8193)),
        ("bot".into(), "a b".into()),
    ] {
        let request = v1::LoginRequest { account, signature };
        fields.push(refusal(acme.sessions.login(request).await).2);
    }
    let request = v1::ListSessionsRequest {
        page_token: "junk".into(),
        ..v1::ListSessionsRequest::default()
    };
    fields.push(refusal(acme.sessions.list_sessions(request).await).2);
    let request = v1::SendRequest {
        account: "bot".into(),
        ..v1::SendRequest::default()
    };
    fields.push(refusal(acme.messages.send(request).await).2);
    let request = v1::InvokeRequest {
        account: "bot".into(),
        command: "a.b".into(),
        body_json: "[".into(),
    };
    fields.push(refusal(acme.messages.invoke(request).await).2);
    let expected = "account account signature signature page_token conversation body_json";
    assert_eq!(fields.join(" "), expected);
}

#[tokio::test]
async fn a_request_that_is_far_too_large_is_refused() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let request = v1::LoginRequest {
        account: "bot".into(),
        signature: "x".repeat(2_000_000),
    };
    let status = acme.sessions.login(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}
