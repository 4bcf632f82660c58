//! The program as a process of its own, for tests: what it prints first, signals by its id, gone with the value.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to print where it is, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How much of the error output is shown when a test fails.
const SHOWN: i64 = 6000;

/// A running `imgate`. Dropped, it is killed; when that is because the test fails, the end of its log is shown.
pub(crate) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts `imgate` with these arguments. What it logs goes to the end of a file.
    pub(crate) fn start(arguments: &[&str], log: &Path) -> Self {
        let errors = File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_imgate"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            name: arguments.first().copied().unwrap_or("imgate").to_owned(),
            log: log.to_owned(),
        }
    }

    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(START, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{} prints nothing in time", self.name));
        let line = line.unwrap();
        line.unwrap_or_else(|| panic!("{} has ended:\n{}", self.name, self.log_end()))
    }

    /// The address behind the prefix on the next line.
    pub(crate) async fn address(&mut self, prefix: &str) -> SocketAddr {
        let line = self.line().await;
        let address = line.strip_prefix(prefix).map(str::parse);
        match address {
            Some(Ok(address)) => address,
            Some(Err(_)) | None => panic!("{prefix:?} and an address expected, not {line:?}"),
        }
    }

    /// How much memory it has at present, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.expect("VmRSS in kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &id])
            .status();
        assert!(sent.await.unwrap().success(), "SIG{name}");
    }

    /// Ends it as a crash of the machine would, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        let ended = self.child.wait().await.unwrap();
        assert_eq!(ended.signal(), Some(9), "it ended before it was killed");
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        match timeout(within, self.child.wait()).await {
            Ok(ended) => ended.unwrap(),
            Err(_) => panic!("{} does not end within {within:?}", self.name),
        }
    }

    fn log_end(&self) -> String {
        let mut text = Vec::new();
        let mut file = File::open(&self.log).unwrap();
        // A shorter file is read from its beginning.
        let _whole = file.seek(SeekFrom::End(-SHOWN));
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "-- the end of the log of {}:\n{}",
                self.name,
                self.log_end()
            );
        }
    }
}
