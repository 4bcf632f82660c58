//! The operations port over real HTTP.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::net::SocketAddr;

use imgate::observability::readiness::{Condition, Readiness};
use imgate::observability::{metrics, ops_server};
use imgate::runtime::supervisor::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: imgate\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_tells_what_goes_on_and_stops_with_its_tasks() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handle = metrics::install().unwrap();
    assert!(metrics::install().is_err());
    metrics::keep_up(&tasks, handle.clone());
    let readiness = Readiness::new();
    ops_server::serve(&tasks, listener, handle, readiness.clone());

    assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
    let page = get(address, "/").await;
    assert!(page.contains("<li>store: not yet</li>"), "{page}");
    let answer = get(address, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains(r#"{"condition":"store","reason":"not yet"}"#),
        "{answer}"
    );

    Condition::ALL
        .into_iter()
        .for_each(|one| readiness.met(one));
    readiness.unmet(Condition::Delivery, "the last event is late");
    let answer = get(address, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with(r#"[{"condition":"delivery","reason":"the last event is late"}]}"#),
        "{answer}"
    );
    assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
    readiness.met(Condition::Delivery);
    let answer = get(address, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.ends_with(r#"{"ready":true,"reasons":[]}"#),
        "{answer}"
    );

    readiness.unmet(Condition::NotDraining, "stopping <now>");
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
    assert!(get(address, "/").await.contains("stopping &lt;now&gt;"));

    let answer = get(address, "/metrics").await;
    assert!(answer.contains("imgate_build_info{version="), "{answer}");
    let gauge = "imgate_ops_ready_condition_met{condition=\"not_draining\"} 0";
    assert!(answer.contains(gauge), "{answer}");
    assert!(get(address, "/no-such").await.starts_with("HTTP/1.1 404"));

    // A caller that never asks anything does not hold up the stop.
    let silent = TcpStream::connect(address).await.unwrap();
    tasks.stop();
    tasks.ended().await;
    drop(silent);
}
