//! Spreads calls of this process over time, so that many at once are no storm for whoever is called.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Gives out moments to call at, first come, first served, at a steady rate.
#[derive(Debug)]
pub(super) struct Steady {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Steady {
    /// A rate of so many calls a second; 0 counts as 1.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(None),
        }
    }

    /// Waits for the caller's turn. A caller that gives up has used its turn.
    pub(super) async fn turn(&self) {
        tokio::time::sleep_until(self.reserve(Instant::now())).await;
    }

    fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = next.map_or(now, |next| next.max(now));
        *next = Some(mine + self.interval);
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_and_are_not_saved_up() {
        let steady = Steady::new(10);
        let start = Instant::now();
        for _ in 0..11 {
            steady.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1000);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            steady.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 200);
    }
}
