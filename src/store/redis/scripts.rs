//! The scripts that decide on ownership and write under it. Each looks first and then writes.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// All scripts, with their hashes.
pub(super) struct Scripts {
    /// Takes a lease.
    pub(super) claim: Script,
    /// Prolongs a lease.
    pub(super) renew: Script,
    /// Gives a lease back.
    pub(super) release: Script,
    /// Saves records and appends events.
    pub(super) commit: Script,
    /// Drops the oldest entries of the log.
    pub(super) trim: Script,
    /// Moves a subscription forward.
    pub(super) advance: Script,
}

/// A script from its file, after the functions that it may use.
macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("lua/decimal.lua"),
            include_str!($file)
        ))
    };
}

/// The one set of them.
pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    claim: script!("lua/claim.lua"),
    renew: script!("lua/renew.lua"),
    release: script!("lua/release.lua"),
    commit: script!("lua/commit.lua"),
    trim: script!("lua/trim.lua"),
    advance: script!("lua/advance.lua"),
});

/// The command that runs a script the server knows; its arguments are still to be added.
pub(super) fn invocation<const N: usize>(script: &Script, keys: [&str; N]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(N);
    for key in keys {
        command.arg(key);
    }
    command
}
