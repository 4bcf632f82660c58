//! What cannot be read, above all because it is too large: told as a gap, and never asked for in vain.

use prost::Message as _;

use super::{Phase, Protocol};
use crate::connectors::tencent::catchup::gap;
use crate::connectors::tencent::frame::{About, FrameError};
use crate::connectors::tencent::push;
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
            // What that gives up is in the gap that is owed. If it passes over a message, the record may say so at once, so
            // the gap does, too.
            let given_up = round.too_large(&mut self.position, &mut self.trouble, now.at, fraction);
            if given_up.is_some_and(|fetched| fetched.events != [gap(0)]) {
                self.report_events(Delivery::default());
            }
        }
    }

    /// A frame cannot be read: it may have brought anything.
    pub(super) fn unreadable(&mut self, now: Now, bytes: &[u8], error: FrameError) {
        if let FrameError::TooLarge {
            about: Some(about), ..
        } = error
            && self.is_answer_too_large(now, about)
        {
            return;
        }
        // It cannot be acknowledged, so the upstream may repeat it: told once.
        let identity = format!("frame-{}-{:08x}", bytes.len(), crc32fast::hash(bytes));
        if self.position.pushed(&identity) {
            self.miss(now);
        }
    }

    /// Whether what is too large is an answer: whoever waits for it has to do without.
    fn is_answer_too_large(&mut self, now: Now, about: About) -> bool {
        let About { servcmd, seq } = about;
        let Some(pending) = self.requests.answered(seq, &servcmd) else {
            return self.was_asked(seq) && !push::is_push(&servcmd);
        };
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
        true
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
