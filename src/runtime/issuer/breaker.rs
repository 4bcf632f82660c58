//! When an issuer that fails is left alone. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Failures in a row after which no more calls are made.
pub(super) const FAILURES: u32 = 5;
/// How long none is made, and how long after a probe that failed.
pub(super) const OPEN_FOR: Duration = Duration::from_secs(10);

/// Whether calls are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// All are.
    Closed,
    /// None is.
    Open,
    /// One is, and decides.
    HalfOpen,
}

impl Condition {
    pub(super) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A call that was let through. Its end is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// One of many.
    Ordinary,
    /// The one that decides.
    Probe,
}

/// What a call has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The issuer works.
    Works,
    /// It does not.
    Fails,
    /// Nothing: the caller went away.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// The breaker of one tenant's issuer.
#[derive(Debug)]
pub(super) struct Breaker(State);

impl Breaker {
    pub(super) const fn new() -> Self {
        Self(State::Closed { failures: 0 })
    }

    pub(super) const fn condition(&self) -> Condition {
        match self.0 {
            State::Closed { .. } => Condition::Closed,
            State::Open { .. } => Condition::Open,
            State::Probing => Condition::HalfOpen,
        }
    }

    /// Whether a call would be refused now, and for how long.
    pub(super) fn refuses(&self, now: Instant) -> Option<Duration> {
        match self.0 {
            State::Closed { .. } => None,
            State::Open { until } if until <= now => None,
            State::Open { until } => Some(until - now),
            State::Probing => Some(OPEN_FOR),
        }
    }

    /// Lets a call through, or says for how long it would be refused.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        if let Some(wait) = self.refuses(now) {
            return Err(wait);
        }
        match self.0 {
            State::Closed { .. } => Ok(Pass::Ordinary),
            State::Open { .. } | State::Probing => {
                self.0 = State::Probing;
                Ok(Pass::Probe)
            }
        }
    }

    /// A call that was let through has ended.
    pub(super) fn ended(&mut self, now: Instant, pass: Pass, shown: Shown) {
        match (self.0, pass, shown) {
            (State::Closed { .. }, Pass::Ordinary, Shown::Works)
            | (State::Probing, Pass::Probe, Shown::Works) => {
                self.0 = State::Closed { failures: 0 };
            }
            (State::Closed { failures }, Pass::Ordinary, Shown::Fails) => {
                let failures = failures + 1;
                self.0 = if failures >= FAILURES {
                    open(now)
                } else {
                    State::Closed { failures }
                };
            }
            (State::Probing, Pass::Probe, Shown::Fails) => self.0 = open(now),
            // The next call is the probe.
            (State::Probing, Pass::Probe, Shown::Nothing) => self.0 = State::Open { until: now },
            // What began before the breaker opened tells nothing of now.
            (State::Open { .. } | State::Probing, Pass::Ordinary, _)
            | (State::Closed { .. }, Pass::Ordinary, Shown::Nothing)
            | (State::Closed { .. } | State::Open { .. }, Pass::Probe, _) => {}
        }
    }
}

fn open(now: Instant) -> State {
    State::Open {
        until: now + OPEN_FOR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One step and what comes of it, in the order of the table.
    enum Step {
        /// Seconds pass.
        Wait(u64),
        /// A call comes; this is answered.
        Admit(Result<Pass, u64>),
        /// A call ends.
        Ended(Pass, Shown),
    }

    #[test]
    fn it_opens_probes_and_closes_as_the_tables_say() {
        use Condition::{Closed, HalfOpen, Open};
        use Pass::{Ordinary, Probe};
        use Shown::{Fails, Nothing, Works};
        use Step::{Admit, Ended, Wait};
        let opened = || (0..FAILURES).map(|_| Ended(Ordinary, Fails));
        let probing = || {
            let wait = [Wait(10), Admit(Ok(Probe))];
            opened().chain(wait).collect::<Vec<_>>()
        };
        let with = |mut steps: Vec<Step>, more: Vec<Step>| {
            steps.extend(more);
            steps
        };
        let almost = || (1..FAILURES).map(|_| Ended(Ordinary, Fails)).collect();
        let table: Vec<(&str, Vec<Step>, Condition)> = vec![
            (
                "calls go through",
                vec![Admit(Ok(Ordinary)), Admit(Ok(Ordinary))],
                Closed,
            ),
            ("some failures do no harm", almost(), Closed),
            (
                "a success forgets them",
                with(
                    almost(),
                    vec![
                        Ended(Ordinary, Works),
                        Ended(Ordinary, Fails),
                        Admit(Ok(Ordinary)),
                    ],
                ),
                Closed,
            ),
            (
                "a caller that goes away is no failure",
                with(
                    almost(),
                    vec![Ended(Ordinary, Nothing), Admit(Ok(Ordinary))],
                ),
                Closed,
            ),
            (
                "one more opens it",
                with(almost(), vec![Ended(Ordinary, Fails), Admit(Err(10))]),
                Open,
            ),
            (
                "it stays open",
                with(opened().collect(), vec![Wait(9), Admit(Err(1))]),
                Open,
            ),
            (
                "late answers do not move it",
                with(
                    opened().collect(),
                    vec![
                        Ended(Ordinary, Works),
                        Ended(Ordinary, Fails),
                        Wait(1),
                        Admit(Err(9)),
                    ],
                ),
                Open,
            ),
            (
                "then one call may try",
                with(probing(), vec![Admit(Err(10)), Wait(60), Admit(Err(10))]),
                HalfOpen,
            ),
            (
                "late answers do not end the probe",
                with(
                    probing(),
                    vec![
                        Ended(Ordinary, Works),
                        Ended(Ordinary, Fails),
                        Admit(Err(10)),
                    ],
                ),
                HalfOpen,
            ),
            (
                "a probe that works closes it",
                with(
                    probing(),
                    vec![
                        Ended(Probe, Works),
                        Admit(Ok(Ordinary)),
                        Admit(Ok(Ordinary)),
                    ],
                ),
                Closed,
            ),
            (
                "and the count begins anew",
                with(
                    probing(),
                    vec![
                        Ended(Probe, Works),
                        Ended(Ordinary, Fails),
                        Admit(Ok(Ordinary)),
                    ],
                ),
                Closed,
            ),
            (
                "a probe that fails opens it again",
                with(
                    probing(),
                    vec![
                        Ended(Probe, Fails),
                        Wait(9),
                        Admit(Err(1)),
                        Wait(1),
                        Admit(Ok(Probe)),
                    ],
                ),
                HalfOpen,
            ),
            (
                "a probe that goes away leaves its place",
                with(
                    probing(),
                    vec![Ended(Probe, Nothing), Admit(Ok(Probe)), Admit(Err(10))],
                ),
                HalfOpen,
            ),
        ];
        for (name, steps, condition) in table {
            let mut now = tokio::time::Instant::now().into_std();
            let mut breaker = Breaker::new();
            for step in steps {
                match step {
                    Wait(seconds) => now += Duration::from_secs(seconds),
                    Admit(expected) => {
                        let refused = breaker.refuses(now).map(|wait| wait.as_secs());
                        assert_eq!(refused, expected.err(), "{name}");
                        let admitted = breaker.admit(now).map_err(|wait| wait.as_secs());
                        assert_eq!(admitted, expected, "{name}");
                    }
                    Ended(pass, shown) => breaker.ended(now, pass, shown),
                }
            }
            assert_eq!(breaker.condition(), condition, "{name}");
        }
    }
}
