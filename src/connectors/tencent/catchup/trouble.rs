//! Steps that fail: asked for in smaller parts, given up, and tried again ever more rarely.

use std::time::{Duration, Instant};

use super::{GROUP_PAGE, Step};

/// How often requests of a round may go without an answer. Before, each costs the connection, for a fresh one may do
/// better; from then on each costs its own step.
const MAX_UNANSWERED: u32 = 3;
/// How long a step that has been given up rests at first. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// And at the most.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// What catching up has met of trouble. It outlives connections, or each would begin with the same failure.
#[derive(Debug)]
pub(in crate::connectors::tencent) struct Trouble {
    group_page: u64,
    unanswered: Unanswered,
    c2c: Option<Pause>,
    groups: Option<Pause>,
}

/// Requests without an answer in a row. A group's count until a round has ended: another group's answer would hide them.
#[derive(Debug, Default)]
struct Unanswered {
    c2c: u32,
    groups: u32,
    group: u32,
}

/// The rest of a step that cannot be passed over: one-to-one catch-up moves by a cookie that only its answer tells.
#[derive(Clone, Copy, Debug)]
struct Pause {
    failures: u32,
    until: Instant,
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            group_page: GROUP_PAGE,
            unanswered: Unanswered::default(),
            c2c: None,
            groups: None,
        }
    }
}

impl Trouble {
    /// How many messages of a group are asked for at a time.
    pub(super) const fn group_page(&self) -> u64 {
        self.group_page
    }

    /// So many of a group's messages were too many, or took too long.
    pub(super) fn halve(&mut self, asked: u64) {
        self.group_page = (asked / 2).max(1);
    }

    /// A step was answered.
    pub(super) fn went_well(&mut self, step: &Step) {
        match step {
            Step::C2c { .. } => {
                self.c2c = None;
                self.unanswered.c2c = 0;
            }
            Step::JoinedGroups { .. } => {
                self.groups = None;
                self.unanswered.groups = 0;
            }
            Step::Group { .. } => self.group_page = (self.group_page * 2).min(GROUP_PAGE),
        }
    }

    /// A round has ended.
    pub(in crate::connectors::tencent) fn round_ended(&mut self) {
        self.unanswered = Unanswered::default();
    }

    /// A step got no answer in time. Whether to give it up.
    pub(super) fn unanswered(&mut self, step: &Step) -> bool {
        let count = match step {
            Step::C2c { .. } => &mut self.unanswered.c2c,
            Step::JoinedGroups { .. } => &mut self.unanswered.groups,
            Step::Group { .. } => &mut self.unanswered.group,
        };
        *count = count.saturating_add(1);
        *count >= MAX_UNANSWERED || self.has_failed(step)
    }

    /// A step was given up: where its place cannot be passed over, it rests. `fraction`, in [0, 1), keeps sessions
    /// that failed together from coming back together.
    pub(super) fn pause(&mut self, step: &Step, now: Instant, fraction: f64) {
        let failures = self.of(step).map_or(0, |pause| pause.failures);
        let length = FIRST_PAUSE * 2_u32.saturating_pow(failures.min(10));
        let length = length.min(LONGEST_PAUSE).mul_f64(0.75 + fraction / 4.0);
        let pause = Some(Pause {
            failures: failures.saturating_add(1),
            until: now + length,
        });
        match step {
            Step::C2c { .. } => self.c2c = pause,
            Step::JoinedGroups { .. } => self.groups = pause,
            Step::Group { .. } => {}
        }
    }

    /// Whether a step is not to be asked for yet.
    pub(super) fn is_paused(&self, step: &Step, now: Instant) -> bool {
        self.of(step).is_some_and(|pause| pause.until > now)
    }

    /// Whether one-to-one catch-up rests.
    pub(in crate::connectors::tencent) fn c2c_is_paused(&self, now: Instant) -> bool {
        self.is_paused(&Step::FIRST, now)
    }

    /// Whether a step was given up, and has not been answered since.
    pub(super) const fn has_failed(&self, step: &Step) -> bool {
        self.of(step).is_some()
    }

    /// When something has rested long enough.
    pub(in crate::connectors::tencent) fn next_retry(&self) -> Option<Instant> {
        let pauses = [self.c2c, self.groups];
        pauses.into_iter().flatten().map(|pause| pause.until).min()
    }

    const fn of(&self, step: &Step) -> Option<Pause> {
        match step {
            Step::C2c { .. } => self.c2c,
            Step::JoinedGroups { .. } => self.groups,
            Step::Group { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_and_end_with_an_answer() {
        let (mut trouble, now) = (Trouble::default(), tokio::time::Instant::now().into_std());
        let minutes: Vec<u64> = (0..9)
            .map(|_| {
                trouble.pause(&Step::FIRST, now, 0.999_999);
                let pause = trouble.next_retry().unwrap() - now;
                assert!(trouble.is_paused(&Step::FIRST, now + pause / 2));
                assert!(!trouble.is_paused(&Step::FIRST, now + pause));
                pause.as_secs().div_ceil(60)
            })
            .collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        trouble.pause(&Step::FIRST, now, 0.0);
        assert_eq!(trouble.next_retry().unwrap() - now, LONGEST_PAUSE * 3 / 4);
        trouble.went_well(&Step::FIRST);
        assert_eq!(trouble.next_retry(), None);
    }
}
