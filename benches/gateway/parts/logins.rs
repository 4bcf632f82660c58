//! Logs accounts in at the gateway, by its API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::api::{Api, with_key};
use super::report;
use crate::upstream::account;

/// Before a login that was put off is tried again.
const REST: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    api: Api,
    /// The number of the first account.
    #[arg(long)]
    first: usize,
    #[arg(long)]
    count: usize,
    /// How many are on their way at a time.
    #[arg(long)]
    in_flight: usize,
}

/// All are logged in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LoggedIn {
    pub(crate) seconds: f64,
}

pub(crate) async fn run(arguments: &Arguments) {
    let channel = arguments.api.connect().await;
    let next = Arc::new(AtomicUsize::new(arguments.first));
    let end = arguments.first + arguments.count;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..arguments.in_flight {
        let key = with_key(&arguments.api.tenant);
        let sessions = SessionServiceClient::with_interceptor(channel.clone(), key);
        let next = Arc::clone(&next);
        workers.spawn(async move {
            let mut sessions = sessions;
            let mut number = next.fetch_add(1, Ordering::Relaxed);
            while number < end {
                let request = v1::LoginRequest {
                    account: account(number),
                    signature: String::new(),
                };
                match sessions.login(request).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        assert_eq!(answer.code, 0, "{}", answer.desc);
                        number = next.fetch_add(1, Ordering::Relaxed);
                    }
                    // Again, as bots do: on a busy disk Redis may be away for a moment.
                    Err(status) if status.code() == Code::Unavailable => sleep(REST).await,
                    Err(status) => panic!("{status}"),
                }
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
    report(&LoggedIn {
        seconds: started.elapsed().as_secs_f64(),
    });
}
