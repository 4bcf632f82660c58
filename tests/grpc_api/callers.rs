//! Keys whose time is over, operators and tenants, directories that are replaced, and a flood of wrong keys.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgate::grpc::server::ServerOptions;
use imgate::proto::v1;
use imgate::tenants::auth::Scope;
use imgate::tenants::directory::{ApiKey, Contents, Tenant};
use imgate::tenants::keys::{Key, KeyDigest, Validity};
use imgate::types::{UnixMillis, WallClock};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tracing_subscriber::fmt::MakeWriter;

use crate::fixture::{Clients, PATIENCE, Served, clients, refusal, served, start, tenant};

/// How many wrong keys are tried.
const FLOOD: u64 = 10_000;

fn key(text: &str) -> Key {
    Key::new(text.into(), KeyDigest::of(text))
}

/// `acme` and `other`, and an operator with the key `ops-key`.
async fn with_operator() -> Served {
    let contents = Contents {
        tenants: vec![tenant("acme"), tenant("other")],
        operators: vec![key("ops-key")],
        ..Contents::default()
    };
    let options = ServerOptions::default();
    start("127.0.0.1:0", contents, options).await.unwrap()
}

/// What a call of a method of the sessions leads to. INVALID_ARGUMENT: the caller was let in.
async fn session_call(clients: &mut Clients) -> (Code, String) {
    let request = v1::GetSessionRequest::default();
    let (code, reason, _) = refusal(clients.sessions.get_session(request).await);
    (code, reason)
}

fn said(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

fn let_in() -> (Code, String) {
    said(Code::InvalidArgument, "INVALID_FIELD")
}

#[tokio::test]
async fn a_key_is_taken_while_its_time_is() {
    let now = WallClock.now();
    let hour = Duration::from_secs(3600);
    let ago = UnixMillis(now.0 - 3_600_000);
    let mut acme = tenant("acme");
    for (text, not_before, not_after) in [
        ("imgate_old", None, Some(ago)),
        ("imgate_new", Some(now.plus(hour)), None),
        ("imgate_now", Some(ago), Some(now.plus(hour))),
    ] {
        acme.callers.keys.push(ApiKey {
            key: Key {
                prefix: Some(text.to_owned()),
                validity: Validity {
                    not_before,
                    not_after,
                },
                ..key(&format!("{text}-and-the-rest"))
            },
            scopes: vec![Scope::Sessions],
        });
    }
    let served = start("127.0.0.1:0", vec![acme], ServerOptions::default());
    let served = served.await.unwrap();
    for (key, expected) in [
        ("imgate_now-and-the-rest", let_in()),
        (
            "imgate_old-and-the-rest",
            said(Code::Unauthenticated, "API_KEY_EXPIRED"),
        ),
        (
            "imgate_new-and-the-rest",
            said(Code::Unauthenticated, "API_KEY_NOT_YET_VALID"),
        ),
        // Who does not have the key does not learn of it.
        (
            "imgate_old-and-another",
            said(Code::Unauthenticated, "API_KEY_UNKNOWN"),
        ),
    ] {
        let mut clients = served.connect(key).await;
        assert_eq!(session_call(&mut clients).await, expected, "{key}");
    }
}

/// Calls every method of AdminService.
async fn admin_calls(clients: &mut Clients) -> Vec<Result<(), tonic::Status>> {
    let admin = &mut clients.admin;
    vec![
        admin
            .list_replicas(v1::ListReplicasRequest::default())
            .await
            .map(|_| ()),
        admin
            .list_partitions(v1::ListPartitionsRequest::default())
            .await
            .map(|_| ()),
        admin
            .list_tenant_sessions(v1::ListTenantSessionsRequest::default())
            .await
            .map(|_| ()),
        admin
            .rotate_keys(v1::RotateKeysRequest::default())
            .await
            .map(|_| ()),
        admin.drain(v1::DrainRequest::default()).await.map(|_| ()),
        admin
            .relogin(v1::ReloginRequest::default())
            .await
            .map(|_| ()),
    ]
}

#[tokio::test]
async fn the_operators_methods_are_no_tenants_and_the_tenants_no_operators() {
    let served = with_operator().await;
    for (key, code, reason) in [
        (None, Code::Unauthenticated, "API_KEY_MISSING"),
        (Some("nonsense"), Code::Unauthenticated, "API_KEY_UNKNOWN"),
        (
            Some("acme-key"),
            Code::PermissionDenied,
            "OPERATOR_REQUIRED",
        ),
    ] {
        let mut clients = clients(served.channel().await, key);
        for answer in admin_calls(&mut clients).await {
            let refused = refusal::<()>(Err(answer.unwrap_err()));
            assert_eq!((refused.0, &*refused.1), (code, reason), "{key:?}");
        }
    }
    let mut operator = served.connect("ops-key").await;
    for (code, reason, _) in crate::call_all(&mut operator).await {
        assert_eq!(
            (code, &*reason),
            (Code::PermissionDenied, "TENANT_REQUIRED")
        );
    }
    // What is not served is said to those only who might call it.
    for answer in admin_calls(&mut operator).await {
        let code = answer.err().map(|status| status.code());
        assert!(
            matches!(
                code,
                None | Some(Code::Unimplemented | Code::InvalidArgument)
            ),
            "{code:?}"
        );
    }
}

#[tokio::test]
async fn an_open_tenants_callers_are_no_operators() {
    let open = crate::fixture::open_tenant("dev");
    let served = start("127.0.0.1:0", vec![open], ServerOptions::default());
    let served = served.await.unwrap();
    let mut anybody = clients(served.channel().await, None);
    assert_eq!(session_call(&mut anybody).await, let_in());
    for answer in admin_calls(&mut anybody).await {
        let (code, reason, _) = refusal::<()>(Err(answer.unwrap_err()));
        assert_eq!(
            (code, reason),
            said(Code::Unauthenticated, "API_KEY_MISSING")
        );
    }
}

#[tokio::test]
async fn a_key_that_is_taken_away_is_refused_from_the_next_call_on() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let mut other = served.connect("other-key").await;
    assert_eq!(session_call(&mut acme).await, let_in());
    let mut rotated: Tenant = tenant("acme");
    rotated.callers.keys = vec![ApiKey {
        key: key("acme-new"),
        scopes: Scope::ALL.into(),
    }];
    served
        .directory
        .replace(vec![rotated, tenant("other")])
        .unwrap();
    let unknown = said(Code::Unauthenticated, "API_KEY_UNKNOWN");
    assert_eq!(session_call(&mut acme).await, unknown);
    assert_eq!(session_call(&mut other).await, let_in());
    let mut new = served.connect("acme-new").await;
    assert_eq!(session_call(&mut new).await, let_in());
}

/// Keeps the lines that are logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut lines = self
            .0
            .lock()
            .map_err(|_| std::io::Error::other("poisoned"))?;
        lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn all(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn a_flood_of_wrong_keys_neither_shuts_others_out_nor_fills_the_log() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    // The runtime of this test has one thread, so that everything in it is counted and logged here.
    let _recording = metrics::set_default_local_recorder(&recorder);
    let _logging = tracing::subscriber::set_default(subscriber);
    imgate::grpc::metrics::describe_metrics();

    let served = served().await;
    let began = Instant::now();
    let channel = served.channel().await;
    let wrong = clients(channel.clone(), Some("acme-wrong"));
    let flood = async {
        let calls = futures_util::stream::iter(0..FLOOD).map(|_| {
            let mut wrong = wrong.clone();
            async move { session_call(&mut wrong).await }
        });
        let mut calls = futures_util::StreamExt::buffer_unordered(calls, 200);
        let unknown = said(Code::Unauthenticated, "API_KEY_UNKNOWN");
        while let Some(answer) = calls.next().await {
            assert_eq!(answer, unknown);
        }
    };
    let mut good = served.connect("acme-key").await;
    let mut same_connection = clients(channel, Some("other-key"));
    let mut good_calls = 0_u64;
    let serve_good = async {
        loop {
            assert_eq!(session_call(&mut good).await, let_in());
            assert_eq!(session_call(&mut same_connection).await, let_in());
            good_calls += 2;
        }
    };
    tokio::select! {
        () = flood => {}
        () = serve_good => {}
    }
    assert!(good_calls > 0, "nobody else was served");

    let counted =
        format!("imgate_grpc_unauthenticated_total{{reason=\"API_KEY_UNKNOWN\"}} {FLOOD}");
    let rendered = shown.render();
    assert!(rendered.lines().any(|line| line == counted), "{rendered}");

    // What was not told yet is told at the end, so that the lines tell of each call.
    served.tasks.stop();
    timeout(PATIENCE, served.tasks.ended()).await.unwrap();
    let all = lines.all();
    let told: Vec<_> = all
        .iter()
        .map(|line| &line["fields"])
        .filter(|fields| fields["reason"] == "API_KEY_UNKNOWN")
        .collect();
    let calls: u64 = told.iter().filter_map(|told| told["count"].as_u64()).sum();
    assert_eq!(calls, FLOOD);
    let most = began.elapsed().as_secs() + 2;
    assert!(u64::try_from(told.len()).unwrap() <= most, "{told:?}");
    let from = told[0]["from"].as_str().unwrap();
    assert!(from.starts_with("127.0.0.1:"), "{from}");
    // Nothing else is told of them, at any level but for what the libraries trace.
    let ours = all.iter().filter(|line| {
        let target = line["target"].as_str().unwrap_or_default();
        target.starts_with("imgate")
    });
    let ours = ours.count();
    assert!(ours < told.len() + 20, "{ours} lines");
    assert!(!lines.all().iter().any(|line| {
        let target = line["target"].as_str().unwrap_or_default();
        target.starts_with("imgate") && line.to_string().contains("acme-wrong")
    }));
}

#[tokio::test]
async fn a_stream_ends_with_what_its_caller_was_known_by() {
    let served = served().await;
    let mut acme = served.connect("acme-key").await;
    let begin = v1::SubscribeRequest::default();
    let mut kept = served.connect("acme-events").await;
    let mut kept = kept
        .events
        .subscribe(begin.clone())
        .await
        .unwrap()
        .into_inner();
    let mut lost = acme
        .events
        .subscribe(begin.clone())
        .await
        .unwrap()
        .into_inner();
    for stream in [&mut kept, &mut lost] {
        assert_eq!(stream.message().await.unwrap().unwrap().events, []);
    }
    // The key is taken away, the other one of the tenant stays.
    let mut without = tenant("acme");
    without.callers.keys.retain(|known| known.key.id != "key");
    served
        .directory
        .replace(vec![without.clone(), tenant("other")])
        .unwrap();
    let ended = timeout(PATIENCE, lost.message()).await.unwrap();
    let ended: Result<tonic::Response<()>, _> = ended.map(|_| panic!("it goes on"));
    let (code, reason, _) = refusal(ended);
    assert_eq!((code, &*reason), (Code::Unauthenticated, "API_KEY_UNKNOWN"));
    // The stream of the other goes on, until its key's time is over.
    served.append("bot", "a").await;
    assert_eq!(kept.message().await.unwrap().unwrap().events.len(), 1);
    for known in &mut without.callers.keys {
        known.key.validity = Validity {
            not_after: Some(UnixMillis(WallClock.now().0 + 500)),
            ..Validity::default()
        };
    }
    served
        .directory
        .replace(vec![without, tenant("other")])
        .unwrap();
    let ended = timeout(PATIENCE, kept.message()).await.unwrap();
    let ended: Result<tonic::Response<()>, _> = ended.map(|_| panic!("it goes on"));
    let (code, reason, _) = refusal(ended);
    assert_eq!((code, &*reason), (Code::Unauthenticated, "API_KEY_EXPIRED"));
}
