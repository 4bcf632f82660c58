//! Random lives of a session, against an upstream that remembers everything: whatever it accepted ends up in the log,
//! once and in order, and nothing is acknowledged before that.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A message that the upstream has accepted: one-to-one by its number among all, or a group's by its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    C2c(usize),
    Group(usize, u64),
}

const GROUP_NAMES: [&str; 2] = ["G", "H"];
/// How many messages a page of the upstream's holds.
const PAGE: usize = 3;
/// How many it holds where many messages come at once.
const LARGE_PAGE: usize = 40;

#[derive(Clone, Debug)]
enum Op {
    /// The upstream accepts messages, and pushes them together; or the push is lost.
    Accept {
        to: Vec<u8>,
        lost: bool,
    },
    /// So many one-to-one messages come in one push each, or all in one.
    Flood {
        count: u16,
        together: bool,
    },
    /// The upstream repeats a push that is not acknowledged.
    Repeat(usize),
    /// So many frames travel, up and down in turn.
    Travel(u16),
    Cut,
    Connect,
    /// The oldest append is stored.
    Store,
    /// So many are.
    StoreAll(u16),
    Stall(bool),
    /// The process dies, and another one begins with what is stored.
    Restart,
    Wait(u8),
}

/// What happens with many messages at once, each more than is remembered.
fn flooded_op() -> impl Strategy<Value = Op> {
    let flood =
        (200..700_u16, any::<bool>()).prop_map(|(count, together)| Op::Flood { count, together });
    prop_oneof![
        2 => flood,
        4 => op(),
        2 => Just(Op::Connect),
        2 => any::<usize>().prop_map(Op::Repeat),
        4 => (50..400_u16).prop_map(Op::Travel),
        4 => (50..400_u16).prop_map(Op::StoreAll),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (prop::collection::vec(0..4_u8, 1..5), prop::bool::weighted(0.2))
            .prop_map(|(to, lost)| Op::Accept { to, lost }),
        2 => any::<usize>().prop_map(Op::Repeat),
        12 => (1..6_u16).prop_map(Op::Travel),
        1 => Just(Op::Cut),
        2 => Just(Op::Connect),
        8 => Just(Op::Store),
        1 => prop::bool::weighted(0.3).prop_map(Op::Stall),
        1 => Just(Op::Restart),
        1 => (0..20_u8).prop_map(Op::Wait),
    ]
}

/// What the upstream knows. Its mailbox works as the simulator's does.
#[derive(Debug, Default)]
struct Upstream {
    c2c: Vec<u8>,
    acked: BTreeSet<usize>,
    first_unacked: usize,
    groups: [u64; 2],
    read: [u64; 2],
    read_ahead: BTreeSet<(usize, u64)>,
    pushes: Vec<Vec<Item>>,
    /// Pushes of this connection that are not acknowledged.
    unacked: Vec<usize>,
    page: usize,
    /// Whether this connection is logged in.
    seated: bool,
    /// Whether a one-to-one push was lost on this connection: then all are, or their order could not be kept.
    deaf: bool,
    down: VecDeque<Vec<u8>>,
    cut_short: u64,
}

impl Upstream {
    fn body(&self, item: Item) -> Value {
        match item {
            Item::C2c(n) => {
                let mut message = c2c(&format!("c{n}"));
                message["From_Account"] = json!(format!("sender{}", self.c2c[n]));
                message
            }
            Item::Group(group, sequence) => group_message(GROUP_NAMES[group], sequence),
        }
    }

    fn accept(&mut self, to: &[u8], lost: bool) {
        let mut items = Vec::new();
        for to in to {
            let to = usize::from(*to);
            if to < 2 {
                self.groups[to] += 1;
                items.push(Item::Group(to, self.groups[to]));
            } else {
                self.c2c.push(to as u8);
                items.push(Item::C2c(self.c2c.len() - 1));
            }
        }
        self.pushes.push(items);
        if lost {
            self.deaf |= self.has_c2c(self.pushes.len() - 1);
        } else {
            self.push(self.pushes.len() - 1);
        }
    }

    fn has_c2c(&self, push: usize) -> bool {
        let items = &self.pushes[push];
        items.iter().any(|item| matches!(item, Item::C2c(_)))
    }

    fn push(&mut self, push: usize) {
        if !self.seated || (self.deaf && self.has_c2c(push)) {
            return;
        }
        if !self.unacked.contains(&push) {
            self.unacked.push(push);
        }
        // An entry for each, so that the order within the push is kept.
        let entries: Vec<Value> = self.pushes[push]
            .iter()
            .map(|item| {
                let array = match item {
                    Item::C2c(_) => "C2cMsgArray",
                    Item::Group(..) => "GroupMsgArray",
                };
                json!({ array: [self.body(*item)] })
            })
            .collect();
        let body = json!({"NeedAck": 1, "SessionData": push.to_string(), "EventArray": entries});
        let frame = frame::encode_response(PUSH, 0, &body.to_string());
        self.down.push_back(frame);
    }

    fn cut(&mut self) {
        self.seated = false;
        self.deaf = false;
        self.down.clear();
        self.unacked.clear();
    }

    fn request(&mut self, asked: &Asked, logged: &BTreeMap<Item, usize>) {
        let body = match asked.command.as_str() {
            LOGIN => {
                self.seated = true;
                login_answer()
            }
            GETMSG => self.page(asked.body["Cookie"].as_str().unwrap(), logged),
            GROUPS => self.list(),
            GROUP_PAGE => self.group_page(&asked.body),
            ACK => {
                let push = asked.body["SessionData"].as_str().unwrap();
                self.acknowledged(push.parse().unwrap(), logged);
                return;
            }
            _ => json!({}),
        };
        assert!(self.seated, "{} without a login", asked.command);
        let frame = frame::encode_response(&asked.command, asked.seq, &body.to_string());
        self.down.push_back(frame);
    }

    fn page(&mut self, cookie: &str, logged: &BTreeMap<Item, usize>) -> Value {
        let start = match cookie.parse::<usize>() {
            Ok(position) => {
                for n in 0..position {
                    assert!(
                        logged.contains_key(&Item::C2c(n)),
                        "c{n} is passed by a cookie"
                    );
                }
                self.first_unacked = self.first_unacked.max(position);
                position
            }
            Err(_) => self.first_unacked,
        };
        let end = self.c2c.len().min(start + self.page);
        let list: Vec<Value> = (start..end).map(|n| self.body(Item::C2c(n))).collect();
        let flag = if end == self.c2c.len() { 2 } else { 1 };
        json!({"Cookie": end.to_string(), "SyncFlag": flag, "MsgList": list})
    }

    fn list(&self) -> Value {
        let list: Vec<Value> = GROUP_NAMES
            .iter()
            .zip(self.groups.iter().zip(&self.read))
            .map(|(name, (last, read))| {
                json!({"GroupId": name, "NextMsgSeq": last + 1, "SelfInfo": {"MsgSeq": read}})
            })
            .collect();
        json!({ "GroupIdList": list })
    }

    fn group_page(&mut self, body: &Value) -> Value {
        let group = GROUP_NAMES
            .iter()
            .position(|name| body["GroupId"] == *name)
            .unwrap();
        let (upto, count) = (
            body["ReqMsgSeq"].as_u64().unwrap(),
            body["ReqMsgNumber"].as_u64().unwrap(),
        );
        // Some answers are cut short.
        self.cut_short += 1;
        let given = if self.cut_short.is_multiple_of(3) {
            count.div_ceil(2)
        } else {
            count
        };
        let mut page = group_page(GROUP_NAMES[group], upto + 1 - given..=upto);
        page["IsFinished"] = json!(u8::from(given == count));
        page
    }

    fn acknowledged(&mut self, push: usize, logged: &BTreeMap<Item, usize>) {
        self.unacked.retain(|unacked| *unacked != push);
        for item in &self.pushes[push] {
            assert!(
                logged.contains_key(item),
                "{item:?} is acknowledged, and not in the log"
            );
            match *item {
                Item::C2c(n) => {
                    self.acked.insert(n);
                }
                Item::Group(group, sequence) => {
                    self.read_ahead.insert((group, sequence));
                }
            }
        }
        while self.acked.contains(&self.first_unacked) {
            self.first_unacked += 1;
        }
        for group in 0..2 {
            while self.read_ahead.contains(&(group, self.read[group] + 1)) {
                self.read[group] += 1;
            }
        }
    }
}

/// What one turn of the session hands over to be stored in one step.
#[derive(Debug)]
struct Append {
    events: Vec<Kind>,
    acks: Vec<PushAck>,
    ticket: TencentTicket,
    position: TencentSync,
}

/// A session's life.
struct Life {
    protocol: Protocol,
    now: Now,
    upstream: Upstream,
    connected: bool,
    appends: VecDeque<Append>,
    ticket: TencentTicket,
    position: TencentSync,
    /// The log: how often each message is in it.
    logged: BTreeMap<Item, usize>,
    order: Vec<Item>,
    up_next: bool,
}

impl Life {
    fn new(page: usize) -> Self {
        let upstream = Upstream {
            page,
            ..Upstream::default()
        };
        Self {
            protocol: Protocol::new(who(), 1, &TencentTicket::default(), Position::default()),
            now: start_of_time(),
            upstream,
            connected: false,
            appends: VecDeque::new(),
            ticket: TencentTicket::default(),
            position: TencentSync::default(),
            logged: BTreeMap::new(),
            order: Vec::new(),
            up_next: false,
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Accept { to, lost } => self.upstream.accept(to, *lost),
            Op::Flood { count, together } => {
                let to = vec![2; usize::from(*count)];
                let chunk = if *together { to.len() } else { 1 };
                to.chunks(chunk)
                    .for_each(|to| self.upstream.accept(to, false));
            }
            Op::Repeat(which) if !self.upstream.unacked.is_empty() => {
                let unacked = &self.upstream.unacked;
                self.upstream.push(unacked[which % unacked.len()]);
            }
            Op::Repeat(_) => {}
            Op::Travel(frames) => (0..*frames).for_each(|_| {
                self.travel();
            }),
            Op::Cut => self.cut(),
            Op::Connect => self.connect(),
            Op::Store => {
                self.store();
            }
            Op::StoreAll(count) => (0..*count).for_each(|_| {
                self.store();
            }),
            Op::Stall(stalled) => {
                self.protocol.set_stalled(self.now, *stalled);
                self.turn_ends();
            }
            Op::Restart => self.restart(),
            Op::Wait(seconds) => {
                let time = u32::from(*seconds) * SECOND;
                self.now.at += time;
                self.now.wall = self.now.wall.plus(time);
                self.protocol.timeout(self.now);
                self.turn_ends();
            }
        }
    }

    /// One frame goes up or down. False if there is none.
    fn travel(&mut self) -> bool {
        self.up_next = !self.up_next;
        let up =
            !self.protocol.out.frames.is_empty() && (self.up_next || self.upstream.down.is_empty());
        if up && let Some(frame) = self.protocol.out.frames.pop_front() {
            self.upstream.request(&Asked::read(&frame), &self.logged);
            true
        } else if let Some(frame) = self.upstream.down.pop_front() {
            self.protocol.receive(self.now, &frame);
            self.turn_ends();
            true
        } else {
            false
        }
    }

    /// Hands over what was reported, with the record as it is now.
    fn turn_ends(&mut self) {
        let mut append = Append {
            events: Vec::new(),
            acks: Vec::new(),
            ticket: self.protocol.ticket_record(),
            position: self.protocol.position().to_record(),
        };
        let mut anything = false;
        let mut dead = false;
        for report in self.protocol.out.reports.drain(..) {
            anything = true;
            match report {
                Report::Events(delivery) => {
                    append.events.extend(delivery.events);
                    append.acks.extend(delivery.acks);
                }
                Report::Dead(_) => dead = true,
                Report::Accepted => {}
                Report::Refused(_)
                | Report::LoggedOut
                | Report::Expired(_)
                | Report::Kicked { .. }
                | Report::Answered(..)
                | Report::Unanswered(_)
                | Report::Unsent(_)
                | Report::BadFrame(_) => panic!("unexpected {report:?}"),
            }
        }
        if anything {
            self.appends.push_back(append);
        }
        if dead {
            self.cut();
        }
    }

    fn store(&mut self) -> bool {
        let Some(append) = self.appends.pop_front() else {
            return false;
        };
        for event in append.events {
            let item = item(&event);
            *self.logged.entry(item).or_default() += 1;
            self.order.push(item);
        }
        self.ticket = append.ticket;
        self.position = append.position;
        self.protocol.stored(self.now, &append.acks);
        self.turn_ends();
        true
    }

    fn cut(&mut self) {
        self.connected = false;
        self.upstream.cut();
        self.protocol.disconnected();
        self.turn_ends();
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            let credential = if self.protocol.has_ticket() {
                Credential::Ticket
            } else {
                signature()
            };
            self.protocol.log_in(self.now, &credential);
        }
    }

    fn restart(&mut self) {
        self.connected = false;
        self.upstream.cut();
        self.appends.clear();
        let position = Position::from_record(self.position.clone());
        self.protocol = Protocol::new(who(), 1, &self.ticket, position);
    }

    /// Lets everything come to rest.
    fn settle(&mut self) {
        self.protocol.set_stalled(self.now, false);
        self.cut();
        self.connect();
        self.rest();
    }

    fn rest(&mut self) {
        for _ in 0..100_000 {
            if !(self.travel() | self.store()) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn check(&self) {
        let c2c = (0..self.upstream.c2c.len()).map(Item::C2c);
        let groups = (0..2).flat_map(|group| {
            (1..=self.upstream.groups[group]).map(move |sequence| Item::Group(group, sequence))
        });
        let accepted: Vec<Item> = c2c.chain(groups).collect();
        for item in &accepted {
            let times = self.logged.get(item).copied().unwrap_or(0);
            assert_eq!(times, 1, "{item:?} came {times} times");
        }
        assert_eq!(self.logged.len(), accepted.len());
        let mut first = BTreeSet::new();
        let mut last_of: BTreeMap<usize, Item> = BTreeMap::new();
        for item in &self.order {
            if !first.insert(*item) {
                continue;
            }
            let conversation = match item {
                Item::Group(group, _) => *group,
                Item::C2c(n) => usize::from(self.upstream.c2c[*n]),
            };
            let before = last_of.insert(conversation, *item);
            assert!(before < Some(*item), "{item:?} after {before:?}");
        }
    }
}

fn item(event: &Kind) -> Item {
    let shown = show_event(event);
    let name = shown.trim_end_matches('*');
    let number = name.get(1..).and_then(|number| number.parse::<u64>().ok());
    match (name.chars().next(), number) {
        (Some('c'), Some(n)) => Item::C2c(usize::try_from(n).unwrap()),
        (Some('G'), Some(sequence)) => Item::Group(0, sequence),
        (Some('H'), Some(sequence)) => Item::Group(1, sequence),
        _ => panic!("unexpected event {shown}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_upstream_accepted_ends_up_in_the_log(ops in prop::collection::vec(op(), 1..300)) {
        let mut life = Life::new(PAGE);
        for op in &ops {
            life.run(op);
        }
        life.settle();
        life.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn also_where_more_comes_at_once_than_is_remembered(ops in prop::collection::vec(flooded_op(), 1..60)) {
        let mut life = Life::new(LARGE_PAGE);
        life.settle();
        for op in &ops {
            life.run(op);
        }
        life.settle();
        life.check();
    }
}

#[test]
fn a_long_quiet_absence_is_made_up_for() {
    let mut life = Life::new(PAGE);
    life.settle();
    for n in 0..900_u32 {
        life.upstream.accept(&[(n % 4) as u8], true);
    }
    life.settle();
    life.check();
}

#[test]
fn a_flood_that_is_pushed_and_fetched_at_once_is_told_once() {
    for together in [false, true] {
        let mut life = Life::new(LARGE_PAGE);
        life.settle();
        let count = 1000;
        life.run(&Op::Flood { count, together });
        // What was not taken in comes again, as long as it is not acknowledged.
        for _ in 0..3 {
            life.run(&Op::Travel(700));
            for which in 0..life.upstream.unacked.len() {
                life.run(&Op::Repeat(which));
            }
            life.run(&Op::StoreAll(700));
        }
        life.rest();
        for _ in 0..life.upstream.unacked.len() {
            life.run(&Op::Repeat(0));
            life.rest();
        }
        life.check();
        assert!(life.upstream.unacked.is_empty(), "all is acknowledged");
    }
}
