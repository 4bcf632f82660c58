//! Parts: what the bench runs as processes of their own, by starting itself with `part NAME ...`. Each prints lines of JSON.

mod api;
pub(crate) mod delays;
pub(crate) mod logins;
pub(crate) mod noise;
pub(crate) mod pipe;
mod push;
pub(crate) mod raw_sessions;
mod raw_tls;
pub(crate) mod raw_wire;
pub(crate) mod redis_floor;
pub(crate) mod sends;
pub(crate) mod subscriber;

use std::io::Write as _;

use clap::Parser;
use serde::Serialize;
use tokio::sync::mpsc;

/// Which part, with what it needs to know.
#[derive(Debug, Parser)]
pub(crate) enum Part {
    /// The floor of sessions and logins.
    RawSessions(raw_sessions::Arguments),
    /// Logs accounts in at the gateway.
    Logins(logins::Arguments),
    /// The floor of events.
    Pipe(pipe::Arguments),
    /// Takes events from the gateway or from the pipe.
    Subscriber(subscriber::Arguments),
    /// The floor of events in Redis.
    RedisFloor(redis_floor::Arguments),
    /// How long one append to Redis takes.
    RedisRoundTrips(redis_floor::RoundTripArguments),
    /// Sends messages by the gateway.
    Sends(sends::Arguments),
    /// Calls the gateway more often than it may.
    Noise(noise::Arguments),
}

/// Runs a part to its end.
pub(crate) fn run(part: Part) {
    // As many workers as the cores that the process may use, as in the gateway.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match part {
        Part::RawSessions(arguments) => runtime.block_on(raw_sessions::run(arguments)),
        Part::Logins(arguments) => runtime.block_on(logins::run(&arguments)),
        Part::Pipe(arguments) => runtime.block_on(pipe::run(arguments)),
        Part::Subscriber(arguments) => runtime.block_on(subscriber::run(arguments)),
        Part::RedisFloor(arguments) => runtime.block_on(redis_floor::run(arguments)),
        Part::RedisRoundTrips(arguments) => {
            runtime.block_on(redis_floor::run_round_trips(arguments));
        }
        Part::Sends(arguments) => runtime.block_on(sends::run(arguments)),
        Part::Noise(arguments) => runtime.block_on(noise::run(arguments)),
    }
}

/// The lines of the standard input. When they end, the part is to end: so it does when the bench is gone.
pub(crate) fn orders() -> mpsc::Receiver<String> {
    let (order, orders) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            // Nobody listens any more when the part is about to end.
            if order.blocking_send(line).is_err() {
                break;
            }
        }
    });
    orders
}

/// Prints a line of JSON.
pub(crate) fn report(value: &impl Serialize) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value).unwrap()).unwrap();
    out.flush().unwrap();
}
