//! Commands: what the runtime asks for, and how it goes out.

use std::time::Instant;

use aws_lc_rs::digest;

use super::answers::failure;
use super::{Phase, Protocol, below};
use crate::connectors::tencent::codes;
use crate::connectors::tencent::frame::{self, RequestHead};
use crate::connectors::tencent::outgoing::{self, Identity};
use crate::connectors::tencent::requests::{Pending, Purpose, REQUEST_TIMEOUT, Sending};
use crate::connectors::{Answer, Conversation, OutgoingMessage, PushAck, Report, RequestId};
use crate::session::effect::Credential;
use crate::session::input::Now;

/// A message's random number is below this.
const RANDOM_BELOW: f64 = 100_000_000.0;

impl Protocol {
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
    /// it is answered or `until` has passed. `client_time`, in Unix seconds, and the client message ID make it one and
    /// the same message, however often it is sent.
    pub fn send(
        &mut self,
        now: Now,
        id: RequestId,
        message: &OutgoingMessage,
        client_time: u64,
        until: Instant,
    ) {
        let identity = self.message_identity(client_time, &message.client_message_id);
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
        let sending = Sending {
            id,
            identity,
            group,
            until,
            lingers: !message.client_message_id.is_empty(),
            out: false,
            in_doubt: false,
        };
        let pending = Pending {
            servcmd: command.into(),
            body,
            deadline: Some(until),
            purpose: Purpose::Send(sending),
        };
        self.requests.insert(self.next_seq, pending);
        if self.is_online() && until > now.at {
            self.send_out(now, self.next_seq);
        }
    }

    /// A message that was asked for may go out until then. It does so now if it came too late for this connection.
    pub fn extend(&mut self, now: Now, id: RequestId, until: Instant) {
        if let Some(seq) = self.requests.extend(id, until)
            && self.is_online()
            && until > now.at
        {
            self.send_out(now, seq);
        }
    }

    /// The session has been logged out: messages are not waited for any longer, and do not go out with its next login.
    pub fn end_sends(&mut self) {
        let ended = self.requests.end_sends().into_iter();
        let reports = ended.map(|(id, out)| match out {
            true => Report::Unanswered(id),
            false => Report::Unsent(id),
        });
        self.out.reports.extend(reports);
    }

    pub(super) fn send_out(&mut self, now: Now, seq: u64) {
        if let Some((command, body)) = self.requests.goes_out(seq, now.at) {
            self.push_frame(now, seq, &command, &body);
        }
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

    /// Acknowledges what is in the log now.
    pub fn stored(&mut self, now: Now, acks: &[PushAck]) {
        for ack in acks {
            match ack {
                PushAck::Page(page) => self.pages_stored = self.pages_stored.max(*page),
                PushAck::Push(session_data) if self.is_online() => {
                    self.next_seq += 1;
                    let body = outgoing::push_ack(session_data);
                    self.push_frame(now, self.next_seq, "openim.ws_msg_push_ack", &body);
                }
                // The upstream pushes it again.
                PushAck::Push(_) => {}
            }
        }
        self.go_on(now);
    }

    /// Something that was reported is not in the log, and will not be, which is told as a gap: reading goes on.
    pub fn not_stored(&mut self, now: Now) {
        self.pages_stored = self.pages;
        self.go_on(now);
    }

    /// The same client message ID gives the same numbers, so that the upstream's own rule against doubles holds
    /// over retries and restarts.
    fn message_identity(&mut self, client_time: u64, client_message_id: &str) -> Identity {
        if client_message_id.is_empty() {
            self.next_message = self.next_message.wrapping_add(1);
            let random = u32::try_from(below(&mut self.jitter, RANDOM_BELOW)).unwrap_or(0);
            return Identity {
                sequence: self.next_message,
                random,
                client_time,
            };
        }
        let whose = format!("{}\n{client_message_id}", self.who.account);
        let digest = digest::digest(&digest::SHA256, whose.as_bytes());
        let word = |at: usize| {
            let bytes = digest.as_ref().iter().skip(at).take(4);
            bytes.fold(0_u32, |word, byte| (word << 8) | u32::from(*byte))
        };
        Identity {
            sequence: word(0),
            random: word(4) % 100_000_000,
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

    pub(super) fn request(&mut self, now: Now, servcmd: &str, body: String, purpose: Purpose) {
        self.next_seq += 1;
        self.push_frame(now, self.next_seq, servcmd, &body);
        let deadline = match purpose {
            // The session keeps the time of these.
            Purpose::Login | Purpose::Logout | Purpose::Heartbeat => None,
            Purpose::Reassert
            | Purpose::Hello
            | Purpose::CatchUp
            | Purpose::Send(_)
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

    pub(super) fn push_frame(&mut self, now: Now, seq: u64, servcmd: &str, body: &str) {
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
