//! Pushes that were not passed on as they came: what of them comes again by another way, and what is gone. Pure.
//!
//! Messages that the upstream keeps are fetched by catch-up; a push that wants an acknowledgement is repeated on the
//! same connection. What neither brings back is given up, and told.

use std::collections::BTreeMap;

use super::catchup::Held;
use super::message::Parsed;
use super::sync::{Position, fingerprint};

/// How many messages, and how many pushes, are kept track of. Policy when full: a further message may come twice, and
/// what a further push had that cannot be fetched is given up.
const TRACKED: usize = 8192;

/// What was pushed on this connection and not passed on. Seldom anything: then it is nothing.
#[derive(Debug, Default)]
pub(super) struct LeftOut(Option<Box<Tracked>>);

#[derive(Debug, Default)]
struct Tracked {
    /// One-to-one messages, and whether they have been told: not again with their push.
    messages: BTreeMap<u64, bool>,
    /// How much of a push that will be repeated cannot be fetched, by the fingerprint of its body.
    owed: BTreeMap<u64, u64>,
}

impl LeftOut {
    /// A push is not passed on. Answers how much of it is gone for good.
    pub(super) fn leave_out(&mut self, push: &Held, position: &Position) -> u64 {
        let lost = unfetchable(push);
        if push.ack.is_none() {
            return lost;
        }
        self.keep_track(push, position);
        let owed = &mut self.0.get_or_insert_default().owed;
        if lost == 0 || owed.contains_key(&push.body) {
            return 0;
        }
        if owed.len() >= TRACKED {
            return lost;
        }
        owed.insert(push.body, lost);
        0
    }

    /// A push waits until what came before it is fetched, which may bring its messages too, or have them forgotten that
    /// were told already.
    pub(super) fn keep_track(&mut self, push: &Held, position: &Position) {
        let messages = &mut self.0.get_or_insert_default().messages;
        for entry in &push.entries {
            if let Parsed::C2c { message, .. } = entry
                && messages.len() < TRACKED
            {
                let hash = fingerprint(&message.id);
                *messages.entry(hash).or_default() |= position.knows(hash);
            }
        }
    }

    /// Catch-up has brought a message.
    pub(super) fn fetched(&mut self, message_id: &str) {
        if let Some(tracked) = &mut self.0
            && let Some(fetched) = tracked.messages.get_mut(&fingerprint(message_id))
        {
            *fetched = true;
        }
    }

    /// A push is passed on: what catch-up has brought meanwhile is taken out of it.
    pub(super) fn take_up(&mut self, push: &mut Held) {
        let Some(tracked) = &mut self.0 else {
            return;
        };
        tracked.owed.remove(&push.body);
        push.entries.retain(|entry| match entry {
            Parsed::C2c { message, .. } => {
                tracked.messages.remove(&fingerprint(&message.id)) != Some(true)
            }
            Parsed::Group { .. } | Parsed::Kick(_) | Parsed::Notice(_) => true,
        });
        if tracked.owed.is_empty() && tracked.messages.is_empty() {
            self.0 = None;
        }
    }

    /// The connection is gone, with these pushes still waiting: nothing is repeated any more. Answers how much is gone
    /// for good.
    pub(super) fn disconnected(&mut self, held: impl IntoIterator<Item = Held>) -> u64 {
        let owed: u64 = self
            .0
            .take()
            .map_or(0, |tracked| tracked.owed.values().sum());
        owed + held.into_iter().map(|push| unfetchable(&push)).sum::<u64>()
    }
}

/// How much of a push the upstream does not keep.
fn unfetchable(push: &Held) -> u64 {
    let lost = push.entries.iter().filter(|entry| match entry {
        Parsed::C2c { online_only, .. } => *online_only,
        // A group's messages are fetched by their numbers.
        Parsed::Group { sequence, .. } => *sequence == 0,
        Parsed::Notice(_) => true,
        Parsed::Kick(_) => false,
    });
    u64::try_from(lost.count()).unwrap_or(u64::MAX)
}
