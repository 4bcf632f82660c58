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

    /// What happens, word by word, and the condition at the end. `call`, `probe` and `no3`: a call is let through, is the
    /// probe, or is refused for three seconds. `works`, `fails` and `leaves`: an ordinary call ends so; with `p` in front,
    /// the probe does. `+9`: nine seconds pass.
    const TABLE: &[(&str, Condition)] = &[
        ("call call", Condition::Closed),
        ("fails fails fails fails call", Condition::Closed),
        (
            "fails fails fails fails works fails call",
            Condition::Closed,
        ),
        ("fails fails fails fails leaves call", Condition::Closed),
        ("fails fails fails fails fails no10", Condition::Open),
        ("OPEN +9 no1", Condition::Open),
        // What began before tells nothing of now.
        ("OPEN works fails leaves +1 no9", Condition::Open),
        ("OPEN +10 probe no10 +60 no10", Condition::HalfOpen),
        ("OPEN +10 probe works fails no10", Condition::HalfOpen),
        ("OPEN +10 probe pworks call call", Condition::Closed),
        ("OPEN +10 probe pworks fails call", Condition::Closed),
        ("OPEN +10 probe pfails +9 no1 +1 probe", Condition::HalfOpen),
        ("OPEN +10 probe pleaves probe no10", Condition::HalfOpen),
    ];

    #[test]
    fn it_opens_probes_and_closes_as_the_table_says() {
        for (words, condition) in TABLE {
            let open = ["fails"; FAILURES as usize].join(" ");
            let mut now = tokio::time::Instant::now().into_std();
            let mut breaker = Breaker::new();
            for word in words.replace("OPEN", &open).split(' ') {
                step(&mut breaker, &mut now, word, words);
            }
            assert_eq!(breaker.condition(), *condition, "{words}");
        }
    }

    fn step(breaker: &mut Breaker, now: &mut Instant, word: &str, words: &str) {
        let seconds = |digits: &str| Duration::from_secs(digits.parse().unwrap());
        let expected = match word {
            "call" => Ok(Pass::Ordinary),
            "probe" => Ok(Pass::Probe),
            _ if word.starts_with('+') => {
                *now += seconds(&word[1..]);
                return;
            }
            _ if word.starts_with("no") => Err(seconds(&word[2..])),
            _ => {
                let (pass, shown) = match word.strip_prefix('p') {
                    Some(shown) => (Pass::Probe, shown),
                    None => (Pass::Ordinary, word),
                };
                let shown = match shown {
                    "works" => Shown::Works,
                    "fails" => Shown::Fails,
                    "leaves" => Shown::Nothing,
                    _ => panic!("{word}"),
                };
                breaker.ended(*now, pass, shown);
                return;
            }
        };
        assert_eq!(breaker.refuses(*now), expected.err(), "{word} of {words}");
        assert_eq!(breaker.admit(*now), expected, "{word} of {words}");
    }
}
