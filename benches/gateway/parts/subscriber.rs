//! Subscribers of the gateway, or of PIPE: each over its own connection. They count events, and how old each is, by the
//! time that stands at the front of its text.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use imgate::proto::v1;
use imgate::proto::v1::subscribe_request::Start;
use imgate::types::WallClock;
use serde::{Deserialize, Serialize};
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::api::with_key;
use super::delays::{self, Delays};
use super::report;
use crate::upstream::account;

/// The flow-control window that HTTP/2 begins with.
const WINDOW: u32 = 65_535;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `HOST:PORT` of the gateway's API, or PIPE's.
    #[arg(long)]
    gateway: String,
    /// The tenants; each has its own subscribers.
    #[arg(long, required = true)]
    tenant: Vec<String>,
    /// How many subscribers a tenant has.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// How many accounts the tenant has, if each subscriber takes only its share of them.
    #[arg(long)]
    share_accounts: Option<usize>,
    /// They subscribe, and never read.
    #[arg(long)]
    stalled: bool,
}

/// All have subscribed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Subscribed {
    pub(crate) clients: usize,
}

/// Counts anew with each line `begin` on its standard input, and tells with each line `tell`, until the input ends.
pub(crate) async fn run(arguments: Arguments) {
    let window = Arc::new(Mutex::new(Delays::new()));
    let mut stalled = Vec::new();
    for tenant in &arguments.tenant {
        for client in 0..arguments.clients {
            let accounts = share(&arguments, client);
            let stream = subscribe(&arguments, tenant, accounts).await;
            if arguments.stalled {
                stalled.push(stream);
            } else {
                spawn(read(stream, Arc::clone(&window)));
            }
        }
    }
    report(&Subscribed {
        clients: arguments.tenant.len() * arguments.clients,
    });
    delays::tell(&window).await;
}

/// Of all accounts, those of the client with this number.
fn share(arguments: &Arguments, client: usize) -> Vec<String> {
    let all = arguments.share_accounts.unwrap_or_default();
    (client..all)
        .step_by(arguments.clients)
        .map(account)
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client of the bench, and no part of the gateway"
)]
fn spawn(reading: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(reading);
}

/// Subscribes to what happens from now on, and waits until the place is taken.
async fn subscribe(arguments: &Arguments, tenant: &str, accounts: Vec<String>) -> Streaming<Batch> {
    let endpoint = Endpoint::from_shared(format!("http://{}", arguments.gateway)).unwrap();
    let endpoint = if arguments.stalled {
        // Whoever does not read has small windows, or much would have to come until the gateway feels it.
        endpoint
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
    } else {
        endpoint
    };
    let channel = endpoint.tcp_nodelay(true).connect().await.unwrap();
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.unwrap();
    let keyed = with_key(tenant)(Request::new(())).unwrap();
    let request = v1::SubscribeRequest {
        start: Some(Start::At(v1::StartAt::Latest.into())),
        accounts,
        ..v1::SubscribeRequest::default()
    };
    let (metadata, extensions, ()) = keyed.into_parts();
    let request = Request::from_parts(metadata, extensions, request);
    let path = "/imgate.v1.EventService/Subscribe".parse().unwrap();
    let answer = grpc.server_streaming(request, path, ProstCodec::default());
    let mut stream = answer.await.unwrap().into_inner();
    let first: Option<Batch> = stream.message().await.unwrap();
    assert!(first.is_some_and(|batch| batch.events.is_empty()));
    stream
}

async fn read(mut stream: Streaming<Batch>, window: Arc<Mutex<Delays>>) {
    // The stream breaks when the gateway is stopped.
    while let Ok(Some(batch)) = stream.message().await {
        let now = WallClock.nanos();
        let mut window = window.lock().unwrap();
        for sent in batch.events.iter().filter_map(Event::sent) {
            window.enter(Duration::from_nanos(now.saturating_sub(sent)));
        }
    }
}

// As much of the API's messages as is looked at.

#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(message, repeated, tag = "1")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(message, optional, tag = "4")]
    message: Option<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(message, repeated, tag = "5")]
    elements: Vec<Element>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Element {
    #[prost(message, optional, tag = "1")]
    text: Option<Text>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(bytes = "bytes", tag = "1")]
    text: Bytes,
}

impl Event {
    /// The time at the front of a message of the load.
    fn sent(&self) -> Option<u64> {
        let text = &self.message.as_ref()?.elements.first()?.text.as_ref()?.text;
        std::str::from_utf8(text.get(..19)?).ok()?.parse().ok()
    }
}
