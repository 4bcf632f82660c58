//! Instructions per operation, counted by callgrind, and compared with the committed figures.
//!
//! Each case runs in a process of its own with the same environment, and what comes before, to prepare it and to warm it
//! up, is not counted: from run to run the figures differ by less than one in a thousand. Valgrind shows every program the
//! same CPU (if the real one has AVX2), so that even what chooses its code by the CPU can be compared; for these the
//! tolerance is wider all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use crate::Case;

/// Asks this program to run the case whose name follows, for callgrind.
pub(crate) const RUN: &str = "--run";

/// Operations counted, and as many before that warm up: a multiple of the messages after which a session asks for a
/// new reading position.
const TIMES: u32 = 128;
/// What of the allocator goes by the clock is left out: giving memory back, and looking through its caches.
const ALLOCATOR: &str = "dirty_decay_ms:-1,muzzy_decay_ms:-1,experimental_tcache_gc:false";
/// By what part a figure may be more than the committed one.
const TOLERANCE: f64 = 0.05;
const TOLERANCE_BY_CPU: f64 = 0.15;

/// The committed figures.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Figures {
    /// With what they were made. They say nothing about what was made with something else.
    made_with: String,
    /// By the cases' names.
    instructions: BTreeMap<String, u64>,
}

/// Runs one case, within callgrind.
pub(crate) fn run(cases: &[Case], name: &str) {
    let case = cases.iter().find(|case| case.name == name);
    let mut operation = (case.unwrap().prepare)();
    for _ in 0..TIMES {
        operation();
    }
    counted(&mut *operation);
}

/// Callgrind counts what happens in here, by its name.
#[inline(never)]
fn counted(operation: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        operation();
    }
}

/// Counts all cases. Fails if one costs more than it did, or, to be judged at all, has no committed figure; with `bless`
/// the figures are committed instead.
pub(crate) fn compare(cases: &[Case], bless: bool) -> ExitCode {
    let (committed, made_with) = (read(), made_with());
    let comparable = committed.made_with == made_with;
    println!("{:>12} {:>12} {:>8}", "instructions", "committed", "change");
    let mut figures = BTreeMap::new();
    let mut dearer = 0;
    for case in cases {
        let now = count(case);
        let before = committed.instructions.get(case.name).copied();
        let verdict = verdict(case, now, before);
        println!(
            "{now:>12} {:>12} {:>8} {} {}",
            before.map_or_else(|| "none".into(), |before| before.to_string()),
            before.map_or_else(String::new, |before| percent(now, before)),
            case.name,
            verdict.text(),
        );
        dearer += usize::from(verdict == Verdict::More || verdict == Verdict::Unknown);
        figures.insert(case.name.to_owned(), now);
    }
    let gone = committed.instructions.keys();
    let gone = gone.filter(|name| !figures.contains_key(*name)).count();
    if bless {
        write(&Figures {
            made_with,
            instructions: figures,
        });
        println!("written to {}", path().display());
        ExitCode::SUCCESS
    } else if !comparable {
        println!(
            "NOT COMPARED: the committed figures are of {}, and this is {made_with}. \
             If this is what they are to be of from now on: cargo bench --bench micro -- --instructions --bless",
            committed.made_with
        );
        ExitCode::SUCCESS
    } else if dearer + gone > 0 {
        println!(
            "FAILED: {dearer} cost more than the committed figures allow or have none, and {gone} figures are of nothing \
             that there is. If that is as it should be, take the figures anew and commit them, with the reason: \
             cargo bench --bench micro -- --instructions --bless (without CARGO_PROFILE_* in the environment)"
        );
        ExitCode::FAILURE
    } else {
        println!("no operation costs more than the committed figures allow");
        ExitCode::SUCCESS
    }
}

/// What a figure is against the committed one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Less,
    More,
    Unknown,
}

impl Verdict {
    const fn text(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Less => "(less: bless it, or it may creep back)",
            Self::More => "(MORE than the tolerance)",
            Self::Unknown => "(NEW)",
        }
    }
}

fn verdict(case: &Case, now: u64, before: Option<u64>) -> Verdict {
    let Some(before) = before else {
        return Verdict::Unknown;
    };
    let tolerance = if case.by_cpu {
        TOLERANCE_BY_CPU
    } else {
        TOLERANCE
    };
    let change = now as f64 / before as f64 - 1.0;
    if change > tolerance {
        Verdict::More
    } else if change < -tolerance {
        Verdict::Less
    } else {
        Verdict::Same
    }
}

fn percent(now: u64, before: u64) -> String {
    format!("{:+.1} %", (now as f64 / before as f64 - 1.0) * 100.0)
}

/// Instructions per operation.
fn count(case: &Case) -> u64 {
    let counts = tempfile::NamedTempFile::new().unwrap();
    let this = std::env::current_exe().unwrap();
    let output = Command::new("valgrind")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("_RJEM_MALLOC_CONF", ALLOCATOR)
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg("--toggle-collect=*instructions::counted*")
        .arg(format!("--callgrind-out-file={}", counts.path().display()))
        .arg(this)
        .args([RUN, case.name])
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("valgrind does not start: {error}; ./tests/run.sh --install takes it from apt")
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", case.name);
    let counts = std::fs::read_to_string(counts.path()).unwrap();
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|total| total.trim().parse::<u64>().ok())
        .unwrap_or_default();
    assert!(total > 0, "{}: nothing was counted: {complaint}", case.name);
    total / u64::from(TIMES)
}

/// What decides about the figures, beside the code.
fn made_with() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout);
    format!("{} on {}", version.trim(), std::env::consts::ARCH)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/micro/instructions.toml")
}

fn read() -> Figures {
    std::fs::read_to_string(path()).map_or_else(
        |_| Figures::default(),
        |text| toml::from_str(&text).unwrap(),
    )
}

fn write(figures: &Figures) {
    let head = "# Instructions per operation of the micro-benchmarks. Written by\n\
                # cargo bench --bench micro -- --instructions --bless\n\n";
    let figures = toml::to_string(figures).unwrap();
    std::fs::write(path(), format!("{head}{figures}")).unwrap();
}
