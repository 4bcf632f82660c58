//! The results of runs, as a file of JSON that a later run of other scenarios adds to.

use std::path::Path;

use procfs::{CpuInfo, Current as _};
use serde::{Deserialize, Serialize};

use crate::row::Row;
use crate::scenarios;

/// What has been measured, and on what.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Such as `2 cores, AMD EPYC, Linux 6.18`.
    pub(crate) machine: String,
    pub(crate) rows: Vec<Row>,
}

impl Results {
    /// Those in the file; none if it is not there.
    pub(crate) fn read(file: &Path) -> Self {
        match std::fs::read(file) {
            Ok(json) => serde_json::from_slice(&json).unwrap(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }

    pub(crate) fn write(&self, file: &Path) {
        make_folder(file);
        std::fs::write(file, serde_json::to_string_pretty(self).unwrap()).unwrap();
    }

    /// Takes a scenario's rows in place of those of an earlier run.
    pub(crate) fn take(&mut self, scenario: &str, rows: Vec<Row>) {
        self.rows.retain(|row| row.scenario != scenario);
        self.rows.extend(rows);
        let place = |row: &Row| {
            scenarios::ALL
                .iter()
                .position(|one| one.name == row.scenario)
        };
        self.rows.sort_by_key(place);
    }
}

/// Makes the folder of a file.
pub(crate) fn make_folder(file: &Path) {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).unwrap();
    }
}

/// What the bench runs on.
pub(crate) fn machine() -> String {
    let cpus = CpuInfo::current().ok();
    let model = cpus
        .as_ref()
        .and_then(|cpus| cpus.model_name(0))
        .unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", release.trim())
}
