//! Delays in little memory.

#![allow(
    dead_code,
    reason = "several test binaries share this file and each uses a part of it"
)]

use std::fmt;
use std::time::Duration;

/// How finely delays are told apart: each doubling has so many steps.
const STEPS: f64 = 16.0;
/// Enough for an hour.
const BUCKETS: usize = 32 * STEPS as usize;

/// How long messages took, to within 5 %.
#[derive(Clone)]
pub(crate) struct Delays {
    buckets: Vec<u64>,
    count: u64,
    most: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            most: Duration::ZERO,
        }
    }
}

impl Delays {
    pub(crate) fn add(&mut self, delay: Duration) {
        let micros = delay.as_micros().max(1) as f64;
        let bucket = (micros.log2() * STEPS) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.most = self.most.max(delay);
    }

    /// The delay that this share of the messages did not exceed.
    pub(crate) fn at(&self, share: f64) -> Duration {
        let wanted = (share * self.count as f64).ceil() as u64;
        let mut so_far = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            so_far += count;
            if so_far >= wanted.max(1) {
                let micros = ((bucket + 1) as f64 / STEPS).exp2();
                return Duration::from_micros(micros as u64).min(self.most);
            }
        }
        self.most
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most) = (self.at(0.5), self.at(0.99));
        write!(f, "p50 {half:.1?}, p99 {most:.1?}, max {:.1?}", self.most)
    }
}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delays({self})")
    }
}
