//! The gateway in a process of its own, for what cannot be done to the test itself.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::fixture::*;

/// `imgate serve` in a process of its own, killed with the value.
pub(crate) struct Process {
    child: Child,
    pub(crate) grpc: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Process {
    /// Starts it with this configuration. A write beyond the limit on file sizes is an error to it, and not its end.
    pub(crate) fn start(config: &Path) -> Self {
        let binary = env!("CARGO_BIN_EXE_imgate");
        let mut child = Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; exec \"$0\" serve --config \"$1\"",
                binary,
            ])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |before: &str| {
            let line = lines.next().expect("it does not start").unwrap();
            line.strip_prefix(before).unwrap().parse().unwrap()
        };
        Self {
            grpc: address("imgate grpc on "),
            ops: address("imgate ops on http://"),
            child,
        }
    }

    pub(crate) async fn ready(&self) {
        let look = async || {
            let ready = http_get(self.ops, "/ready").await;
            ready.starts_with("HTTP/1.0 200").then_some(())
        };
        poll(look).await.expect("it is never ready");
    }

    /// Bounds the size of every file that it writes.
    pub(crate) fn limit_files(&self, bytes: &str) {
        let set = Command::new("prlimit")
            .arg(format!("--pid={}", self.child.id()))
            .arg(format!("--fsize={bytes}:unlimited"))
            .status();
        assert!(set.unwrap().success());
    }
}

impl Process {
    /// Stops the process where it is, or lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let signalled = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name])
            .arg(self.child.id().to_string())
            .status();
        assert!(signalled.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; both calls then do nothing.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// The configuration of a gateway with an embedded store in `folder`.
pub(crate) fn write_config(folder: &Path, upstream_url: String) -> std::path::PathBuf {
    let tenant = tenant("acme", upstream_url);
    let path = folder.join("imgate.toml");
    let text = format!(
        r#"
        replica_id = "first"
        grpc.listen = "127.0.0.1:0"
        ops.listen = "127.0.0.1:0"
        store = {{ kind = "embedded", path = "imgate.redb" }}
        pacing.start_jitter = "50ms"
        keepalive = {{ heartbeat = "1s", answer_timeout = "300ms" }}
        backoff = {{ first = "50ms", max = "200ms" }}
        [[tenants]]
        id = "acme"
        partitions = 1
        sdk_app_id = {APP}
        upstream_url = "{}"
        login_spacing = "300ms"
        [[tenants.api_keys]]
        id = "all"
        sha256 = "{}"
        scopes = ["sessions", "events", "messages"]
        "#,
        tenant.upstream_url, tenant.api_keys[0].key.sha256,
    );
    std::fs::write(&path, text).unwrap();
    path
}
