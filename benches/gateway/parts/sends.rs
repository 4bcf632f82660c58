//! Clients that send messages by the gateway, each the next one when the last is answered.

use std::sync::{Arc, Mutex};

use hdrhistogram::Histogram;
use imgate::proto::v1;
use imgate::proto::v1::message_service_client::MessageServiceClient;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::logins::{connect, with_key};
use super::{orders, report};
use crate::messages::FRIEND;
use crate::upstream::account;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `HOST:PORT` of the gateway's API.
    #[arg(long)]
    gateway: String,
    #[arg(long)]
    tenant: String,
    /// How many accounts send in turn.
    #[arg(long)]
    accounts: usize,
    /// The number of the first of them.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// How many messages are on their way at a time.
    #[arg(long)]
    in_flight: usize,
}

/// What has been sent since the last `begin`. Delays are in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Counts anew with each line `begin` on its standard input, and tells with each line `tell`, until the input ends.
#[expect(
    clippy::disallowed_methods,
    reason = "a client of the bench, and no part of the gateway"
)]
pub(crate) async fn run(arguments: Arguments) {
    let channel = connect(&arguments.gateway).await;
    let delays = Histogram::<u64>::new_with_bounds(1000, 600_000_000_000, 3).unwrap();
    let window = Arc::new(Mutex::new((Instant::now(), delays)));
    for lane in 0..arguments.in_flight {
        let key = with_key(&arguments.tenant);
        let mut client = MessageServiceClient::with_interceptor(channel.clone(), key);
        let window = Arc::clone(&window);
        let names: Vec<_> = (lane..arguments.accounts)
            .step_by(arguments.in_flight)
            .map(|number| account(arguments.first + number))
            .collect();
        tokio::spawn(async move {
            for name in names.iter().cycle() {
                let began = Instant::now();
                let answer = client.send(message(name)).await.unwrap().into_inner();
                assert_eq!(answer.code, 0, "{}", answer.desc);
                let delay = began.elapsed().as_nanos() as u64;
                window.lock().unwrap().1.saturating_record(delay);
            }
        });
    }
    report(&"ready");
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        let mut window = window.lock().unwrap();
        if order == "begin" {
            window.0 = Instant::now();
            window.1.reset();
        } else {
            let at = |quantile| window.1.value_at_quantile(quantile) as f64 / 1e6;
            report(&Sent {
                messages: window.1.len(),
                seconds: window.0.elapsed().as_secs_f64(),
                p50: at(0.5),
                p99: at(0.99),
            });
        }
    }
}

/// An ordinary message from this account.
pub(super) fn message(account: &str) -> v1::SendRequest {
    let text = v1::TextElement {
        text: "an ordinary message of a chat, not long and not short".repeat(2),
    };
    v1::SendRequest {
        account: account.to_owned(),
        conversation: Some(v1::send_request::Conversation::To(FRIEND.to_owned())),
        elements: vec![v1::Element {
            kind: Some(v1::element::Kind::Text(text)),
        }],
        ..v1::SendRequest::default()
    }
}
