//! How long things take: counted by a part, and told when the bench asks for it.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{orders, report};

/// The longest delay that is told apart, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;

/// What has been counted since the last `begin`. Delays are in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) longest: f64,
}

pub(super) struct Delays {
    began: Instant,
    nanos: Histogram<u64>,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            nanos: Histogram::new_with_bounds(1000, LONGEST, 3).unwrap(),
        }
    }

    pub(super) fn enter(&mut self, delay: Duration) {
        self.nanos.saturating_record(delay.as_nanos() as u64);
    }

    fn told(&self) -> Told {
        let at = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1e6;
        Told {
            count: self.nanos.len(),
            seconds: self.began.elapsed().as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            longest: at(1.0),
        }
    }
}

/// Counts anew with each line `begin` on the standard input, and tells with each line `tell`, until the input ends.
pub(super) async fn tell(delays: &Mutex<Delays>) {
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        let mut delays = delays.lock().unwrap();
        match order.as_str() {
            "begin" => *delays = Delays::new(),
            _ => report(&delays.told()),
        }
    }
}
