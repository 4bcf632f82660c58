//! Fetching what was missed: one round of catching up after another.

use std::time::Instant;

use serde_json::value::RawValue;

use super::answers::Status;
use super::{Phase, Protocol};
use crate::connectors::tencent::catchup::{CatchUp, Fetched, gap};
use crate::connectors::tencent::frame;
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
        let account = &self.who.account;
        let request = round.next_request(account, &mut self.position, &self.trouble, now.at);
        // What rests may be missing.
        self.owes_gap |= round.has_skipped();
        if let Some((command, body)) = request {
            self.request(now, command, body, Purpose::CatchUp);
            return;
        }
        if !round.is_waiting()
            && let Phase::CatchingUp(round) = std::mem::replace(&mut self.phase, Phase::Live)
        {
            self.messages_since_sync = 0;
            self.trouble.round_ended();
            self.deliver(now, round.finish());
            self.tell_owed_gap();
        }
    }

    /// When catching up is to be tried again, of itself.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Live if !self.stalled => self.trouble.next_retry(),
            // A round comes by itself.
            Phase::Live | Phase::Offline | Phase::LoggingIn | Phase::CatchingUp(_) => None,
        }
    }

    pub(super) fn catch_up_answered(&mut self, now: Now, status: &Status, body: &RawValue) {
        let fraction = self.jitter.fraction();
        let Phase::CatchingUp(round) = &mut self.phase else {
            return;
        };
        let fetched = if status.code == 0 {
            match round.answered(
                &self.who.account,
                &mut self.position,
                &mut self.trouble,
                body,
            ) {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.out
                        .reports
                        .push_back(Report::BadFrame(frame::reason(&error)));
                    round.refused(&mut self.position, &mut self.trouble, now.at, fraction)
                }
            }
        } else {
            round.refused(&mut self.position, &mut self.trouble, now.at, fraction)
        };
        self.page_read(now, fetched);
    }

    /// The round's request was not answered in time.
    pub(super) fn catch_up_unanswered(&mut self, now: Now) {
        let fraction = self.jitter.fraction();
        let Phase::CatchingUp(round) = &mut self.phase else {
            return;
        };
        match round.unanswered(&mut self.position, &mut self.trouble, now.at, fraction) {
            Some(fetched) => self.page_read(now, fetched),
            None => {
                let reason = "catch-up unanswered";
                self.out.reports.push_back(Report::Dead(reason));
            }
        }
    }

    /// The answer to the round's request is too large to be read.
    pub(super) fn catch_up_too_large(&mut self, now: Now) {
        let fraction = self.jitter.fraction();
        let Phase::CatchingUp(round) = &mut self.phase else {
            return;
        };
        match round.too_large(&mut self.position, &mut self.trouble, now.at, fraction) {
            Some(fetched) => self.page_read(now, fetched),
            None => self.go_on(now),
        }
    }

    fn page_read(&mut self, now: Now, fetched: Fetched) {
        for message in &fetched.messages {
            self.left_out.fetched(message);
        }
        // Nothing has come that could be lost, so the next page need not wait until this one is stored. Nor is it stored for
        // its cookie, which goes with what is stored next: from the one before, the same nothing would come again.
        if fetched.events.is_empty() && !fetched.has_messages && !self.owes_gap {
            if self.position.has_news() {
                self.report_events(Delivery::default());
            }
            self.go_on(now);
            return;
        }
        // Also without events: the cookie may have moved.
        self.pages += 1;
        self.report_events(Delivery {
            events: fetched.events,
            acks: vec![PushAck::Page(self.pages)],
            given_up: 0,
        });
    }

    /// Something may be missing, nobody knows how much: a gap is owed, and told now if it has its place now. Then all
    /// that can be is fetched.
    pub(super) fn miss(&mut self, now: Now) {
        let round = match &self.phase {
            // There is nothing that could be missed.
            Phase::Offline => return,
            Phase::LoggingIn => {
                // All is fetched after the login.
                self.owes_gap = true;
                return;
            }
            Phase::CatchingUp(round) => {
                self.owes_gap |= !round.has_told();
                CatchUp::whole()
            }
            Phase::Live => {
                self.owes_gap = true;
                self.tell_owed_gap();
                CatchUp::after_gap(!self.owes_gap)
            }
        };
        self.catch_up(now, round);
    }

    /// Tells an owed gap now rather than with what comes next, if it has its place now.
    pub(super) fn tell_owed_gap(&mut self) {
        if self.owes_gap && !self.stalled && matches!(self.phase, Phase::Live) {
            self.report_events(Delivery::default());
        }
    }

    /// Reports what has come, after a gap if one is owed.
    pub(super) fn report_events(&mut self, mut delivery: Delivery) {
        self.leave_out_oversize(&mut delivery);
        let owed = std::mem::take(&mut self.owes_gap);
        let nothing_else = delivery.events.is_empty();
        if let Phase::CatchingUp(round) = &mut self.phase
            && (owed || !nothing_else)
        {
            round.set_told(nothing_else);
        }
        // One such gap says as much as two.
        if owed && delivery.events.first() != Some(&gap(0)) {
            delivery.events.insert(0, gap(0));
        }
        self.out.reports.push_back(Report::Events(delivery));
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
}
