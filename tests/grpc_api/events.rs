//! Subscribe and Acknowledge.

use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::subscribe_request::Start;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::timeout;
use tonic::{Code, Request, Streaming};
use tonic_types::StatusExt as _;

use crate::fixture::{Clients, PATIENCE, refusal, served};

pub(crate) type Stream = Streaming<v1::SubscribeResponse>;

fn from(start: Option<Start>) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        start,
        ..v1::SubscribeRequest::default()
    }
}

/// A stream that has said where it begins, and the cursor of that place.
async fn subscribe(clients: &mut Clients, start: Option<Start>) -> (Stream, String) {
    let answer = clients.events.subscribe(from(start)).await.unwrap();
    let mut stream = answer.into_inner();
    let first = message(&mut stream).await;
    assert_eq!(first.events, []);
    (stream, first.cursor)
}

pub(crate) async fn message(stream: &mut Stream) -> v1::SubscribeResponse {
    let message = timeout(PATIENCE, stream.message()).await.unwrap();
    message.unwrap().unwrap()
}

/// The IDs of messages.
pub(crate) fn ids_of(events: Vec<v1::Event>) -> Vec<String> {
    let id = |event: v1::Event| match event.kind {
        Some(v1::event::Kind::Message(message)) => message.id,
        other => panic!("{other:?}"),
    };
    events.into_iter().map(id).collect()
}

/// The IDs of the next `count` messages, and the cursor behind them.
pub(crate) async fn ids(stream: &mut Stream, count: usize) -> (Vec<String>, String) {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    while ids.len() < count {
        let response = message(stream).await;
        cursor = response.cursor;
        ids.extend(ids_of(response.events));
    }
    (ids, cursor)
}

#[tokio::test]
async fn events_arrive_and_a_cursor_resumes() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    served.append("bot1", "before").await;
    let (mut live, _) = subscribe(&mut acme, None).await;
    served.append("bot1", "a").await;
    let (got, cursor) = ids(&mut live, 1).await;
    assert_eq!(got, ["a"]);
    drop(live);
    served.append("bot1", "b").await;
    served.append("bot1", "c").await;
    let (mut again, _) = subscribe(&mut acme, Some(Start::Cursor(cursor))).await;
    assert_eq!(ids(&mut again, 2).await.0, ["b", "c"]);
    let earliest = Start::At(v1::StartAt::Earliest.into());
    let (mut all, _) = subscribe(&mut acme, Some(earliest)).await;
    assert_eq!(ids(&mut all, 4).await.0, ["before", "a", "b", "c"]);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let served = served().await;
    let (mut acme, mut other) = (
        served.connect("acme-key").await,
        served.connect("other-key").await,
    );
    let request = v1::SubscribeRequest {
        start: Some(Start::At(v1::StartAt::Earliest.into())),
        heartbeat: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..v1::SubscribeRequest::default()
    };
    served.append("bot1", "secret").await;
    let mut theirs = other.events.subscribe(request).await.unwrap().into_inner();
    for _ in 0..2 {
        // The first answer and a heartbeat.
        assert_eq!(message(&mut theirs).await.events, []);
    }
    let (_, cursor) = subscribe(&mut acme, None).await;
    let foreign = from(Some(Start::Cursor(cursor)));
    let refused = refusal(other.events.subscribe(foreign).await);
    assert_eq!(refused.0, Code::InvalidArgument);
    assert_eq!((&*refused.1, &*refused.2), ("INVALID_CURSOR", "cursor"));
}

#[tokio::test]
async fn a_named_subscription_is_acknowledged() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let acknowledge = |cursor: &str| v1::AcknowledgeRequest {
        subscription: "workers".into(),
        cursor: cursor.into(),
    };
    let (_, cursor) = subscribe(&mut acme, None).await;
    let refused = refusal(acme.events.acknowledge(acknowledge(&cursor)).await);
    assert_eq!(
        (refused.0, &*refused.1),
        (Code::NotFound, "UNKNOWN_SUBSCRIPTION")
    );

    let named = || Some(Start::Subscription("workers".into()));
    let (mut first, _) = subscribe(&mut acme, named()).await;
    served.append("bot1", "a").await;
    let (_, cursor) = ids(&mut first, 1).await;
    served.append("bot1", "b").await;
    acme.events.acknowledge(acknowledge(&cursor)).await.unwrap();
    let (mut second, _) = subscribe(&mut acme, named()).await;
    assert_eq!(ids(&mut second, 1).await.0, ["b"]);

    let refused = refusal(acme.events.acknowledge(acknowledge("junk")).await);
    assert_eq!((refused.0, &*refused.2), (Code::InvalidArgument, "cursor"));
}

#[tokio::test]
async fn without_the_store_nothing_begins_and_what_has_begun_goes_on() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let (mut live, _) = subscribe(&mut acme, None).await;
    served.append("bot1", "a").await;
    served.store.set_available(false);
    let status = acme.events.subscribe(from(None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_error_details().retry_info().is_some());
    served.store.set_available(true);
    assert_eq!(ids(&mut live, 1).await.0, ["a"]);
}

#[tokio::test]
async fn a_stream_ends_at_the_callers_deadline() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let mut request = Request::new(from(None));
    request.set_timeout(Duration::from_millis(500));
    let mut stream = acme.events.subscribe(request).await.unwrap().into_inner();
    assert_eq!(message(&mut stream).await.events, []);
    let ended = timeout(PATIENCE, stream.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_reason_and_the_server_with_them() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let (mut live, _) = subscribe(&mut acme, None).await;
    served.tasks.stop();
    let status = timeout(PATIENCE, live.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "DRAINING");
    timeout(PATIENCE, served.tasks.ended()).await.unwrap();
}

/// A subscriber that does not read: what it holds up is its own stream only.
#[tokio::test]
async fn a_stalled_subscriber_delays_nobody_and_loses_nothing() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let (mut stalled, _) = subscribe(&mut acme, None).await;
    let (mut live, _) = subscribe(&mut acme, None).await;
    let mut expected = Vec::new();
    for n in 0..40 {
        let text = format!("{n}{}", "x".repeat(100_000));
        served.append("bot1", &text).await;
        expected.push(text);
        assert!(ids(&mut live, 1).await.0 == expected[n..]);
    }
    assert!(ids(&mut stalled, 40).await.0 == expected);
}

#[tokio::test]
async fn what_happens_is_counted_and_a_cancelled_stream_is_gone() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    // The runtime of this test has one thread, so that everything in it is counted here.
    let _guard = metrics::set_default_local_recorder(&recorder);
    imgate::grpc::metrics::describe_metrics();
    imgate::events::metrics::describe_metrics();
    let has = |line: &str| shown.render().lines().any(|shown| shown == line);
    let subscribe_counted = |code: &str, count: u32| {
        let labels = format!("{{method=\"Subscribe\",code=\"{code}\"}}");
        has(&format!("imgate_grpc_requests_total{labels} {count}"))
    };
    assert!(has("imgate_events_appended_total 0"));
    assert!(subscribe_counted("UNAUTHENTICATED", 0));

    let served = served().await;
    let mut nobody = served.connect("nonsense").await;
    refusal(nobody.events.subscribe(from(None)).await);
    assert!(subscribe_counted("UNAUTHENTICATED", 1));

    let mut acme = served.connect("acme-key").await;
    let (mut live, _) = subscribe(&mut acme, None).await;
    served.append("bot1", "a").await;
    ids(&mut live, 1).await;
    for line in [
        "imgate_events_appended_total 1",
        "imgate_events_delivered_total 1",
        "imgate_events_subscribers 1",
        "imgate_grpc_requests_in_flight{method=\"Subscribe\"} 1",
    ] {
        assert!(has(line), "{line} is not in {}", shown.render());
    }
    drop(live);
    let gone = async {
        while !has("imgate_events_subscribers 0") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
    assert!(subscribe_counted("CANCELLED", 1));
    assert!(has(
        "imgate_grpc_requests_in_flight{method=\"Subscribe\"} 0"
    ));
}
