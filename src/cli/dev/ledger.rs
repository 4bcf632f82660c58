//! What is known of the demo's bots: how each session stands, what was said, and what the programme has caused.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::proto::v1::{ParkReason, Session, SessionState};

/// All bots of the demo. Everybody who waits for something waits for a change of this.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) bots: Vec<Bot>,
    /// What is not as it should be and belongs to no counter.
    pub(super) problems: Vec<String>,
}

/// One bot.
#[derive(Clone, Debug)]
pub(super) struct Bot {
    pub(super) name: String,
    /// The session as the gateway last told.
    pub(super) session: Session,
    /// When the session stopped being online, or when its first login began.
    pub(super) away_since: Option<Instant>,
    /// How often the session has come online.
    pub(super) times_online: u64,
    /// What the bot got from the one who talks to it.
    pub(super) heard: Heard,
    /// How many messages the upstream has taken from it.
    pub(super) sent: u64,
    /// What the programme has caused.
    pub(super) explained: Explained,
    /// Why its last message did not go out, while it does not.
    pub(super) unsent: Option<String>,
}

/// What the programme has caused at the upstream, and so what the upstream is to have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Explained {
    pub(super) logins: u64,
    pub(super) resumes: u64,
    pub(super) kicks: u64,
}

/// The numbered messages that came to a bot.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// The greatest number.
    last: u64,
    /// The numbers below it that have not come.
    skipped: BTreeSet<u64>,
    /// How many came a second time; that is allowed.
    pub(super) repeated: u64,
    /// How many came after a later one for the first time; that is not.
    pub(super) late: u64,
    /// How many were waiting upstream and were fetched.
    pub(super) fetched: u64,
}

impl Heard {
    /// Takes in a number; numbers begin at 1.
    pub(super) fn take(&mut self, number: u64, fetched: bool) {
        if number > self.last {
            self.skipped.extend(self.last + 1..number);
            self.last = number;
        } else if self.skipped.remove(&number) {
            self.late += 1;
        } else {
            self.repeated += 1;
            return;
        }
        self.fetched += u64::from(fetched);
    }

    /// How many different messages came.
    pub(super) fn count(&self) -> u64 {
        self.last - self.skipped.len() as u64
    }
}

impl Bot {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            session: Session::default(),
            away_since: None,
            times_online: 0,
            heard: Heard::default(),
            sent: 0,
            explained: Explained::default(),
            unsent: None,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.session.state() == SessionState::Online
    }

    pub(super) fn is_parked(&self) -> bool {
        self.session.state() == SessionState::Parked
    }

    /// Takes in how the session stands now.
    pub(super) fn stands(&mut self, session: Session, now: Instant) {
        let (was, is) = (self.is_online(), session.state() == SessionState::Online);
        self.session = session;
        if is && !was {
            self.times_online += 1;
        } else if was && !is {
            self.away_since = Some(now);
        }
    }

    /// The state in words.
    pub(super) fn state(&self) -> String {
        let session = &self.session;
        let why = match (session.code, session.desc.as_str()) {
            (0, "") => String::new(),
            (0, desc) => format!(" ({desc})"),
            (code, desc) => format!(" ({code} {desc})"),
        };
        match session.state() {
            SessionState::Unspecified => "never logged in".into(),
            SessionState::LoggedOut => "logged out".into(),
            SessionState::Online => "online".into(),
            SessionState::Connecting if session.attempt > 0 => {
                format!("connecting, attempt {}{why}", session.attempt + 1)
            }
            SessionState::Connecting => format!("connecting{why}"),
            SessionState::BackingOff => format!("lost, waits before it comes back{why}"),
            SessionState::RenewingSignature => format!("gets a fresh signature{why}"),
            SessionState::Parked if session.park_reason() == ParkReason::Kicked => {
                "stopped, until somebody calls Login".into()
            }
            SessionState::Parked => format!("stopped: {}{why}", parked(session.park_reason())),
        }
    }
}

const fn parked(reason: ParkReason) -> &'static str {
    match reason {
        ParkReason::Unspecified => "for no known reason",
        ParkReason::Kicked => "another login took the account",
        ParkReason::Refused => "the upstream refuses it for good",
        ParkReason::Signature => "no signature that the upstream accepts",
        ParkReason::CorruptRecord => "its record cannot be read",
    }
}

impl Ledger {
    pub(super) fn new(bots: usize) -> Self {
        Self {
            bots: (1..=bots)
                .map(|number| Bot::new(format!("bot{number}")))
                .collect(),
            problems: Vec::new(),
        }
    }

    /// The bot of this name.
    pub(super) fn bot(&self, name: &str) -> Option<&Bot> {
        self.bots.iter().find(|bot| bot.name == name)
    }

    /// The bot of this name, to change.
    pub(super) fn bot_mut(&mut self, name: &str) -> Option<&mut Bot> {
        self.bots.iter_mut().find(|bot| bot.name == name)
    }

    /// Who talks to this bot: each talks to the next, and the last to the first.
    pub(super) fn talker_to(&self, name: &str) -> Option<&Bot> {
        let at = self.bots.iter().position(|bot| bot.name == name)?;
        let before = at.checked_sub(1).unwrap_or(self.bots.len() - 1);
        self.bots.get(before)
    }

    /// How many messages to this bot the upstream has taken and the bot has not got.
    pub(super) fn on_the_way(&self, name: &str) -> u64 {
        let sent = self.talker_to(name).map_or(0, |talker| talker.sent);
        let heard = self.bot(name).map_or(0, |bot| bot.heard.count());
        sent.saturating_sub(heard)
    }

    /// Whether every bot is online and has got all that was sent to it.
    pub(super) fn is_settled(&self) -> bool {
        self.bots
            .iter()
            .all(|bot| bot.is_online() && self.on_the_way(&bot.name) == 0)
    }

    /// The sum of something over all bots.
    pub(super) fn sum(&self, of: impl Fn(&Bot) -> u64) -> u64 {
        self.bots.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(numbers: &[u64]) -> Heard {
        let mut heard = Heard::default();
        for number in numbers {
            heard.take(*number, false);
        }
        heard
    }

    #[test]
    fn repeated_late_and_missing_messages_are_told_apart() {
        let good = heard(&[1, 2, 3]);
        assert_eq!((good.count(), good.repeated, good.late), (3, 0, 0));
        let repeated = heard(&[1, 2, 1, 2, 3]);
        assert_eq!(
            (repeated.count(), repeated.repeated, repeated.late),
            (3, 2, 0)
        );
        let missing = heard(&[1, 3]);
        assert_eq!((missing.count(), missing.late), (2, 0));
        let late = heard(&[1, 3, 2]);
        assert_eq!((late.count(), late.late), (3, 1));
    }

    #[test]
    fn each_bot_is_talked_to_by_the_one_before_it() {
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.talker_to("bot1").unwrap().name, "bot2");
        assert_eq!(ledger.talker_to("bot2").unwrap().name, "bot1");
        ledger.bot_mut("bot1").unwrap().sent = 2;
        ledger.bot_mut("bot2").unwrap().heard = heard(&[1]);
        assert_eq!(ledger.on_the_way("bot2"), 1);
        assert_eq!(ledger.on_the_way("bot1"), 0);
        assert_eq!(Ledger::new(1).talker_to("bot1").unwrap().name, "bot1");
    }
}
