//! A real `redis-server` for tests: a process of its own on a free port, gone with the value.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// How long a server may take to do what it was asked.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running `redis-server`, or one that was killed and can be started again.
pub(crate) struct RedisServer {
    // Dropped in this order: the process ends before its folder goes.
    process: Option<Process>,
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    /// Makes it a sentinel: what it watches, in the words of its configuration file.
    watch: Option<String>,
}

/// Whether a server finds its data when it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Kept,
    Lost,
}

struct Process(Child);

impl RedisServer {
    /// Starts a server that keeps its data over a restart.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with settings such as `["--maxmemory", "8mb"]`.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        Self::start_as(settings, None)
    }

    /// Starts a sentinel.
    pub(crate) fn start_sentinel(watch: &str) -> Self {
        Self::start_as(&[], Some(watch))
    }

    fn start_as(settings: &[&str], watch: Option<&str>) -> Self {
        // Another process may take the port between its choice and its use.
        for _ in 0..10 {
            let mut server = Self::stopped(settings);
            server.watch = watch.map(str::to_owned);
            if server.try_start() {
                return server;
            }
        }
        panic!("no redis-server starts; is it installed?");
    }

    /// A place for a server that is not running yet.
    pub(crate) fn stopped(settings: &[&str]) -> Self {
        let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self {
            process: None,
            folder: tempfile::tempdir().unwrap(),
            port: any.local_addr().unwrap().port(),
            settings: settings.iter().map(|&word| word.to_owned()).collect(),
            watch: None,
        }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address as an URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Stops the process where it is: it accepts connections and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the process if it runs and starts another on the same port.
    pub(crate) fn restart(&mut self, data: Data) {
        self.kill();
        if data == Data::Lost {
            clear(self.folder.path());
        }
        assert!(self.try_start(), "it does not start again");
    }

    /// A connection to look at what is stored, or to change it.
    pub(crate) fn client(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection().unwrap()
    }

    fn try_start(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        match &self.watch {
            None => {
                command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "no"]);
            }
            Some(watch) => {
                // A sentinel keeps what it learns in this file.
                let file = self.folder.path().join("sentinel.conf");
                std::fs::write(&file, watch).unwrap();
                command.arg(file).arg("--sentinel");
            }
        }
        let child = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--logfile", "redis.log", "--dir"])
            .arg(self.folder.path())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            return false;
        };
        let id = format!("process_id:{}\r\n", child.id());
        let mut process = Process(child);
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if process.0.try_wait().unwrap().is_some() {
                return false;
            }
            // A server that is not ours answers with another number.
            if ask(self.port, "INFO server\r\n").is_some_and(|info| info.contains(&id))
                && ask(self.port, "PING\r\n").is_some_and(|pong| pong == "+PONG\r\n")
            {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().unwrap();
        let signalled = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name])
            .arg(process.0.id().to_string())
            .status();
        assert!(signalled.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; both calls then do nothing.
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// The answer to one inline command, or none when nobody answers in time.
fn ask(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(command.as_bytes()).ok()?;
    // A sentinel knows no QUIT.
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
}
