//! Slow readers, and others that make it hard for a gateway: subscribers that never read, read little, come back all the
//! time, come in hundreds, bring cursors that are not theirs, and get messages that are large or come in thousands.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stderr,
    reason = "a test says what is wrong by failing, and looks for the one kind of event that it is about"
)]

#[path = "slow_readers/backlog.rs"]
mod backlog;
#[path = "trouble/client.rs"]
#[allow(dead_code, reason = "another test binary uses the rest of it")]
mod client;
#[path = "slow_readers/crowd.rs"]
mod crowd;
#[path = "slow_readers/cursors.rs"]
mod cursors;
#[path = "trouble/fixture.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "another test binary uses the rest of it"
)]
mod fixture;
#[path = "slow_readers/large.rs"]
mod large;
#[path = "support/program.rs"]
mod program;
#[path = "slow_readers/reconnecting.rs"]
mod reconnecting;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "slow_readers/serve.rs"]
mod serve;
#[path = "slow_readers/slow.rs"]
mod slow;
#[path = "slow_readers/slow_store.rs"]
mod slow_store;
#[path = "slow_readers/stalled.rs"]
mod stalled;
#[path = "slow_readers/subscriber.rs"]
mod subscriber;

/// Held by the tests that measure a process's memory, each of which can use the whole machine.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
