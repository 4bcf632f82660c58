//! Each bound of the surface, broken by a client that does not keep to it.

use std::time::Duration;

use imgate::grpc::server::Limits;
use imgate::proto::v1;
use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::{Instant, timeout};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fixture::{PATIENCE, Served, served_with};
use crate::raw::{self, Raw};

const LOGIN: &str = "/imgate.v1.SessionService/Login";
const SUBSCRIBE: &str = "/imgate.v1.EventService/Subscribe";
const SHORT: Duration = Duration::from_millis(300);

/// What is counted in this test: its runtime has one thread.
pub(crate) struct Counted {
    shown: PrometheusHandle,
    _guard: LocalRecorderGuard<'static>,
}

impl Counted {
    pub(crate) fn begin() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        let recorder: &'static PrometheusRecorder = Box::leak(Box::new(recorder));
        let guard = metrics::set_default_local_recorder(recorder);
        imgate::grpc::metrics::describe_metrics();
        Self {
            shown,
            _guard: guard,
        }
    }

    /// The value behind a name with its labels; 0 if there is none.
    pub(crate) fn value(&self, name: &str) -> u64 {
        let text = self.shown.render();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until the value is that.
    pub(crate) async fn becomes(&self, name: &str, value: u64) {
        let reached = async {
            while self.value(name) != value {
                tokio::task::yield_now().await;
            }
        };
        let in_time = timeout(PATIENCE, reached).await;
        assert!(in_time.is_ok(), "{name} is {}", self.value(name));
    }
}

fn handshake_failures(reason: &str) -> String {
    format!("imgate_grpc_handshake_failures_total{{reason=\"{reason}\"}}")
}

pub(crate) fn ended(reason: &str) -> String {
    format!("imgate_grpc_connections_ended_total{{reason=\"{reason}\"}}")
}

/// A well-behaved client is answered.
async fn is_well(served: &Served) {
    let mut health = HealthClient::new(served.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once_and_a_place_that_is_free_is_taken_again() {
    let counted = Counted::begin();
    let limits = Limits {
        max_connections: 2,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let mut first = Raw::connect(served.address).await;
    let mut second = Raw::connect(served.address).await;
    assert!(first.is_served().await && second.is_served().await);
    assert_eq!(counted.value("imgate_grpc_connections"), 2);
    let mut third = Raw::connect(served.address).await;
    assert!(!third.is_served().await);
    let refused = "imgate_grpc_connections_refused_total{reason=\"full\"}";
    assert_eq!(counted.value(refused), 1);
    drop(first);
    counted.becomes("imgate_grpc_connections", 1).await;
    is_well(&served).await;
}

#[tokio::test]
async fn connections_that_come_too_fast_wait_and_are_all_served() {
    let counted = Counted::begin();
    let limits = Limits {
        connections_per_second: 10,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let began = Instant::now();
    let mut all = Vec::new();
    for _ in 0..15 {
        all.push(Raw::connect(served.address).await);
    }
    for raw in &mut all {
        assert!(raw.is_served().await);
    }
    // Ten at once, then one in each tenth of a second.
    assert!(began.elapsed() > Duration::from_millis(450));
    assert!(counted.value("imgate_grpc_accept_pauses_total") >= 5);
}

#[tokio::test]
async fn a_handshake_that_takes_for_ever_is_ended() {
    let counted = Counted::begin();
    let limits = Limits {
        handshake_timeout: SHORT,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let mut silent = Raw::silent(served.address).await;
    assert!(silent.closed().await.is_empty());
    counted.becomes(&handshake_failures("timeout"), 1).await;
    let mut slow = Raw::silent(served.address).await;
    slow.trickle(&raw::PREFACE[..20], SHORT / 5).await;
    counted.becomes(&handshake_failures("timeout"), 2).await;
    counted.becomes("imgate_grpc_connections", 0).await;
    is_well(&served).await;
}

#[tokio::test]
async fn what_is_no_http2_is_told_apart_from_who_goes_away() {
    let counted = Counted::begin();
    let served = served_with(Limits::default()).await;
    let mut browser = Raw::silent(served.address).await;
    browser
        .send(b"GET / HTTP/1.1\r\nHost: imgate.test\r\n\r\n")
        .await;
    browser.closed().await;
    counted.becomes(&handshake_failures("not_http2"), 1).await;
    drop(Raw::silent(served.address).await);
    counted.becomes(&handshake_failures("closed"), 1).await;
    is_well(&served).await;
}

/// Headers in pieces hold the whole connection, which cannot answer then whether it is alive.
#[tokio::test]
async fn headers_that_never_end_are_ended() {
    let counted = Counted::begin();
    let limits = Limits {
        keepalive_interval: SHORT,
        keepalive_timeout: SHORT,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let mut slow = Raw::connect(served.address).await;
    assert!(slow.is_served().await);
    let padded = [raw::headers(LOGIN, &[]), vec![0; 15_000]].concat();
    let long = raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &padded);
    slow.trickle(&long, Duration::from_millis(2)).await;
    counted.becomes(&ended("silent"), 1).await;

    // The other way: piece after piece of nothing.
    let mut pieces = Raw::connect(served.address).await;
    assert!(pieces.is_served().await);
    pieces.send(&raw::frame(raw::HEADERS, 0, 1, &[])).await;
    let piece = raw::frame(raw::CONTINUATION, 0, 1, &[]);
    pieces.send(&piece.repeat(10_000)).await;
    pieces.closed().await;
    counted.becomes("imgate_grpc_connections", 0).await;
    is_well(&served).await;
}

#[tokio::test]
async fn a_client_that_gives_no_sign_of_life_is_closed() {
    let counted = Counted::begin();
    let limits = Limits {
        keepalive_interval: SHORT,
        keepalive_timeout: SHORT,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let mut dead = Raw::connect(served.address).await;
    let kinds = dead.closed().await;
    assert!(kinds.contains(&raw::PING), "{kinds:?}");
    counted.becomes(&ended("silent"), 1).await;
}

#[tokio::test]
async fn a_body_that_trickles_ends_with_the_call_s_deadline() {
    let counted = Counted::begin();
    let served = served_with(Limits::default()).await;
    let mut slow = Raw::connect(served.address).await;
    let more = [
        ("authorization", "Bearer acme-key"),
        ("grpc-timeout", "300m"),
    ];
    let block = raw::headers(LOGIN, &more);
    slow.send(&raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &block))
        .await;
    // A message of a hundred bytes is to come; three of them do.
    slow.send(&raw::frame(raw::DATA, 0, 1, &[0, 0, 0, 0, 100, 1, 2, 3]))
        .await;
    let answer = slow.next_of(raw::HEADERS).await;
    assert_eq!(answer.stream, 1);
    let requests = "imgate_grpc_requests_total{method=\"Login\",code=\"DEADLINE_EXCEEDED\"}";
    counted.becomes(requests, 1).await;
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused_and_the_connection_goes_on() {
    let limits = Limits {
        max_header_bytes: 8 * 1024,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let mut acme = served.connect("acme-key").await;
    let with = |bytes: usize| {
        let mut request = Request::new(v1::GetSessionRequest {
            account: "bot".into(),
        });
        let value = "x".repeat(bytes).parse().unwrap();
        request.metadata_mut().insert("ballast", value);
        request
    };
    let status = acme.sessions.get_session(with(4000)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let status = acme.sessions.get_session(with(9000)).await.unwrap_err();
    assert_ne!(status.code(), Code::NotFound);
    let status = acme.sessions.get_session(with(4000)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_stream_too_many_is_refused() {
    let limits = Limits {
        max_streams: 2,
        ..Limits::default()
    };
    let served = served_with(limits).await;
    let mut greedy = Raw::connect(served.address).await;
    let block = raw::headers(SUBSCRIBE, &[("authorization", "Bearer acme-key")]);
    let flags = raw::END_HEADERS;
    for stream in [1, 3, 5] {
        greedy
            .send(&raw::frame(raw::HEADERS, flags, stream, &block))
            .await;
    }
    let reset = greedy.next_of(raw::RESET).await;
    assert_eq!((reset.stream, reset.code()), (5, raw::REFUSED_STREAM));
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_in_a_rush_end_the_connection() {
    let counted = Counted::begin();
    let served = served_with(Limits::default()).await;
    let mut rapid = Raw::connect(served.address).await;
    assert!(rapid.is_served().await);
    let block = raw::headers(LOGIN, &[("authorization", "Bearer acme-key")]);
    let flags = raw::END_HEADERS | raw::END_STREAM;
    let mut rush = Vec::new();
    for stream in (1..2000).step_by(2) {
        rush.extend(raw::frame(raw::HEADERS, flags, stream, &block));
        rush.extend(raw::frame(raw::RESET, 0, stream, &8_u32.to_be_bytes()));
    }
    rapid.send(&rush).await;
    let farewell = rapid.next_of(raw::GO_AWAY).await;
    assert_eq!(farewell.code(), raw::ENHANCE_YOUR_CALM);
    rapid.closed().await;
    counted.becomes(&ended("flood"), 1).await;
    is_well(&served).await;
}

/// Calls whose bodies come later than their headers, with a key that nobody has.
#[tokio::test]
async fn calls_that_are_refused_do_not_cost_the_connection() {
    let counted = Counted::begin();
    let served = served_with(Limits::default()).await;
    let mut wrong = Raw::connect(served.address).await;
    let block = raw::headers(LOGIN, &[("authorization", "Bearer nonsense")]);
    for batch in 0..30 {
        let streams = (0..50).map(|stream| 2 * (batch * 50 + stream) + 1);
        for stream in streams.clone() {
            let headers = raw::frame(raw::HEADERS, raw::END_HEADERS, stream, &block);
            wrong.send(&headers).await;
        }
        // The server has seen the headers, and has had the time to answer them.
        for _ in 0..3 {
            wrong.send(&raw::frame(raw::PING, 0, 0, &[0; 8])).await;
            wrong.next_of(raw::PING).await;
        }
        for stream in streams {
            let body = raw::frame(raw::DATA, raw::END_STREAM, stream, &[0; 5]);
            wrong.send(&body).await;
        }
    }
    let answered = "imgate_grpc_requests_total{method=\"Login\",code=\"UNAUTHENTICATED\"}";
    counted.becomes(answered, 1500).await;
    assert_eq!(counted.value(&ended("flood")), 0);
    assert_eq!(counted.value("imgate_grpc_connections"), 1);
}

#[tokio::test]
async fn who_needs_no_key_cannot_send_much() {
    let served = served_with(Limits::default()).await;
    let mut health = HealthClient::new(served.channel().await);
    let large = HealthCheckRequest {
        service: "x".repeat(20_000),
    };
    let status = health.check(large).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}
