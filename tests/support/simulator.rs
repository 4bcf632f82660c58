//! An `imgate sim` of a test's own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::vendor::{SDK_APP_ID, SECRET_KEY, node};

/// How long a process may take to start, on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(30);

/// A running `imgate sim`.
pub(crate) struct Simulator {
    /// Where clients connect: `ws://HOST:PORT`.
    pub(crate) sim: String,
    /// Its control port: `http://HOST:PORT`.
    pub(crate) control: String,
    _key: tempfile::NamedTempFile,
    _process: Process,
}

impl Simulator {
    /// Starts one that knows the tests' app, with further arguments.
    pub(crate) fn start(more: &[&str]) -> Self {
        let mut key = tempfile::NamedTempFile::new().unwrap();
        writeln!(key, "{SECRET_KEY}").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgate"));
        command
            .args(["sim", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"])
            .args(["--sdk-app-id", &SDK_APP_ID.to_string()])
            .arg("--secret-key-file")
            .arg(key.path())
            .args(more);
        let process = Process::start("imgate sim", &mut command);
        Self {
            sim: process
                .printed("listening on ", START)
                .replacen("listening on ", "ws://", 1),
            control: process.printed("http://", START),
            _key: key,
            _process: process,
        }
    }

    /// A script of `tests/vendor_sdk` that acts on this simulator, with one of the SDKs.
    pub(crate) fn script(&self, script: &str, sdk: &str, key: &str) -> Command {
        let mut command = node(script);
        command
            .args(["--sim", &self.sim, "--control", &self.control])
            .args(["--sdk-app-id", &SDK_APP_ID.to_string()])
            .args(["--secret-key", key, "--sdk", sdk]);
        command
    }
}

/// Asks a control port, and returns its answer's body.
pub(crate) fn ask(control: &str, method: &str, path: &str, body: &str) -> String {
    let address = control.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(START)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{path} {body}: {answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
