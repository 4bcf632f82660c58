//! How fast connections are accepted.

use std::time::Duration;

use tokio::time::Instant;

/// What may be taken at once after a calm time: as much as in this one.
const BURST: Duration = Duration::from_secs(1);

/// So many in a second, and no more at once.
#[derive(Debug)]
pub(super) struct Rate {
    gap: Duration,
    /// When all that was taken would have been taken at an even pace.
    even: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            gap: BURST / per_second.max(1),
            even: Instant::now(),
        }
    }

    /// Whether the next one has to wait.
    pub(super) fn is_exceeded(&self) -> bool {
        self.even + self.gap > Instant::now() + BURST
    }

    /// Resolves when there may be one more. Dropping it takes nothing.
    pub(super) async fn ready(&self) {
        if self.is_exceeded() {
            tokio::time::sleep_until(self.even + self.gap - BURST).await;
        }
    }

    /// One more.
    pub(super) fn take(&mut self) {
        self.even = self.even.max(Instant::now()) + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(rate: &mut Rate, count: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..count {
            rate.ready().await;
            rate.take();
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_a_second_s_worth_and_the_rest_comes_at_the_rate() {
        let mut rate = Rate::new(10);
        assert_eq!(take(&mut rate, 10).await, Duration::ZERO);
        assert!(rate.is_exceeded());
        assert_eq!(take(&mut rate, 20).await, Duration::from_secs(2));
        // A long calm gives no more than one burst.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(take(&mut rate, 11).await, Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn waits_that_are_given_up_cost_nothing() {
        let mut rate = Rate::new(1);
        take(&mut rate, 1).await;
        for _ in 0..3 {
            let given_up = tokio::time::timeout(BURST / 4, rate.ready()).await;
            assert!(given_up.is_err());
        }
        assert_eq!(take(&mut rate, 1).await, BURST / 4);
    }
}
