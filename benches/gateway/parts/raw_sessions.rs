//! FLOOR and LOGINFLOOR: per session one task that makes a bare WebSocket handshake and one login, and then waits for a byte.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{orders, raw_wire, report};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `HOST:PORT` of the upstream.
    #[arg(long)]
    upstream: String,
    /// How many sessions there will be at the most.
    #[arg(long)]
    most: usize,
    /// How many logins are on their way at a time.
    #[arg(long)]
    in_flight: u32,
}

/// So many sessions are logged in; for the last of them it took so long.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Raised {
    pub(crate) sessions: usize,
    pub(crate) seconds: f64,
}

/// Reads from its standard input how many sessions are to be there, and tells when they are, until the input ends.
pub(crate) async fn run(arguments: Arguments) {
    // Made beforehand: signing is no part of the floor.
    let logins: Vec<_> = (0..arguments.most).map(raw_wire::login).collect();
    let logins: Arc<[Vec<u8>]> = logins.into();
    let upstream: Arc<str> = arguments.upstream.into();
    let turns = Arc::new(Semaphore::new(arguments.in_flight as usize));
    report(&Raised {
        sessions: 0,
        seconds: 0.0,
    });
    let mut sessions = 0;
    let mut targets = orders();
    while let Some(target) = targets.recv().await {
        let target = target.parse().unwrap();
        let started = Instant::now();
        for number in sessions..target {
            let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
            let (upstream, logins) = (Arc::clone(&upstream), Arc::clone(&logins));
            #[expect(clippy::disallowed_methods, reason = "the floor is a bare task")]
            tokio::spawn(async move {
                // Boxed, or the task would stay as large as a login is.
                let logging_in = Box::pin(log_in(&upstream, number, &logins[number]));
                let mut stream = logging_in.await;
                drop(turn);
                let mut byte = [0];
                while stream.read(&mut byte).await.is_ok_and(|count| count > 0) {}
            });
        }
        // Every turn is back when every login is done.
        let all = turns.acquire_many(arguments.in_flight).await.unwrap();
        drop(all);
        sessions = target;
        report(&Raised {
            sessions,
            seconds: started.elapsed().as_secs_f64(),
        });
    }
}

async fn log_in(upstream: &str, number: usize, login: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(upstream).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::with_capacity(1024);
    let handshake = raw_wire::handshake(upstream, number);
    stream.write_all(&handshake).await.unwrap();
    let used = until(&mut stream, &mut bytes, raw_wire::handshake_answer).await;
    bytes.drain(..used);
    stream.write_all(login).await.unwrap();
    until(&mut stream, &mut bytes, raw_wire::login_answer).await;
    stream
}

/// Reads until `complete` answers.
async fn until(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    complete: fn(&[u8]) -> Option<usize>,
) -> usize {
    loop {
        if let Some(length) = complete(bytes) {
            return length;
        }
        assert!(
            stream.read_buf(bytes).await.unwrap() > 0,
            "the upstream has closed"
        );
    }
}
