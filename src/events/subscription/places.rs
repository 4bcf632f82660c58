//! The partitions that a subscription follows, and where it stands in each.
//!
//! Each place is served in turn: from the tail of its log, which all subscribers share, or by a read of the store
//! while the tail does not reach back to it. One read is under way at a time.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::logs::Logs;
use super::reading::{Reading, finished};

use crate::events::cursor::{Cursor, Mark};
use crate::events::encoded::Encoded;
use crate::events::hub::Followed;
use crate::events::place::{self, Filter, MAX_BATCH_BYTES, Stand};
use crate::events::share::{Change, Share};
use crate::events::source::{Read, Retry, Source};
use crate::events::tail::{Ask, Met, Next};
use crate::store::StoreError;

/// How many entries are looked at at once where a filter leaves most of them out.
const FILTERED_READ: usize = 256;

/// The places of one subscription.
pub(super) struct Places {
    source: Source,
    logs: Logs,
    filter: Filter,
    max_batch: usize,
    /// What of a shared subscription is this one's.
    share: Option<Share>,
    /// In the order of their numbers.
    places: Vec<Place>,
    /// Where it stands in the partitions that it does not follow.
    rest: BTreeMap<u16, Mark>,
    /// The index of the place whose turn is next.
    turn: usize,
    /// The read under way; it outlives a heartbeat.
    reading: Option<Reading>,
    /// What an event takes in the log, on average.
    average_bytes: usize,
}

/// A followed partition.
struct Place {
    followed: Followed,
    stand: Stand,
    /// The tail's generation in which the stand was compared with the store.
    certain: Option<u64>,
    /// See [`Ask::level`].
    level: bool,
    /// Whether there may be more to read than it was told of.
    stirred: bool,
    /// Since when it wants to know about growth that nobody told of.
    look: Option<Instant>,
    retry: Retry,
    /// When to ask again.
    retry_at: Option<Instant>,
}

/// What came of an attempt to get on.
pub(super) enum Step {
    /// Events, one at least, all of one partition.
    Events(Vec<Encoded>),
    /// None, but there may be more at once.
    Moved,
    /// Nothing can be had without waiting.
    Nothing,
}

impl Places {
    pub(super) fn new(
        source: Source,
        logs: Logs,
        filter: Filter,
        max_batch: usize,
        share: Option<Share>,
        start: Cursor,
    ) -> Self {
        Self {
            source,
            logs,
            filter,
            max_batch,
            share,
            places: Vec::new(),
            rest: start.marks,
            turn: 0,
            reading: None,
            average_bytes: 1024,
        }
    }

    /// Follows all partitions in which there may be something for it, from where it stands on.
    pub(super) fn follow_homes(&mut self) {
        let homes = &self.logs.homes;
        let marks = self.rest.iter().map(|(&number, &mark)| (number, mark));
        let followed: Vec<_> = marks
            .filter(|(number, _)| homes.contains_key(number))
            .collect();
        for (number, mark) in followed {
            self.follow(number, mark);
        }
    }

    /// Follows a partition from a mark on; one that is followed goes on from there.
    pub(super) fn follow(&mut self, number: u16, mark: Mark) {
        self.unfollow(number);
        self.rest.remove(&number);
        let place = Place {
            followed: self.logs.follow(number),
            stand: mark.into(),
            certain: None,
            level: false,
            stirred: true,
            look: None,
            retry: Retry::default(),
            retry_at: None,
        };
        let index = self.places.partition_point(|place| place.number() < number);
        self.places.insert(index, place);
    }

    /// Follows a partition no more. It keeps its place.
    pub(super) fn unfollow(&mut self, number: u16) {
        if let Some(index) = self.index(number) {
            self.reading.take_if(|reading| reading.number() == number);
            let mark = self.places.remove(index).stand.mark;
            self.rest.insert(number, mark);
        }
    }

    /// Begins and ends following partitions of a shared subscription.
    pub(super) fn reassign(&mut self) {
        let changes = self.share.as_mut().map(Share::changes);
        for change in changes.unwrap_or_default() {
            match change {
                Change::Follow(number, position) => self.follow(number, position.into()),
                Change::Unfollow(number) => self.unfollow(number),
            }
        }
    }

    /// Where the subscription stands.
    pub(super) fn cursor(&self) -> Cursor {
        let mut marks = self.rest.clone();
        let places = self.places.iter();
        marks.extend(places.map(|place| (place.number(), place.stand.mark)));
        Cursor { marks }
    }

    /// Passes what has come and is not for this subscription, which it was not woken for.
    pub(super) fn pass(&mut self) {
        for place in &mut self.places {
            let passed = place.passed().filter(|&mark| mark != place.stand.mark);
            let confirmed = |mark: &Mark| {
                let share = self.share.as_ref();
                share.is_none_or(|share| share.confirm(place.number(), mark.position, false))
            };
            if let Some(mark) = passed.filter(confirmed) {
                place.stand = mark.into();
            }
        }
    }

    /// Asks for growth that nobody told of.
    pub(super) fn look(&mut self, now: Instant) {
        for place in &mut self.places {
            place.stirred = true;
            place.look = Some(now);
        }
    }

    /// What can be had without waiting, from the first place in turn that has something.
    pub(super) fn step(&mut self) -> Step {
        let count = self.places.len();
        let turn = self.turn.min(count);
        for index in (turn..count).chain(0..turn) {
            let step = self.step_at(index);
            match step {
                Step::Events(_) | Step::Moved => return step,
                Step::Nothing => {}
            }
        }
        Step::Nothing
    }

    /// Waits until a step may come to something, or has. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self) -> Step {
        let stirred = self.places.iter().filter(|place| place.stirred);
        let retry_at = stirred.filter_map(|place| place.retry_at).min();
        let answer = tokio::select! {
            answer = finished(&mut self.reading) => answer,
            () = reassigned(&mut self.share) => return Step::Moved,
            () = sleep_until(retry_at) => return Step::Moved,
        };
        self.finish(answer)
    }

    fn step_at(&mut self, index: usize) -> Step {
        let limit = self.tail_limit();
        let Some(place) = self.places.get_mut(index) else {
            return Step::Nothing;
        };
        let number = place.number();
        if let Some(Reading::Own { number: of, .. }) = self.reading
            && of == number
        {
            return self.poll_reading();
        }
        if !place.stirred && !place.followed.listener.is_told() {
            return Step::Nothing;
        }
        // What it was told is forgotten with the asking.
        place.stirred = true;
        place.retry_at = None;
        let (mut stand, filter, max_batch) = (place.stand, &self.filter, self.max_batch);
        let (tail, listener) = (&place.followed.tail, &place.followed.listener);
        let next = tail.next(listener, place.ask(limit), |entries, until| {
            place::pass(&mut stand, entries, until, filter, max_batch)
        });
        place.level = match next {
            Next::Entries { end, .. } => stand.mark.position.sequence == end,
            Next::Nothing => true,
            Next::Fetch | Next::Later(_) | Next::Behind => false,
        };
        if !matches!(next, Next::Fetch) {
            self.reading.take_if(|reading| reading.number() == number);
        }
        match next {
            Next::Entries { taken, .. } => self.settle(index, stand, taken),
            Next::Nothing => {
                place.stirred = false;
                place.look = None;
                Step::Nothing
            }
            Next::Later(moment) => {
                place.retry_at = Some(moment);
                Step::Nothing
            }
            Next::Fetch => {
                if self.reading.is_none() {
                    let fetch = place.followed.tail.fetch(&self.source);
                    self.reading = Some(Reading::Shared { number, fetch });
                }
                self.poll_reading_of(number)
            }
            Next::Behind => {
                place.retry_at = place.retry.wait();
                if self.reading.is_none() && place.retry_at.is_none() {
                    self.read(index);
                }
                self.poll_reading_of(number)
            }
        }
    }

    /// Starts a read of the store behind the stand.
    fn read(&mut self, index: usize) {
        let limit = self.read_limit();
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        // What comes up meanwhile will stir it again.
        place.stirred = false;
        place.look = None;
        let stamp = place.followed.tail.stamp();
        let (partition, stand) = (&place.followed.partition, &place.stand);
        self.reading = Some(Reading::own(&self.source, partition, stand, limit, stamp));
    }

    fn poll_reading_of(&mut self, number: u16) -> Step {
        let is_its = |reading: &Reading| reading.number() == number;
        if self.reading.as_ref().is_some_and(is_its) {
            self.poll_reading()
        } else {
            Step::Nothing
        }
    }

    fn poll_reading(&mut self) -> Step {
        // Whoever waits afterwards polls it again and is woken.
        match finished(&mut self.reading).now_or_never() {
            Some(answer) => self.finish(answer),
            None => Step::Nothing,
        }
    }

    fn finish(&mut self, answer: Option<Result<Read, StoreError>>) -> Step {
        let (number, stamp) = match self.reading.take() {
            Some(Reading::Own { number, stamp, .. }) => (number, stamp),
            Some(Reading::Shared { .. }) | None => return Step::Moved,
        };
        let Some(index) = self.index(number) else {
            return Step::Moved;
        };
        let (Some(answer), Some(place)) = (answer, self.places.get_mut(index)) else {
            return Step::Moved;
        };
        let read = match answer {
            Ok(read) => read,
            Err(refusal) => {
                place.retry.failed(&place.followed.partition, &refusal);
                place.stirred = true;
                return Step::Moved;
            }
        };
        place.retry.worked();
        let bytes: usize = read.entries.iter().map(|entry| entry.size).sum();
        if let Some(average) = bytes.checked_div(read.entries.len()) {
            self.average_bytes = (3 * self.average_bytes + average) / 4;
        }
        let mut stand = place.stand;
        let taken = place::take(&mut stand, read, &self.filter, self.max_batch);
        place.stirred |= taken.more;
        place.certain = taken.certain.then_some(stamp.generation);
        if taken.certain && !taken.more {
            let met = place.followed.tail.ends(stand.mark, stamp);
            place.level = met == Met::Level;
            place.stirred |= met == Met::Further;
        }
        self.settle(index, stand, taken.events)
    }

    /// Moves on to a new stand, and delivers what lay before it, if that may be delivered; if not, all is as before.
    /// All that a subscriber gets passes here.
    fn settle(&mut self, index: usize, stand: Stand, events: Vec<Encoded>) -> Step {
        self.turn = index + 1;
        let Some(place) = self.places.get_mut(index) else {
            return Step::Moved;
        };
        let (number, position) = (place.number(), stand.mark.position);
        let share = self.share.as_ref();
        if !share.is_none_or(|share| share.confirm(number, position, !events.is_empty())) {
            // It may be wanted again before it is looked at.
            place.stirred = true;
            place.level = false;
            return Step::Moved;
        }
        place.stand = stand;
        if events.is_empty() {
            Step::Moved
        } else {
            Step::Events(events)
        }
    }

    /// As many entries as will probably fit into a batch.
    fn read_limit(&self) -> usize {
        (MAX_BATCH_BYTES / self.average_bytes.max(1)).clamp(1, self.tail_limit())
    }

    fn tail_limit(&self) -> usize {
        if self.filter.lets_all_through() {
            self.max_batch
        } else {
            self.max_batch.max(FILTERED_READ)
        }
    }

    fn index(&self, number: u16) -> Option<usize> {
        let found = self.places.binary_search_by_key(&number, Place::number);
        found.ok()
    }
}

impl Place {
    fn number(&self) -> u16 {
        self.followed.partition.number
    }

    fn ask(&self, limit: usize) -> Ask {
        Ask {
            after: self.stand.mark.position,
            certain: self.certain,
            level: self.level,
            look: self.look,
            limit: limit as u64,
        }
    }

    /// How far there is nothing for it, if it need not look for itself.
    fn passed(&self) -> Option<Mark> {
        let listener = &self.followed.listener;
        if !self.level || listener.takes_all() {
            return None;
        }
        self.followed.tail.passed(listener, self.certain)
    }
}

async fn reassigned(share: &mut Option<Share>) {
    match share {
        Some(share) => share.changed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
