//! The demo's backend: what a user's own would do, through the same API over a real connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::ledger::{Bot, Ledger};
use super::screen::{Screen, Tone};
use crate::proto::v1;
use crate::proto::v1::event::Kind;
use crate::proto::v1::event_service_client::EventServiceClient;
use crate::proto::v1::message_service_client::MessageServiceClient;
use crate::proto::v1::session_service_client::SessionServiceClient;
use crate::runtime::supervisor::Tasks;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How long to wait before a call that has failed is made again, if nothing changes before.
const AGAIN: Duration = Duration::from_millis(500);
/// How often each bot says something.
const TALK: Duration = Duration::from_secs(1);

/// A connection to the gateway, and where what comes back is noted.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
    ledger: watch::Sender<Ledger>,
    screen: Screen,
    /// Part of the messages' IDs: a store that is kept remembers those of an earlier run.
    run: u32,
}

impl Client {
    pub(super) fn new(
        gateway: SocketAddr,
        ledger: watch::Sender<Ledger>,
        screen: Screen,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{gateway}"))?;
        Ok(Self {
            channel: endpoint.connect_timeout(CALL).connect_lazy(),
            ledger,
            screen,
            run: rand::random(),
        })
    }

    /// Has the gateway keep an account logged in. The answer is why it is not, if it is not.
    pub(super) async fn log_in(&self, account: &str, signature: &str) -> Result<(), String> {
        let login = v1::LoginRequest {
            account: account.to_owned(),
            signature: signature.to_owned(),
        };
        let mut sessions = SessionServiceClient::new(self.channel.clone());
        let login = sessions.login(within(CALL, login)).await;
        let login = login.map_err(|status| said(&status))?.into_inner();
        if login.code != 0 {
            return Err(format!("refused: {} {}", login.code, login.desc));
        }
        Ok(())
    }

    /// Notes how a session stands that has not been heard of: it may be there from an earlier run.
    pub(super) async fn look(&self, account: &str) {
        let get = v1::GetSessionRequest {
            account: account.to_owned(),
        };
        let mut sessions = SessionServiceClient::new(self.channel.clone());
        let session = sessions.get_session(within(CALL, get)).await;
        if let Some(session) = session.ok().and_then(|found| found.into_inner().session) {
            self.change(account, |bot| {
                if bot.session.state() == v1::SessionState::Unspecified {
                    bot.stands(session, Instant::now());
                }
            });
        }
    }

    /// Has the gateway log an account out.
    pub(super) async fn log_out(&self, account: &str) -> Result<(), String> {
        let logout = v1::LogoutRequest {
            account: account.to_owned(),
        };
        let mut sessions = SessionServiceClient::new(self.channel.clone());
        let done = sessions.logout(within(CALL, logout)).await;
        done.map(drop).map_err(|status| said(&status))
    }

    fn change(&self, account: &str, change: impl FnOnce(&mut Bot)) {
        self.ledger.send_if_modified(|ledger| {
            let bot = ledger.bot_mut(account);
            bot.map(change).is_some()
        });
    }

    fn problem(&self, problem: String) {
        self.screen.line("", Tone::Bad, &problem);
        self.ledger
            .send_modify(|ledger| ledger.problems.push(problem));
    }

    /// Follows the events of all bots until `stop` stops; `begun` fires when nothing more can be missed.
    pub(super) async fn follow(self, stop: Tasks, begun: CancellationToken) {
        let mut cursor = None;
        loop {
            let following = self.follow_once(&mut cursor, &begun);
            let status = tokio::select! {
                followed = following => followed.err(),
                () = stop.stopping() => return,
            };
            let why = status.map_or_else(|| "its end".to_owned(), |status| said(&status));
            let what = format!("the event stream broke off: {why}; it goes on from its cursor");
            self.screen.line("", Tone::Away, &what);
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.stopping() => return,
            }
        }
    }

    async fn follow_once(
        &self,
        cursor: &mut Option<String>,
        begun: &CancellationToken,
    ) -> Result<(), Status> {
        use v1::subscribe_request::Start;
        let latest = Start::At(v1::StartAt::Latest.into());
        let names = |ledger: &Ledger| ledger.bots.iter().map(|bot| bot.name.clone()).collect();
        let accounts = names(&self.ledger.borrow());
        let subscribe = v1::SubscribeRequest {
            start: Some(cursor.clone().map_or(latest, Start::Cursor)),
            accounts,
            ..Default::default()
        };
        let mut events = EventServiceClient::new(self.channel.clone());
        let mut batches = events.subscribe(subscribe).await?.into_inner();
        while let Some(batch) = batches.message().await? {
            begun.cancel();
            for event in batch.events {
                self.happened(&event.account, event.kind);
            }
            // What was not dealt with comes again.
            *cursor = Some(batch.cursor);
        }
        Ok(())
    }

    fn happened(&self, account: &str, kind: Option<Kind>) {
        match kind {
            Some(Kind::Message(message)) => self.message(account, &message),
            Some(Kind::SessionChanged(changed)) => {
                self.session(account, changed.session.unwrap_or_default());
            }
            Some(Kind::KickedOffline(kicked)) => {
                let what = format!(
                    "kicked: {}; the gateway does not fight back",
                    or(&kicked.desc, "by another login")
                );
                self.screen.line(account, Tone::Away, &what);
            }
            Some(Kind::SignatureExpired(expired)) => {
                let what = format!(
                    "a signature is asked for: {} {}",
                    expired.code, expired.desc
                );
                self.screen.line(account, Tone::Away, &what);
            }
            Some(Kind::Gap(gap)) => self.problem(format!("events are missing: {gap:?}")),
            Some(Kind::UpstreamNotice(_)) | None => {}
        }
    }

    fn session(&self, account: &str, session: v1::Session) {
        let now = Instant::now();
        let known = self.ledger.borrow().bot(account).cloned();
        if let Some(mut bot) = known {
            let before = std::mem::take(&mut bot.session);
            bot.session = session.clone();
            let (tone, what) = changed(&bot, &before, now);
            // Shown first: whoever waits for this change shows what comes of it.
            self.screen.line(account, tone, &what);
        }
        self.change(account, |bot| bot.stands(session, now));
    }

    fn message(&self, account: &str, message: &v1::Message) {
        // Others may talk to the bots too; only what the demo has numbered is counted.
        let talks = |ledger: &Ledger| Some(ledger.talker_to(account)?.name == message.from);
        let talks = talks(&self.ledger.borrow()) == Some(true);
        let number = message.cloud_custom_data.strip_prefix(NUMBERED);
        let number = number.and_then(|number| number.parse().ok());
        if let (Some(number), true) = (number, talks) {
            let fetched = message.backfilled;
            self.change(account, |bot| bot.heard.take(number, fetched));
        }
    }

    /// Talks to the next bot every second until `stop` asks it to end; then what is under way goes out first.
    pub(super) async fn talk(self, account: String, to: String, first: Duration, stop: Stop) {
        let mut due = Instant::now() + first;
        let mut number = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = stop.asked.cancelled() => return,
            }
            due = Instant::now() + TALK;
            number += 1;
            tokio::select! {
                () = self.send(&account, &to, number) => {}
                () = stop.at_once.cancelled() => return,
            }
        }
    }

    /// Sends a message until the upstream has taken it. The same ID each time, so that it is sent once.
    async fn send(&self, account: &str, to: &str, number: u64) {
        let text = v1::TextElement {
            text: format!("hello {to}, this is message {number} from {account}"),
        };
        let send = v1::SendRequest {
            account: account.to_owned(),
            conversation: Some(v1::send_request::Conversation::To(to.to_owned())),
            elements: vec![v1::Element {
                kind: Some(v1::element::Kind::Text(text)),
            }],
            client_message_id: format!("dev-{:08x}-{number}", self.run),
            cloud_custom_data: format!("{NUMBERED}{number}"),
            online_only: false,
        };
        let mut messages = MessageServiceClient::new(self.channel.clone());
        loop {
            let sent = messages.send(within(CALL, send.clone())).await;
            let why = match sent.map(tonic::Response::into_inner) {
                Ok(sent) if sent.code == 0 => {
                    self.change(account, |bot| {
                        bot.sent += 1;
                        bot.unsent = None;
                    });
                    return;
                }
                Ok(refused) => format!("{} {}", refused.code, refused.desc),
                Err(status) => said(&status),
            };
            self.change(account, |bot| {
                bot.unsent = Some(format!("message {number}: {why}"));
            });
            self.wait_before_again(account).await;
        }
    }

    /// Waits until the session is online again; if it is online, a moment.
    async fn wait_before_again(&self, account: &str) {
        let online = |ledger: &Ledger| ledger.bot(account).is_some_and(Bot::is_online);
        if online(&self.ledger.borrow()) {
            tokio::time::sleep(AGAIN).await;
            return;
        }
        let mut ledger = self.ledger.subscribe();
        // It cannot end before: the sender of the changes is in `self`.
        drop(ledger.wait_for(online).await);
    }
}

/// What marks a message of the demo in its custom data; its number follows.
const NUMBERED: &str = "imgate-dev:";

/// How the talk ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Nothing new is said.
    pub(super) asked: CancellationToken,
    /// Nor is what is under way waited for.
    pub(super) at_once: CancellationToken,
}

/// How a change of a session reads, and how it is meant.
fn changed(bot: &Bot, before: &v1::Session, now: Instant) -> (Tone, String) {
    if !bot.is_online() {
        return (Tone::Away, bot.state());
    }
    let after = bot
        .away_since
        .map_or(Duration::ZERO, |away| now.duration_since(away));
    let how = if bot.session.logins > before.logins {
        format!("by signature (its login {})", bot.session.logins)
    } else {
        format!("by ticket (its resume {}), no login", bot.session.resumes)
    };
    (
        Tone::Good,
        format!("online after {:.2} s {how}", after.as_secs_f64()),
    )
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn said(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
