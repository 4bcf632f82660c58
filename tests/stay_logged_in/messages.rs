//! Messages to bots through the simulator, and whether they all came, in order and marked as they should be.

use std::future::Future;

use serde_json::json;
use tokio::time::Instant;

use crate::SENDER;
use crate::control::Control;
use crate::subscriber::{Books, Subscriber};
use crate::world::{LOOK, PATIENCE, pause, until};

/// How a message must be marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Sent to a bot that was online: not back-filled.
    Live,
    /// Sent to a bot that was away: back-filled.
    Waited,
    /// Sent while that was changing.
    Either,
}

/// The messages that were sent to each of some bots: the first is "1".
pub(crate) struct Rounds {
    control: Control,
    bots: Vec<String>,
    marks: Vec<Mark>,
}

impl Rounds {
    pub(crate) const fn new(control: Control, bots: Vec<String>) -> Self {
        Self {
            control,
            bots,
            marks: Vec::new(),
        }
    }

    /// Sends one message to each bot.
    pub(crate) async fn send(&mut self, mark: Mark) {
        self.marks.push(mark);
        let text = self.marks.len().to_string();
        let bodies = self
            .bots
            .iter()
            .map(|bot| json!({ "from": SENDER, "to": bot, "text": text }));
        self.control.post_all("/message", bodies).await;
    }

    /// Sends one message to each bot, and does something as soon as a part of them have come.
    pub(crate) async fn send_around(
        &mut self,
        subscriber: &Subscriber,
        act: impl Future<Output = ()>,
    ) {
        let part = subscriber.books().count + self.bots.len() / 4;
        let in_the_middle = async {
            count_reaches(subscriber, part).await;
            act.await;
        };
        tokio::join!(self.send(Mark::Either), in_the_middle);
    }

    /// Waits until the last round has come to every bot.
    pub(crate) async fn have_come(&self, subscriber: &Subscriber) {
        let text = self.marks.len().to_string();
        let since = Instant::now();
        while let Some((count, bot)) = self.missing(subscriber, &text) {
            if since.elapsed() > PATIENCE {
                let books = subscriber.books();
                let seen = books.messages.get(&bot);
                panic!("message {text} has not come to {count} bots, such as {bot}: {seen:?}");
            }
            pause(LOOK).await;
        }
    }

    /// How many bots a message has not come to, and one of them.
    fn missing(&self, subscriber: &Subscriber, text: &str) -> Option<(usize, String)> {
        let books = subscriber.books();
        let mut missing = self.bots.iter().filter(|bot| !books.has(bot, text));
        let first = missing.next()?.clone();
        Some((1 + missing.count(), first))
    }

    /// Compares what came with what was sent, and answers how many came more than once.
    pub(crate) fn check(&self, books: &Books) -> usize {
        let sent: Vec<String> = (1..=self.marks.len()).map(|n| n.to_string()).collect();
        let mut more = 0;
        for bot in &self.bots {
            let seen = books.messages.get(bot).map_or(&[][..], Vec::as_slice);
            let mut first_times = Vec::new();
            for seen in seen {
                if first_times.contains(&&seen.text) {
                    more += 1;
                    continue;
                }
                first_times.push(&seen.text);
                let number: usize = seen.text.parse().unwrap();
                let right = match self.marks[number - 1] {
                    Mark::Live => !seen.backfilled,
                    Mark::Waited => seen.backfilled,
                    Mark::Either => true,
                };
                assert!(right, "{bot}: {seen:?} is marked wrongly");
            }
            let in_order = first_times.into_iter().eq(sent.iter());
            assert!(in_order, "{bot}: sent {}, came {seen:?}", sent.len());
        }
        more
    }
}

/// Waits until so many messages have come.
pub(crate) async fn count_reaches(subscriber: &Subscriber, count: usize) {
    until("all messages have come", async || {
        subscriber.books().count >= count
    })
    .await;
}
