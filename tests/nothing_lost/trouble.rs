//! Makes the faults of a schedule happen, and heals them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{RwLock, watch};
use tokio::time::Instant;

use crate::arguments::Run;
use crate::control::Control;
use crate::redis::Data;
use crate::schedule::{Fault, GatewayFault, Lane, RedisFault, Step, Steps, UpstreamFault};
use crate::subscribers::Desk;
use crate::world::{World, pause, until};

/// How long a stop may take: the grace time and some more.
const STOP: Duration = Duration::from_secs(15);
/// A soak leaves time between faults, for what waits to be delivered: it would grow for as long as the soak lasts else.
const SOAK_PACE: u32 = 3;
/// A login whose outcome was not stored yet may have to be done again. It is stored long before this time is over, unless the
/// store is away.
const UNSETTLED: Duration = Duration::from_secs(20);

/// What has gone wrong so far, and what it allows.
#[derive(Debug, Default)]
pub(crate) struct Toll {
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// How many logins each bot may have needed.
    pub(crate) logins_allowed: BTreeMap<String, u64>,
    /// When each ticket was ended last.
    expired: BTreeMap<String, Instant>,
}

pub(crate) struct Trouble<'a> {
    pub(crate) world: &'a World,
    pub(crate) bots: &'a [String],
    pub(crate) desk: &'a Desk,
    toll: Mutex<Toll>,
    /// Held by every fault while it lasts; alone by the one that must not meet others.
    turns: RwLock<()>,
}

impl<'a> Trouble<'a> {
    pub(crate) fn new(world: &'a World, bots: &'a [String], desk: &'a Desk) -> Self {
        let logins_allowed = bots.iter().map(|bot| (bot.clone(), 1)).collect();
        Self {
            world,
            bots,
            desk,
            toll: Mutex::new(Toll {
                logins_allowed,
                ..Toll::default()
            }),
            turns: RwLock::default(),
        }
    }

    pub(crate) fn toll(&self) -> MutexGuard<'_, Toll> {
        self.toll.lock().unwrap()
    }

    /// Lets the faults of a lane happen, one after the other, until it is calm.
    pub(crate) async fn play(&self, run: &Run, lane: Lane, mut calm: watch::Receiver<bool>) {
        let mut control = self.world.control().await;
        let pace = if run.soak { SOAK_PACE } else { 1 };
        for Step { after, fault } in Steps::new(run.seed, lane, self.bots.len(), pace) {
            tokio::select! {
                () = pause(after) => {}
                _ = calm.wait_for(|calm| *calm) => return,
            }
            *self.toll().faults.entry(fault.name()).or_default() += 1;
            if fault == Fault::Redis(RedisFault::Empty) {
                let _alone = self.turns.write().await;
                self.empty_redis(&mut control).await;
                continue;
            }
            let _turn = self.turns.read().await;
            match fault {
                Fault::Gateway(fault) => self.at_gateway(fault).await,
                Fault::Upstream(fault) => self.at_upstream(fault, &mut control).await,
                Fault::Redis(fault) => self.at_redis(fault).await,
            }
        }
    }

    async fn at_gateway(&self, fault: GatewayFault) {
        let world = self.world;
        match fault {
            GatewayFault::Kill { down } => {
                self.allow_logins_again();
                world.kill_gateway().await;
                pause(down).await;
                world.start_gateway().await;
            }
            GatewayFault::Stop { down } => {
                self.allow_logins_again();
                world.stop_gateway(STOP).await;
                pause(down).await;
                world.start_gateway().await;
            }
            GatewayFault::Freeze { still } => {
                world.signal_gateway("STOP").await;
                pause(still).await;
                world.signal_gateway("CONT").await;
            }
        }
    }

    async fn at_upstream(&self, fault: UpstreamFault, control: &mut Control) {
        match fault {
            UpstreamFault::CutAll => control.post("/drop", json!({})).await,
            UpstreamFault::CutOften { times, every } => {
                for _ in 0..times {
                    control.post("/drop", json!({})).await;
                    pause(every).await;
                }
            }
            UpstreamFault::CutOne { bot } => {
                let body = json!({ "user_id": self.bots[bot] });
                control.post("/drop", body).await;
            }
            UpstreamFault::StallOne { bot, still } => {
                let body = json!({ "user_id": self.bots[bot], "seconds": still.as_secs_f64() });
                control.try_post("/stall", body).await;
            }
            UpstreamFault::Overload { bot, seconds } => {
                let (user, command) = (&self.bots[bot], "openim.getmsg");
                let body = json!({ "user_id": user, "command": command, "seconds": seconds });
                control.try_post("/overload", body).await;
            }
            UpstreamFault::RefuseSome { times } => {
                let body = json!({ "code": 50001, "times": times });
                control.post("/refuse", body).await;
                control.post("/drop", json!({})).await;
            }
            UpstreamFault::ExpireOne { bot } => {
                let bot = &self.bots[bot];
                self.allow_login(bot);
                control.try_post("/expire", json!({ "user_id": bot })).await;
            }
            UpstreamFault::Freeze { still } => {
                self.world.sim.signal("STOP").await;
                pause(still).await;
                self.world.sim.signal("CONT").await;
            }
        }
    }

    async fn at_redis(&self, fault: RedisFault) {
        let mut redis = self.world.redis.lock().await;
        let redis = redis.as_mut().expect("the run is on Redis");
        match fault {
            RedisFault::Kill { down } => {
                redis.kill();
                pause(down).await;
                tokio::task::block_in_place(|| redis.restart(Data::Kept));
            }
            RedisFault::Freeze { still } => {
                redis.pause();
                pause(still).await;
                redis.resume();
            }
            RedisFault::Pause { still, reads } => {
                let millis = still.as_millis().to_string();
                let who = if reads { "WRITE" } else { "ALL" };
                ask(redis, &["CLIENT", "PAUSE", &millis, who]);
                pause(still).await;
            }
            RedisFault::Cut => ask(redis, &["CLIENT", "KILL", "TYPE", "normal"]),
            // Only where nothing else goes on; see `empty_redis`.
            RedisFault::Empty => {}
            RedisFault::Fill { full } => {
                ask(redis, &["CONFIG", "SET", "maxmemory", "1"]);
                pause(full).await;
                ask(redis, &["CONFIG", "SET", "maxmemory", "0"]);
            }
        }
    }

    /// Empties Redis while the gateway holds all sessions, which would be lost for good else; waits until it has stored them
    /// again.
    async fn empty_redis(&self, control: &mut Control) {
        let (world, count) = (self.world, self.bots.len() as u64);
        until(
            "all sessions are held before Redis is emptied",
            async || control.stats().await.online == count,
        )
        .await;
        if let Some(redis) = world.redis.lock().await.as_mut() {
            redis.kill();
            self.desk.ledger().lose();
            tokio::task::block_in_place(|| redis.restart(Data::Lost));
        }
        until("the sessions are stored again", async || {
            world.sessions_in_redis().await == count
        })
        .await;
    }

    fn allow_login(&self, bot: &str) {
        let mut toll = self.toll();
        *toll.logins_allowed.entry(bot.to_owned()).or_default() += 1;
        toll.expired.insert(bot.to_owned(), Instant::now());
    }

    /// The gateway goes down: who is just logging in may have to do it again.
    fn allow_logins_again(&self) {
        let mut toll = self.toll();
        toll.expired.retain(|_, at| at.elapsed() < UNSETTLED);
        let unsettled: Vec<String> = toll.expired.keys().cloned().collect();
        for bot in unsettled {
            *toll.logins_allowed.entry(bot).or_default() += 1;
        }
    }
}

fn ask(redis: &crate::redis::RedisServer, words: &[&str]) {
    let mut connection = redis.client();
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    let _answer: redis::Value = command.query(&mut connection).unwrap();
}
