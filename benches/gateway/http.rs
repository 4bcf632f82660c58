//! A connection to a port that speaks HTTP, kept open: the operations port of the gateway, the control port of the upstream.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::process::PATIENCE;

/// How many requests are on their way at a time.
const PIPELINE: usize = 32;

pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    /// Connects to `HOST:PORT`.
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The status and the body of the answer.
    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        self.write("GET", path, "");
        self.read()
    }

    /// Posts something that must be accepted; the answer's body.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> String {
        self.write("POST", path, body);
        self.accepted(path)
    }

    /// Posts many things that must be accepted, in order.
    pub(crate) fn post_all(&mut self, path: &str, bodies: impl IntoIterator<Item = String>) {
        let mut out = 0;
        for body in bodies {
            self.write("POST", path, &body);
            out += 1;
            if out == PIPELINE {
                self.accepted(path);
                out -= 1;
            }
        }
        for _ in 0..out {
            self.accepted(path);
        }
    }

    fn accepted(&mut self, path: &str) -> String {
        let (status, answer) = self.read();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn write(&mut self, method: &str, path: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    fn read(&mut self) -> (u16, String) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).expect("a status").parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}
