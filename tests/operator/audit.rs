//! Who did what, as it is written down.

use std::time::Duration;

use imgate::connectors::tencent::usersig;
use imgate::proto::v1;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::message_service_client::MessageServiceClient;
use imgate::types::{Secret, WallClock};
use serde_json::{Value, json};
use tonic::Code;

use crate::world::{APP, APP_KEY, World, as_tenant, until};

/// The lines with what is the same in all of them checked and taken out.
fn lines(world: &World) -> Vec<Value> {
    let mut lines = world.audit();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        for (key, value) in [
            ("level", "INFO"),
            ("message", "audit"),
            ("target", "imgate::audit"),
        ] {
            assert_eq!(line.remove(key).unwrap(), value);
        }
        assert!(line.remove("timestamp").is_some());
        line.remove("span");
        let by_gateway = line["caller_kind"] == "gateway";
        match line.remove("peer") {
            Some(peer) => assert!(peer.as_str().unwrap().starts_with("127.0.0.1:")),
            None => assert!(by_gateway, "{line:?}"),
        }
        if !by_gateway {
            assert_eq!(line.remove("caller_kind").unwrap(), "api_key");
            assert_eq!(line.remove("caller_id").unwrap(), "all");
        }
        if line["action"] != "reload_configuration" {
            assert_eq!(line.remove("tenant").unwrap(), "acme");
        }
    }
    // A signature that is minted in the second of the one before is the same, and is asked for again.
    lines.dedup_by(|again, before| again["action"] == "renew" && again == before);
    lines
}

async fn renew_signature(world: &World) {
    let (now, hour) = (WallClock.now(), Duration::from_secs(3600));
    let key = Secret::new(APP_KEY.to_owned());
    let signature = usersig::mint(APP.into(), &key, "alice", now, hour, None);
    let request = v1::RenewSignatureRequest {
        account: "alice".into(),
        signature: signature.expose().clone(),
    };
    let mut sessions = world.sessions().await;
    sessions.renew_signature(as_tenant(request)).await.unwrap();
}

/// A subscription is made, used, and deleted twice.
async fn subscriptions(world: &World) {
    let mut events = EventServiceClient::new(world.channel().await);
    let name = "workers".to_owned();
    for _ in 0..2 {
        let request = v1::SubscribeRequest {
            start: Some(v1::subscribe_request::Start::Subscription(name.clone())),
            ..v1::SubscribeRequest::default()
        };
        let stream = events.subscribe(as_tenant(request)).await.unwrap();
        stream.into_inner().message().await.unwrap().unwrap();
    }
    let delete = || {
        as_tenant(v1::DeleteSubscriptionRequest {
            subscription: name.clone(),
        })
    };
    events.delete_subscription(delete()).await.unwrap();
    let gone = events.delete_subscription(delete()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

/// What is to be written down, if the upstream answers the raw command with this code.
fn expected(invoked: i32) -> Vec<Value> {
    let by_gateway = |mut line: Value| {
        line["caller_kind"] = "gateway".into();
        line
    };
    vec![
        // Without a signature of the caller's the gateway gets one, as when that has ended.
        by_gateway(json!({ "action": "renew", "account": "alice", "outcome": "OK" })),
        json!({ "action": "login", "account": "alice", "outcome": "OK", "upstream_code": 0 }),
        by_gateway(json!({ "action": "renew", "account": "alice", "outcome": "OK" })),
        json!({ "action": "renew_signature", "account": "alice", "outcome": "OK" }),
        json!({
            "action": "invoke", "account": "alice", "object": "openim.unheard_of", "outcome": "OK",
            "upstream_code": invoked,
        }),
        json!({
            "action": "invoke", "account": "alice", "object": "openim.not_listed", "outcome": "PERMISSION_DENIED",
            "reason": "COMMAND_NOT_ALLOWED",
        }),
        json!({ "action": "make_subscription", "object": "workers", "outcome": "OK" }),
        json!({ "action": "delete_subscription", "object": "workers", "outcome": "OK" }),
        json!({
            "action": "delete_subscription", "object": "workers", "outcome": "NOT_FOUND",
            "reason": "UNKNOWN_SUBSCRIPTION",
        }),
        by_gateway(json!({
            "action": "park", "account": "alice", "outcome": "OK", "upstream_code": 6208, "reason": "KICKED",
        })),
        by_gateway(
            json!({ "action": "retake", "account": "alice", "outcome": "OK", "upstream_code": 0 }),
        ),
        json!({ "action": "logout", "account": "alice", "outcome": "OK" }),
        json!({ "action": "login", "outcome": "INVALID_ARGUMENT", "reason": "INVALID_FIELD" }),
        by_gateway(json!({ "action": "renew", "account": "bob", "outcome": "OK" })),
        by_gateway(json!({
            "action": "park", "account": "bob", "outcome": "OK", "upstream_code": 70009, "reason": "REFUSED",
        })),
        json!({ "action": "login", "account": "bob", "outcome": "OK", "upstream_code": 70009 }),
        by_gateway(json!({ "action": "reload_configuration", "outcome": "INVALID_ARGUMENT" })),
        by_gateway(json!({ "action": "reload_configuration", "outcome": "OK" })),
    ]
}

#[tokio::test]
async fn who_did_what_is_written_down_with_how_it_ended() {
    let mut world = World::start("info").await;
    world.log_in("alice", 0).await;
    world
        .control
        .post("/expire", json!({ "user_id": "alice" }))
        .await;
    until("a second login", async || {
        let alice = world.session("alice").await;
        alice.logins == 2 && alice.state() == v1::SessionState::Online
    })
    .await;
    renew_signature(&world).await;
    let invoke = |command: &str| {
        as_tenant(v1::InvokeRequest {
            account: "alice".into(),
            command: command.into(),
            body_json: r#"{"secret":"never written"}"#.into(),
        })
    };
    let mut messages = MessageServiceClient::new(world.channel().await);
    let invoked = messages.invoke(invoke("openim.unheard_of")).await.unwrap();
    let invoked = invoked.into_inner();
    let refused = messages.invoke(invoke("openim.not_listed")).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    subscriptions(&world).await;
    world
        .control
        .post("/kick", json!({ "user_id": "alice" }))
        .await;
    until("the account is taken back", async || {
        let alice = world.session("alice").await;
        alice.logins == 3 && alice.state() == v1::SessionState::Online
    })
    .await;
    world.log_out("alice").await;
    let nameless = v1::LoginRequest {
        account: "no\nname".into(),
        signature: "hush".into(),
    };
    let refused = world.sessions().await.login(as_tenant(nameless)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let refuse = json!({ "user_id": "bob", "code": 70009 });
    world
        .control
        .post("/account", json!({ "user_id": "bob" }))
        .await;
    world.control.post("/refuse", refuse).await;
    world.log_in("bob", 70009).await;
    world.configure("k1", &["k1"], "retake_after = \"never\"");
    world.reload("refused", 1.0).await;
    world.configure("k1", &["k1"], "renew_at = 0.7");
    world.reload("applied", 1.0).await;

    let expected = expected(invoked.code);
    let written = lines(&world);
    assert_eq!(written.len(), expected.len(), "{written:#?}");
    for (written, expected) in written.into_iter().zip(expected) {
        assert_eq!(written, expected);
    }
}

#[tokio::test]
async fn the_audit_can_be_left_out_and_left_alone() {
    let world = World::start("info,imgate::audit=off").await;
    world.log_in("alice", 0).await;
    assert!(world.audit().is_empty());
    let world = World::start("warn,imgate::audit=info").await;
    world.log_in("alice", 0).await;
    assert_eq!(world.audit().len(), 2);
}
