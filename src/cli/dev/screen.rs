//! What `imgate dev` shows: one column for the time, one for whom it is about, one for what happened.

use std::io::{IsTerminal as _, Write as _};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How wide the column with the bot's name is.
const WHO: usize = 10;

/// How a line is meant, which on a terminal is its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// What one reads in passing.
    Plain,
    /// What comes next.
    Title,
    /// As it should be.
    Good,
    /// Trouble that is meant to be.
    Away,
    /// Not as it should be.
    Bad,
}

/// The terminal. Clones write to the same one.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    started: Instant,
    colour: bool,
    gone: CancellationToken,
}

impl Screen {
    /// Colours are for a terminal whose owner has not set `NO_COLOR`.
    pub(super) fn new() -> Self {
        // No setting of the gateway's but the terminal's own, see https://no-color.org.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            started: Instant::now(),
            colour: std::io::stdout().is_terminal() && !unwanted,
            gone: CancellationToken::new(),
        }
    }

    /// When the first line could have been shown.
    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Waits until nobody reads any more, as when the output went to `head`.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Shows a text as it is.
    pub(super) fn text(&self, tone: Tone, text: &str) {
        let mut out = std::io::stdout().lock();
        let shown = match self.colour_of(tone) {
            Some(colour) => writeln!(out, "\x1b[{colour}m{text}\x1b[0m"),
            None => writeln!(out, "{text}"),
        };
        if shown.and_then(|()| out.flush()).is_err() {
            self.gone.cancel();
        }
    }

    /// Shows what happened just now, and to whom.
    pub(super) fn line(&self, who: &str, tone: Tone, what: &str) {
        let tenths = self.started.elapsed().as_millis() / 100;
        let (minutes, seconds, tenths) = (tenths / 600, tenths / 10 % 60, tenths % 10);
        self.text(
            tone,
            &format!("  {minutes:02}:{seconds:02}.{tenths}  {who:<WHO$}  {what}"),
        );
    }

    const fn colour_of(&self, tone: Tone) -> Option<&'static str> {
        if !self.colour {
            return None;
        }
        match tone {
            Tone::Plain => None,
            Tone::Title => Some("1"),
            Tone::Good => Some("32"),
            Tone::Away => Some("33"),
            Tone::Bad => Some("1;31"),
        }
    }
}
