//! Nothing lost, nothing hidden: while the gateway is killed, the network cut and the store stopped, every message that the
//! upstream accepts reaches every subscriber, once or more and in order, or a gap that a real loss justifies stands for it.
//! The gateway, the simulated upstream and Redis are processes of their own; all chance comes from one seed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they measured"
)]

#[path = "nothing_lost/arguments.rs"]
mod arguments;
#[path = "nothing_lost/books.rs"]
mod books;
#[path = "support/control.rs"]
mod control;
#[path = "nothing_lost/figures.rs"]
mod figures;
#[path = "nothing_lost/ledger.rs"]
mod ledger;
#[path = "support/program.rs"]
mod process;
#[path = "support/redis.rs"]
mod redis;
#[path = "nothing_lost/run.rs"]
mod run;
#[path = "nothing_lost/schedule.rs"]
mod schedule;
#[path = "nothing_lost/senders.rs"]
mod senders;
#[path = "nothing_lost/subscribers.rs"]
mod subscribers;
#[path = "nothing_lost/trouble.rs"]
mod trouble;
#[path = "nothing_lost/world.rs"]
mod world;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use arguments::{Command, Run, USAGE};

/// What `cargo test` takes for failed tests.
const FAILED: u8 = 101;

/// How long a run may take beside its troubles.
const HANGS: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match arguments::read(std::env::args().skip(1)) {
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Ok(Command::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Command::List { runs, terse }) => {
            for run in &runs {
                println!("{}: test", run.name());
            }
            if !terse {
                println!("\n{} tests, 0 benchmarks", runs.len());
            }
            ExitCode::SUCCESS
        }
        Ok(Command::Run { runs, filtered_out }) => run_all(&runs, filtered_out),
    }
}

/// Does one run after the other, and tells it as every test binary does.
fn run_all(runs: &[Run], filtered_out: usize) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let began = Instant::now();
    println!("\nrunning {} tests", runs.len());
    let mut failed = Vec::new();
    for run in runs {
        let name = run.name();
        println!("{name}: {}", run.command());
        let running = AssertUnwindSafe(run::run(run)).catch_unwind();
        let end = runtime.block_on(async { timeout(run.trouble + HANGS, running).await });
        let wrong = match end {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(wrong))) => Some(wrong),
            Ok(Err(_)) => Some("a panic; see above".to_owned()),
            Err(_) => Some("it hangs".to_owned()),
        };
        match wrong {
            None => println!("test {name} ... ok"),
            Some(wrong) => {
                println!("{wrong}\n{name} is repeated by: {}", run.command());
                println!("test {name} ... FAILED");
                failed.push(name);
            }
        }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
        runs.len() - failed.len(),
        failed.len(),
        began.elapsed().as_secs_f64(),
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}
