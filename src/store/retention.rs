//! What a log keeps, and what a trim has dropped of it.

use crate::types::UnixMillis;

/// What a log is to keep; whatever is beyond any of the three is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// At most so many entries.
    pub events: u64,
    /// At most so many bytes of payload.
    pub bytes: u64,
    /// Nothing that was appended before.
    pub since: UnixMillis,
}

/// The outcome of [`super::Store::trim`]. An entry that was beyond several bounds counts for the first of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// How many entries were dropped for their age.
    pub too_old: u64,
    /// How many were dropped because there were too many.
    pub too_many: u64,
    /// How many were dropped because they had too many bytes.
    pub too_large: u64,
    /// Whether there is more to drop: call again.
    pub more: bool,
}

impl Trimmed {
    /// How many entries were dropped.
    pub const fn dropped(&self) -> u64 {
        self.too_old + self.too_many + self.too_large
    }

    pub(super) fn count(&mut self, bound: Bound) {
        let dropped = match bound {
            Bound::Age => &mut self.too_old,
            Bound::Events => &mut self.too_many,
            Bound::Bytes => &mut self.too_large,
        };
        *dropped += 1;
    }
}

/// A bound of [`Retention`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    Age,
    Events,
    Bytes,
}

impl Retention {
    /// The first bound that the oldest of `entries` with `bytes` in all is beyond.
    pub(super) fn exceeded(
        &self,
        appended_at: UnixMillis,
        entries: u64,
        bytes: u64,
    ) -> Option<Bound> {
        if appended_at < self.since {
            Some(Bound::Age)
        } else if entries > self.events {
            Some(Bound::Events)
        } else if bytes > self.bytes {
            Some(Bound::Bytes)
        } else {
            None
        }
    }
}
