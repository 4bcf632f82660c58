//! The issuer `callback`: the tenant's own service, called at a bounded pace and left alone while it fails.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tracing::warn;

use super::answer::{Expected, Wrong};
use super::breaker::{Breaker, Pass, Shown};
use super::client::{Client, local_cause};
use super::metrics::{self as names, BreakerGauge};
use super::{Ask, CallbackOptions, IssuerError};
use crate::runtime::metrics::Counted;
use crate::runtime::steady::Steady;
use crate::session::input::RenewalFailure;
use crate::types::{Secret, WallClock};

/// How long the queue for a turn may become, in seconds of the pace. Policy when full: the session is sent away and
/// comes back after as long, at a time of its own.
const QUEUE_SECONDS: u32 = 10;
/// The least distance between two lines about failed calls of one tenant.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A signature.
    Ok,
    /// The service works and does not want to.
    Refused,
    /// No answer within the time.
    TimedOut,
    /// An error, or no way there.
    Failed,
    /// An answer that is of no use.
    Wrong(Wrong),
    /// Not made: the service has failed too often.
    BreakerOpen,
    /// Not made: too many wait.
    QueueFull,
    /// The session went away meanwhile.
    Abandoned,
}

impl Outcome {
    /// All there are.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let plain = [
            Self::Ok,
            Self::Refused,
            Self::TimedOut,
            Self::Failed,
            Self::BreakerOpen,
            Self::QueueFull,
            Self::Abandoned,
        ];
        plain.into_iter().chain(Wrong::ALL.map(Self::Wrong))
    }

    /// The metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Wrong(wrong) => wrong.label(),
            Self::BreakerOpen => "breaker_open",
            Self::QueueFull => "queue_full",
            Self::Abandoned => "abandoned",
        }
    }

    /// In words, for the tenant.
    const fn reason(self) -> &'static str {
        match self {
            Self::Ok | Self::Abandoned => "",
            Self::Refused => "the issuer refuses the account a signature",
            Self::TimedOut => "the issuer does not answer in time",
            Self::Failed => "the issuer fails or cannot be reached",
            Self::Wrong(wrong) => wrong.reason(),
            Self::BreakerOpen => "the issuer has failed repeatedly and is left alone for a moment",
            Self::QueueFull => "too many sessions wait for the issuer",
        }
    }

    fn failure(self, retry_after: Duration) -> RenewalFailure {
        RenewalFailure {
            reason: self.reason(),
            refused: self == Self::Refused,
            retry_after,
        }
    }
}

/// A tenant's own service.
#[derive(Debug)]
pub(super) struct Callback {
    client: Client,
    /// Who may wait or be in flight.
    places: Semaphore,
    /// Who may be in flight.
    turns: Semaphore,
    pacer: Steady,
    breaker: Mutex<Guarded>,
    complaints: Mutex<Complaints>,
}

/// The breaker, and its place in the metric.
#[derive(Debug)]
struct Guarded {
    breaker: Breaker,
    gauge: BreakerGauge,
}

/// How much has been logged lately.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    left_out: u64,
}

impl Callback {
    pub(super) fn new(options: CallbackOptions) -> Result<Self, IssuerError> {
        let concurrency = options.concurrency.max(1);
        let queue = options
            .calls_per_second
            .max(1)
            .saturating_mul(QUEUE_SECONDS);
        let places = concurrency.saturating_add(queue);
        let permits = |number| usize::try_from(number).unwrap_or(Semaphore::MAX_PERMITS);
        let pacer = Steady::new(options.calls_per_second);
        let client = Client::new(options)?;
        let breaker = Breaker::new();
        let gauge = BreakerGauge::new(breaker.condition());
        Ok(Self {
            client,
            places: Semaphore::new(permits(places)),
            turns: Semaphore::new(permits(concurrency)),
            pacer,
            breaker: Mutex::new(Guarded { breaker, gauge }),
            complaints: Mutex::default(),
        })
    }

    /// Asks the service, when it is this session's turn. May be dropped at any time.
    pub(super) async fn issue(
        &self,
        ask: &Ask,
        expected: &Expected,
    ) -> Result<Secret<String>, RenewalFailure> {
        let Ok(_place) = self.places.try_acquire() else {
            let wait = Duration::from_secs(QUEUE_SECONDS.into());
            return Err(self.give_up(Outcome::QueueFull, wait, None));
        };
        let _waiting = Counted::at(gauge!(names::WAITING));
        // Those who would be sent away at their turn need not wait for it.
        if let Some(wait) = self.guarded().breaker.refuses(Instant::now().into_std()) {
            return Err(self.give_up(Outcome::BreakerOpen, wait, None));
        }
        let _turn = self.turns.acquire().await;
        self.pacer.turn().await;
        let mut call = match Call::begin(self) {
            Ok(call) => call,
            Err(wait) => return Err(self.give_up(Outcome::BreakerOpen, wait, None)),
        };
        let answered = self.client.call(ask, expected.sdk_app_id).await;
        histogram!(names::CALL_SECONDS).record(call.began.elapsed());
        let (outcome, status) = match &answered {
            Ok(text) => {
                let account = ask.account.as_str();
                let checked = expected.check(text.expose(), account, WallClock.now());
                (checked.map_or_else(Outcome::Wrong, |()| Outcome::Ok), None)
            }
            Err(status) => (outcome_of(status), Some(status)),
        };
        call.shown = match outcome {
            Outcome::Ok | Outcome::Refused => Shown::Works,
            Outcome::TimedOut | Outcome::Failed | Outcome::Wrong(_) => Shown::Fails,
            Outcome::BreakerOpen | Outcome::QueueFull | Outcome::Abandoned => Shown::Nothing,
        };
        drop(call);
        match answered {
            Ok(text) if outcome == Outcome::Ok => {
                count(outcome);
                Ok(text)
            }
            Ok(_) | Err(_) => {
                let asked = status.and_then(wish).unwrap_or_default();
                Err(self.give_up(outcome, asked, status))
            }
        }
    }

    /// Counts a call that brought nothing, and logs it unless too much is logged already.
    fn give_up(
        &self,
        outcome: Outcome,
        retry_after: Duration,
        status: Option<&Status>,
    ) -> RenewalFailure {
        count(outcome);
        let left_out = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .complain(Instant::now());
        if let Some(left_out) = left_out {
            let code = status.map(Status::code);
            let cause = status.and_then(local_cause);
            warn!(
                outcome = outcome.label(),
                code = code.map(tracing::field::debug),
                cause,
                retry_after = ?retry_after,
                left_out,
                "the tenant's issuer gave no signature"
            );
        }
        outcome.failure(retry_after)
    }

    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Complaints {
    /// Whether there may be a line now, and how many were left out since the last.
    fn complain(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + COMPLAIN_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// A call that the breaker has let through. Its end is told when it is dropped, however that comes.
struct Call<'a> {
    callback: &'a Callback,
    pass: Pass,
    began: Instant,
    shown: Shown,
}

impl<'a> Call<'a> {
    fn begin(callback: &'a Callback) -> Result<Self, Duration> {
        let began = Instant::now();
        let pass = callback.guarded().admit(began)?;
        Ok(Self {
            callback,
            pass,
            began,
            shown: Shown::Nothing,
        })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.shown == Shown::Nothing {
            count(Outcome::Abandoned);
        }
        self.callback.guarded().ended(self.pass, self.shown);
    }
}

impl Guarded {
    fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        let admitted = self.breaker.admit(now.into_std());
        self.gauge.move_to(self.breaker.condition());
        admitted
    }

    fn ended(&mut self, pass: Pass, shown: Shown) {
        let before = self.breaker.condition();
        self.breaker.ended(Instant::now().into_std(), pass, shown);
        let after = self.breaker.condition();
        self.gauge.move_to(after);
        if before != after {
            warn!(
                from = before.label(),
                to = after.label(),
                "the breaker of the tenant's issuer"
            );
        }
    }
}

fn count(outcome: Outcome) {
    counter!(names::CALLS, "issuer" => "callback", "outcome" => outcome.label()).increment(1);
}

/// A service that names a time to come back has not decided against the account.
fn outcome_of(status: &Status) -> Outcome {
    let refusals = [
        Code::NotFound,
        Code::PermissionDenied,
        Code::InvalidArgument,
        Code::FailedPrecondition,
    ];
    if status.code() == Code::DeadlineExceeded {
        Outcome::TimedOut
    } else if refusals.contains(&status.code()) && wish(status).is_none() {
        Outcome::Refused
    } else {
        Outcome::Failed
    }
}

/// When the service wants to be asked again.
fn wish(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}
