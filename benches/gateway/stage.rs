//! A gateway with all that it needs: its upstream, its Redis, and accounts that log in.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Bench;
use crate::clients;
use crate::gateway::{Gateway, Setup, Store, Tenant, UNPACED};
use crate::redis_server::RedisServer;
use crate::upstream::{Upstream, Wire};

/// The one tenant.
pub(crate) const TENANT: &str = "acme";
/// How long a storm may take.
const STORM: Duration = Duration::from_secs(120);
/// Between two looks at what has come of it.
const BEAT: Duration = Duration::from_millis(20);

/// Which store the gateway has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Embedded,
    Redis,
}

impl Kind {
    /// In a row's text.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory store",
            Self::Embedded => "embedded store",
            Self::Redis => "Redis",
        }
    }
}

pub(crate) struct Stage<'a> {
    bench: &'a Bench,
    // Dropped in this order.
    pub(crate) gateway: Gateway<'a>,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) upstream: Upstream,
    sessions: usize,
}

impl<'a> Stage<'a> {
    /// Starts all, with no session. What is stored is stored in Redis.
    pub(crate) fn start(bench: &'a Bench, wire: Wire, pace: u32) -> Self {
        Self::with(bench, wire, pace, Kind::Redis, &[Tenant::free(TENANT)])
    }

    /// Starts all with this store and a log that keeps all, over plain connections and without a pace.
    pub(crate) fn stored(bench: &'a Bench, kind: Kind) -> Self {
        Self::with(
            bench,
            Wire::Plain,
            UNPACED,
            kind,
            &[Tenant::keeping_all(TENANT)],
        )
    }

    /// Starts all, with no session.
    pub(crate) fn with(
        bench: &'a Bench,
        wire: Wire,
        pace: u32,
        kind: Kind,
        tenants: &[Tenant<'_>],
    ) -> Self {
        let upstream = Upstream::start(bench, wire);
        let redis = (kind == Kind::Redis).then(|| RedisServer::start(bench));
        let store = match (&redis, kind) {
            (Some(server), _) => Store::Redis(server),
            (None, Kind::Embedded) => Store::Embedded,
            (None, Kind::Memory | Kind::Redis) => Store::Memory,
        };
        let setup = Setup {
            store,
            upstream: &upstream,
            pace,
            tenants,
        };
        let gateway = Gateway::start(bench, &setup);
        Self {
            bench,
            gateway,
            redis,
            upstream,
            sessions: 0,
        }
    }

    /// Logs accounts in until there are so many. Answers how many seconds it took.
    pub(crate) fn raise(&mut self, count: usize) -> f64 {
        let seconds = clients::log_in(self.bench, &self.gateway, TENANT, self.sessions..count);
        self.sessions = count;
        self.gateway.until_online(count, Duration::from_secs(60));
        seconds
    }

    /// Cuts all connections at once. Answers how many seconds it took until all sessions were online again.
    pub(crate) fn storm(&mut self) -> f64 {
        let resumed = |gateway: &mut Gateway<'_>| {
            gateway.metric("imgate_session_logins_total", "outcome=\"accepted\"") as usize
        };
        let before = resumed(&mut self.gateway);
        let started = Instant::now();
        self.upstream.cut_all();
        // First by their resumes: a session may not know yet that it was cut.
        while resumed(&mut self.gateway) < before + self.sessions {
            assert!(started.elapsed() < STORM, "not all sessions resume");
            std::thread::sleep(BEAT);
        }
        self.gateway.until_online(self.sessions, STORM);
        started.elapsed().as_secs_f64()
    }
}
