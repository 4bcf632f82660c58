//! Trouble: what goes wrong at the upstream, at the store, on the network and at the caller, and how the whole gateway
//! comes through. The simulator and the gateway run in the test, over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test says what is wrong by failing, and looks for the one kind of event that it is about"
)]

#[path = "trouble/books.rs"]
mod books;
#[path = "trouble/calls.rs"]
mod calls;
#[path = "trouble/client.rs"]
mod client;
#[path = "trouble/concurrency.rs"]
mod concurrency;
#[path = "trouble/credentials.rs"]
mod credentials;
#[path = "trouble/delay.rs"]
mod delay;
#[path = "trouble/disk.rs"]
mod disk;
#[path = "trouble/failover.rs"]
mod failover;
#[path = "trouble/fixture.rs"]
mod fixture;
#[path = "trouble/frames.rs"]
mod frames;
#[path = "trouble/issuers.rs"]
mod issuers;
#[path = "trouble/network.rs"]
mod network;
#[path = "trouble/outages.rs"]
mod outages;
#[path = "trouble/ownership.rs"]
mod ownership;
#[path = "trouble/pacing.rs"]
mod pacing;
#[path = "trouble/process.rs"]
mod process;
#[path = "trouble/proxy.rs"]
mod proxy;
#[path = "trouble/quotas.rs"]
mod quotas;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "trouble/refusals.rs"]
mod refusals;
#[path = "trouble/repeats.rs"]
mod repeats;
#[path = "trouble/sealing.rs"]
mod sealing;
#[path = "support/sentinel.rs"]
mod sentinel;
#[path = "trouble/store.rs"]
mod store;
