//! A connection that has had its time: calls do not notice, streams are told, and what stays is cut.

use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use imgate::grpc::server::Limits;
use imgate::proto::v1;
use imgate::proto::v1::subscribe_request::Start;
use tokio::process::Command;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::events::{Stream, ids_of, message};
use crate::fixture::{Clients, PATIENCE, Served, served_with};
use crate::limits::{Counted, ended};

/// Connections are retired many times over in a test.
async fn short_lived(grace: Duration) -> Served {
    let limits = Limits {
        max_age: Duration::from_millis(200),
        max_age_grace: grace,
        ..Limits::default()
    };
    served_with(limits).await
}

/// Calls one after the other on one channel until so many connections have retired, and gives how many calls were answered.
///
/// This library has a flaw of its own: a call that waits in it when the server says goodbye is given up, without being sent,
/// as cancelled. Such a call is made again, as README.md tells.
async fn call_until(served: &Served, counted: &Counted, count: u64) -> u64 {
    let retired = ended("retired");
    let mut acme = served.connect("acme-key").await;
    let mut answered = 0;
    while counted.value(&retired) < count {
        let request = v1::GetSessionRequest {
            account: "nobody".into(),
        };
        let status = acme.sessions.get_session(request).await.unwrap_err();
        if status.code() == Code::NotFound {
            answered += 1;
        } else {
            assert!(was_not_sent(&status), "{status:?}");
        }
    }
    answered
}

fn was_not_sent(status: &Status) -> bool {
    let transport = status.source().and_then(Error::source);
    transport
        .and_then(|error| error.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_canceled)
}

#[tokio::test]
async fn no_call_fails_while_connections_retire() {
    let counted = Counted::begin();
    let served = short_lived(PATIENCE).await;
    let callers = (0..8).map(|_| call_until(&served, &counted, 40));
    let answered: u64 = join_all(callers).await.into_iter().sum();
    // No call has reached the server and yet was not answered.
    let requests = |code: &str| {
        let labels = format!("{{method=\"GetSession\",code=\"{code}\"}}");
        format!("imgate_grpc_requests_total{labels}")
    };
    assert_eq!(counted.value(&requests("NOT_FOUND")), answered);
    assert_eq!(counted.value(&requests("CANCELLED")), 0);
    assert_eq!(counted.value(&ended("cut")), 0);
}

/// Ten channels of the C core, each with calls one after the other, and how many of them failed.
const PYTHON: &str = r#"
import sys, threading, time, grpc
address, seconds = sys.argv[1], float(sys.argv[2])
failed, calls, until = [], [], time.monotonic() + seconds
def work():
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        while time.monotonic() < until:
            calls.append(1)
            try:
                check(b"", timeout=10)
            except grpc.RpcError as error:
                failed.append(error.details())
threads = [threading.Thread(target=work) for _ in range(10)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(calls) > 100, len(failed), failed[:3])
"#;

#[tokio::test]
async fn no_call_of_the_c_core_fails_either() {
    let counted = Counted::begin();
    let served = short_lived(PATIENCE).await;
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.env/venv/bin/python");
    let script = Command::new(&python)
        .args(["-c", PYTHON, &served.address.to_string(), "3"])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE * 3, script).await.unwrap();
    let output = output.expect("run ./tests/run.sh --install once");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "True 0 []");
    assert!(counted.value(&ended("retired")) >= 40);
    assert_eq!(counted.value(&ended("cut")), 0);
}

async fn subscribe(acme: &mut Clients, start: Start) -> Stream {
    let request = v1::SubscribeRequest {
        start: Some(start),
        ..v1::SubscribeRequest::default()
    };
    acme.events.subscribe(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_stream_is_told_to_go_on_elsewhere_and_misses_nothing() {
    let counted = Counted::begin();
    let served = short_lived(Duration::from_millis(100)).await;
    let mut acme = served.connect("acme-key").await;
    let mut stream = subscribe(&mut acme, Start::At(v1::StartAt::Latest.into())).await;
    let mut cursor = message(&mut stream).await.cursor;
    let (mut sent, mut got, mut told) = (Vec::new(), Vec::new(), 0);
    while told < 5 {
        let id = format!("{}", sent.len());
        served.append("bot1", &id).await;
        sent.push(id);
        while got.len() < sent.len() {
            match timeout(PATIENCE, stream.message()).await.unwrap() {
                Ok(response) => {
                    let response = response.unwrap();
                    cursor = response.cursor;
                    got.extend(ids_of(response.events));
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    let details = status.get_error_details();
                    let reason = &details.error_info().unwrap().reason;
                    assert_eq!(reason, "CONNECTION_RETIRED");
                    told += 1;
                    stream = subscribe(&mut acme, Start::Cursor(cursor.clone())).await;
                }
            }
        }
    }
    assert_eq!(got, sent);
    let retired = "imgate_grpc_requests_total{method=\"Subscribe\",code=\"UNAVAILABLE\"}";
    assert_eq!(counted.value(retired), 5);
    assert_eq!(counted.value(&ended("cut")), 0);
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_in_the_end() {
    let counted = Counted::begin();
    let served = short_lived(Duration::from_millis(100)).await;
    let mut health = HealthClient::new(served.channel().await);
    // A watch of health never ends by itself.
    let request = HealthCheckRequest::default();
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let cut = async { while let Ok(Some(_)) = watch.message().await {} };
    timeout(PATIENCE, cut).await.unwrap();
    counted.becomes(&ended("cut"), 1).await;
}
