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
            self.told_unreadable = false;
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
        for message in &fetched.messages {
            self.left_out.fetched(message);
        }
        // Also without events: the cookie may have moved.
        self.pages += 1;
        self.out.reports.push_back(Report::Events(Delivery {
            events: fetched.events,
            acks: vec![PushAck::Page(self.pages)],
            given_up: 0,
        }));
    }

    /// Reports that events are gone for good.
    pub(super) fn give_up(&mut self, count: u64) {
        if count > 0 {
            self.out.reports.push_back(Report::Events(Delivery {
                given_up: count,
                ..Delivery::default()
            }));
        }
    }

    /// A frame could not be read: it may have brought anything. Messages are fetched; that there may be more missing is
    /// told, once in a round.
    pub(super) fn unreadable(&mut self, now: Now, error: String) {
        self.out.reports.push_back(Report::BadFrame(error));
        if !self.is_online() {
            return;
        }
        if !std::mem::replace(&mut self.told_unreadable, true) {
            self.out.reports.push_back(Report::Events(Delivery {
                events: vec![gap(0)],
                ..Delivery::default()
            }));
        }
        self.catch_up(now, CatchUp::whole());
    }
}
