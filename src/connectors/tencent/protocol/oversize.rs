//! What is too large or cannot be read: told as a gap, and never asked for in vain.

use prost::Message as _;

use super::{Phase, Protocol};
use crate::connectors::tencent::catchup::{CatchUp, gap};
use crate::connectors::tencent::frame::About;
use crate::connectors::tencent::protocol::pushes;
use crate::connectors::tencent::requests::{Purpose, Sending};
use crate::connectors::{Delivery, Report};
use crate::proto::v1::event::Kind;
use crate::session::input::Now;

/// An event carries a message's parts and its JSON: what has so many times the limit was over the limit itself.
const EVENT_TIMES_LIMIT: usize = 2;

impl Protocol {
    /// The connection was cut because of a frame that is too large to be taken. What it was is not known: it may have
    /// answered the request in flight.
    pub fn cut_by_a_frame(&mut self, now: Now) {
        self.owes_gap = true;
        let fraction = self.jitter.fraction();
        if let Phase::CatchingUp(round) = &mut self.phase
            && round.is_waiting()
        {
            // What that gives up is in the gap that is owed.
            let _told = round.too_large(&mut self.position, &mut self.trouble, now.at, fraction);
        }
    }

    /// A frame is too large to be read; its beginning may say what it is about.
    pub(super) fn too_large(&mut self, now: Now, bytes: &[u8], about: Option<About>) {
        if let Some(About { servcmd, seq }) = about {
            if let Some(pending) = self.requests.answered(seq, &servcmd) {
                match pending.purpose {
                    Purpose::CatchUp => self.catch_up_too_large(now),
                    Purpose::Send(Sending { id, .. }) | Purpose::Invoke(id) => {
                        self.out.reports.push_back(Report::Unanswered(id));
                    }
                    Purpose::Reassert => {
                        self.out.reports.push_back(Report::Dead("login unanswered"));
                    }
                    // The session misses the answers that it needs.
                    Purpose::Login | Purpose::Logout | Purpose::Heartbeat | Purpose::Hello => {}
                }
                return;
            }
            if self.was_asked(seq) && !pushes::is_push(&servcmd) {
                return;
            }
        }
        if self.is_new(bytes) {
            self.owes_gap = true;
            self.tell_owed_gap();
        }
    }

    /// A frame cannot be read at all, and may have brought anything. Messages are fetched; more may be missing.
    pub(super) fn unreadable(&mut self, now: Now, bytes: &[u8]) {
        if self.is_online() && self.is_new(bytes) {
            self.owes_gap = true;
            self.catch_up(now, CatchUp::whole());
        }
    }

    /// What is not read cannot be acknowledged, so the upstream may repeat it: it is told once.
    fn is_new(&mut self, frame: &[u8]) -> bool {
        let identity = format!("frame-{}-{:08x}", frame.len(), crc32fast::hash(frame));
        self.position.pushed(&identity)
    }

    /// Puts gaps in the place of events that are over the limit themselves.
    pub(super) fn leave_out_oversize(&mut self, delivery: &mut Delivery) {
        let most = self.who.max_frame_bytes.saturating_mul(EVENT_TIMES_LIMIT);
        for event in &mut delivery.events {
            let bytes = match event {
                Kind::Message(message) => message.encoded_len(),
                Kind::UpstreamNotice(notice) => notice.encoded_len(),
                Kind::SessionChanged(_)
                | Kind::SignatureExpired(_)
                | Kind::KickedOffline(_)
                | Kind::Gap(_) => 0,
            };
            if bytes > most {
                let error = format!("an event would have {bytes} bytes, which is over {most}");
                self.out.reports.push_back(Report::BadFrame(error));
                *event = gap(1);
            }
        }
    }
}
