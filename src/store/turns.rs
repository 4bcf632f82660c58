//! Turns at an app, given out at a steady rate to all who ask: the arithmetic, and the local twin of what Redis does.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::AppId;

/// How far ahead turns are given out. Whoever took one and ends without using it has cost the others no more than that,
/// and no more than the turns of so long a time are promised to anybody.
pub const LOOK_AHEAD: Duration = Duration::from_secs(1);

/// The outcome of [`super::Store::take_turns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// How many are the caller's; 0 when as many are promised as may be.
    pub count: u32,
    /// The first is so long from now; when there is none, it is worth asking again then.
    pub begin_in: Duration,
    /// Each further one is so much later.
    pub interval: Duration,
}

/// The time from one turn to the next, in microseconds; never shorter than the rate has it. 0 a second counts as 1.
pub(super) fn interval(per_second: u32) -> u64 {
    1_000_000_u64.div_ceil(u64::from(per_second.max(1)))
}

/// [`LOOK_AHEAD`] in microseconds.
pub(super) fn look_ahead() -> u64 {
    micros(LOOK_AHEAD)
}

/// Takes at most `most` turns when the next free one is at `next`. Answers them, and the next free one then. All times
/// are in microseconds of one clock. `lua/take_turns.lua` does the same.
fn take(next: u64, now: u64, interval: u64, most: u32) -> (Turns, u64) {
    let horizon = now + look_ahead();
    let turns = |count, begin_in| Turns {
        count,
        begin_in: Duration::from_micros(begin_in),
        interval: Duration::from_micros(interval),
    };
    if next > horizon && next <= horizon + interval {
        return (turns(0, next - horizon), next);
    }
    // Nobody gives out turns so far ahead: the clock went back, or the rate was raised. What is promised is over within
    // the look-ahead all the same.
    let at = next.clamp(now, horizon);
    let room = (horizon - at) / interval + 1;
    let count = most.min(u32::try_from(room).unwrap_or(u32::MAX));
    (turns(count, at - now), at + u64::from(count) * interval)
}

/// The turns of the stores of one process, by its own clock.
#[derive(Debug)]
pub(super) struct LocalTurns {
    began: Instant,
    next: HashMap<AppId, u64>,
}

impl Default for LocalTurns {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            next: HashMap::new(),
        }
    }
}

impl LocalTurns {
    /// [`super::Store::take_turns`].
    pub(super) fn take(&mut self, app: &AppId, per_second: u32, most: u32) -> Turns {
        let next = self.next.entry(app.clone()).or_default();
        let now = micros(self.began.elapsed());
        let (turns, then) = take(*next, now, interval(per_second), most);
        *next = then;
        turns
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const TENTH: u64 = SECOND / 10;

    fn taken(next: u64, now: u64, most: u32) -> (u32, u64, u64) {
        let (turns, next) = take(next, now, TENTH, most);
        assert_eq!(turns.interval, Duration::from_millis(100));
        (turns.count, micros(turns.begin_in), next)
    }

    #[test]
    fn turns_follow_each_other_and_are_not_saved_up() {
        assert_eq!(taken(0, 50 * SECOND, 3), (3, 0, 50 * SECOND + 3 * TENTH));
        let next = 50 * SECOND + 3 * TENTH;
        assert_eq!(
            taken(next, 50 * SECOND, 2),
            (2, 3 * TENTH, next + 2 * TENTH)
        );
        assert_eq!(taken(next, 60 * SECOND, 1), (1, 0, 60 * SECOND + TENTH));
    }

    #[test]
    fn no_more_than_a_seconds_worth_is_promised() {
        let now = 50 * SECOND;
        let (count, begin_in, next) = taken(0, now, 1000);
        assert_eq!((count, begin_in), (11, 0));
        assert_eq!(taken(next, now, 1), (0, TENTH, next));
        // As soon as it is worth asking again there is one.
        assert_eq!(taken(next, now + TENTH, 9), (1, SECOND, next + TENTH));
    }

    #[test]
    fn a_rate_of_one_a_second_gives_out_one_after_the_other() {
        let take = |next, now| {
            let (turns, next) = take(next, now, SECOND, 5);
            (turns.count, micros(turns.begin_in), next)
        };
        assert_eq!(take(0, 10 * SECOND), (2, 0, 12 * SECOND));
        assert_eq!(take(12 * SECOND, 10 * SECOND), (0, SECOND, 12 * SECOND));
        assert_eq!(take(12 * SECOND, 11 * SECOND), (1, SECOND, 13 * SECOND));
    }

    #[test]
    fn a_clock_that_went_back_costs_no_more_than_the_look_ahead() {
        let next = 3600 * SECOND;
        assert_eq!(taken(next, SECOND, 5), (1, SECOND, 2 * SECOND + TENTH));
        // By a little it only delays.
        assert_eq!(taken(5 * SECOND, 4 * SECOND + TENTH, 1).1, 9 * TENTH);
    }

    #[test]
    fn the_interval_never_makes_the_rate_too_high() {
        assert_eq!(interval(0), SECOND);
        assert_eq!(interval(3), 333_334);
        assert_eq!(interval(100_000), 10);
    }
}
