//! What the steps of an event's way, and of a login's, cost by themselves: no socket, no other process.
//!
//! ```text
//! cargo bench --bench micro                             times, by criterion; give a name or a part of one to run only that
//! cargo bench --bench micro -- --instructions           instructions, compared with instructions.toml; needs valgrind
//! cargo bench --bench micro -- --instructions --bless   instructions, written to instructions.toml
//! ```
//!
//! How to read it:
//!
//! - A *push* is a frame of 634 bytes with one text message, as the upstream sends it; a *flood* is one of 60 KB with a
//!   hundred messages. Nothing in the inputs is random, and the clock stands still.
//! - Times are of this machine at this moment. **Instructions are what a change is judged by**: they are the same on
//!   every machine of the kind, busy or not. They are no times: a large fill or copy counts for each of its bytes.
//! - Both are of the release profile as Cargo.toml has it, with the allocator of the program.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on fails, and it prints what it has measured"
)]

use std::process::ExitCode;

use criterion::Criterion;

mod conversation;
mod frames;
mod inputs;
mod instructions;
mod log;
mod secrets;
mod session;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Something that is done again and again, once per call. Each makes its inputs before.
type Operation = Box<dyn FnMut()>;

/// An operation that is measured.
struct Case {
    name: &'static str,
    prepare: fn() -> Operation,
    /// Whether a library in it chooses its code by the CPU: ciphers, digests, checksums, unpacking.
    by_cpu: bool,
}

impl Case {
    const fn new(name: &'static str, prepare: fn() -> Operation) -> Self {
        Self {
            name,
            prepare,
            by_cpu: false,
        }
    }

    const fn by_cpu(self) -> Self {
        Self {
            by_cpu: true,
            ..self
        }
    }
}

fn cases() -> Vec<Case> {
    [
        frames::cases(),
        conversation::cases(),
        session::cases(),
        secrets::cases(),
        log::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    if let Some(at) = arguments.iter().position(|a| a == instructions::RUN) {
        instructions::run(&cases(), &arguments[at + 1]);
        ExitCode::SUCCESS
    } else if has("--instructions") {
        instructions::compare(&cases(), has("--bless"))
    } else {
        time(&cases());
        ExitCode::SUCCESS
    }
}

fn time(cases: &[Case]) {
    let mut criterion = Criterion::default().configure_from_args();
    for case in cases {
        criterion.bench_function(case.name, |bencher| {
            let mut operation = (case.prepare)();
            bencher.iter(&mut *operation);
        });
    }
    criterion.final_summary();
}
