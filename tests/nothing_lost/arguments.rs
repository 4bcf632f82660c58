//! What the command line asks for: seeds, a store, for how long; and what `cargo test` gives to every test binary. Pure.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::fmt;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: cargo test --test nothing_lost -- [OPTIONS] [FILTER]...

  --seed N          run with this seed (may be repeated)
  --seeds A..B      run with the seeds from A up to and with B
  --store STORE     redis or embedded; the seed chooses when it is left out
  --seconds N       for how long things go wrong in each run (15)
  --minutes N       the same in minutes, with a line of figures every 30 s; one seed when none is given
  --keep            keep the logs of the upstream and the gateway also of runs that are well
  --list            list the runs

Without a seed there are three runs, with both stores. A FILTER is a part of a run's name, such as seed_1_redis; --exact,
--skip and what else `cargo test` gives to every test binary is understood as far as it makes sense here.";

const SECONDS: u64 = 15;
/// The first loses everything in Redis; the others have several partitions.
const FIXED: [(u64, Store); 3] = [(1, Store::Redis), (5, Store::Redis), (7, Store::Embedded)];
const SOAKED: [u64; 1] = [1];

/// Where the gateway keeps what must outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Redis,
    Embedded,
}

impl Store {
    fn of(seed: u64) -> Self {
        if seed.is_multiple_of(2) {
            Self::Embedded
        } else {
            Self::Redis
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Embedded => "embedded",
        })
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) store: Store,
    /// For how long things go wrong.
    pub(crate) trouble: Duration,
    /// Whether it tells its figures while it goes on.
    pub(crate) soak: bool,
    /// Whether its logs are kept in any case.
    pub(crate) keep: bool,
}

impl Run {
    /// What filters look at.
    pub(crate) fn name(&self) -> String {
        format!("seed_{}_{}", self.seed, self.store)
    }

    /// What repeats it.
    pub(crate) fn command(&self) -> String {
        let Self { seed, store, .. } = self;
        let seconds = self.trouble.as_secs();
        let length = if self.soak {
            format!("--minutes {}", seconds / 60)
        } else {
            format!("--seconds {seconds}")
        };
        format!("cargo test --test nothing_lost -- --seed {seed} --store {store} {length}")
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    /// Tell what could be run, for people or for a program that runs tests.
    List {
        runs: Vec<Run>,
        terse: bool,
    },
    Run {
        runs: Vec<Run>,
        filtered_out: usize,
    },
}

#[derive(Default)]
struct Given {
    seeds: Vec<u64>,
    store: Option<Store>,
    seconds: Option<u64>,
    minutes: Option<u64>,
    filters: Vec<String>,
    skips: Vec<String>,
    keep: bool,
    exact: bool,
    ignored: bool,
    list: bool,
    terse: bool,
    help: bool,
}

/// Reads the arguments, the program's name left out; the error says what is wrong with them.
pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut given = Given::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value)),
            Some(_) | None => (argument.clone(), None),
        };
        let value = || {
            let value = inline.map(str::to_owned).or_else(|| arguments.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        given.take(&name, value)?;
    }
    given.command()
}

impl Given {
    fn take(
        &mut self,
        name: &str,
        value: impl FnOnce() -> Result<String, String>,
    ) -> Result<(), String> {
        match name {
            "--seed" => self.seeds.push(number(name, &value()?)?),
            "--seeds" => self.seeds.extend(range(&value()?)?),
            "--store" => self.store = Some(store(&value()?)?),
            "--seconds" => self.seconds = Some(number(name, &value()?)?),
            "--minutes" => self.minutes = Some(number(name, &value()?)?),
            "--keep" => self.keep = true,
            "--list" => self.list = true,
            "--help" | "-h" => self.help = true,
            "--exact" => self.exact = true,
            "--ignored" => self.ignored = true,
            "--skip" => self.skips.push(value()?),
            "--format" => self.terse = value()? == "terse",
            // They say how tests are run and shown, of which there is but one way here.
            "--color" | "--logfile" | "--test-threads" | "-Z" => drop(value()?),
            "--nocapture"
            | "--no-capture"
            | "--show-output"
            | "--quiet"
            | "-q"
            | "--include-ignored"
            | "--test"
            | "--force-run-in-process" => {}
            _ if name.starts_with('-') => return Err(format!("{name} is not known")),
            _ => self.filters.push(name.to_owned()),
        }
        Ok(())
    }

    fn command(self) -> Result<Command, String> {
        if self.help {
            return Ok(Command::Help);
        }
        if self.seconds.is_some() && self.minutes.is_some() {
            return Err("give one of --seconds and --minutes".to_owned());
        }
        let soak = self.minutes.is_some();
        let seconds = self.seconds.unwrap_or(SECONDS);
        let seconds = self.minutes.map_or(seconds, |minutes| minutes * 60);
        let chosen: Vec<(u64, Store)> = if self.seeds.is_empty() && !soak {
            let store = |store| self.store.unwrap_or(store);
            FIXED.map(|(seed, usual)| (seed, store(usual))).into()
        } else {
            let seeds = if self.seeds.is_empty() {
                &SOAKED[..]
            } else {
                &self.seeds
            };
            let store = |seed| self.store.unwrap_or_else(|| Store::of(seed));
            seeds.iter().map(|&seed| (seed, store(seed))).collect()
        };
        let all = chosen.len();
        let runs = chosen.into_iter().map(|(seed, store)| Run {
            seed,
            store,
            trouble: Duration::from_secs(seconds),
            soak,
            keep: self.keep,
        });
        let runs: Vec<Run> = runs.filter(|run| self.wants(&run.name())).collect();
        Ok(if self.list {
            let terse = self.terse;
            Command::List { runs, terse }
        } else {
            let filtered_out = all - runs.len();
            Command::Run { runs, filtered_out }
        })
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        // None of the runs is marked as ignored.
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| format!("{name} needs a number, not {text:?}"))
}

fn range(text: &str) -> Result<std::ops::RangeInclusive<u64>, String> {
    let (first, last) = text
        .split_once("..")
        .ok_or_else(|| format!("--seeds needs A..B, not {text:?}"))?;
    Ok(number("--seeds", first)?..=number("--seeds", last.trim_start_matches('='))?)
}

fn store(text: &str) -> Result<Store, String> {
    match text {
        "redis" => Ok(Store::Redis),
        "embedded" => Ok(Store::Embedded),
        _ => Err(format!("--store is redis or embedded, not {text:?}")),
    }
}
