//! One run: bots log in, senders send and subscribers read while things go wrong; then it becomes calm, and the books are
//! checked.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use imgate::proto::v1::SessionState;
use imgate::runtime::supervisor::Tasks;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::arguments::{Run, Store};
use crate::ledger::Row;
use crate::schedule::{Lane, Settings, rng};
use crate::senders::{self, Sender};
use crate::subscribers::{self, Desk, Subscriber};
use crate::trouble::Trouble;
use crate::world::{World, pause, soon, until};

const BOTS: usize = 24;
const GROUPS: usize = 3;
const MEMBERS: usize = 8;
const SENDERS: usize = 3;
/// After so many refusals in a row a ticket is given up.
const REFUSED_RESUMES: u64 = 3;
/// How often a soak tells its figures.
const TELL: Duration = Duration::from_secs(30);

/// Does the run. The error says everything that is wrong.
pub(crate) async fn run(run: &Run) -> Result<(), String> {
    let desk = Desk::new();
    let settings = Settings::new(run.seed);
    println!("{}: {settings:?}", run.name());
    let mut world = World::start(run.store, settings).await;
    let bots: Vec<String> = (0..BOTS).map(|number| format!("bot{number}")).collect();
    world.log_in(&bots).await;
    let (tasks, (calm, is_calm)) = (Tasks::new(), watch::channel(false));
    let all = subscribe(run, &world, &bots, &desk, &is_calm, &tasks).await;
    let senders = open_rows(run, &world, &bots, &desk).await;
    let trouble = Trouble::new(&world, &bots, &desk);

    let lanes: &[Lane] = match run.store {
        Store::Redis => &[Lane::Gateway, Lane::Upstream, Lane::Redis],
        Store::Embedded => &[Lane::Gateway, Lane::Upstream],
    };
    let lanes = lanes.iter();
    let lanes = join_all(lanes.map(|&lane| trouble.play(run, lane, is_calm.clone())));
    let timing = async {
        keep_telling(run, &all, &trouble).await;
        calm.send_replace(true);
    };
    // The last messages come when nothing goes wrong any more.
    let (last, is_last) = watch::channel(false);
    let senders = join_all(senders.into_iter().map(|one| one.send(is_last.clone())));
    let troubles = async {
        tokio::join!(lanes, timing);
        last.send_replace(true);
    };
    tokio::join!(senders, troubles);

    let calmed = Instant::now();
    soon(async || {
        let ledger = desk.ledger();
        all.iter().all(|one| one.record().is_complete(&ledger))
    })
    .await;
    let settled = calmed.elapsed();
    let mut faults = check_sessions(&world, &trouble, &desk).await;
    println!("{}", summary(run, &all, &trouble));
    println!("  settled {settled:.1?} after the last trouble");
    tasks.stop();
    tasks.ended().await;
    drop(trouble);
    faults.extend(close(&all, &desk));
    faults.extend(world.errors());
    if run.keep || !faults.is_empty() {
        println!("  the logs are in {}", world.keep_logs().display());
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(faults.join("\n"))
}

/// Starts the subscribers, and waits until those have begun who are to miss nothing.
async fn subscribe(
    run: &Run,
    world: &World,
    bots: &[String],
    desk: &Desk,
    is_calm: &watch::Receiver<bool>,
    tasks: &Tasks,
) -> Vec<Subscriber> {
    let late = run.trouble.mul_f64(0.4).min(Duration::from_secs(30));
    let (mut all, mut punctual) = (Vec::new(), Vec::new());
    for (number, habits) in subscribers::all(bots, late).into_iter().enumerate() {
        let rng = rng(run.seed, 100 + number as u64);
        let (is_late, desk) = (habits.wish.late, desk.clone());
        let subscriber = subscribers::start(habits, world, rng, desk, is_calm.clone(), tasks);
        if !is_late {
            punctual.push(subscriber.clone());
        }
        all.push(subscriber);
    }
    until("all subscriptions have begun", async || {
        let mut all = punctual.iter();
        all.all(|one| one.record().place.cursor.is_some())
    })
    .await;
    all
}

/// Closes the books: what is wrong in them.
fn close(all: &[Subscriber], desk: &Desk) -> Vec<String> {
    let mut faults = Vec::new();
    for one in all {
        let mut record = one.record();
        record.close(&desk.ledger());
        faults.extend_from_slice(record.faults());
        if record.faults_left_out() > 0 {
            let more = record.faults_left_out();
            faults.push(format!("{}: {more} more", one.name));
        }
    }
    faults
}

/// Makes the senders and the groups, and enters what they will send.
async fn open_rows(run: &Run, world: &World, bots: &[String], desk: &Desk) -> Vec<Sender> {
    let mut control = world.control().await;
    let mut rows: Vec<Vec<Row>> = vec![Vec::new(); SENDERS];
    for (number, bot) in bots.iter().enumerate() {
        let row = Row::To(bot.clone());
        desk.ledger().open(row.clone(), vec![bot.clone()]);
        rows[number % SENDERS].push(row);
    }
    for number in 0..SENDERS {
        control.make_account(&senders::name(number)).await;
    }
    for number in 0..GROUPS {
        let group = format!("g{number}");
        // They overlap.
        let members = bots.iter().cycle().skip(number * MEMBERS / 2);
        let members: Vec<String> = members.take(MEMBERS).cloned().collect();
        let mut everybody = members.clone();
        everybody.push(senders::name(number % SENDERS));
        let body = json!({ "group": group, "members": everybody });
        control.post("/group", body).await;
        let row = Row::Group(group);
        desk.ledger().open(row.clone(), members);
        rows[number % SENDERS].push(row);
    }
    let mut all = Vec::new();
    for (number, rows) in rows.into_iter().enumerate() {
        all.push(Sender {
            name: senders::name(number),
            rows,
            rng: rng(run.seed, 200 + number as u64),
            control: world.control().await,
            desk: desk.clone(),
        });
    }
    all
}

/// Lets the time of trouble pass.
async fn keep_telling(run: &Run, all: &[Subscriber], trouble: &Trouble<'_>) {
    let end = Instant::now() + run.trouble;
    while run.soak && end.saturating_duration_since(Instant::now()) > TELL {
        pause(TELL).await;
        println!("{}", line(run, all, trouble));
    }
    tokio::time::sleep_until(end).await;
}

/// All are logged in as they should be, and it has not cost more logins than it may; and the upstream counts as we do.
async fn check_sessions(world: &World, trouble: &Trouble<'_>, desk: &Desk) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last = String::new();
    let online = soon(async || match world.sessions().await {
        Ok(sessions) => {
            last = format!("{sessions:?}");
            let held = |session: &&imgate::proto::v1::Session| {
                session.desired && session.state() == SessionState::Online
            };
            sessions.len() == BOTS && sessions.iter().filter(held).count() == BOTS
        }
        Err(status) => {
            last = status.to_string();
            false
        }
    })
    .await;
    if !online {
        faults.push(format!("not all sessions are online: {last}"));
    }
    let stats = world.control().await.stats().await;
    let toll = trouble.toll();
    for (bot, allowed) in &toll.logins_allowed {
        let user = stats.users.get(bot).copied().unwrap_or_default();
        // The signature is used when the ticket was refused too often, and again if the process ends before that is stored.
        let allowed = allowed + 2 * (user.refused / REFUSED_RESUMES);
        if !user.online || user.logins > allowed || user.kicked > 0 {
            faults.push(format!("{bot}: {allowed} logins are allowed: {user:?}"));
        }
    }
    let sent = (0..SENDERS).filter_map(|number| stats.users.get(&senders::name(number)));
    let (sent, accepted) = (
        sent.map(|user| user.sent).sum::<u64>(),
        desk.ledger().accepted(),
    );
    if sent != accepted {
        faults.push(format!(
            "the upstream has {sent} messages, the ledger {accepted}"
        ));
    }
    faults
}

/// What has been counted so far, in one line.
fn line(run: &Run, all: &[Subscriber], trouble: &Trouble<'_>) -> String {
    let (mut delivered, mut twice, mut gaps, mut wrong) = (Vec::new(), 0, 0, 0);
    let mut delays = String::new();
    for one in all {
        let record = one.record();
        delivered.push(format!("{} {}", one.name, record.counts.delivered));
        wrong += record.faults().len() + record.faults_left_out();
        // The others get the same, but are late by their habits.
        if one.name == subscribers::STEADY {
            (twice, gaps) = (record.counts.twice_in_log, record.counts.gaps);
            delays = record.delays.to_string();
        }
    }
    let faults: u64 = trouble.toll().faults.values().sum();
    format!(
        "{}: {faults} faults, delivered {}; {twice} twice, {gaps} gaps, {wrong} wrong; {delays}",
        begin(run, trouble),
        delivered.join(", ")
    )
}

/// What has been counted, in detail.
fn summary(run: &Run, all: &[Subscriber], trouble: &Trouble<'_>) -> String {
    let mut text = begin(run, trouble);
    let faults = &trouble.toll().faults;
    let faults = faults.iter().map(|(name, count)| format!("{name} {count}"));
    let faults = faults.collect::<Vec<_>>().join(", ");
    write!(text, "\n  faults: {faults}").unwrap();
    for one in all {
        let record = one.record();
        write!(text, "\n  {}: {}", one.name, record.counts).unwrap();
        write!(text, ", {} streams, {}", one.streams(), record.delays).unwrap();
        if one.name == subscribers::STEADY {
            write!(text, "\n    slowest: {}", record.slowest()).unwrap();
            let twice = record.twice();
            if !twice.is_empty() {
                write!(text, "\n    twice in the log: {}", twice.join("; ")).unwrap();
            }
        }
    }
    text
}

fn begin(run: &Run, trouble: &Trouble<'_>) -> String {
    let (accepted, losses) = {
        let ledger = trouble.desk.ledger();
        (ledger.accepted(), ledger.losses())
    };
    format!(
        "{} after {} s: {accepted} accepted, {losses} losses of the store, gateway {} MiB",
        run.name(),
        trouble.desk.now().as_secs(),
        trouble.world.gateway_memory(),
    )
}
