//! One session's conversation with the upstream: frames in, reports out, and the other way round. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::connectors::tencent::catchup::{CatchUp, Held, PUSHES_PER_SYNC, Step};
use crate::connectors::tencent::codes;
use crate::connectors::tencent::frame::{self, Incoming, RequestHead};
use crate::connectors::tencent::message::{self, Parsed, PushBody};
use crate::connectors::tencent::outgoing::{self, Identity};
use crate::connectors::tencent::requests::{Pending, Purpose, Requests};
use crate::connectors::tencent::sync::{GroupOrder, Position};
use crate::connectors::tencent::ticket::Ticket;
use crate::connectors::{
    Answer, Conversation, Delivery, OutgoingMessage, Output, PushAck, Report, RequestId,
};
use crate::proto::record::TencentTicket;
use crate::proto::v1;
use crate::session::backoff::Jitter;
use crate::session::effect::Credential;
use crate::session::input::Now;

/// How long the upstream may take for an answer (the vendor's SDK waits as long).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the session says hello where the upstream names no interval.
const HELLO_INTERVAL: u32 = 120;
/// An announced overload is believed for this long at the most.
const MAX_OVERLOAD: Duration = Duration::from_secs(60);
/// Where request numbers start, at random below this.
const FIRST_SEQ_BELOW: f64 = 100_000_000.0;
/// Pushes that concern only what a user interface shows.
const IRRELEVANT_PUSHES: [&str; 1] = ["im_sdk_config_mgr.push_imsdk_purchase_bitsv2"];

/// Which account of which app.
#[derive(Clone, Debug)]
pub struct Identification {
    /// The upstream user ID.
    pub account: String,
    /// The upstream app.
    pub sdk_app_id: u64,
    /// The largest frame that is read, in bytes, packed and unpacked.
    pub max_frame_bytes: usize,
}

/// One session's conversation with the upstream. It outlives its connections.
#[derive(Debug)]
pub struct Protocol {
    who: Identification,
    jitter: Jitter,
    instance_id: String,
    ticket: Option<Ticket>,
    position: Position,
    phase: Phase,
    requests: Requests,
    next_seq: u64,
    next_message: u32,
    hello_at: Option<Instant>,
    pushes_since_sync: u32,
    overloads: HashMap<String, Instant>,
    /// Nothing more can be stored for the moment.
    stalled: bool,
    /// What is to be sent and what has happened.
    pub out: Output,
}

/// Where the conversation stands.
#[derive(Debug)]
enum Phase {
    Offline,
    LoggingIn,
    CatchingUp(CatchUp),
    Live,
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "ErrorCode", alias = "int32_error_code", default)]
    code: i32,
    #[serde(rename = "ErrorInfo", alias = "str_error_message", default)]
    desc: String,
    #[serde(rename = "KickType", default)]
    kick_type: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoginAnswer {
    #[serde(default)]
    a2_key: String,
    #[serde(default, deserialize_with = "message::text_or_number")]
    tiny_id: String,
    #[serde(default)]
    inst_id: u64,
    #[serde(default)]
    hello_interval: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendAnswer {
    #[serde(default)]
    msg_time: u64,
    #[serde(default)]
    msg_seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Overload {
    over_load_serv_cmd: String,
    #[serde(default)]
    delay_secs: u64,
}

impl Protocol {
    /// A session's conversation, from what its record holds.
    pub fn new(who: Identification, seed: u64, ticket: &TencentTicket, position: Position) -> Self {
        let mut jitter = Jitter::new(seed);
        let instance_id = if ticket.instance_id.is_empty() {
            (0..4)
                .map(|_| format!("{:08x}", below(&mut jitter, f64::from(u32::MAX))))
                .collect()
        } else {
            ticket.instance_id.clone()
        };
        Self {
            next_seq: below(&mut jitter, FIRST_SEQ_BELOW),
            next_message: u32::try_from(below(&mut jitter, f64::from(i32::MAX))).unwrap_or(1),
            who,
            jitter,
            instance_id,
            ticket: Ticket::from_record(ticket),
            position,
            phase: Phase::Offline,
            requests: Requests::default(),
            hello_at: None,
            pushes_since_sync: 0,
            overloads: HashMap::new(),
            stalled: false,
            out: Output::default(),
        }
    }

    /// The path and query of a new connection.
    pub fn path(&mut self) -> String {
        format!(
            "/binfo?sdkappid={}&instanceid={}&random={}&platform=7&host=unknown&version=-1\
             &sdkversion=3.6.6&compress=gzip",
            self.who.sdk_app_id,
            self.instance_id,
            self.jitter.fraction(),
        )
    }

    /// Whether there is a ticket to resume with.
    pub const fn has_ticket(&self) -> bool {
        self.ticket.is_some()
    }

    /// The ticket is of no use any more.
    pub fn forget_ticket(&mut self) {
        self.ticket = None;
    }

    /// The ticket, for the record. The connection's instance ID is kept even without one.
    pub fn ticket_record(&self) -> TencentTicket {
        let mut record = TencentTicket {
            instance_id: self.instance_id.clone(),
            ..TencentTicket::default()
        };
        if let Some(ticket) = &self.ticket {
            record.a2.clone_from(ticket.a2.expose());
            record.tiny_id.clone_from(&ticket.tiny_id);
            record.inst_id = ticket.inst_id;
            record.hello_interval = ticket.hello_interval;
        }
        record
    }

    /// How far the session has read, for the record.
    pub const fn position(&self) -> &Position {
        &self.position
    }

    /// Sends the login.
    pub fn log_in(&mut self, now: Now, credential: &Credential) {
        self.phase = Phase::LoggingIn;
        let frame = match credential {
            Credential::Ticket => {
                self.request(
                    now,
                    "im_open_status.wslogin",
                    outgoing::LOGIN.into(),
                    Purpose::Login,
                );
                return;
            }
            Credential::Signature(signature) => {
                self.ticket = None;
                self.next_seq += 1;
                frame::encode_request(
                    &RequestHead {
                        credential: frame::Credential::Signature {
                            identifier: &self.who.account,
                            usersig: signature.expose(),
                        },
                        status_instid: 0,
                        sdk_app_id: self.who.sdk_app_id,
                        reqtime: now.wall.as_secs(),
                        servcmd: "im_open_status.wslogin",
                        seq: self.next_seq,
                    },
                    outgoing::LOGIN,
                    true,
                )
            }
        };
        self.out.frames.push_back(frame);
        let pending = Pending {
            servcmd: "im_open_status.wslogin".into(),
            body: String::new(),
            deadline: None,
            purpose: Purpose::Login,
        };
        self.requests.insert(self.next_seq, pending);
    }

    /// Sends the logout.
    pub fn log_out(&mut self, now: Now) {
        self.request(
            now,
            "im_open_status.wslogout",
            outgoing::LOGOUT.into(),
            Purpose::Logout,
        );
    }

    /// Asks for a sign of life.
    pub fn heartbeat(&mut self, now: Now) {
        self.request(now, "heartbeat.alive", "{}".into(), Purpose::Heartbeat);
    }

    /// Sends a message now, or when the session is online again. It is sent again, unchanged, after a drop, until
    /// it is answered or `deadline` has passed.
    pub fn send(&mut self, now: Now, id: RequestId, message: &OutgoingMessage, deadline: Instant) {
        let identity = self.message_identity(now, &message.client_message_id);
        let (command, body) = outgoing::message(&self.who.account, message, identity);
        if let Some(code) = self.overloaded(now, command) {
            self.out.reports.push_back(Report::Answered(id, code));
            return;
        }
        let group = match &message.conversation {
            Conversation::Group(group) => Some(group.clone()),
            Conversation::User(_) => None,
        };
        self.next_seq += 1;
        let pending = Pending {
            servcmd: command.into(),
            body,
            deadline: Some(deadline),
            purpose: Purpose::Send {
                id,
                identity,
                group,
            },
        };
        if self.is_online() {
            self.push_frame(now, self.next_seq, &pending.servcmd, &pending.body);
        }
        self.requests.insert(self.next_seq, pending);
    }

    /// Sends a raw command. It does not outlive the connection.
    pub fn invoke(&mut self, now: Now, id: RequestId, command: &str, body: String) {
        if let Some(answer) = self.overloaded(now, command) {
            self.out.reports.push_back(Report::Answered(id, answer));
        } else if self.is_online() {
            self.request(now, command, body, Purpose::Invoke(id));
        } else {
            self.out.reports.push_back(Report::Unanswered(id));
        }
    }

    /// Acknowledges pushes whose events are in the log now.
    pub fn stored(&mut self, now: Now, acks: &[PushAck]) {
        if !self.is_online() {
            return;
        }
        for PushAck(session_data) in acks {
            self.next_seq += 1;
            let body = outgoing::push_ack(session_data);
            self.push_frame(now, self.next_seq, "openim.ws_msg_push_ack", &body);
        }
    }

    /// While stalled, pushes are left out unacknowledged; afterwards they are fetched.
    pub fn set_stalled(&mut self, now: Now, stalled: bool) {
        self.stalled = stalled;
        self.go_on(now);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Offline;
        self.hello_at = None;
        let lost = self.requests.disconnected();
        self.out.frames.clear();
        self.out
            .reports
            .extend(lost.into_iter().map(Report::Unanswered));
    }

    /// When [`Protocol::timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.hello_at, self.requests.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Now) {
        for pending in self.requests.overdue(now.at) {
            match pending.purpose {
                Purpose::Send { id, .. } | Purpose::Invoke(id) => {
                    self.out.reports.push_back(Report::Unanswered(id));
                }
                Purpose::CatchUp => {
                    self.out
                        .reports
                        .push_back(Report::Dead("catch-up unanswered"));
                }
                Purpose::Reassert => {
                    self.out.reports.push_back(Report::Dead("login unanswered"));
                }
                Purpose::Login | Purpose::Logout | Purpose::Heartbeat | Purpose::Hello => {}
            }
        }
        if self.hello_at.is_some_and(|at| at <= now.at) {
            self.request(
                now,
                "im_open_status.wshello",
                outgoing::HELLO.into(),
                Purpose::Hello,
            );
            self.schedule_hello(now);
        }
    }

    /// Takes in one frame.
    pub fn receive(&mut self, now: Now, bytes: &[u8]) {
        let incoming = match frame::decode(bytes, self.who.max_frame_bytes) {
            Ok(incoming) => incoming,
            Err(error) => {
                self.out
                    .reports
                    .push_back(Report::BadFrame(error.to_string()));
                return;
            }
        };
        if let Some(pending) = self.requests.answered(incoming.seq, &incoming.servcmd) {
            self.answered(now, incoming.seq, pending, &incoming.body);
        } else if incoming.seq == 0 || is_push(&incoming.servcmd) {
            self.pushed(now, &incoming);
        }
        // Else it answers something that is not waited for any longer.
    }

    fn answered(&mut self, now: Now, seq: u64, pending: Pending, body: &RawValue) {
        let status = match serde_json::from_str::<Status>(body.get()) {
            Ok(status) => status,
            Err(error) => {
                self.out
                    .reports
                    .push_back(Report::BadFrame(error.to_string()));
                Status {
                    code: -1,
                    desc: "the answer cannot be read".into(),
                    kick_type: 0,
                }
            }
        };
        let by_login = matches!(pending.purpose, Purpose::Login | Purpose::Logout);
        if codes::ends_session(status.code) && !by_login {
            self.session_ended(seq, pending, status);
            return;
        }
        match pending.purpose {
            Purpose::Login => self.login_answered(now, status, body),
            Purpose::Reassert if status.code == 0 => self.catch_up(now, CatchUp::whole()),
            Purpose::Reassert => {
                self.out
                    .reports
                    .push_back(Report::Dead("the upstream refused the session"));
            }
            Purpose::Logout => self.out.reports.push_back(Report::LoggedOut),
            Purpose::Hello if status.code == codes::KICKED => {
                let desc = status.desc;
                self.out.reports.push_back(Report::Kicked {
                    kick_type: status.kick_type,
                    desc,
                });
            }
            Purpose::Hello | Purpose::Heartbeat => {}
            Purpose::CatchUp => self.catch_up_answered(now, &status, body),
            Purpose::Send {
                id,
                identity,
                group,
            } => {
                let answer = self.sent(identity, group.as_deref(), status, body);
                self.out.reports.push_back(Report::Answered(id, answer));
            }
            Purpose::Invoke(id) => {
                let answer = Answer {
                    body_json: body.get().to_owned(),
                    ..failure(status.code, status.desc)
                };
                self.out.reports.push_back(Report::Answered(id, answer));
            }
        }
    }

    /// The upstream refused a request because the credential has ended.
    fn session_ended(&mut self, seq: u64, pending: Pending, status: Status) {
        match &pending.purpose {
            // It was not sent: it goes out again after the next login.
            Purpose::Send { .. } => self.requests.insert(seq, pending),
            Purpose::Invoke(id) => self.out.reports.push_back(Report::Unanswered(*id)),
            Purpose::Login
            | Purpose::Reassert
            | Purpose::Logout
            | Purpose::Heartbeat
            | Purpose::Hello
            | Purpose::CatchUp => {}
        }
        self.out
            .reports
            .push_back(Report::Expired(codes::refusal(status.code, status.desc)));
    }

    fn login_answered(&mut self, now: Now, status: Status, body: &RawValue) {
        let accepted = match serde_json::from_str::<LoginAnswer>(body.get()) {
            Ok(answer) if status.code == 0 => answer,
            Ok(_) | Err(_) => {
                // An answer that cannot be read counts as a refusal that may pass.
                let code = if status.code == 0 { -1 } else { status.code };
                self.out
                    .reports
                    .push_back(Report::Refused(codes::refusal(code, status.desc)));
                return;
            }
        };
        // The vendor's SDK gives these two numbers to an answer without its fruit.
        let missing = match (accepted.tiny_id.is_empty(), accepted.a2_key.is_empty()) {
            (true, _) => Some((2022, "the upstream's login answer has no TinyId")),
            (false, true) => Some((2023, "the upstream's login answer has no A2Key")),
            (false, false) => None,
        };
        if let Some((code, desc)) = missing {
            self.out
                .reports
                .push_back(Report::Refused(codes::refusal(code, desc.into())));
            return;
        }
        self.ticket = Some(Ticket {
            a2: crate::types::Secret::new(accepted.a2_key),
            tiny_id: accepted.tiny_id,
            inst_id: accepted.inst_id,
            hello_interval: accepted.hello_interval,
        });
        self.out.reports.push_back(Report::Accepted);
        self.schedule_hello(now);
        self.phase = Phase::Live;
        let again: Vec<(u64, String, String)> = self
            .requests
            .sends()
            .map(|(seq, pending)| (seq, pending.servcmd.clone(), pending.body.clone()))
            .collect();
        for (seq, servcmd, body) in again {
            self.push_frame(now, seq, &servcmd, &body);
        }
        self.catch_up(now, CatchUp::whole());
    }

    fn pushed(&mut self, now: Now, incoming: &Incoming) {
        let servcmd = incoming.servcmd.as_str();
        if IRRELEVANT_PUSHES.contains(&servcmd) {
            return;
        }
        let mut entries = Vec::new();
        let mut ack = None;
        let mut more = false;
        match (
            is_event_push(servcmd),
            serde_json::from_str::<PushBody<'_>>(incoming.body.get()),
        ) {
            (true, Ok(push)) => {
                for entry in push.event_array {
                    message::parse_event(&self.who.account, servcmd, entry, &mut entries);
                }
                ack = (push.need_ack == 1).then_some(PushAck(push.session_data));
                more = push.flag == 1;
            }
            (true, Err(_)) | (false, _) => {
                entries.push(message::notice(servcmd, &incoming.body));
            }
        }
        self.react(now, incoming);
        for entry in &entries {
            if let Parsed::Kick(kick_type) = entry {
                let desc = format!("another login took the account (kick type {kick_type})");
                self.out.reports.push_back(Report::Kicked {
                    kick_type: *kick_type,
                    desc,
                });
            }
        }
        entries.retain(|entry| !matches!(entry, Parsed::Kick(_)));
        if !entries.is_empty() || ack.is_some() {
            self.take_push(
                now,
                Held {
                    entries: entries.into(),
                    ack,
                },
            );
        }
        if more {
            self.catch_up(now, CatchUp::of([Step::C2c { sync_flag: 0 }]));
        }
    }

    /// What pushes ask of the connector itself.
    fn react(&mut self, now: Now, incoming: &Incoming) {
        match incoming.servcmd.as_str() {
            "OverLoadPush.notify2" => {
                if let Ok(overload) = serde_json::from_str::<Overload>(incoming.body.get()) {
                    let delay = Duration::from_secs(overload.delay_secs).min(MAX_OVERLOAD);
                    self.overloads.retain(|_, until| *until > now.at);
                    self.overloads
                        .insert(overload.over_load_serv_cmd, now.at + delay);
                }
            }
            "StatSvc.KickOther" if self.is_online() => {
                self.request(
                    now,
                    "im_open_status.wslogin",
                    outgoing::LOGIN.into(),
                    Purpose::Reassert,
                );
            }
            _ => {}
        }
    }

    /// Passes a push on, or keeps it until what came before it has been fetched.
    fn take_push(&mut self, now: Now, push: Held) {
        self.pushes_since_sync += 1;
        match &mut self.phase {
            Phase::CatchingUp(round) if self.stalled => round.missed_one(),
            Phase::CatchingUp(round) => round.hold(push),
            Phase::Live if self.stalled => self.phase = Phase::CatchingUp(CatchUp::later()),
            Phase::Live => {
                self.deliver(now, VecDeque::from([push]));
                if self.pushes_since_sync >= PUSHES_PER_SYNC {
                    self.catch_up(now, CatchUp::of([Step::C2c { sync_flag: 0 }]));
                }
            }
            // Without a login there is nothing that could be missed.
            Phase::Offline | Phase::LoggingIn => {}
        }
    }

    /// Reports pushes as one delivery, up to the first that shows a gap in a group.
    fn deliver(&mut self, now: Now, mut pushes: VecDeque<Held>) {
        let mut delivery = Delivery::default();
        let mut gap = None;
        while let Some(mut push) = pushes.pop_front() {
            gap = self.deliver_one(&mut push, &mut delivery);
            if gap.is_some() {
                pushes.push_front(push);
                break;
            }
            delivery.acks.extend(push.ack);
        }
        if !delivery.events.is_empty() || !delivery.acks.is_empty() {
            self.out.reports.push_back(Report::Events(delivery));
        }
        if let Some(step) = gap {
            let mut round = CatchUp::of([step]);
            while let Some(push) = pushes.pop_back() {
                round.hold_first(push);
            }
            self.catch_up(now, round);
        }
    }

    fn deliver_one(&mut self, push: &mut Held, delivery: &mut Delivery) -> Option<Step> {
        while let Some(entry) = push.entries.pop_front() {
            match entry {
                Parsed::C2c(message) => {
                    if self.position.remember(&message.id) {
                        delivery.events.push(v1::event::Kind::Message(message));
                    }
                }
                Parsed::Group {
                    group,
                    sequence,
                    message,
                } => {
                    let new = match (sequence, self.position.group_order(&group, sequence)) {
                        (0, _) => self.position.remember(&message.id),
                        (_, GroupOrder::Seen) => false,
                        (_, GroupOrder::Next) => true,
                        (_, GroupOrder::GapAfter(_)) => {
                            let step = Step::Group {
                                group: group.clone(),
                                upto: sequence - 1,
                            };
                            push.entries.push_front(Parsed::Group {
                                group,
                                sequence,
                                message,
                            });
                            return Some(step);
                        }
                    };
                    if new {
                        self.position.advance_group(&group, sequence);
                        delivery.events.push(v1::event::Kind::Message(message));
                    }
                }
                Parsed::Notice(notice) => {
                    delivery
                        .events
                        .push(v1::event::Kind::UpstreamNotice(notice));
                }
                Parsed::Kick(_) => {}
            }
        }
        None
    }

    fn catch_up(&mut self, now: Now, round: CatchUp) {
        match &mut self.phase {
            // A round is under way: another follows it.
            Phase::CatchingUp(running) => running.missed_one(),
            Phase::Offline | Phase::LoggingIn | Phase::Live => {
                self.phase = Phase::CatchingUp(round);
            }
        }
        self.go_on(now);
    }

    /// Sends the next request of the round, or ends it.
    fn go_on(&mut self, now: Now) {
        if self.stalled {
            return;
        }
        let Phase::CatchingUp(round) = &mut self.phase else {
            return;
        };
        if let Some((command, body)) = round.next_request(&self.who.account, &self.position) {
            self.request(now, command, body, Purpose::CatchUp);
            return;
        }
        if !round.is_waiting()
            && let Phase::CatchingUp(round) = std::mem::replace(&mut self.phase, Phase::Live)
        {
            self.pushes_since_sync = 0;
            self.deliver(now, round.finish());
        }
    }

    fn catch_up_answered(&mut self, now: Now, status: &Status, body: &RawValue) {
        let Phase::CatchingUp(round) = &mut self.phase else {
            return;
        };
        let fetched = if status.code == 0 {
            match round.answered(&self.who.account, &mut self.position, body) {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.out
                        .reports
                        .push_back(Report::BadFrame(error.to_string()));
                    round.refused(&mut self.position)
                }
            }
        } else {
            round.refused(&mut self.position)
        };
        // Also without events: the cookie may have moved.
        let delivery = Delivery {
            events: fetched.events,
            acks: Vec::new(),
        };
        self.out.reports.push_back(Report::Events(delivery));
        self.go_on(now);
    }

    fn sent(
        &self,
        identity: Identity,
        group: Option<&str>,
        status: Status,
        body: &RawValue,
    ) -> Answer {
        let mut answer = failure(status.code, status.desc);
        answer.body_json = body.get().to_owned();
        if answer.code == 0 {
            let sent = serde_json::from_str::<SendAnswer>(body.get()).unwrap_or(SendAnswer {
                msg_time: 0,
                msg_seq: 0,
            });
            let tiny_id = self
                .ticket
                .as_ref()
                .map_or("", |ticket| ticket.tiny_id.as_str());
            answer.sent_at = sent.msg_time;
            answer.message_id = match group {
                Some(group) => format!("{group}-{}", sent.msg_seq),
                None => format!("{tiny_id}-{}-{}", identity.client_time, identity.random),
            };
            answer.upstream_sequence = if group.is_some() { sent.msg_seq } else { 0 };
        }
        answer
    }

    /// The same client message ID gives the same identity, so that the upstream's own rule against doubles holds
    /// over retries and restarts.
    fn message_identity(&mut self, now: Now, client_message_id: &str) -> Identity {
        let client_time = now.wall.as_secs();
        if client_message_id.is_empty() {
            self.next_message = self.next_message.wrapping_add(1);
            let random = u32::try_from(below(&mut self.jitter, FIRST_SEQ_BELOW)).unwrap_or(0);
            return Identity {
                sequence: self.next_message,
                random,
                client_time,
            };
        }
        let sequence = crc32fast::hash(client_message_id.as_bytes());
        let salted = format!("{}\n{client_message_id}", self.who.account);
        let random = crc32fast::hash(salted.as_bytes()) % 100_000_000;
        Identity {
            sequence,
            random,
            client_time,
        }
    }

    fn overloaded(&self, now: Now, command: &str) -> Option<Answer> {
        let until = self
            .overloads
            .get(command)
            .filter(|until| **until > now.at)?;
        let wait = until.duration_since(now.at).as_secs() + 1;
        Some(failure(
            codes::OVERLOADED,
            format!("the upstream announced an overload; try again in {wait} s"),
        ))
    }

    const fn is_online(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp(_) | Phase::Live)
    }

    fn schedule_hello(&mut self, now: Now) {
        let seconds = match &self.ticket {
            Some(ticket) if ticket.hello_interval > 0 => ticket.hello_interval,
            Some(_) | None => HELLO_INTERVAL,
        };
        self.hello_at = Some(now.at + Duration::from_secs(seconds.into()));
    }

    fn request(&mut self, now: Now, servcmd: &str, body: String, purpose: Purpose) {
        self.next_seq += 1;
        self.push_frame(now, self.next_seq, servcmd, &body);
        let deadline = match purpose {
            // The session keeps the time of these.
            Purpose::Login | Purpose::Logout | Purpose::Heartbeat => None,
            Purpose::Reassert
            | Purpose::Hello
            | Purpose::CatchUp
            | Purpose::Send { .. }
            | Purpose::Invoke(_) => Some(now.at + REQUEST_TIMEOUT),
        };
        let pending = Pending {
            servcmd: servcmd.to_owned(),
            body: String::new(),
            deadline,
            purpose,
        };
        self.requests.insert(self.next_seq, pending);
    }

    fn push_frame(&mut self, now: Now, seq: u64, servcmd: &str, body: &str) {
        let (credential, status_instid) = match &self.ticket {
            Some(ticket) => (
                frame::Credential::Ticket {
                    a2: ticket.a2.expose(),
                    tinyid: &ticket.tiny_id,
                },
                ticket.inst_id,
            ),
            None => (
                frame::Credential::Signature {
                    identifier: &self.who.account,
                    usersig: "",
                },
                0,
            ),
        };
        let head = RequestHead {
            credential,
            status_instid,
            sdk_app_id: self.who.sdk_app_id,
            reqtime: now.wall.as_secs(),
            servcmd,
            seq,
        };
        self.out
            .frames
            .push_back(frame::encode_request(&head, body, true));
    }
}

fn is_event_push(servcmd: &str) -> bool {
    matches!(
        servcmd,
        "im_open_push.msg_push"
            | "im_open_push.multi_msg_push_ws"
            | "im_open_status.stat_forceoffline"
    )
}

/// Some pushes carry a number of their own.
fn is_push(servcmd: &str) -> bool {
    is_event_push(servcmd) || servcmd == "OverLoadPush.notify2" || servcmd == "StatSvc.KickOther"
}

fn failure(code: i32, desc: String) -> Answer {
    Answer {
        code,
        desc,
        body_json: String::new(),
        message_id: String::new(),
        sent_at: 0,
        upstream_sequence: 0,
    }
}

/// A random whole number below `bound`.
fn below(jitter: &mut Jitter, bound: f64) -> u64 {
    // Within 2^53 by its callers, and never negative.
    Duration::from_secs_f64(jitter.fraction() * bound).as_secs()
}
