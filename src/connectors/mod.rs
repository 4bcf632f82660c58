//! One folder per upstream protocol: bytes in, meaning out, and back.
//!
//! A connector is pure: it is given frames, commands and the time, and answers with [`Output`]. The runtime owns
//! the socket. An enum over protocols takes the place of `tencent::protocol::Protocol` when there is a second one.

pub mod invoke;
pub mod tencent;
pub mod websocket;

use std::collections::VecDeque;

use crate::proto::v1;
use crate::session::disposition::Refusal;

/// What a connector asks for and reports. Filled by each call, emptied by the runtime after it.
#[derive(Debug, Default)]
pub struct Output {
    /// Frames to send, in order.
    pub frames: VecDeque<Vec<u8>>,
    /// What has happened, in order.
    pub reports: VecDeque<Report>,
}

/// Up to so many times the limit a frame is taken, for the sake of the parts in it that are within the limit.
const FRAME_TIMES_LIMIT: usize = 4;
/// But to no more than this, in bytes, unless the limit itself is greater.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// The greatest frame that is taken from the upstream, in bytes, packed and unpacked, where `limit` is the tenant's.
///
/// A frame may carry many messages, and catch-up can often not ask for fewer: were a page left out because it is over
/// the limit as a whole, all its messages would be missing. What is itself over the limit is told as a gap.
pub fn greatest_frame(limit: usize) -> usize {
    let times = limit.saturating_mul(FRAME_TIMES_LIMIT);
    times.min(MAX_FRAME_BYTES).max(limit)
}

/// Names a command of the runtime's, so that its answer can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a frame, or the want of one, means.
#[derive(Debug)]
pub enum Report {
    /// The login was accepted; the ticket has changed.
    Accepted,
    /// The login was answered with a code.
    Refused(Refusal),
    /// The logout was answered.
    LoggedOut,
    /// The upstream says that the credential of the online session has ended.
    Expired(Refusal),
    /// Another login took the account.
    Kicked {
        /// The upstream's kind of kick.
        kick_type: i32,
        /// In words.
        desc: String,
    },
    /// The connection is of no use any more.
    Dead(&'static str),
    /// Events to append. The connector's position is already behind them: it is stored with them.
    Events(Delivery),
    /// A command was answered.
    Answered(RequestId, Answer),
    /// A command was not answered in time, or the connection broke after it was sent.
    Unanswered(RequestId),
    /// A message did not go out in time: the session was not online.
    Unsent(RequestId),
    /// A frame could not be read; it was left out.
    BadFrame(String),
}

/// Events, and what to acknowledge when they are stored.
#[derive(Debug, Default)]
pub struct Delivery {
    /// How many events came before these and were given up by the connector: they cannot be had again.
    pub given_up: u64,
    /// What happened, in order.
    pub events: Vec<v1::event::Kind>,
    /// What goes back to the connector once the events are in the log, and not before.
    pub acks: Vec<PushAck>,
}

/// What waits for an append, to be acknowledged upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushAck {
    /// The upstream's handle of a push.
    Push(String),
    /// A page of catch-up, by number. It is acknowledged by asking for the next one.
    Page(u64),
}

/// The upstream's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 is success.
    pub code: i32,
    /// The upstream's words.
    pub desc: String,
    /// The body, a JSON object.
    pub body_json: String,
    /// For messages: the identity that receivers see.
    pub message_id: String,
    /// For messages: the upstream's time in Unix seconds.
    pub sent_at: u64,
    /// For group messages: the group's sequence.
    pub upstream_sequence: u64,
    /// For messages: it says nothing of an earlier try, which may have been taken.
    pub in_doubt: bool,
}

/// A message to send, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingMessage {
    /// Where to.
    pub conversation: Conversation,
    /// Its parts.
    pub elements: Vec<v1::Element>,
    /// The caller's own ID; empty for none.
    pub client_message_id: String,
    /// The application's own data.
    pub cloud_custom_data: String,
    /// Not stored upstream.
    pub online_only: bool,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// To a user.
    User(String),
    /// To a group.
    Group(String),
}
