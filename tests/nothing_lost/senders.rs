//! Senders: they push one-to-one and group messages at the upstream, one at a time in each row, and enter what it accepts.

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::control::Control;
use crate::ledger::{Row, SENDERS};
use crate::schedule::millis;
use crate::subscribers::Desk;
use crate::world::pause;

/// A sender, with the rows that are its own.
pub(crate) struct Sender {
    pub(crate) name: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) rng: StdRng,
    pub(crate) control: Control,
    pub(crate) desk: Desk,
}

/// The name of a sender.
pub(crate) fn name(number: usize) -> String {
    format!("{SENDERS}{number}")
}

impl Sender {
    /// Sends until `calm` is true, and once more to each row then.
    pub(crate) async fn send(mut self, calm: watch::Receiver<bool>) {
        while !*calm.borrow() {
            let row = self.rows.choose(&mut self.rng).expect("a row").clone();
            let count = match self.rng.random_range(0..100) {
                0..85 => 1,
                85..98 => self.rng.random_range(2..8),
                // More than one answer of catch-up holds.
                _ => self.rng.random_range(25..45),
            };
            for _ in 0..count {
                self.send_one(&row).await;
            }
            pause(millis(&mut self.rng, 10..50)).await;
        }
        for row in self.rows.clone() {
            self.send_one(&row).await;
        }
    }

    async fn send_one(&mut self, row: &Row) {
        let text = self.desk.ledger().begin(row, self.desk.now());
        let body = body(&self.name, row, &text);
        self.control.post("/message", body).await;
        self.desk.ledger().accept(row);
    }
}

fn body(from: &str, row: &Row, text: &str) -> Value {
    match row {
        Row::To(to) => json!({ "from": from, "to": to, "text": text }),
        Row::Group(group) => json!({ "from": from, "group": group, "text": text }),
    }
}
