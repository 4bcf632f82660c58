//! Sends that are repeated, because their first answer was lost: one message at the receiver, and one outcome.

use std::path::Path;
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use tonic::Code;

use crate::fixture::*;
use crate::process::{Process, write_config};
use crate::proxy::Proxy;

const TEXT: &str = "once";
/// Shorter than an answer that is kept back.
const SOON: Duration = Duration::from_millis(300);

/// A gateway in a process of its own, behind a proxy that can keep answers back, with two bots online.
struct World {
    upstream: Upstream,
    proxy: Proxy,
    folder: tempfile::TempDir,
}

impl World {
    async fn start() -> (Self, Process, Client) {
        let upstream = Upstream::start().await;
        let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
        let folder = tempfile::tempdir().unwrap();
        let config = write_config(folder.path(), proxy.url());
        let (gateway, client) = begin(&config).await;
        client.online("bot").await;
        client.online("friend").await;
        let world = Self {
            upstream,
            proxy,
            folder,
        };
        (world, gateway, client)
    }

    /// Begins again after a kill -9, with the bots back.
    async fn restart(&self) -> (Process, Client) {
        self.proxy.release_emptied().await;
        let (gateway, client) = begin(&self.folder.path().join("imgate.toml")).await;
        for account in ["bot", "friend"] {
            client.until_state(account, SessionState::Online).await;
        }
        (gateway, client)
    }
}

async fn begin(config: &Path) -> (Process, Client) {
    let gateway = Process::start(config);
    let client = Client::connect(gateway.grpc, "acme").await;
    gateway.ready().await;
    (gateway, client)
}

async fn send(client: &Client) -> Result<v1::SendResponse, tonic::Status> {
    client.send("bot", "friend", TEXT, "order-1").await
}

/// The IDs of the messages that a friend has got since the beginning, up to a last one that is sent now.
async fn received(client: &Client) -> Vec<String> {
    client.send("bot", "friend", "last", "").await.unwrap();
    let earliest = v1::subscribe_request::Start::At(v1::StartAt::Earliest.into());
    let mut events = client.subscribe_from(earliest).await.unwrap();
    let mut ids = Vec::new();
    loop {
        let pick = |kind: Kind| match &kind {
            Kind::Message(message) => Some((message.id.clone(), text_of(kind.clone()).unwrap())),
            _ => None,
        };
        match events.next_of("friend", pick).await {
            (id, text) if text == TEXT => ids.push(id),
            _ => return ids,
        }
    }
}

async fn repeated(gateway: &Process, outcome: &str) -> f64 {
    let metrics = http_get(gateway.ops, "/metrics").await;
    let name = "imgate_session_repeated_sends_total";
    sum_of(&metrics, name, &format!("outcome=\"{outcome}\""))
}

#[tokio::test]
async fn a_kill_between_the_upstreams_accept_and_its_answer_sends_one_message() {
    let (world, gateway, client) = World::start().await;
    world.proxy.hold_answers();
    let killed = async {
        until("it is not sent", || world.upstream.user("bot").sent == 1).await;
        drop(gateway);
    };
    let (first, ()) = tokio::join!(send(&client), killed);
    assert!(first.is_err(), "{first:?}");

    let (gateway, client) = world.restart().await;
    let sent = send(&client).await.unwrap();
    assert_eq!((sent.code, world.upstream.user("bot").sent), (0, 1));
    assert_eq!(repeated(&gateway, "sent_again").await, 1.0);
    assert_eq!(received(&client).await, [sent.message_id]);
}

#[tokio::test]
async fn a_kill_before_the_message_has_left_sends_one_message() {
    let (world, gateway, client) = World::start().await;
    world.proxy.hold();
    let killed = async {
        until("it does not go out", || world.proxy.kept() > 500).await;
        drop(gateway);
    };
    let (first, ()) = tokio::join!(send(&client), killed);
    assert!(first.is_err(), "{first:?}");
    assert_eq!(world.upstream.user("bot").sent, 0);

    let (_gateway, client) = world.restart().await;
    let sent = send(&client).await.unwrap();
    assert_eq!((sent.code, world.upstream.user("bot").sent), (0, 1));
    assert_eq!(received(&client).await, [sent.message_id]);
}

#[tokio::test]
async fn after_a_kill_a_message_that_was_answered_is_answered_alike() {
    let (world, gateway, client) = World::start().await;
    let first = send(&client).await.unwrap();
    assert_eq!(first.code, 0);
    drop(gateway);

    let (gateway, client) = world.restart().await;
    assert_eq!(send(&client).await.unwrap(), first);
    assert_eq!(repeated(&gateway, "answered").await, 1.0);
    let other = client.send("bot", "friend", "another", "order-1").await;
    let (code, _, field) = refusal(other);
    assert_eq!(
        (code, field.as_str()),
        (Code::InvalidArgument, "client_message_id")
    );
    assert_eq!(received(&client).await, [first.message_id]);
}

#[tokio::test]
async fn a_retry_after_the_deadline_is_answered_by_the_first_ones_answer() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    client.online("friend").await;
    proxy.hold_answers();
    let late = client
        .send_within(SOON, "bot", "friend", TEXT, "order-1")
        .await;
    assert_late(late);
    until("it is not sent", || upstream.user("bot").sent == 1).await;
    let goes_on = async {
        let joined = || {
            gateway
                .metrics
                .sum("imgate_session_repeated_sends_total", "joined")
        };
        until("it is not joined", || joined() > 0.0).await;
        proxy.release();
    };
    let (sent, ()) = tokio::join!(send(&client), goes_on);
    let sent = sent.unwrap();
    assert_eq!((sent.code, upstream.user("bot").sent), (0, 1));
    assert_eq!(received(&client).await, [sent.message_id]);
}

#[tokio::test]
async fn a_retry_after_a_reconnect_is_the_same_message() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    client.online("friend").await;
    proxy.hold_answers();
    let late = client
        .send_within(SOON, "bot", "friend", TEXT, "order-1")
        .await;
    assert_late(late);
    until("it is not sent", || upstream.user("bot").sent == 1).await;
    // The answer is lost with the connection.
    client
        .until("bot", |bot| bot.state() != SessionState::Online)
        .await;
    upstream.sim.drop_connections(None).unwrap();
    proxy.release();
    client.until_state("bot", SessionState::Online).await;
    let sent = send(&client).await.unwrap();
    assert_eq!((sent.code, upstream.user("bot").sent), (0, 1));
    assert_eq!(send(&client).await.unwrap(), sent);
    assert_eq!(received(&client).await, [sent.message_id]);
}
