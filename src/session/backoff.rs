//! Delay arithmetic: exponential, capped, fully jittered.

use std::time::Duration;

/// How long to wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The upper end of the first delay.
    pub first: Duration,
    /// The upper end of every later delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay before attempt `attempt` (from 1): uniform between a tenth and the whole of
    /// `first * 2^(attempt - 1)`, capped at `max`.
    pub fn delay(&self, attempt: u32, jitter: &mut Jitter) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.max);
        ceiling.mul_f64(0.1 + 0.9 * jitter.fraction())
    }
}

/// A stream of random fractions (SplitMix64), seeded from outside so that a run can be repeated.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Starts a stream.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next fraction, in [0, 1).
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 53 bits are what a double can hold exactly.
        (z >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `whole`, more or less by at most `share` of it.
    pub fn around(&mut self, whole: Duration, share: f64) -> Duration {
        whole.mul_f64(1.0 + share * (2.0 * self.fraction() - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(500),
        max: Duration::from_secs(60),
    };

    #[test]
    fn delays_double_up_to_the_cap_and_stay_within_their_bounds() {
        let mut jitter = Jitter::new(7);
        for (attempt, ceiling) in [
            (0, 500),
            (1, 500),
            (2, 1000),
            (4, 4000),
            (9, 60_000),
            (u32::MAX, 60_000),
        ] {
            for _ in 0..1000 {
                let delay = BACKOFF.delay(attempt, &mut jitter).as_millis();
                assert!(
                    (ceiling / 10..=ceiling).contains(&delay),
                    "{attempt}: {delay}"
                );
            }
        }
    }

    #[test]
    fn jitter_is_spread_and_repeatable() {
        let (mut a, mut b) = (Jitter::new(42), Jitter::new(42));
        let drawn: Vec<f64> = (0..1000).map(|_| a.fraction()).collect();
        assert!(
            drawn
                .iter()
                .all(|f| (0.0..1.0).contains(f) && *f == b.fraction())
        );
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
