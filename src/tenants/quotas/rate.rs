//! A rate: the generic cell rate algorithm, of which all there is to remember is one moment. The crate `governor` has the
//! same, but with a rate that is fixed when it is made; ours changes with the configuration and with the partitions that
//! the replica holds, and is not to forget what was taken.

use std::time::Duration;

use tokio::time::Instant;

use super::Share;

/// What was taken of a rate. Time is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// When all that was taken would have been taken at the even rate.
    even: Option<Instant>,
}

impl Rate {
    /// Takes one of `limit` in each `window`, of which `share` is the caller's. A window's worth may be taken at once, and
    /// one always. Else says how long it takes until one is there.
    pub(super) fn take(
        &mut self,
        now: Instant,
        limit: u32,
        share: Share,
        window: Duration,
    ) -> Result<(), Duration> {
        let interval = interval(limit, share, window);
        let even = self.even.map_or(now, |even| even.max(now)) + interval;
        let ahead = even - now;
        let most = window.max(interval);
        if ahead > most {
            return Err(ahead - most);
        }
        self.even = Some(even);
        Ok(())
    }
}

fn interval(limit: u32, share: Share, window: Duration) -> Duration {
    let whole = window.as_nanos() * u128::from(share.of);
    let nanos = whole / (u128::from(limit.max(1)) * u128::from(share.held));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many of `asked` are taken at one moment.
    fn taken(rate: &mut Rate, now: Instant, limit: u32, share: Share, asked: u32) -> u32 {
        let mut count = 0;
        for _ in 0..asked {
            count += u32::from(rate.take(now, limit, share, SECOND).is_ok());
        }
        count
    }

    #[test]
    fn a_windows_worth_comes_at_once_and_then_the_rate() {
        let (mut rate, mut now) = (Rate::default(), Instant::now());
        assert_eq!(taken(&mut rate, now, 10, Share::WHOLE, 50), 10);
        let wait = rate.take(now, 10, Share::WHOLE, SECOND).unwrap_err();
        assert_eq!(wait, SECOND / 10);
        for _ in 0..30 {
            now += wait;
            assert_eq!(taken(&mut rate, now, 10, Share::WHOLE, 5), 1);
        }
        now += SECOND / 2;
        assert_eq!(taken(&mut rate, now, 10, Share::WHOLE, 50), 5);
        now += SECOND * 100;
        assert_eq!(taken(&mut rate, now, 10, Share::WHOLE, 50), 10);
    }

    #[test]
    fn the_shares_of_all_replicas_sum_up_to_the_limit() {
        let now = Instant::now();
        let all = [1, 2, 5].map(|held| {
            let mut rate = Rate::default();
            taken(&mut rate, now, 80, Share::new(held, 8), 100)
        });
        assert_eq!(all, [10, 20, 50]);
    }

    #[test]
    fn a_share_of_less_than_one_is_one_that_takes_its_time() {
        let (mut rate, now) = (Rate::default(), Instant::now());
        let share = Share::new(1, 8);
        assert_eq!(taken(&mut rate, now, 2, share, 9), 1);
        let wait = rate.take(now, 2, share, SECOND).unwrap_err();
        assert_eq!(wait, SECOND * 4);
    }

    #[test]
    fn another_limit_or_share_does_not_forget_what_was_taken() {
        let (mut rate, now) = (Rate::default(), Instant::now());
        assert_eq!(taken(&mut rate, now, 10, Share::WHOLE, 10), 10);
        assert_eq!(taken(&mut rate, now, 1000, Share::WHOLE, 9), 0);
        assert_eq!(taken(&mut rate, now, 10, Share::new(1, 2), 9), 0);
        let later = now + SECOND / 10;
        assert_eq!(taken(&mut rate, later, 1000, Share::WHOLE, 500), 100);
    }
}
