//! REDISFLOOR: appends to streams in pipelines over one connection, which is as much as a client can have Redis write. And how long one
//! append takes.

use std::time::Duration;

use hdrhistogram::Histogram;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{orders, report};

/// Appends in a pipeline.
const PIPELINE: usize = 16;
/// Pipelines on their way at a time.
const IN_FLIGHT: usize = 8;
/// How many streams are appended to in turn.
const STREAMS: usize = 1000;
/// How many entries each keeps, or a few more.
const KEPT: usize = 1000;
/// An event of the load as the gateway stores it.
const EVENT: [u8; 281] = [b'e'; 281];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    url: String,
    #[arg(long)]
    seconds: f64,
}

/// How many events Redis has taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Appended {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
}

pub(crate) async fn run(arguments: Arguments) {
    let connection = connect(&arguments.url).await;
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(arguments.seconds);
    let mut appending = JoinSet::new();
    for lane in 0..IN_FLIGHT {
        appending.spawn(append(connection.clone(), lane, end));
    }
    let events = appending.join_all().await.into_iter().sum();
    report(&Appended {
        events,
        seconds: began.elapsed().as_secs_f64(),
    });
}

async fn append(mut connection: MultiplexedConnection, lane: usize, end: Instant) -> u64 {
    let mut events = 0;
    let mut stream = lane;
    while Instant::now() < end {
        let mut pipeline = redis::pipe();
        for _ in 0..PIPELINE {
            pipeline.add_command(xadd(stream)).ignore();
            stream = (stream + IN_FLIGHT) % STREAMS;
        }
        let () = pipeline.query_async(&mut connection).await.unwrap();
        events += PIPELINE as u64;
    }
    events
}

fn xadd(stream: usize) -> redis::Cmd {
    let mut command = redis::cmd("XADD");
    let stream = format!("floor:{stream}");
    command.arg(stream).arg("MAXLEN").arg("~").arg(KEPT);
    command.arg("*").arg("p").arg(&EVENT);
    command
}

#[derive(Debug, clap::Args)]
pub(crate) struct RoundTripArguments {
    #[arg(long)]
    url: String,
    /// How many appends a second, one after another.
    #[arg(long, default_value_t = 200)]
    per_second: u32,
}

/// How long appends took since the last `begin`, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RoundTrips {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Counts anew with each line `begin` on its standard input, and tells with each line `tell`, until the input ends.
pub(crate) async fn run_round_trips(arguments: RoundTripArguments) {
    let mut connection = connect(&arguments.url).await;
    let mut delays = Histogram::<u64>::new_with_bounds(1000, 60_000_000_000, 3).unwrap();
    let mut orders = orders();
    let mut beat = interval(Duration::from_secs(1) / arguments.per_second);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    report(&"ready");
    loop {
        tokio::select! {
            order = orders.recv() => match order.as_deref() {
                Some("begin") => delays.reset(),
                Some(_) => {
                    let at = |quantile| delays.value_at_quantile(quantile) as f64 / 1e6;
                    report(&RoundTrips { p50: at(0.5), p99: at(0.99) });
                }
                None => return,
            },
            _ = beat.tick() => {
                let began = Instant::now();
                let () = xadd(0).query_async(&mut connection).await.unwrap();
                delays.saturating_record(began.elapsed().as_nanos() as u64);
            }
        }
    }
}

async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}
