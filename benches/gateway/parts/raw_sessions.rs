//! FLOOR, TLSFLOOR and LOGINFLOOR: per session one task that makes a bare WebSocket handshake and one login, and then waits for a byte.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use super::raw_tls::{RawTls, client_config};
use super::{orders, raw_wire, report};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `HOST:PORT` of the upstream.
    #[arg(long)]
    upstream: String,
    /// The upstream's certificate, if it speaks TLS.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// The file with the logins, one a line.
    #[arg(long)]
    logins: PathBuf,
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
    let logins = Arc::new(Logins::read(&arguments.logins));
    let tls = arguments.certificate.as_deref().map(client_config);
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
            let logging_in = LogIn {
                upstream,
                number,
                logins,
            };
            match &tls {
                Some(config) => spawn(secure(logging_in, Arc::clone(config), turn)),
                None => spawn(plain(logging_in, turn)),
            }
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

/// Logins that were made elsewhere: signing is no part of the floor, and what it leaves in memory neither.
struct Logins {
    text: Vec<u8>,
    lines: Vec<Range<usize>>,
}

impl Logins {
    fn read(file: &Path) -> Self {
        let text = std::fs::read(file).unwrap();
        let mut begin = 0;
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let lines = ends
            .map(|(end, _)| std::mem::replace(&mut begin, end + 1)..end)
            .collect();
        Self { text, lines }
    }

    fn frame(&self, number: usize) -> Vec<u8> {
        raw_wire::masked(&self.text[self.lines[number].clone()])
    }
}

/// What a login needs.
struct LogIn {
    upstream: Arc<str>,
    number: usize,
    logins: Arc<Logins>,
}

impl LogIn {
    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&*self.upstream).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn handshake(&self) -> Vec<u8> {
        raw_wire::handshake(&self.upstream, self.number)
    }

    fn login(&self) -> Vec<u8> {
        self.logins.frame(self.number)
    }
}

#[expect(clippy::disallowed_methods, reason = "the floor is a bare task")]
fn spawn(session: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(session);
}

// Logging in is boxed, or the task would stay as large as that is.

async fn plain(logging_in: LogIn, turn: OwnedSemaphorePermit) {
    let mut stream = Box::pin(async move {
        let mut stream = logging_in.connect().await;
        let handshake = logging_in.handshake();
        exchange(&mut stream, &handshake, raw_wire::handshake_answer).await;
        exchange(&mut stream, &logging_in.login(), raw_wire::login_answer).await;
        drop(turn);
        stream
    })
    .await;
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|count| count > 0) {}
}

async fn secure(logging_in: LogIn, config: Arc<ClientConfig>, turn: OwnedSemaphorePermit) {
    let stream = Box::pin(async move {
        let mut stream = RawTls::new(logging_in.connect().await, config);
        let handshake = logging_in.handshake();
        stream
            .exchange(&handshake, raw_wire::handshake_answer)
            .await;
        stream
            .exchange(&logging_in.login(), raw_wire::login_answer)
            .await;
        drop(turn);
        stream
    })
    .await;
    stream.idle().await;
}

/// Writes a text and reads until `complete`. Nothing comes behind an answer: each text has one.
pub(super) async fn exchange(
    stream: &mut TcpStream,
    text: &[u8],
    complete: fn(&[u8]) -> Option<usize>,
) {
    stream.write_all(text).await.unwrap();
    let mut answer = Vec::with_capacity(1024);
    while complete(&answer).is_none() {
        let count = stream.read_buf(&mut answer).await.unwrap();
        assert!(count > 0, "the upstream has closed");
    }
}
