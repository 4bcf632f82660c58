//! Redis behind Sentinel for tests: a master, its replicas and the sentinels that watch them, each a process.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::redis_server::{Data, RedisServer};

/// The name under which the sentinels watch the master.
pub(crate) const MASTER: &str = "the-master";
const DEADLINE: Duration = Duration::from_secs(30);

/// How soon a former master that is back is told that it is a replica now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demotion {
    /// Within a second or so.
    Soon,
    /// After more than eight seconds, which is Sentinel's own pace.
    Late,
}

/// Servers and their sentinels, gone with the value.
pub(crate) struct Watched {
    /// The first one is the master at the start.
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Watched {
    /// Starts one master, `replicas` replicas of it and `sentinels` sentinels, and waits until all know each other.
    /// `settings` are for all servers.
    pub(crate) fn start(
        replicas: usize,
        sentinels: usize,
        demotion: Demotion,
        settings: &[&str],
    ) -> Self {
        let quick = ["--repl-diskless-sync-delay", "0"];
        let settings = [&quick[..], settings].concat();
        let mut servers = vec![RedisServer::start_with(&settings)];
        let port = servers[0].port().to_string();
        for _ in 0..replicas {
            let follow = ["--replicaof", "127.0.0.1", &port];
            servers.push(RedisServer::start_with(&[&settings[..], &follow].concat()));
        }
        let mut all = Self {
            servers,
            sentinels: Vec::new(),
        };
        until("the replicas do not follow", || {
            all.info(0)
                .values()
                .filter(|line| line.contains("state=online"))
                .count()
                == replicas
        });
        let watch = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} {}\n\
             sentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 2000\n",
            sentinels / 2 + 1
        );
        for _ in 0..sentinels {
            all.sentinels.push(RedisServer::start_sentinel(&watch));
        }
        for number in 0..sentinels {
            all.hurry(number, demotion);
        }
        until("the sentinels do not know all", || {
            (0..sentinels).all(|number| {
                let state = all.state(number);
                state["num-slaves"] == replicas.to_string()
                    && state["num-other-sentinels"] == (sentinels - 1).to_string()
                    && state["flags"] == "master"
                    && all.good_replicas(number) == replicas
            })
        });
        all
    }

    /// The URL that names all sentinels.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
            .collect();
        format!("redis-sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// The number of the server that this sentinel says is the master.
    pub(crate) fn named_by(&self, sentinel: usize) -> usize {
        let (_, port): (String, u16) = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(MASTER)
            .query(&mut self.sentinels[sentinel].client())
            .unwrap();
        let found = self.servers.iter().position(|one| one.port() == port);
        found.unwrap()
    }

    /// What a server says of its part in the replication.
    pub(crate) fn info(&self, server: usize) -> HashMap<String, String> {
        let text = self.ask_info(server, "replication");
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect()
    }

    pub(crate) fn says_master(&self, server: usize) -> bool {
        self.info(server)["role"] == "master"
    }

    /// How many scripts a server has run since it started: all writes of a store are scripts, and what a replica
    /// takes from its master are their effects.
    pub(crate) fn scripts_run(&self, server: usize) -> usize {
        let text = self.ask_info(server, "commandstats");
        let calls = |line: &str| {
            line.strip_prefix("cmdstat_evalsha:calls=")?
                .split(',')
                .next()?
                .parse()
                .ok()
        };
        text.lines().find_map(calls).unwrap_or(0)
    }

    /// Waits until the replicas have what the master has now.
    pub(crate) fn replicated(&self, master: usize) {
        for replica in (0..self.servers.len()).filter(|&server| server != master) {
            self.replicated_to(master, replica);
        }
    }

    /// Waits until a replica has what the master has now.
    pub(crate) fn replicated_to(&self, master: usize, replica: usize) {
        let offset: u64 = self.info(master)["master_repl_offset"].parse().unwrap();
        until("the replica stays behind", || {
            let there = self.info(replica).get("slave_repl_offset").cloned();
            there.is_some_and(|there| there.parse::<u64>().unwrap() >= offset)
        });
    }

    /// Has the first sentinel give the master's place to a replica, though nothing is wrong with it.
    pub(crate) fn fail_over(&self) {
        let _: () = redis::cmd("SENTINEL")
            .arg("FAILOVER")
            .arg(MASTER)
            .query(&mut self.sentinels[0].client())
            .unwrap();
    }

    /// Starts a server again that was killed, with its data and as what it was at first.
    pub(crate) fn restart(&mut self, server: usize) {
        self.servers[server].restart(Data::Kept);
    }

    /// Makes everything happen soon. Before Redis 7 it cannot be told, and takes longer.
    fn hurry(&self, sentinel: usize, demotion: Demotion) {
        let mut client = self.sentinels[sentinel].client();
        let mut settings = vec![
            ("INFO-PERIOD", "200"),
            ("ASK-PERIOD", "100"),
            ("PING-PERIOD", "100"),
            ("MAX-DESYNC", "100"),
        ];
        match demotion {
            Demotion::Soon => settings.push(("PUBLISH-PERIOD", "200")),
            Demotion::Late => {}
        }
        for (name, value) in settings {
            let mut command = redis::cmd("SENTINEL");
            let _too_old: Result<(), _> =
                command.arg("DEBUG").arg(name).arg(value).query(&mut client);
        }
    }

    fn ask_info(&self, server: usize, section: &str) -> String {
        let ask = || {
            let client = redis::Client::open(self.servers[server].url())?;
            let mut info = redis::cmd("INFO");
            info.arg(section).query(&mut client.get_connection()?)
        };
        // A sentinel that makes a replica of a master cuts all of its connections.
        ask().or_else(|_: redis::RedisError| ask()).unwrap()
    }

    /// How many replicas a sentinel would give the master's place to.
    fn good_replicas(&self, sentinel: usize) -> usize {
        let replicas: Vec<HashMap<String, String>> = redis::cmd("SENTINEL")
            .arg("REPLICAS")
            .arg(MASTER)
            .query(&mut self.sentinels[sentinel].client())
            .unwrap();
        let good = |replica: &&HashMap<String, String>| {
            replica["flags"] == "slave" && replica["master-link-status"] == "ok"
        };
        replicas.iter().filter(good).count()
    }

    fn state(&self, sentinel: usize) -> HashMap<String, String> {
        redis::cmd("SENTINEL")
            .arg("MASTER")
            .arg(MASTER)
            .query(&mut self.sentinels[sentinel].client())
            .unwrap()
    }
}

/// Waits until something is true of other processes.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
