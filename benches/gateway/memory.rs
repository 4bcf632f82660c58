//! Memory that has settled.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Bench;
use crate::process::Process;

/// The allocator gives back what is not used within so long.
const DECAY: Duration = Duration::from_secs(12);
/// After so long memory is taken as it is.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const BEAT: Duration = Duration::from_secs(1);
/// Settled is what changes by no more than this share from look to look, so many times.
const STILL: f64 = 0.002;
const LOOKS: usize = 4;

/// The resident memory in KiB, once it changes no more.
pub(crate) fn settled(bench: &Bench, process: &Process) -> f64 {
    let started = Instant::now();
    let mut last = process.resident_kib();
    let mut still = 0;
    let (decay, limit) = bench.size((DECAY, LIMIT), (BEAT, BEAT));
    while started.elapsed() < limit && (started.elapsed() < decay || still < LOOKS) {
        std::thread::sleep(BEAT);
        let now = process.resident_kib();
        still = if (now - last).abs() <= STILL * last {
            still + 1
        } else {
            0
        };
        last = now;
    }
    last
}
