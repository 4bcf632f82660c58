//! What a held session, an event and a login cost, beside what the same costs at the least.
//!
//! ```text
//! cargo bench --bench gateway -- --list             what can be measured
//! cargo bench --bench gateway                       all of it
//! cargo bench --bench gateway -- logins idle        some of it
//! cargo bench --bench gateway -- --quick            one small round of each: it shows that the bench works
//! cargo bench --bench gateway -- --json benches/results/gateway.json --plot benches/results/gateway.svg --table README.md
//!                                                   also keeps the results; with --redraw, nothing is measured
//! ```
//!
//! How to read it:
//!
//! - The gateway, the upstream (`imgate sim`), Redis and clients are processes of their own over loopback. What is measured
//!   has the first core for itself, all others share the rest.
//! - Machines differ, and a machine differs from minute to minute: **the ratios are what counts**. Beside the gateway a
//!   *floor* is measured in turns: a bare program that does the same with nothing that makes a gateway of it. A ratio is of
//!   two rounds that follow each other; shown are the median of all rounds and, in brackets, the least and the greatest.
//! - CPU is the process's own time, user and system; memory is its resident set.
//! - FLOOR: a task and a socket per session, WebSocket handshake and login done, waiting for one byte.
//! - LOGINFLOOR: the same program's logins: a handshake and one request, as many in flight as at the gateway.
//! - PIPE: a program that reads the upstream's frames, parses them, and streams each event by gRPC: no state, no store, no
//!   acknowledgement.
//! - REDISFLOOR: pipelined appends of events of the same size to streams in Redis.
//! - Delays are from the upstream's write until a subscriber's client has decoded the event.
//! - With `--json` the results join those in the file, scenario by scenario; the plot and the table show all in it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot go on fails, and it prints what it has measured"
)]

mod bench;
mod clients;
mod figures;
mod floors;
mod flow;
mod gateway;
mod http;
mod memory;
mod messages;
mod parts;
mod plot;
mod process;
mod redis_server;
mod report;
mod results;
mod row;
mod scenarios;
mod stage;
mod stats;
mod upstream;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::bench::Bench;
use crate::parts::Part;
use crate::results::Results;
use crate::scenarios::Scenario;

/// Floors have the gateway's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the gateway beside its floors.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured; all if none is named.
    #[arg(value_parser = PossibleValuesParser::new(scenarios::ALL.iter().map(|scenario| scenario.name)))]
    scenarios: Vec<String>,
    /// One small round of each, to see that it works. Its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// How many times the gateway and its floor take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Joins the results to those in this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the results as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Puts the results as a table into this Markdown document, between its marks.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Measures nothing: plots and tabulates what is in --json.
    #[arg(long, requires = "json")]
    redraw: bool,
    /// Names the scenarios.
    #[arg(long)]
    list: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "part") {
        parts::run(Part::parse_from(std::env::args().skip(1)));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in scenarios::ALL {
            println!("{:<12} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    let mut results = arguments
        .json
        .as_deref()
        .map(Results::read)
        .unwrap_or_default();
    let mut broken = Vec::new();
    if !arguments.redraw {
        results.machine = results::machine();
        if arguments.quick {
            println!("one small round of each: the figures mean nothing");
        }
        let bench = Bench::new(arguments.quick, arguments.rounds);
        for scenario in chosen(&arguments) {
            println!("\n{}: {}", scenario.name, scenario.about);
            // What is broken is told at the end; the others are measured all the same.
            match catch_unwind(AssertUnwindSafe(|| (scenario.run)(&bench))) {
                Ok(rows) => {
                    for row in &rows {
                        println!("{}", report::line(row));
                    }
                    results.take(scenario.name, rows);
                    keep(&arguments, &results);
                }
                Err(_panic) => broken.push(scenario.name),
            }
        }
    } else {
        keep(&arguments, &results);
    }
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("\nbroken: {}", broken.join(", "));
        ExitCode::FAILURE
    }
}

fn chosen(arguments: &Arguments) -> impl Iterator<Item = &'static Scenario> {
    let named = &arguments.scenarios;
    let all = scenarios::ALL.iter();
    all.filter(move |one| named.is_empty() || named.iter().any(|name| name == one.name))
}

fn keep(arguments: &Arguments, results: &Results) {
    if let Some(file) = &arguments.json {
        results.write(file);
    }
    if let Some(file) = &arguments.plot {
        results::make_folder(file);
        plot::draw(results, file);
    }
    if let Some(file) = &arguments.table {
        let document = std::fs::read_to_string(file).unwrap();
        std::fs::write(file, report::with_table(&document, results)).unwrap();
    }
}
