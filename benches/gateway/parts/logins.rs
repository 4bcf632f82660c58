//! Logs accounts in at the gateway, by its API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::report;
use crate::gateway::api_key;
use crate::upstream::account;

/// Before a login that was put off is tried again.
const REST: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `HOST:PORT` of the gateway's API.
    #[arg(long)]
    gateway: String,
    #[arg(long)]
    tenant: String,
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
    let channel = connect(&arguments.gateway).await;
    let next = Arc::new(AtomicUsize::new(arguments.first));
    let end = arguments.first + arguments.count;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..arguments.in_flight {
        let sessions =
            SessionServiceClient::with_interceptor(channel.clone(), with_key(&arguments.tenant));
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

/// A connection to the gateway's API.
pub(crate) async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.tcp_nodelay(true).connect().await.unwrap()
}

/// Has each call bring the tenant's API key.
pub(crate) fn with_key(
    tenant: &str,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
    let bearer = format!("Bearer {}", api_key(tenant));
    let bearer: MetadataValue<_> = bearer.parse().unwrap();
    move |mut request| {
        request
            .metadata_mut()
            .insert("authorization", bearer.clone());
        Ok(request)
    }
}
