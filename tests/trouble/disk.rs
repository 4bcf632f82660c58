//! A full disk under the embedded store of a gateway in a process of its own.

use crate::fixture::*;
use crate::process::{Process, write_config};

/// Whether an append was refused for want of space.
async fn is_full(gateway: &Process) -> bool {
    let metrics = http_get(gateway.ops, "/metrics").await;
    let retries = "imgate_events_append_retries_total";
    sum_of(&metrics, retries, "reason=\"full\"") > 0.0
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_over_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let config = write_config(folder.path(), upstream.url());
    let gateway = Process::start(&config);
    let client = Client::connect(gateway.grpc, "acme").await;
    gateway.ready().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;

    // The file is as large as it may be; what it has inside is soon used up.
    let size = std::fs::metadata(folder.path().join("imgate.redb"))
        .unwrap()
        .len();
    gateway.limit_files(&size.to_string());
    let mut sent = Vec::new();
    let long = "x".repeat(8000);
    let full = async || {
        let all = |sent: &[String]| upstream.user("bot").acked >= sent.len() as u64;
        if all(&sent) {
            let new = (0..20).map(|n| format!("{}-{n}-{long}", sent.len()));
            let new: Vec<String> = new.collect();
            upstream.texts("friend", "bot", new.iter().cloned());
            sent.extend(new);
        }
        (is_full(&gateway).await && !all(&sent)).then_some(())
    };
    poll(full).await.expect("the file is never full");
    until("not all is pushed", || {
        upstream.user("bot").delivered == sent.len() as u64
    })
    .await;
    let user = upstream.user("bot");
    assert!(user.acked < user.delivered);
    let session = client.session("bot").await.unwrap();
    assert_eq!(session.state(), SessionState::Online);
    // A login that could not be stored does not go upstream.
    assert_store_away(client.login("new", &sig("new")).await);

    gateway.limit_files("unlimited");
    let texts = events.texts_until("bot", sent.last().unwrap()).await;
    assert!(texts == sent, "{} of {}", texts.len(), sent.len());
    until("not all is acknowledged", || {
        upstream.user("bot").acked >= sent.len() as u64
    })
    .await;
    client.online("new").await;
    assert_eq!(upstream.user("bot").connections, 1);
    drop(gateway);

    // It was a real end, by kill -9: all is there again.
    let gateway = Process::start(&config);
    gateway.ready().await;
    let client = Client::connect(gateway.grpc, "acme").await;
    for account in ["bot", "new"] {
        client.until_state(account, SessionState::Online).await;
        let user = upstream.user(account);
        assert_eq!((user.logins, user.resumes), (1, 1), "{account}");
    }
}
