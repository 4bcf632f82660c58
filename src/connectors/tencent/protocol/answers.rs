//! Answers: what becomes of each request.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Phase, Protocol};
use crate::connectors::tencent::catchup::CatchUp;
use crate::connectors::tencent::codes;
use crate::connectors::tencent::frame;
use crate::connectors::tencent::message;
use crate::connectors::tencent::requests::{Pending, Purpose, Sending};
use crate::connectors::tencent::ticket::Ticket;
use crate::connectors::{Answer, Report};
use crate::session::input::Now;
use crate::types::Secret;

#[derive(Deserialize)]
pub(super) struct Status {
    #[serde(rename = "ErrorCode", alias = "int32_error_code", default)]
    pub(super) code: i32,
    #[serde(
        rename = "ErrorInfo",
        alias = "str_error_message",
        default,
        deserialize_with = "words"
    )]
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

/// The longest explanation that is kept, in bytes: it is stored with the session and goes into every answer about it.
const MAX_WORDS: usize = 1024;

/// The upstream's words, cut off where they are longer than any explanation.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let mut words = String::deserialize(from)?;
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    Ok(words)
}

impl Protocol {
    pub(super) fn answered(&mut self, now: Now, seq: u64, pending: Pending, body: &RawValue) {
        let mut readable = true;
        let status = match serde_json::from_str::<Status>(body.get()) {
            Ok(status) => status,
            Err(error) => {
                readable = false;
                self.out
                    .reports
                    .push_back(Report::BadFrame(frame::reason(&error)));
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
            Purpose::Reassert if status.code == 0 => self.reasserted(now, body),
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
            Purpose::Send(sending) => {
                let mut answer = self.sent(&sending, status, body);
                answer.in_doubt |= !readable;
                let report = Report::Answered(sending.id, answer);
                self.out.reports.push_back(report);
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
    fn session_ended(&mut self, seq: u64, mut pending: Pending, status: Status) {
        match &mut pending.purpose {
            // It was not sent: it goes out again after the next login.
            Purpose::Send(sending) => {
                sending.out = false;
                pending.deadline = Some(sending.until);
                self.requests.insert(seq, pending);
            }
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
        if status.code != 0 {
            self.refused(status.code, status.desc);
            return;
        }
        match ticket(body) {
            Ok(ticket) => self.ticket = Some(ticket),
            Err((code, desc)) => {
                self.refused(code, desc.into());
                return;
            }
        }
        self.out.reports.push_back(Report::Accepted);
        self.schedule_hello(now);
        self.phase = Phase::Live;
        for seq in self.requests.sends(now.at) {
            self.send_out(now, seq);
        }
        self.catch_up(now, CatchUp::whole());
    }

    fn refused(&mut self, code: i32, desc: String) {
        let refusal = codes::refusal(code, desc);
        self.out.reports.push_back(Report::Refused(refusal));
    }

    /// The upstream asked for this login; the session is online all the while.
    fn reasserted(&mut self, now: Now, body: &RawValue) {
        if let Ok(ticket) = ticket(body) {
            self.ticket = Some(ticket);
        }
        self.catch_up(now, CatchUp::whole());
    }

    fn sent(&self, sending: &Sending, status: Status, body: &RawValue) -> Answer {
        let (identity, group) = (sending.identity, sending.group.as_deref());
        let mut answer = failure(status.code, status.desc);
        answer.body_json = body.get().to_owned();
        answer.in_doubt = sending.in_doubt;
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
}

/// What a login's answer gives; the code and words of the refusal that it amounts to if it gives none.
fn ticket(body: &RawValue) -> Result<Ticket, (i32, &'static str)> {
    let answer = serde_json::from_str::<LoginAnswer>(body.get())
        // That may pass.
        .map_err(|_| (-1, "the answer cannot be read"))?;
    // The vendor's SDK gives these two numbers to an answer without its fruit.
    if answer.tiny_id.is_empty() {
        return Err((2022, "the upstream's login answer has no TinyId"));
    }
    if answer.a2_key.is_empty() {
        return Err((2023, "the upstream's login answer has no A2Key"));
    }
    Ok(Ticket {
        a2: Secret::new(answer.a2_key),
        tiny_id: answer.tiny_id,
        inst_id: answer.inst_id,
        hello_interval: answer.hello_interval,
    })
}

pub(super) fn failure(code: i32, desc: String) -> Answer {
    Answer {
        code,
        desc,
        body_json: String::new(),
        message_id: String::new(),
        sent_at: 0,
        upstream_sequence: 0,
        in_doubt: false,
    }
}
