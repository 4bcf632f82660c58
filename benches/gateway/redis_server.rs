//! A real Redis server, which writes its log to disk each second.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::bench::{Bench, Core};
use crate::process::{PATIENCE, Process};

pub(crate) struct RedisServer {
    // Dropped in this order: the process ends before its folder goes.
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl RedisServer {
    pub(crate) fn start(bench: &Bench) -> Self {
        let folder = tempfile::tempdir_in(bench.folder()).unwrap();
        let port = free_port();
        let process = Process::start(
            bench,
            Core::Load,
            "redis",
            "redis-server",
            &[
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--dir",
                folder.path().to_str().unwrap(),
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "everysec",
                // Its log would be rewritten in the middle of one round and not of another.
                "--auto-aof-rewrite-percentage",
                "0",
            ],
        );
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            _process: process,
            _folder: folder,
            port,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

fn free_port() -> u16 {
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    any.local_addr().unwrap().port()
}
