//! The vendor's packages, which `tests/run.sh` installs.

use std::path::Path;
use std::process::Command;

/// The app that the tests' signatures are for.
pub(crate) const SDK_APP_ID: u64 = 1_400_000_001;

/// Its secret key.
pub(crate) const SECRET_KEY: &str = "local-test-key-0123456789abcdef";

/// A Node process that runs one of the scripts in `tests/vendor_sdk`.
pub(crate) fn node(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor_sdk");
    assert!(
        folder.join("node_modules").is_dir(),
        "the vendor's packages are not installed: run ./tests/run.sh"
    );
    let mut command = Command::new("node");
    command.arg(script).current_dir(folder);
    command
}
