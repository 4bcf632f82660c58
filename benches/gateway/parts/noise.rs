//! A tenant that calls far more often than it may: Send, Login and Subscribe in turn, at an even pace, whether it is answered or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::message_service_client::MessageServiceClient;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use imgate::proto::v1::subscribe_request::Start;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tonic::Code;
use tonic::transport::Channel;

use super::api::{Api, with_key};
use super::sends::message;
use super::{orders, report};
use crate::upstream::account;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    api: Api,
    /// The number of an account of the tenant that is online.
    #[arg(long)]
    account: usize,
    /// Calls per second.
    #[arg(long)]
    per_second: u32,
}

/// What was called, and how much of it was refused as too much.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Called {
    pub(crate) calls: u64,
    pub(crate) refused: u64,
}

/// Calls until its standard input ends or says something, and then tells.
#[expect(
    clippy::disallowed_methods,
    reason = "a client of the bench, and no part of the gateway"
)]
pub(crate) async fn run(arguments: Arguments) {
    let channel = arguments.api.connect().await;
    let arguments = Arc::new(arguments);
    let refused = Arc::new(AtomicU64::new(0));
    let mut beat = interval(Duration::from_secs(1) / arguments.per_second);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut orders = orders();
    report(&"ready");
    let mut calls = 0;
    loop {
        tokio::select! {
            _told = orders.recv() => break,
            _ = beat.tick() => {}
        }
        let (arguments, channel, refused) = (
            Arc::clone(&arguments),
            channel.clone(),
            Arc::clone(&refused),
        );
        tokio::spawn(async move {
            if call(&arguments, channel, calls).await == Code::ResourceExhausted {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
        calls += 1;
    }
    report(&Called {
        calls,
        refused: refused.load(Ordering::Relaxed),
    });
}

async fn call(arguments: &Arguments, channel: Channel, number: u64) -> Code {
    let key = with_key(&arguments.api.tenant);
    let outcome = match number % 3 {
        0 => {
            let mut messages = MessageServiceClient::with_interceptor(channel, key);
            let send = message(&account(arguments.account));
            messages.send(send).await.map(drop)
        }
        1 => {
            let mut sessions = SessionServiceClient::with_interceptor(channel, key);
            let login = v1::LoginRequest {
                account: format!("noise{number}"),
                signature: String::new(),
            };
            sessions.login(login).await.map(drop)
        }
        _ => {
            let mut events = EventServiceClient::with_interceptor(channel, key);
            let subscribe = v1::SubscribeRequest {
                start: Some(Start::At(v1::StartAt::Latest.into())),
                ..v1::SubscribeRequest::default()
            };
            match events.subscribe(subscribe).await {
                Ok(answer) => {
                    let mut stream = answer.into_inner();
                    while stream.message().await.is_ok_and(|batch| batch.is_some()) {}
                    Ok(())
                }
                Err(refused) => Err(refused),
            }
        }
    };
    outcome.err().map_or(Code::Ok, |status| status.code())
}
