//! The simulator's control port, and what it tells.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::net::SocketAddr;

use imgate::sim::{SimStats, UserStats};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

/// How many requests are on their way at a time.
const PIPELINE: usize = 64;

/// A connection to an HTTP port that is kept open.
pub(crate) struct Http {
    stream: BufStream<TcpStream>,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufStream::new(stream),
        }
    }

    /// One request and its answer: the status and the body.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        self.write(method, path, body).await;
        self.stream.flush().await.unwrap();
        self.read().await
    }

    async fn write(&mut self, method: &str, path: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn read(&mut self) -> (u16, Vec<u8>) {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).expect("a status").parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.unwrap();
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, body)
    }
}

/// The control port of a simulator.
pub(crate) struct Control {
    http: Http,
}

impl Control {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            http: Http::connect(address).await,
        }
    }

    /// Has the simulator do something.
    pub(crate) async fn post(&mut self, path: &str, body: Value) {
        let (status, answer) = self.http.ask("POST", path, &body.to_string()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(status, 200, "{path} {body}: {answer}");
    }

    /// The same, where it may not be possible just now. Answers whether it was.
    pub(crate) async fn try_post(&mut self, path: &str, body: Value) -> bool {
        let (status, answer) = self.http.ask("POST", path, &body.to_string()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(matches!(status, 200 | 409), "{path} {body}: {answer}");
        status == 200
    }

    /// The same many times, in order.
    pub(crate) async fn post_all(&mut self, path: &str, bodies: impl IntoIterator<Item = Value>) {
        let bodies: Vec<Value> = bodies.into_iter().collect();
        for bodies in bodies.chunks(PIPELINE) {
            for body in bodies {
                self.http.write("POST", path, &body.to_string()).await;
            }
            self.http.stream.flush().await.unwrap();
            for body in bodies {
                let (status, answer) = self.http.read().await;
                let answer = String::from_utf8_lossy(&answer);
                assert_eq!(status, 200, "{path} {body}: {answer}");
            }
        }
    }

    /// What has happened so far.
    pub(crate) async fn stats(&mut self) -> SimStats {
        let (status, answer) = self.http.ask("GET", "/stats", "").await;
        assert_eq!(status, 200);
        serde_json::from_slice(&answer).unwrap()
    }

    /// What has happened to one account.
    pub(crate) async fn user(&mut self, id: &str) -> UserStats {
        let stats = self.stats().await;
        stats.users.get(id).copied().unwrap_or_default()
    }

    /// One account for everybody's messages to come from.
    pub(crate) async fn make_account(&mut self, id: &str) {
        self.post("/account", json!({ "user_id": id })).await;
    }
}
