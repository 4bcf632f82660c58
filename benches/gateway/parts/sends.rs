//! Clients that send messages by the gateway, each the next one when the last is answered.

use std::sync::{Arc, Mutex};

use imgate::proto::v1;
use imgate::proto::v1::message_service_client::MessageServiceClient;
use tokio::time::Instant;

use super::api::{Api, with_key};
use super::delays::{self, Delays};
use super::report;
use crate::messages::FRIEND;
use crate::upstream::account;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    api: Api,
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

/// Counts anew with each line `begin` on its standard input, and tells with each line `tell`, until the input ends.
#[expect(
    clippy::disallowed_methods,
    reason = "a client of the bench, and no part of the gateway"
)]
pub(crate) async fn run(arguments: Arguments) {
    let channel = arguments.api.connect().await;
    let delays = Arc::new(Mutex::new(Delays::new()));
    for lane in 0..arguments.in_flight {
        let key = with_key(&arguments.api.tenant);
        let mut client = MessageServiceClient::with_interceptor(channel.clone(), key);
        let delays = Arc::clone(&delays);
        let names: Vec<_> = (lane..arguments.accounts)
            .step_by(arguments.in_flight)
            .map(|number| account(arguments.first + number))
            .collect();
        tokio::spawn(async move {
            for name in names.iter().cycle() {
                let began = Instant::now();
                let answer = client.send(message(name)).await.unwrap().into_inner();
                assert_eq!(answer.code, 0, "{}", answer.desc);
                delays.lock().unwrap().enter(began.elapsed());
            }
        });
    }
    report(&"ready");
    delays::tell(&delays).await;
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
