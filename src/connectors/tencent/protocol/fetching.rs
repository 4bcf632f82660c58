//! Fetching what was missed: one round of catching up after another.

use serde_json::value::RawValue;

use super::answers::Status;
use super::{Phase, Protocol};
use crate::connectors::tencent::catchup::{CatchUp, gap};
use crate::connectors::tencent::requests::Purpose;
use crate::connectors::{Delivery, PushAck, Report};
use crate::session::input::Now;

impl Protocol {
    pub(super) fn catch_up(&mut self, now: Now, round: CatchUp) {
        match &mut self.phase {
            // A round is under way: another follows it.
            Phase::CatchingUp(running) => running.once_more(),
            Phase::Offline | Phase::LoggingIn | Phase::Live => {
                self.phase = Phase::CatchingUp(round);
            }
        }
        self.go_on(now);
    }

    /// Sends the next request of the round, or ends it.
    pub(super) fn go_on(&mut self, now: Now) {
        // To ask for the next page says upstream that all before it has arrived.
        if self.stalled || self.pages_stored < self.pages {
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
            self.messages_since_sync = 0;
            self.deliver(now, round.finish());
        }
    }

    pub(super) fn catch_up_answered(&mut self, status: &Status, body: &RawValue) {
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
            acks: vec![PushAck::Page(self.pages + 1)],
        };
        self.pages += 1;
        self.report_events(delivery);
    }

    /// Reports what has come, after a gap if one is owed.
    pub(super) fn report_events(&mut self, mut delivery: Delivery) {
        let left_out = std::mem::take(&mut self.left_out);
        if std::mem::take(&mut self.owes_gap) {
            delivery.events.insert(0, gap(0));
        } else if left_out > 0 {
            delivery.events.insert(0, gap(left_out));
        }
        self.out.reports.push_back(Report::Events(delivery));
    }
}
