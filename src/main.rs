//! The `imgate` binary.

use std::process::ExitCode;

/// Tens of thousands of small sessions leave glibc's heaps full of holes, which it keeps: jemalloc gives pages back.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    imgate::cli::run()
}
