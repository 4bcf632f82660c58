//! `imgate serve` in a process of its own, so that its memory is its own, with Redis, so that the log is elsewhere.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::fixture::*;
use crate::program::Program;
use crate::redis_server::RedisServer;

/// A gateway whose store outlives it.
pub(crate) struct Serve {
    // Dropped in this order: the process ends before its store and its folder go.
    program: Option<Program>,
    pub(crate) redis: RedisServer,
    folder: TempDir,
    pub(crate) grpc: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Serve {
    /// Starts one for the tenant `acme` and waits until it is ready.
    pub(crate) async fn start(upstream: &Upstream) -> Self {
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().unwrap();
        let tenant = tenant("acme", upstream.url());
        let text = format!(
            r#"
            replica_id = "first"
            grpc.listen = "127.0.0.1:0"
            ops.listen = "127.0.0.1:0"
            log.level = "warn"
            store = {{ kind = "redis", url = "{}", operation_timeout = "9s" }}
            seal = {{ active = "k1", keys = {{ k1 = {{ file = "seal.key" }} }} }}
            pacing.start_jitter = "50ms"
            backoff = {{ first = "50ms", max = "200ms" }}
            [[tenants]]
            id = "acme"
            partitions = 2
            sdk_app_id = {APP}
            upstream_url = "{}"
            login_spacing = "300ms"
            [[tenants.api_keys]]
            id = "all"
            sha256 = "{}"
            scopes = ["sessions", "events", "messages"]
            "#,
            redis.url(),
            tenant.upstream_url,
            tenant.api_keys[0].key.sha256,
        );
        std::fs::write(folder.path().join("imgate.toml"), text).unwrap();
        std::fs::write(folder.path().join("seal.key"), "5a".repeat(32)).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut serve = Self {
            program: None,
            redis,
            folder,
            grpc: nowhere,
            ops: nowhere,
        };
        serve.start_again().await;
        serve
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let mut program = self.program.take().expect("it runs");
        program.signal("TERM").await;
        assert!(program.ended(PATIENCE).await.success());
    }

    /// Starts it after it was stopped, and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        let file = |name: &str| self.folder.path().join(name);
        let config = file("imgate.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let mut program = Program::start(&arguments, &file("imgate.log"));
        self.grpc = program.address("imgate grpc on ").await;
        self.ops = program.address("imgate ops on http://").await;
        self.program = Some(program);
        let look = async || {
            let ready = http_get(self.ops, "/ready").await;
            ready.starts_with("HTTP/1.0 200").then_some(())
        };
        poll(look).await.expect("it is never ready");
    }

    /// Its memory, in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        self.program.as_ref().expect("it runs").resident() >> 20
    }

    /// The sum of all series of a metric.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        sum_of(&http_get(self.ops, "/metrics").await, name, "")
    }
}

/// Looks at a gateway's memory now and then and keeps the most.
#[derive(Debug, Default)]
pub(crate) struct Peak(pub(crate) u64);

impl Peak {
    pub(crate) fn look(&mut self, serve: &Serve) {
        self.0 = self.0.max(serve.resident_mib());
    }
}
