//! What all scenarios share: how much is measured, on which cores, and a folder for what processes write.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use tempfile::TempDir;

/// Where a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// What is measured, alone: the gateway, or its floor.
    Measured,
    /// All others: the upstream, Redis, clients.
    Load,
}

/// The bench as it was asked for.
pub(crate) struct Bench {
    /// One small round of each, to see that it works.
    pub(crate) quick: bool,
    rounds: usize,
    cores: usize,
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new(quick: bool, rounds: usize) -> Self {
        Self {
            quick,
            rounds: if quick { 1 } else { rounds },
            cores: available_parallelism().map_or(1, usize::from),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// One of two sizes.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The numbers of the rounds.
    pub(crate) fn rounds(&self) -> RangeInclusive<usize> {
        1..=self.rounds
    }

    /// Runs the floor and then the gateway, round by round.
    pub(crate) fn alternate<F, G>(
        &self,
        mut floor: impl FnMut() -> F,
        mut gateway: impl FnMut() -> G,
    ) -> (Vec<F>, Vec<G>) {
        self.rounds().map(|_| (floor(), gateway())).unzip()
    }

    /// The list of cores for `taskset`; none on a machine of one core.
    pub(crate) fn pinned(&self, core: Core) -> Option<String> {
        match (core, self.cores) {
            (_, 0 | 1) => None,
            (Core::Measured, _) => Some(String::from("0")),
            (Core::Load, cores) => Some(format!("1-{}", cores - 1)),
        }
    }

    /// A file in the bench's own folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The bench's own folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
