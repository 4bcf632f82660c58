//! Markers that a proxy or another replica would set, made up by a caller: nothing of what a caller says of itself is
//! believed but its key, and of an open tenant its name.

use std::collections::BTreeSet;

use imgate::proto::v1;
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::fixture::{Served, served};

/// Names that some proxy or mesh sets, or that this gateway might be thought to read.
const MARKERS: [&str; 37] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-tenant",
    "x-forwarded-client-cert",
    "x-forwarded-access-token",
    "x-real-ip",
    "x-client-verify",
    "x-client-dn",
    "x-ssl-client-cert",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-auth-request-user",
    "x-authenticated-userid",
    "x-remote-user",
    "remote-user",
    "x-api-key",
    "x-tenant-id",
    "x-imgate-tenant",
    "imgate-forwarded",
    "imgate-forwarded-by",
    "imgate-forwarded-for",
    "imgate-hops",
    "imgate-replica",
    "imgate-replica-id",
    "imgate-principal",
    "imgate-key-id",
    "imgate-scopes",
    "imgate-account",
    "imgate-partition",
    "imgate-epoch",
];

/// What they might say to somebody who believed them.
const SAYS: [&str; 8] = [
    "other",
    "other-key",
    "Bearer other-key",
    "for=127.0.0.1;by=imgate-0;host=localhost;proto=https",
    "127.0.0.1",
    "By=spiffe://cluster/imgate;URI=spiffe://cluster/tenant/other",
    "sessions,events,messages",
    "1",
];

/// A caller with a key, or none, and with markers.
#[derive(Clone, Debug, Default)]
struct Forger {
    metadata: MetadataMap,
}

impl Forger {
    fn new(key: Option<&str>, markers: &[&str], says: &str) -> Self {
        let mut metadata = MetadataMap::new();
        for marker in markers {
            let name = AsciiMetadataKey::from_bytes(marker.as_bytes()).unwrap();
            metadata.insert(name, MetadataValue::try_from(says).unwrap());
        }
        if let Some(key) = key {
            let value = MetadataValue::try_from(format!("Bearer {key}")).unwrap();
            metadata.insert("authorization", value);
        }
        Self { metadata }
    }
}

impl Interceptor for Forger {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let theirs = self.metadata.clone().into_headers();
        let mut all = std::mem::take(request.metadata_mut()).into_headers();
        all.extend(theirs);
        *request.metadata_mut() = MetadataMap::from_headers(all);
        Ok(request)
    }
}

/// All that an answer says.
type Said = (Code, String, String);

fn said<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>) -> Said {
    match answer {
        Ok(answer) => (
            Code::Ok,
            String::new(),
            format!("{:?}", answer.into_inner()),
        ),
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason);
            let message = status.message().to_owned();
            (status.code(), reason.unwrap_or_default(), message)
        }
    }
}

/// Calls one method of each service as far as it goes without a session.
async fn call(channel: &Channel, forger: &Forger) -> Vec<Said> {
    let mut sessions = v1::session_service_client::SessionServiceClient::with_interceptor(
        channel.clone(),
        forger.clone(),
    );
    let mut events = v1::event_service_client::EventServiceClient::with_interceptor(
        channel.clone(),
        forger.clone(),
    );
    let mut messages = v1::message_service_client::MessageServiceClient::with_interceptor(
        channel.clone(),
        forger.clone(),
    );
    let account = || "bot".to_owned();
    vec![
        said(
            sessions
                .get_session(v1::GetSessionRequest { account: account() })
                .await,
        ),
        said(
            sessions
                .list_sessions(v1::ListSessionsRequest::default())
                .await,
        ),
        said(
            events
                .list_subscriptions(v1::ListSubscriptionsRequest::default())
                .await,
        ),
        said(
            messages
                .invoke(v1::InvokeRequest {
                    account: account(),
                    command: "a.b".into(),
                    body_json: "{}".into(),
                })
                .await,
        ),
    ]
}

/// Each marker with everything that it might say, and all of them at once.
async fn nothing_changes(served: &Served, key: Option<&str>) -> Vec<Said> {
    let channel = served.channel().await;
    let plain = call(&channel, &Forger::new(key, &[], "")).await;
    for says in SAYS {
        let alone = MARKERS.iter().map(std::slice::from_ref);
        for markers in alone.chain([&MARKERS[..]]) {
            let answer = call(&channel, &Forger::new(key, markers, says)).await;
            assert_eq!(answer, plain, "{key:?} with {markers:?} = {says}");
        }
    }
    plain
}

#[tokio::test]
async fn markers_do_not_stand_in_for_a_key() {
    let served = served().await;
    for answer in nothing_changes(&served, None).await {
        assert_eq!(
            (answer.0, &*answer.1),
            (Code::Unauthenticated, "API_KEY_MISSING")
        );
    }
    for answer in nothing_changes(&served, Some("nonsense")).await {
        assert_eq!(answer.0, Code::Unauthenticated);
    }
}

#[tokio::test]
async fn markers_give_a_key_neither_scopes_nor_another_tenant() {
    let served = served().await;
    let answers = nothing_changes(&served, Some("acme-events")).await;
    let codes: Vec<Code> = answers.iter().map(|answer| answer.0).collect();
    let denied = Code::PermissionDenied;
    assert_eq!(codes, [denied, denied, Code::Ok, denied]);
    let answers = nothing_changes(&served, Some("acme-key")).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.0 != Code::Unauthenticated && answer.0 != denied)
    );
}

/// What the gateway does read arrives in the same way, so that the silence about the others says something.
#[tokio::test]
async fn the_one_name_that_is_read_is_checked_against_the_key() {
    let served = served().await;
    let channel = served.channel().await;
    for (name, refused) in [("acme", false), ("other", true), ("nobody", true)] {
        let forger = Forger::new(Some("acme-key"), &["imgate-tenant"], name);
        for answer in call(&channel, &forger).await {
            assert_eq!(answer.0 == Code::PermissionDenied, refused, "{answer:?}");
        }
    }
}

/// A subscription of one tenant brings its own events alone, whatever the caller says besides.
#[tokio::test]
async fn markers_open_no_other_tenants_events() {
    let served = served().await;
    served.append("bot", "of acme").await;
    let all = |key: &'static str| {
        let channel = served.channel();
        async move {
            let forger = Forger::new(Some(key), &MARKERS, "acme");
            let mut events = v1::event_service_client::EventServiceClient::with_interceptor(
                channel.await,
                forger,
            );
            let request = v1::SubscribeRequest {
                start: Some(v1::subscribe_request::Start::At(
                    v1::StartAt::Earliest.into(),
                )),
                heartbeat: Some(prost_types::Duration {
                    seconds: 1,
                    nanos: 0,
                }),
                ..v1::SubscribeRequest::default()
            };
            let mut stream = events.subscribe(request).await.unwrap().into_inner();
            // The first batch of a log that has something in it has events; that of an empty one is a heartbeat.
            let mut accounts = BTreeSet::new();
            for _ in 0..2 {
                let batch = stream.message().await.unwrap().unwrap();
                accounts.extend(batch.events.into_iter().map(|event| event.account));
            }
            accounts
        }
    };
    assert_eq!(all("other-key").await, BTreeSet::new());
    assert_eq!(all("acme-key").await, BTreeSet::from(["bot".to_owned()]));
}

/// The name of an account is one name, and no way to another tenant's.
#[tokio::test]
async fn an_account_names_no_tenant() {
    let served = served().await;
    served.append("bot", "of acme").await;
    let mut other = served.connect("other-key").await;
    for account in [
        "acme:bot",
        "acme/bot",
        "acme:0:bot",
        "{acme:0}:bot",
        "../acme/bot",
        "acme\u{0}bot",
    ] {
        let request = v1::GetSessionRequest {
            account: account.into(),
        };
        let code = other
            .sessions
            .get_session(request)
            .await
            .unwrap_err()
            .code();
        assert!(
            matches!(code, Code::NotFound | Code::InvalidArgument),
            "{account}: {code:?}"
        );
    }
}
