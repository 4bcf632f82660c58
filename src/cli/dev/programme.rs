//! The trouble that the demo makes, and how each session is to come through it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::ledger::{Bot, Explained, Ledger};
use super::screen::{Screen, Tone};
use super::stack::SDK_APP_ID;
use crate::connectors::tencent::usersig;
use crate::proto::v1;
use crate::sim::{ControlError, SimHandle};
use crate::types::{Secret, WallClock};

/// How long a session may take to be back.
const BACK: Duration = Duration::from_secs(20);
/// How long the signature lives that ends by itself.
const SHORT_LIFE: Duration = Duration::from_secs(8);
/// How long a connection is silent; long enough for the gateway to give it up first.
const SILENCE: Duration = Duration::from_secs(120);
/// The refusal that passes: the upstream's own word for a fault of its own.
const PASSING_REFUSAL: u32 = 70500;
/// How many messages wait for the bot that was kicked before it is logged in again.
const WAITING: u64 = 2;

/// Who makes the trouble, and sees what comes of it.
#[derive(Debug)]
pub(super) struct Programme {
    pub(super) sim: SimHandle,
    pub(super) client: Client,
    pub(super) ledger: watch::Sender<Ledger>,
    pub(super) screen: Screen,
    /// The upstream app's key, with which a backend makes signatures of its own.
    pub(super) key: Secret<String>,
    /// Nothing new is begun after this.
    pub(super) until: Option<Instant>,
    /// Nor after this.
    pub(super) ending: CancellationToken,
}

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Cut,
    Expired,
    Kicked,
    Refused,
    AllCut,
    SignatureEnds,
    Silent,
}

/// What a session had behind it before the trouble.
#[derive(Clone, Copy, Debug)]
struct Before {
    times_online: u64,
    logins: u64,
    resumes: u64,
    fetched: u64,
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::Cut,
        Self::Expired,
        Self::Kicked,
        Self::Refused,
        Self::AllCut,
        Self::SignatureEnds,
        Self::Silent,
    ];

    /// How long it usually takes at the most.
    const fn needs(self) -> Duration {
        Duration::from_secs(match self {
            Self::Cut | Self::Expired => 3,
            Self::Refused | Self::AllCut => 4,
            Self::Kicked => 5,
            Self::Silent => 11,
            Self::SignatureEnds => 13,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "a connection is cut",
            Self::Expired => "a signature expires online",
            Self::Kicked => "a bot is kicked",
            Self::Refused => "a resume is refused",
            Self::AllCut => "all connections are cut",
            Self::SignatureEnds => "a signature reaches its end",
            Self::Silent => "a connection goes silent",
        }
    }

    /// What is done, and by what requests to the simulator one does the same by hand: path and body.
    fn plan(self, bot: &str) -> (String, Vec<(&'static str, String)>) {
        let user = format!(r#"{{"user_id":"{bot}"}}"#);
        match self {
            Self::Cut => (
                format!("the TCP connection of {bot} is cut"),
                vec![("drop", user)],
            ),
            Self::Expired => (
                format!("the upstream lets the signature of {bot} expire while it is online"),
                vec![("expire", user)],
            ),
            Self::Kicked => (
                format!("{bot} is kicked by a login elsewhere; its backend logs it in again"),
                vec![("kick", user)],
            ),
            Self::Refused => (
                format!("the connection of {bot} is cut and its first return refused"),
                vec![
                    (
                        "refuse",
                        format!(r#"{{"user_id":"{bot}","code":{PASSING_REFUSAL}}}"#),
                    ),
                    ("drop", user),
                ],
            ),
            Self::AllCut => (
                "the connections of all bots are cut at once".into(),
                Vec::new(),
            ),
            Self::SignatureEnds => (
                format!(
                    "{bot} logs out, and in with its own signature, good for {} s",
                    SHORT_LIFE.as_secs()
                ),
                Vec::new(),
            ),
            Self::Silent => (
                format!("the upstream keeps the connection of {bot} open but says nothing more"),
                vec![(
                    "stall",
                    format!(r#"{{"user_id":"{bot}","seconds":{}}}"#, SILENCE.as_secs()),
                )],
            ),
        }
    }
}

impl Programme {
    /// Makes every kind of trouble once, with a rest between them; each round begins with another bot. Says what there
    /// was no time for.
    pub(super) async fn round(&self, round: usize, rest: Duration) {
        let names: Vec<String> = {
            let ledger = self.ledger.borrow();
            ledger.bots.iter().map(|bot| bot.name.clone()).collect()
        };
        let mut left_out = Vec::new();
        let count = Trouble::ALL.len();
        for (at, trouble) in Trouble::ALL.into_iter().enumerate() {
            if self.ending.is_cancelled() {
                return;
            }
            let Some(bot) = names.get((round + at) % names.len().max(1)) else {
                return;
            };
            if !self.has_time_for(trouble.needs()) {
                left_out.push(trouble.name());
                continue;
            }
            let (what, by_hand) = trouble.plan(bot);
            self.screen.text(Tone::Plain, "");
            let title = format!("{} of {count}: {what}", at + 1);
            self.screen.line("trouble", Tone::Title, &title);
            for (path, body) in by_hand {
                let control = self.sim.control_addr();
                let same = format!("curl -d '{body}' http://{control}/{path}");
                self.screen.line("= by hand", Tone::Plain, &same);
            }
            match self.run(trouble, bot, &names).await {
                Ok(good) => self.screen.line("ok", Tone::Good, &good),
                Err(wrong) => {
                    let wrong = format!("{}: {wrong}", trouble.name());
                    self.screen.line("WRONG", Tone::Bad, &wrong);
                    self.ledger
                        .send_modify(|ledger| ledger.problems.push(wrong));
                }
            }
            self.rest(rest).await;
        }
        if !left_out.is_empty() {
            let what = format!("no time is left to show: {}", left_out.join(", "));
            self.screen.text(Tone::Plain, "");
            self.screen.line("left out", Tone::Plain, &what);
        }
    }

    /// Whether a whole round can be begun.
    pub(super) fn has_time_for_all(&self) -> bool {
        let needs = Trouble::ALL.into_iter().map(Trouble::needs);
        self.has_time_for(needs.sum())
    }

    /// Whether something that long can be begun.
    pub(super) fn has_time_for(&self, needs: Duration) -> bool {
        self.until
            .is_none_or(|until| Instant::now() + needs <= until)
    }

    /// Rests, unless everything is to end.
    pub(super) async fn rest(&self, rest: Duration) {
        let end = Instant::now() + rest;
        let end = self.until.map_or(end, |until| until.min(end));
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = self.ending.cancelled() => {}
        }
    }

    async fn run(&self, trouble: Trouble, bot: &str, all: &[String]) -> Result<String, String> {
        let text = |error: ControlError| error.to_string();
        match trouble {
            Trouble::Cut => self.through(bot, 0, 1, || self.cut(bot)).await,
            Trouble::Expired => {
                let expire = || self.sim.expire(bot).map_err(text);
                self.through(bot, 1, 0, expire).await
            }
            Trouble::Kicked => self.kicked(bot).await,
            Trouble::Refused => {
                let refuse_and_cut = || {
                    let refused = self.sim.refuse(Some(bot), PASSING_REFUSAL, 1);
                    refused.map_err(text)?;
                    self.cut(bot)
                };
                self.through(bot, 0, 1, refuse_and_cut).await
            }
            Trouble::AllCut => self.all_cut(all).await,
            Trouble::SignatureEnds => self.signature_ends(bot).await,
            Trouble::Silent => {
                let stall = || self.sim.stall(bot, SILENCE).map_err(text);
                self.through(bot, 0, 1, stall).await
            }
        }
    }

    /// Makes trouble that is to cost so many logins and resumes, and waits until the session is back and has got what
    /// was said meanwhile.
    async fn through(
        &self,
        bot: &str,
        logins: u64,
        resumes: u64,
        make: impl FnOnce() -> Result<(), String>,
    ) -> Result<String, String> {
        let before = self.before(bot)?;
        make()?;
        self.explain(bot, logins, resumes);
        self.back(bot, before, 1).await
    }

    async fn all_cut(&self, all: &[String]) -> Result<String, String> {
        let mut befores = Vec::new();
        for bot in all {
            befores.push(self.before(bot)?);
        }
        for bot in all {
            self.cut(bot)?;
            self.explain(bot, 0, 1);
        }
        for (bot, before) in all.iter().zip(befores) {
            self.back(bot, before, 1).await?;
        }
        Ok("all are back: no login, each by ticket".into())
    }

    /// The one kind that the gateway leaves to the bot's backend: whoever logged in elsewhere may have meant it.
    async fn kicked(&self, bot: &str) -> Result<String, String> {
        let before = self.before(bot)?;
        self.sim.kick(bot, 1).map_err(|error| error.to_string())?;
        self.change(bot, |bot| bot.explained.kicks += 1);
        let parked = |ledger: &Ledger| ledger.bot(bot).is_some_and(Bot::is_parked);
        self.wait("the gateway's word that it was kicked", parked)
            .await?;
        // One that talks to itself has nobody who writes to it meanwhile.
        let alone = self.ledger.borrow().bots.len() == 1;
        let waiting = |ledger: &Ledger| alone || ledger.on_the_way(bot) >= WAITING;
        self.wait("messages for it", waiting).await?;
        let what = if alone {
            "its backend calls Login".to_owned()
        } else {
            format!("{WAITING} messages wait for it upstream; its backend calls Login")
        };
        self.screen.line(bot, Tone::Plain, &what);
        self.explain(bot, 1, 0);
        self.client.log_in(bot, "").await?;
        self.back(bot, before, 1).await
    }

    /// The bot brings a signature that soon ends; from then on the gateway makes them.
    async fn signature_ends(&self, bot: &str) -> Result<String, String> {
        let before = self.before(bot)?;
        self.client.log_out(bot).await?;
        let out = |ledger: &Ledger| !ledger.bot(bot).is_some_and(Bot::is_online);
        self.wait("the logout", out).await?;
        let now = WallClock.now();
        let app = SDK_APP_ID.into();
        let signature = usersig::mint(app, &self.key, bot, now, SHORT_LIFE, None);
        self.explain(bot, 2, 0);
        self.client.log_in(bot, signature.expose()).await?;
        self.back(bot, before, 2).await
    }

    fn cut(&self, bot: &str) -> Result<(), String> {
        match self.sim.drop_connections(Some(bot)) {
            Ok(0) => Err(format!("{bot} has no connection to cut")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until the session has come online so many times more, at the price that was explained, and has got
    /// what had been sent to it by then.
    async fn back(&self, bot: &str, before: Before, returns: u64) -> Result<String, String> {
        let stopped =
            |bot: &Bot| bot.is_parked() && bot.session.park_reason() != v1::ParkReason::Kicked;
        let back = |bot: &Bot| bot.is_online() && bot.times_online >= before.times_online + returns;
        let decided =
            |ledger: &Ledger| ledger.bot(bot).is_some_and(|bot| stopped(bot) || back(bot));
        self.wait("its return", decided).await?;
        let now = self.ledger.borrow().bot(bot).cloned();
        if let Some(now) = now.filter(stopped) {
            return Err(format!("{bot} is {}", now.state()));
        }
        let now = self.before(bot)?;
        let sent = |ledger: &Ledger| ledger.talker_to(bot).map_or(0, |talker| talker.sent);
        let sent = sent(&self.ledger.borrow());
        let caught_up =
            |ledger: &Ledger| ledger.bot(bot).is_some_and(|bot| bot.heard.count() >= sent);
        self.wait("what was said meanwhile", caught_up).await?;
        let fetched = self.before(bot)?.fetched - before.fetched;
        let cost = match (now.logins - before.logins, now.resumes - before.resumes) {
            (0, resumes) => format!("no login, {resumes} by ticket"),
            (logins, 0) => format!("{logins} by signature"),
            (logins, resumes) => format!("{logins} by signature, {resumes} by ticket"),
        };
        let missed = match fetched {
            0 => "nothing was missed".to_owned(),
            1 => "1 message that came meanwhile was fetched".to_owned(),
            some => format!("{some} messages that came meanwhile were fetched"),
        };
        Ok(format!("{bot} is back: {cost}; {missed}"))
    }

    fn before(&self, bot: &str) -> Result<Before, String> {
        let ledger = self.ledger.borrow();
        let bot = ledger.bot(bot).ok_or("no such bot")?;
        Ok(Before {
            times_online: bot.times_online,
            logins: bot.session.logins,
            resumes: bot.session.resumes,
            fetched: bot.heard.fetched,
        })
    }

    fn change(&self, bot: &str, change: impl FnOnce(&mut Bot)) {
        self.ledger
            .send_if_modified(|ledger| ledger.bot_mut(bot).map(change).is_some());
    }

    fn explain(&self, bot: &str, logins: u64, resumes: u64) {
        self.change(bot, |bot| {
            let Explained {
                logins: had_logins,
                resumes: had_resumes,
                kicks: _,
            } = &mut bot.explained;
            *had_logins += logins;
            *had_resumes += resumes;
        });
    }

    /// Waits until something holds.
    pub(super) async fn wait(
        &self,
        what: &str,
        holds: impl FnMut(&Ledger) -> bool,
    ) -> Result<(), String> {
        let mut ledger = self.ledger.subscribe();
        let held = timeout(BACK, ledger.wait_for(holds)).await;
        match held {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(format!("{what} did not come within {} s", BACK.as_secs())),
        }
    }
}
