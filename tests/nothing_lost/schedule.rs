//! What goes wrong, and when: all of it from a seed. Pure.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Something that goes wrong, and is over by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    Gateway(GatewayFault),
    Upstream(UpstreamFault),
    Redis(RedisFault),
}

/// What happens to the gateway's process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GatewayFault {
    /// It is killed, and started again after a while.
    Kill { down: Duration },
    /// It is asked to stop, and started again after a while.
    Stop { down: Duration },
    /// It stands still.
    Freeze { still: Duration },
}

/// What happens at the upstream, and on the way there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum UpstreamFault {
    /// All connections are cut.
    CutAll,
    /// All are cut again and again.
    CutOften { times: u32, every: Duration },
    /// One bot's is cut.
    CutOne { bot: usize },
    /// One bot's connection reads and sends nothing for a while.
    StallOne { bot: usize, still: Duration },
    /// One bot is asked not to catch up for a while.
    Overload { bot: usize, seconds: u64 },
    /// All are cut, and the first so many that come back are refused.
    RefuseSome { times: u32 },
    /// One bot's ticket ends.
    ExpireOne { bot: usize },
    /// The upstream stands still.
    Freeze { still: Duration },
}

/// What happens to Redis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RedisFault {
    /// It is killed, and started again after a while with its data.
    Kill { down: Duration },
    /// It stands still.
    Freeze { still: Duration },
    /// It answers nobody, or only those who read.
    Pause { still: Duration, reads: bool },
    /// It cuts all connections.
    Cut,
    /// It takes nothing more.
    Fill { full: Duration },
    /// It is killed, and started again without its data: what it held is lost.
    Empty,
}

impl Fault {
    /// Its name in figures.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Gateway(GatewayFault::Kill { .. }) => "kill-gateway",
            Self::Gateway(GatewayFault::Stop { .. }) => "stop-gateway",
            Self::Gateway(GatewayFault::Freeze { .. }) => "freeze-gateway",
            Self::Upstream(UpstreamFault::CutAll) => "cut-all",
            Self::Upstream(UpstreamFault::CutOften { .. }) => "cut-often",
            Self::Upstream(UpstreamFault::CutOne { .. }) => "cut-one",
            Self::Upstream(UpstreamFault::StallOne { .. }) => "stall-one",
            Self::Upstream(UpstreamFault::Overload { .. }) => "overload",
            Self::Upstream(UpstreamFault::RefuseSome { .. }) => "refuse-some",
            Self::Upstream(UpstreamFault::ExpireOne { .. }) => "expire-one",
            Self::Upstream(UpstreamFault::Freeze { .. }) => "freeze-upstream",
            Self::Redis(RedisFault::Kill { .. }) => "kill-redis",
            Self::Redis(RedisFault::Freeze { .. }) => "freeze-redis",
            Self::Redis(RedisFault::Pause { .. }) => "pause-redis",
            Self::Redis(RedisFault::Cut) => "cut-redis",
            Self::Redis(RedisFault::Fill { .. }) => "fill-redis",
            Self::Redis(RedisFault::Empty) => "empty-redis",
        }
    }
}

/// What can go wrong, one thing at a time, at the same time as in the other lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Gateway,
    Upstream,
    Redis,
}

/// A fault, and how long all is well in its lane before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) after: Duration,
    pub(crate) fault: Fault,
}

/// The steps of a lane, without end.
#[derive(Debug)]
pub(crate) struct Steps {
    lane: Lane,
    bots: usize,
    pace: u32,
    rng: StdRng,
}

impl Steps {
    /// With a greater pace all is well for so many times as long between faults.
    pub(crate) fn new(seed: u64, lane: Lane, bots: usize, pace: u32) -> Self {
        let number = match lane {
            Lane::Gateway => 1,
            Lane::Upstream => 2,
            Lane::Redis => 3,
        };
        Self {
            lane,
            bots,
            pace,
            rng: rng(seed, number),
        }
    }

    fn gateway(&mut self) -> GatewayFault {
        let rng = &mut self.rng;
        match rng.random_range(0..10) {
            0..5 => GatewayFault::Kill {
                down: millis(rng, 0..1500),
            },
            5..8 => GatewayFault::Stop {
                down: millis(rng, 0..500),
            },
            _ => GatewayFault::Freeze {
                still: millis(rng, 100..4000),
            },
        }
    }

    fn upstream(&mut self) -> UpstreamFault {
        let rng = &mut self.rng;
        let bot = rng.random_range(0..self.bots);
        match rng.random_range(0..16) {
            0..3 => UpstreamFault::CutAll,
            3 => UpstreamFault::CutOften {
                times: rng.random_range(3..10),
                every: millis(rng, 20..200),
            },
            4..7 => UpstreamFault::CutOne { bot },
            7..10 => UpstreamFault::StallOne {
                bot,
                still: millis(rng, 200..3000),
            },
            10 => UpstreamFault::Overload {
                bot,
                seconds: rng.random_range(1..3),
            },
            11..13 => UpstreamFault::RefuseSome {
                times: rng.random_range(1..20),
            },
            13 => UpstreamFault::ExpireOne { bot },
            _ => UpstreamFault::Freeze {
                still: millis(rng, 100..2500),
            },
        }
    }

    fn redis(&mut self) -> RedisFault {
        let rng = &mut self.rng;
        match rng.random_range(0..16) {
            0..4 => RedisFault::Kill {
                down: millis(rng, 0..3000),
            },
            4..7 => RedisFault::Freeze {
                still: millis(rng, 200..4000),
            },
            7..10 => RedisFault::Pause {
                still: millis(rng, 200..3000),
                reads: rng.random(),
            },
            10..13 => RedisFault::Cut,
            13..15 => RedisFault::Fill {
                full: millis(rng, 200..2000),
            },
            _ => RedisFault::Empty,
        }
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (pause, fault) = match self.lane {
            Lane::Gateway => (300..2500, Fault::Gateway(self.gateway())),
            Lane::Upstream => (200..2000, Fault::Upstream(self.upstream())),
            Lane::Redis => (500..3000, Fault::Redis(self.redis())),
        };
        Some(Step {
            after: self.pace * millis(&mut self.rng, pause),
            fault,
        })
    }
}

/// What a run is played with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) partitions: usize,
    pub(crate) lease_ttl: &'static str,
    /// After how many seconds the upstream repeats what was not acknowledged.
    pub(crate) ack_timeout: &'static str,
    /// How many messages the upstream gives in one answer of catch-up.
    pub(crate) page_size: &'static str,
}

impl Settings {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = &mut rng(seed, 4);
        Self {
            partitions: pick(rng, &[1, 2, 8]),
            lease_ttl: pick(rng, &["3s", "30s"]),
            ack_timeout: pick(rng, &["1", "5"]),
            page_size: pick(rng, &["3", "20"]),
        }
    }
}

/// A source of chance of its own for each use of a seed.
pub(crate) fn rng(seed: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number)
}

/// Some milliseconds of a range.
pub(crate) fn millis(rng: &mut StdRng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

fn pick<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    *choices.choose(rng).expect("a choice")
}
