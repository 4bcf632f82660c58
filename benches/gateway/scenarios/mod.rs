//! What can be measured. Each scenario runs its rounds and answers rows.

mod logins;

use crate::bench::Bench;
use crate::row::Row;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Bench) -> Vec<Row>,
}

/// All of them, in the order in which they run and are told.
pub(crate) const ALL: &[Scenario] = &[Scenario {
    name: "logins",
    about: "logins per second and the CPU of each, stored in Redis, against LOGINFLOOR",
    run: logins::run,
}];
