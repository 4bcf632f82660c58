//! Traffic, and the books on it: what the upstream accepted for an account reaches the subscriber in order, or a
//! gap says that it does not.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use imgate::proto::v1::event::Kind;
use imgate::proto::v1::{GapReason, subscribe_request::Start};
use imgate::sim::UserStats;

use crate::fixture::*;

/// Between two messages to one account.
const PACE: Duration = Duration::from_millis(15);
const ACCOUNTS: [&str; 3] = ["bot-a", "bot-b", "bot-c"];

/// What a subscriber was told.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// The messages of each account by number, without repetitions, in the order of their first coming.
    seen: BTreeMap<String, Vec<u64>>,
    pub(crate) gaps: Vec<GapReason>,
    /// How many messages each account was sent.
    sent: u64,
}

impl Books {
    /// Has messages come in for several accounts before, while and after `trouble` is made, until a subscriber has
    /// read the last one of each.
    pub(crate) async fn of(
        gateway: &Gateway,
        upstream: &Upstream,
        trouble: impl Future<Output = ()>,
    ) -> Self {
        Self::with_pauses(gateway, upstream, &Cell::new(false), trouble).await
    }

    /// As [`Books::of`]; while `pause` is set nothing is sent.
    pub(crate) async fn with_pauses(
        gateway: &Gateway,
        upstream: &Upstream,
        pause: &Cell<bool>,
        trouble: impl Future<Output = ()>,
    ) -> Self {
        let client = gateway.client().await;
        let mut events = client.subscribe().await;
        for account in ACCOUNTS {
            client.online(account).await;
        }
        let (over, last) = (Cell::new(false), Cell::new(None));
        let send = async {
            for number in 0.. {
                let ends = over.get();
                if ends {
                    last.set(Some(number));
                }
                for account in ACCOUNTS {
                    upstream.texts("friend", account, [number.to_string()]);
                }
                if ends {
                    break;
                }
                tokio::time::sleep(PACE).await;
                until("the pause does not end", || !pause.get()).await;
            }
        };
        let make = async {
            tokio::time::sleep(PACE * 10).await;
            trouble.await;
            tokio::time::sleep(PACE * 10).await;
            over.set(true);
        };
        let mut books = Self::default();
        let read = async {
            while !books.has_all(last.get()) {
                let Some(event) = events.next_or_end().await else {
                    // It says so when it cannot go on; a subscriber then comes again with its cursor.
                    events = come_again(&client, &events.cursor).await;
                    continue;
                };
                books.note(event.account, event.kind);
            }
        };
        let all = async { tokio::join!(send, make, read) };
        let ((), (), ()) = within(all).await;
        books.sent = last.get().unwrap() + 1;
        books
    }

    fn note(&mut self, account: String, kind: Option<Kind>) {
        match kind {
            Some(Kind::Gap(gap)) => self.gaps.push(gap.reason()),
            Some(kind) => {
                if let Some(text) = text_of(kind) {
                    let (number, seen) =
                        (text.parse().unwrap(), self.seen.entry(account).or_default());
                    if !seen.contains(&number) {
                        seen.push(number);
                    }
                }
            }
            None => {}
        }
    }

    fn has_all(&self, last: Option<u64>) -> bool {
        let read = |account| {
            self.seen
                .get(account)
                .and_then(|seen: &Vec<u64>| seen.last())
        };
        last.is_some_and(|last| ACCOUNTS.iter().all(|&account| read(account) == Some(&last)))
    }

    /// Every message is there, in order, and nothing was said to be missing.
    pub(crate) fn are_whole(&self) {
        self.are_in_order();
        for (account, seen) in &self.seen {
            let missing: Vec<_> = (0..self.sent).filter(|one| !seen.contains(one)).collect();
            assert!(
                missing.is_empty(),
                "{account} misses {missing:?} of {}, with {:?}",
                self.sent,
                self.gaps
            );
        }
        assert_eq!(self.gaps, []);
    }

    /// Whether an account misses anything.
    pub(crate) fn miss_any(&self) -> bool {
        let misses = |seen: &Vec<u64>| (0..self.sent).any(|one| !seen.contains(&one));
        self.seen.values().any(misses)
    }

    /// What an account misses, if anything, was sent at one time.
    pub(crate) fn miss_one_stretch(&self) {
        for (account, seen) in &self.seen {
            let holes = seen
                .windows(2)
                .filter(|pair| pair[1] != pair[0] + 1)
                .count();
            assert!(holes <= 1 && seen[0] == 0, "{account}: {seen:?}");
        }
    }

    /// What is there is in order.
    pub(crate) fn are_in_order(&self) {
        for (account, seen) in &self.seen {
            assert!(seen.is_sorted(), "{account}: {seen:?}");
        }
    }
}

async fn come_again(client: &Client, cursor: &str) -> Events {
    let again = poll(async || {
        let start = Start::Cursor(cursor.to_owned());
        client.subscribe_from(start).await.ok()
    });
    again.await.unwrap()
}

/// Waits until the upstream has an acknowledgement of all that it sent: then it is in the store.
pub(crate) async fn all_stored(upstream: &Upstream) {
    let stored = |user: UserStats| user.acked >= user.delivered;
    until("some are not stored", || {
        ACCOUNTS
            .iter()
            .all(|account| stored(upstream.user(account)))
    })
    .await;
}

/// That no session has left its connection since it was logged in.
pub(crate) fn assert_undisturbed(upstream: &Upstream) {
    for account in ACCOUNTS {
        let user = upstream.user(account);
        let seen = (user.logins, user.resumes, user.connections, user.online);
        assert_eq!(seen, (1, 0, 1, true), "{account}");
    }
}
