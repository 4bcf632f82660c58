//! What can be measured. Each scenario runs its rounds and answers rows.

mod burst;
mod durable;
mod event_growth;
mod events;
mod full;
mod growth;
mod idle;
mod logins;
mod noisy;
mod paced;
mod restart;
mod resume;
mod send;
mod stalled;

use crate::bench::Bench;
use crate::row::Row;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Bench) -> Vec<Row>,
}

/// All of them, in the order in which they run and are told.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "idle",
        about: "memory per idle session with its state, against FLOOR and TLSFLOOR",
        run: idle::run,
    },
    Scenario {
        name: "burst",
        about: "memory after 20 events and one frame of 60 KB on every session, against idle",
        run: burst::run,
    },
    Scenario {
        name: "full",
        about: "memory of 19,500 WSS sessions in one process",
        run: full::run,
    },
    Scenario {
        name: "growth",
        about: "whether a session costs the same among 18,000 as among 1,000",
        run: growth::run,
    },
    Scenario {
        name: "logins",
        about: "logins per second and the CPU of each, stored in Redis, against LOGINFLOOR",
        run: logins::run,
    },
    Scenario {
        name: "resume",
        about: "all sockets cut at once: until all sessions are online, against LOGINFLOOR and the pace",
        run: resume::run,
    },
    Scenario {
        name: "restart",
        about: "stop, messages, start: until ready, until all sessions are online, and nothing lost",
        run: restart::run,
    },
    Scenario {
        name: "events",
        about: "events per second at the limit, stored in memory and embedded, against PIPE",
        run: events::run,
    },
    Scenario {
        name: "durable",
        about: "events per second at the limit, each in Redis before it is delivered, against REDISFLOOR",
        run: durable::run,
    },
    Scenario {
        name: "paced",
        about: "the CPU and the delay of events at an even pace, each in Redis before it is delivered, against PIPE",
        run: paced::run,
    },
    Scenario {
        name: "event_growth",
        about: "whether an event costs the same among 18,000 sessions as among 1,000",
        run: event_growth::run,
    },
    Scenario {
        name: "send",
        about: "sends per second, the CPU of each and how long it takes",
        run: send::run,
    },
    Scenario {
        name: "stalled",
        about: "the delays of 50 subscribers beside one that never reads, against those without it",
        run: stalled::run,
    },
    Scenario {
        name: "noisy",
        about: "the delays of 50 quiet tenants beside one that calls more than it may, against those without it",
        run: noisy::run,
    },
];
