//! The scripts that decide on ownership and write under it. Each looks first and then writes.

use std::sync::LazyLock;

use redis::{Cmd, Script};

use super::keys::Part;
use crate::types::PartitionId;

/// All scripts, with their hashes.
pub(super) struct Scripts {
    /// Takes a lease.
    pub(super) claim: Script,
    /// Prolongs a lease.
    pub(super) renew: Script,
    /// Gives a lease back.
    pub(super) release: Script,
    /// Saves records and sends, and appends events.
    pub(super) commit: Script,
    /// Reads entries, and the bounds at the same moment.
    pub(super) read: Script,
    /// Drops the oldest entries of the log.
    pub(super) trim: Script,
    /// Moves a subscription forward and notes that it was used.
    pub(super) advance: Script,
    /// Forgets a subscription.
    pub(super) remove: Script,
    /// Notes a tenant.
    pub(super) enrol: Script,
    /// Removes what a partition has.
    pub(super) purge: Script,
    /// Enters and removes members of a shared subscription, and lists them.
    pub(super) attend: Script,
    /// Takes a partition of a shared subscription.
    pub(super) claim_share: Script,
    /// Gives a partition of a shared subscription back.
    pub(super) release_share: Script,
    /// Gives out turns at an app.
    pub(super) take_turns: Script,
    /// Notes who was active on a day.
    pub(super) note_active: Script,
}

/// A script from its file, after the functions that it may use.
macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("lua/prelude.lua"),
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
    read: script!("lua/read.lua"),
    trim: script!("lua/trim.lua"),
    advance: script!("lua/advance.lua"),
    remove: script!("lua/remove.lua"),
    enrol: script!("lua/enrol.lua"),
    purge: script!("lua/purge.lua"),
    attend: script!("lua/attend.lua"),
    claim_share: script!("lua/claim_share.lua"),
    release_share: script!("lua/release_share.lua"),
    take_turns: script!("lua/take_turns.lua"),
    note_active: script!("lua/note_active.lua"),
});

/// The command that runs a script the server knows, on parts of a partition; its arguments are still to be added.
pub(super) fn invocation<const N: usize>(
    script: &Script,
    partition: &PartitionId,
    parts: [Part; N],
) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(N);
    for part in parts {
        command.arg(part.of(partition));
    }
    command
}

/// The same on one key that is no partition's.
pub(super) fn invocation_on(script: &Script, key: &str) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(1).arg(key);
    command
}
