//! The `imgate` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    imgate::cli::run()
}
