//! Load: one-to-one texts to all who are online, at a pace or as fast as they are taken.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::accounts::Account;
use super::commands::{C2cSend, c2c_message};
use super::connection::push_body;
use super::mailbox::Delivery;
use super::operate::ControlError;
use super::wire::Wire;
use super::world::World;
use crate::connectors::tencent::frame;
use crate::types::{AccountId, UnixMillis, WallClock};

/// Who sends the messages.
const SENDER: &str = "load";

/// How the `SessionData` of the load's pushes begins. They are not repeated; that they are acknowledged is counted.
const SESSION_DATA: &str = "load-";

/// The digits of a time in nanoseconds since 1970, and how many of them are those of the second.
const STAMP_DIGITS: usize = 19;
const SECOND_DIGITS: usize = 10;

/// The first of the messages' numbers, which have ten digits each.
const FIRST_NUMBER: u64 = 1_000_000_000;

/// How long a connection that takes nothing is waited for before the load looks whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(50);

/// How long the load rests when most have to acknowledge first.
const BREATH: Duration = Duration::from_micros(500);

/// How long those who have taken a part of a frame may take for the rest, at the end.
const FINISH: Duration = Duration::from_secs(10);

/// The most that a load may last.
const MAX_SECONDS: f64 = 86_400.0;

/// The longest text.
const MAX_TEXT: usize = 1 << 20;

/// The most frames in one write.
const MAX_PER_WRITE: usize = 1024;

/// What `POST /load` is asked for. Connections by TLS are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadOptions {
    /// Messages a second, to all together. 0, the default, is as many as the connections take.
    pub events_per_second: f64,
    /// How long. Default: 10.
    pub seconds: f64,
    /// The size of the text, at least 20: it begins with the time of sending, in nanoseconds since 1970, and a space. Default: 64,
    /// which makes frames of about 634 bytes.
    pub text_bytes: usize,
    /// Messages to one account in one write. Default: 1.
    pub per_write: usize,
    /// How many pushes to a connection may wait for their acknowledgement; it gets no further one meanwhile. Default: any number,
    /// as the sockets take them.
    pub unacknowledged: Option<u64>,
    /// Only to accounts whose ID begins so. Default: to all.
    pub prefix: String,
    /// Only to the first so many of them, in the order in which they came to exist. Default: to all.
    pub count: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            events_per_second: 0.0,
            seconds: 10.0,
            text_bytes: 64,
            per_write: 1,
            unacknowledged: None,
            prefix: String::new(),
            count: None,
        }
    }
}

impl LoadOptions {
    fn check(&self) -> Result<(), ControlError> {
        let problem = if !(0.0..=1e9).contains(&self.events_per_second) {
            "events_per_second must be from 0 (as many as are taken) to 1000000000"
        } else if !(self.seconds > 0.0 && self.seconds <= MAX_SECONDS) {
            "seconds must be more than 0, and at most 86400"
        } else if !(STAMP_DIGITS + 1..=MAX_TEXT).contains(&self.text_bytes) {
            "text_bytes must be from 20 to 1048576"
        } else if !(1..=MAX_PER_WRITE).contains(&self.per_write) {
            "per_write must be from 1 to 1024"
        } else if self
            .unacknowledged
            .is_some_and(|most| most < self.per_write as u64)
        {
            "unacknowledged must be at least per_write"
        } else {
            return Ok(());
        };
        Err(ControlError::Invalid(problem.to_owned()))
    }
}

/// What a load has done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadOutcome {
    /// Messages that were sent.
    pub pushed: u64,
    /// How long it took.
    pub seconds: f64,
}

impl World {
    /// Sends messages to whoever is online now, until the time is over or all of them are gone. They are kept nowhere: who misses one does
    /// not find it in catch-up.
    pub(super) async fn load(
        self: &Arc<Self>,
        options: LoadOptions,
    ) -> Result<LoadOutcome, ControlError> {
        options.check()?;
        let targets = self.targets(&options);
        if targets.is_empty() {
            let prefix = &options.prefix;
            let text =
                format!("nobody is online (without TLS) whose user ID begins with {prefix:?}");
            return Err(ControlError::Invalid(text));
        }
        let driver = Driver {
            world: Arc::clone(self),
            runtime: Handle::current(),
            duration: Duration::from_secs_f64(options.seconds),
            options,
            targets,
            next: 0,
            passed_over: 0,
            burst: Vec::new(),
        };
        let (answer, answered) = oneshot::channel();
        // A thread of its own: the runtime's timers are too coarse for an even pace of tens of thousands a second.
        tokio::task::spawn_blocking(move || {
            let outcome = driver.run(&answer);
            let _ = answer.send(outcome);
        });
        answered
            .await
            .map_err(|_| ControlError::Invalid(String::from("the load has ended by itself")))
    }

    fn targets(&self, options: &LoadOptions) -> Vec<Target> {
        let accounts = self.accounts().into_iter();
        let wanted: Vec<_> = accounts
            .filter(|account| account.id.as_str().starts_with(&options.prefix))
            .map(|account| (wires(&account), account))
            .filter(|(wires, _)| !wires.is_empty())
            .take(options.count.unwrap_or(usize::MAX))
            .collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let sender = self.find_or_create(&AccountId::new(SENDER));
        let mut targets = Vec::new();
        for (wires, account) in wanted {
            let template = Template::new(&sender, &account, options.text_bytes);
            targets.extend(wires.into_iter().map(|wire| Target {
                sent: wire.upgrade().map_or(0, |wire| wire.acknowledged()),
                wire,
                account: Arc::clone(&account),
                template: template.clone(),
            }));
        }
        targets
    }
}

/// The account's connections that a load can go over.
fn wires(account: &Account) -> Vec<Weak<Wire>> {
    let wires = account.seats().into_iter().map(|seat| seat.wire);
    wires.filter(|wire| wire.strong_count() > 0).collect()
}

/// Whether a request acknowledges a push of a load. There are so many of them that the rest of it is not looked at.
pub(super) fn is_acknowledgement(request: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Acknowledgement<'a> {
        #[serde(borrow)]
        head: Head<'a>,
        #[serde(borrow)]
        body: Body<'a>,
    }
    #[derive(Deserialize)]
    struct Head<'a> {
        servcmd: &'a str,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body<'a> {
        session_data: &'a str,
    }
    let read = serde_json::from_slice::<Acknowledgement<'_>>(request);
    read.is_ok_and(|read| {
        read.head.servcmd == "openim.ws_msg_push_ack"
            && read.body.session_data.starts_with(SESSION_DATA)
    })
}

/// A connection to send to.
struct Target {
    /// Weak, so that a connection that ends is closed.
    wire: Weak<Wire>,
    account: Arc<Account>,
    template: Template,
    /// Counted on from what earlier loads had acknowledged.
    sent: u64,
}

impl Target {
    /// Puts messages of this moment, one after another, into `burst`.
    fn write(&mut self, burst: &mut Vec<u8>, count: usize, world: &World) {
        let now = WallClock.nanos();
        burst.clear();
        for _ in 0..count {
            burst.extend_from_slice(self.template.stamped(world.next_number(), now));
        }
    }

    fn note(&mut self, sent: u64) {
        self.sent += sent;
        self.account
            .counters
            .delivered
            .fetch_add(sent, Ordering::Relaxed);
    }
}

/// Sends to its targets in turn.
struct Driver {
    world: Arc<World>,
    runtime: Handle,
    duration: Duration,
    options: LoadOptions,
    targets: Vec<Target>,
    /// The index of the next target.
    next: usize,
    /// How many targets were passed over in this round because of what they have to acknowledge.
    passed_over: usize,
    /// What goes out in one write; kept, for its memory.
    burst: Vec<u8>,
}

impl Driver {
    /// Sends until the time is over, nobody is left to send to, or nobody waits for the answer.
    fn run(mut self, asker: &oneshot::Sender<LoadOutcome>) -> LoadOutcome {
        let begin = Instant::now();
        let mut pushed = 0;
        while !self.targets.is_empty() && !asker.is_closed() {
            let elapsed = begin.elapsed();
            let left = self.duration.saturating_sub(elapsed);
            if left.is_zero() {
                break;
            }
            // By the beginning and not by the last one: a late message makes no later one late.
            let early = self.due(pushed).saturating_sub(elapsed);
            if early.is_zero() {
                pushed += self.send_to_next(begin, asker);
            } else {
                std::thread::sleep(early.min(left).min(LOOK_UP));
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        self.finish(asker);
        LoadOutcome { pushed, seconds }
    }

    /// Sends what is left of frames that were begun.
    fn finish(&self, asker: &oneshot::Sender<LoadOutcome>) {
        let begin = Instant::now();
        for wire in self
            .targets
            .iter()
            .filter_map(|target| target.wire.upgrade())
        {
            while matches!(wire.flush(), Ok(false))
                && begin.elapsed() < FINISH
                && !asker.is_closed()
            {
                wait_for(&wire, &self.runtime);
            }
        }
    }

    /// When the message after so many is to be sent, after the beginning.
    fn due(&self, pushed: u64) -> Duration {
        if self.options.events_per_second == 0.0 {
            return Duration::ZERO;
        }
        #[expect(clippy::cast_precision_loss, reason = "never so many")]
        let seconds = pushed as f64 / self.options.events_per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn begin_round(&mut self) {
        if self.passed_over * 2 > self.targets.len() {
            std::thread::sleep(BREATH);
        }
        self.next = 0;
        self.passed_over = 0;
    }

    /// Answers how many messages were sent: none if the target is gone or may not get more now, or takes nothing until the end.
    fn send_to_next(&mut self, begin: Instant, asker: &oneshot::Sender<LoadOutcome>) -> u64 {
        if self.next >= self.targets.len() {
            self.begin_round();
        }
        let Some(target) = self.targets.get_mut(self.next) else {
            return 0;
        };
        let Some(wire) = target.wire.upgrade() else {
            self.targets.swap_remove(self.next);
            return 0;
        };
        self.next += 1;
        let count = self.options.per_write as u64;
        let after = (target.sent + count).saturating_sub(wire.acknowledged());
        if self.options.unacknowledged.is_some_and(|most| after > most) {
            self.passed_over += 1;
            return 0;
        }
        target.write(&mut self.burst, self.options.per_write, &self.world);
        loop {
            match wire.offer(&self.burst) {
                Ok(true) => break,
                Err(_) => return 0,
                Ok(false) if begin.elapsed() >= self.duration || asker.is_closed() => return 0,
                Ok(false) => wait_for(&wire, &self.runtime),
            }
        }
        target.note(count);
        count
    }
}

/// Waits until the connection may take more, or it is time to look whether to go on.
fn wait_for(wire: &Wire, runtime: &Handle) {
    let writable = timeout(LOOK_UP, wire.writable());
    let _ = runtime.block_on(writable);
}

/// A WebSocket frame with a push in it, in which only numbers and times change.
#[derive(Clone, Debug)]
struct Template {
    frame: Vec<u8>,
    numbers: Vec<Range<usize>>,
    times: Vec<Range<usize>>,
}

impl Template {
    fn new(from: &Account, to: &Account, text_bytes: usize) -> Self {
        // Found by what differs, and not by a value that could stand in an account's ID too. No digit of these pairs is the same.
        let [number, other] = [1_111_111_111, 2_222_222_222];
        let [time, later] = [1_111_111_111_111_111_111, 2_222_222_222_222_222_222];
        let frame = framed(from, to, text_bytes, number, time);
        Self {
            numbers: differences(&frame, &framed(from, to, text_bytes, other, time)),
            times: differences(&frame, &framed(from, to, text_bytes, number, later)),
            frame,
        }
    }

    /// The frame with this number, and this time in nanoseconds.
    fn stamped(&mut self, number: u64, time: u64) -> &[u8] {
        let number: [u8; SECOND_DIGITS] = digits(FIRST_NUMBER + number % (9 * FIRST_NUMBER));
        let time: [u8; STAMP_DIGITS] = digits(time);
        for (ranges, digits) in [(&self.numbers, &number[..]), (&self.times, &time[..])] {
            for range in ranges {
                let place = self.frame.get_mut(range.clone()).unwrap_or_default();
                place
                    .iter_mut()
                    .zip(digits)
                    .for_each(|(to, from)| *to = *from);
            }
        }
        &self.frame
    }
}

/// The last `N` digits.
fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    digits
}

/// Where two of the same length differ.
fn differences(a: &[u8], b: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (index, _) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b) {
        match ranges.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            Some(_) | None => ranges.push(index..index + 1),
        }
    }
    ranges
}

/// A push of a text as it goes over the wire.
fn framed(from: &Account, to: &Account, text_bytes: usize, number: u64, time: u64) -> Vec<u8> {
    let text = format!("{:x<text_bytes$}", format!("{time} "));
    let second = UnixMillis::from_secs(time / 1_000_000_000);
    let send = C2cSend::text(to.id.as_str(), number, &text, second).with_random(number);
    let message = Arc::new(c2c_message(from, &to.id, send, 0, second.as_secs()));
    let delivery = Delivery::C2c {
        position: None,
        message,
    };
    let body = push_body(&delivery, &format!("{SESSION_DATA}{number}"));
    let payload = frame::encode_response("im_open_push.msg_push", 0, &body);
    let mut framed = Vec::new();
    // Into memory: it cannot fail.
    let _ = Frame::message(payload, OpCode::Data(Data::Binary), true).format(&mut framed);
    framed
}
