//! `imgate dev`: the whole of it in one process, with bots that go through every kind of trouble.

mod client;
mod intro;
mod ledger;
mod programme;
mod screen;
mod stack;
mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::client::{Client, Stop};
use self::ledger::{Bot, Ledger};
use self::programme::Programme;
use self::screen::{Screen, Tone};
use self::stack::{Stack, loopback};
use super::{CliError, runtime, stop_signal};
use crate::config::{Log, LogFormat};
use crate::observability::logging;
use crate::runtime::supervisor::{TaskKind, Tasks};

/// How long the parts may take to be ready, and the bots to be there.
const START: Duration = Duration::from_secs(15);
/// How long the last messages may take at the end.
const SETTLE: Duration = Duration::from_secs(5);
/// What of the time given is kept for the end.
const END: Duration = Duration::from_secs(1);
/// How often the count of messages is shown between rounds.
const COUNTED: Duration = Duration::from_secs(10);
/// Up to how many bots are counted one by one.
const COUNTED_ONE_BY_ONE: usize = 6;
/// How many counts are shown before the next round.
const COUNTS: usize = 3;

/// The arguments of `imgate dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// How many demo bots chat and have trouble; 0 for none.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(0..=100))]
    bots: u16,
    /// Where the gateway listens. Default: 127.0.0.1:50051, or a free port if that is taken.
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    grpc: Option<SocketAddr>,
    /// Where /metrics, /live and /ready are. Default: 127.0.0.1:9090, or a free port if that is taken.
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    ops: Option<SocketAddr>,
    /// Where the simulated upstream listens; port 0 is a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = loopback)]
    sim: SocketAddr,
    /// Where the simulator's control port is; port 0 is a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = loopback)]
    sim_control: SocketAddr,
    /// End after about this many seconds, at least 10. Default: at Ctrl-C.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    seconds: Option<u32>,
    /// Keep the store, and the simulator's secret key, in this folder. Default: a new folder that goes at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What the gateway logs to standard error: a level, or directives such as "warn,imgate::runtime=info".
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Runs the demo until its time is over, or until SIGINT or SIGTERM.
pub(super) fn run(args: &DevArgs) -> Result<(), CliError> {
    logging::install(&Log {
        format: LogFormat::Text,
        level: args.log.clone(),
    })?;
    runtime()?.block_on(dev(args))
}

async fn dev(args: &DevArgs) -> Result<(), CliError> {
    let screen = Screen::new();
    let stack = Stack::start(args).await?;
    let ending = CancellationToken::new();
    let signals = async {
        tokio::select! {
            stopped = stop_signal() => stopped?,
            () = screen.gone() => {}
        }
        ending.cancel();
        screen.line("", Tone::Title, "ending; Ctrl-C once more ends at once");
        stop_signal().await
    };
    let wrong = tokio::select! {
        wrong = Box::pin(demo(args, &stack, &screen, &ending)) => wrong?,
        signalled = signals => {
            signalled?;
            return Err(CliError::Failed("stopped at once, without a verdict"));
        }
        () = stack.app.failed() => vec!["a part of the gateway has ended; see the log".to_owned()],
        () = stack.sim.stopping() => vec!["the simulator has stopped; see the log".to_owned()],
    };
    let in_time = tokio::select! {
        in_time = stack.stop() => in_time,
        _again = stop_signal() => false,
    };
    say_verdict(&screen, wrong, in_time)
}

fn say_verdict(screen: &Screen, mut wrong: Vec<String>, in_time: bool) -> Result<(), CliError> {
    if !in_time {
        wrong.push("the gateway did not stop in time".to_owned());
    }
    screen.text(Tone::Plain, "");
    if wrong.is_empty() {
        let good = "verdict: all was as it should be, and the gateway stopped in time";
        screen.text(Tone::Good, good);
        return Ok(());
    }
    screen.text(Tone::Bad, "verdict: NOT as it should be");
    for problem in wrong {
        screen.text(Tone::Bad, &format!("  - {problem}"));
    }
    Err(CliError::Failed(
        "not all was as it should be; see the verdict",
    ))
}

/// Shows the demo. The answer is what went wrong.
async fn demo(
    args: &DevArgs,
    stack: &Stack,
    screen: &Screen,
    ending: &CancellationToken,
) -> Result<Vec<String>, CliError> {
    if timeout(START, stack.app.ready()).await.is_err() {
        return Err(CliError::Failed("the gateway is not ready; see the log"));
    }
    intro::show(screen, stack, args);
    let seconds = args
        .seconds
        .map(|seconds| Duration::from_secs(seconds.into()));
    let until = seconds.map(|seconds| screen.started() + seconds - END);
    let (ledger, _) = watch::channel(Ledger::new(args.bots.into()));
    let client = Client::new(stack.app.grpc_address(), ledger.clone(), screen.clone());
    let client = client.map_err(|_| CliError::Failed("the gateway's address is none"))?;
    let programme = Programme {
        sim: stack.sim.clone(),
        client: client.clone(),
        ledger: ledger.clone(),
        screen: screen.clone(),
        key: stack.key.clone(),
        until,
        ending: ending.clone(),
    };
    if args.bots == 0 {
        screen.text(
            Tone::Plain,
            "No demo bots were asked for. Ctrl-C ends this.",
        );
        let for_ever = Duration::from_secs(u64::from(u32::MAX));
        programme.rest(for_ever).await;
        return Ok(Vec::new());
    }
    let (followers, talkers, stop) = (Tasks::new(), Tasks::new(), Stop::default());
    follow(&client, &followers).await?;
    let mut wrong = log_in_all(&client, &ledger).await;
    if wrong.is_empty() {
        let names = names(&ledger);
        for (at, bot) in names.iter().enumerate() {
            let to = names.get((at + 1) % names.len()).unwrap_or(bot);
            // They do not all talk in the same moment.
            let first = Duration::from_millis(300) * (u32::try_from(at).unwrap_or(0) % 3 + 1);
            let talk = client
                .clone()
                .talk(bot.clone(), to.clone(), first, stop.clone());
            talkers.spawn("dev_talk", TaskKind::Work, talk);
        }
        rounds(&programme, args.seconds.is_some()).await;
        settle(&programme, &talkers, &stop).await;
    }
    let (ledger, upstream) = (ledger.borrow().clone(), stack.sim.stats());
    screen.text(Tone::Plain, "");
    for line in verdict::table(&ledger, &upstream) {
        screen.text(Tone::Plain, &line);
    }
    screen.text(
        Tone::Plain,
        "
  logins, resumes, kicks   as the upstream counted them / as the programme explains them
  sent                     to the next bot in this table; the last one talks to the first
  received                 different messages from the bot before, of which so many were fetched after an absence,
                           and so many came once more",
    );
    wrong.extend(verdict::judge(&ledger, &upstream));
    followers.stop();
    followers.ended().await;
    Ok(wrong)
}

fn names(ledger: &watch::Sender<Ledger>) -> Vec<String> {
    let ledger = ledger.borrow();
    ledger.bots.iter().map(|bot| bot.name.clone()).collect()
}

/// Subscribes, as a backend does before it logs its accounts in.
async fn follow(client: &Client, followers: &Tasks) -> Result<(), CliError> {
    let begun = CancellationToken::new();
    let following = client.clone().follow(followers.clone(), begun.clone());
    followers.spawn("dev_follow", TaskKind::Work, following);
    timeout(START, begun.cancelled())
        .await
        .map_err(|_| CliError::Failed("the gateway does not let anybody subscribe; see the log"))
}

/// Logs all bots in at once. The answer is what went wrong.
async fn log_in_all(client: &Client, ledger: &watch::Sender<Ledger>) -> Vec<String> {
    ledger.send_modify(|ledger| {
        for bot in &mut ledger.bots {
            bot.away_since = Some(Instant::now());
            bot.explained.logins += 1;
        }
    });
    let names = names(ledger);
    let logins = names.iter().map(|bot| async move {
        client.look(bot).await;
        let done = client.log_in(bot, "").await;
        done.err()
            .map(|why| format!("{bot} does not log in: {why}"))
    });
    join_all(logins).await.into_iter().flatten().collect()
}

/// Lets the bots talk and makes trouble, until the time is over.
async fn rounds(programme: &Programme, in_haste: bool) {
    let heard = |ledger: &Ledger| ledger.bots.iter().all(|bot| bot.heard.count() > 0);
    if let Err(wrong) = programme.wait("the first messages", heard).await {
        let wrong = format!("the bots do not hear each other: {wrong}");
        programme
            .ledger
            .send_modify(|ledger| ledger.problems.push(wrong));
        return;
    }
    let rest = Duration::from_secs(if in_haste { 1 } else { 3 });
    say_messages(programme);
    for round in 0.. {
        if round == 0 || programme.has_time_for_all() {
            programme.round(round, rest).await;
            programme.screen.text(Tone::Plain, "");
        }
        for _ in 0..COUNTS {
            programme.rest(COUNTED).await;
            if programme.ending.is_cancelled() || !programme.has_time_for(Duration::ZERO) {
                return;
            }
            say_messages(programme);
        }
    }
}

fn say_messages(programme: &Programme) {
    let what = messages(&programme.ledger.borrow());
    programme.screen.line("chat", Tone::Plain, &what);
}

/// How many messages there were, and how many of each bot if there are few.
fn messages(ledger: &Ledger) -> String {
    let mut what = format!(
        "{} messages sent, {} received",
        ledger.sum(|bot| bot.sent),
        ledger.sum(|bot| bot.heard.count())
    );
    if ledger.bots.len() <= COUNTED_ONE_BY_ONE {
        let of = |bot: &Bot| format!("{} {}/{}", bot.name, bot.sent, bot.heard.count());
        let each: Vec<String> = ledger.bots.iter().map(of).collect();
        what = format!("{what}: {}", each.join(", "));
    }
    what
}

/// Ends the talk, and waits until everything said has arrived.
async fn settle(programme: &Programme, talkers: &Tasks, stop: &Stop) {
    stop.asked.cancel();
    let _late = timeout(SETTLE, talkers.ended()).await;
    stop.at_once.cancel();
    talkers.ended().await;
    let mut ledger = programme.ledger.subscribe();
    let _late = timeout(SETTLE, ledger.wait_for(Ledger::is_settled)).await;
}
