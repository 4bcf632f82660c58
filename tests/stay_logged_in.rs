//! The main job, seen from outside: bots log in once and stay logged in. The gateway and the simulated upstream are
//! processes of their own, Redis is a real one, and what is counted is counted by the upstream.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they measured"
)]

#[path = "support/control.rs"]
mod control;
#[path = "stay_logged_in/messages.rs"]
mod messages;
#[path = "support/program.rs"]
mod process;
#[path = "support/redis.rs"]
mod redis;
#[path = "stay_logged_in/soak.rs"]
mod soak;
#[path = "stay_logged_in/story.rs"]
mod story;
#[path = "stay_logged_in/subscriber.rs"]
mod subscriber;
#[path = "stay_logged_in/trouble.rs"]
mod trouble;
#[path = "stay_logged_in/world.rs"]
mod world;

/// The account that sends to the bots; it is never logged in.
const SENDER: &str = "human";

/// One test at a time: each of them can use the whole machine.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
