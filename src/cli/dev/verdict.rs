//! The end of the demo: a table, and whether all was as it should be.

use super::ledger::{Bot, Ledger};
use crate::sim::{SimStats, UserStats};

/// The state of each bot and what it went through, in lines of fixed columns.
pub(super) fn table(ledger: &Ledger, upstream: &SimStats) -> Vec<String> {
    let head = format!(
        "  {:<10}  {:<10}  {:>7}  {:>7}  {:>5}  {:>5}  {:>8}  {:>7}  {:>6}  {:>7}",
        "bot",
        "state",
        "logins",
        "resumes",
        "kicks",
        "sent",
        "received",
        "fetched",
        "twice",
        "missing"
    );
    let line = |bot: &Bot| {
        let seen = seen(bot, upstream);
        let of = |seen: u64, explained: u64| format!("{seen}/{explained}");
        format!(
            "  {:<10}  {:<10}  {:>7}  {:>7}  {:>5}  {:>5}  {:>8}  {:>7}  {:>6}  {:>7}",
            bot.name,
            if bot.is_online() {
                "online"
            } else {
                "NOT ONLINE"
            },
            of(seen.logins, bot.explained.logins),
            of(seen.resumes, bot.explained.resumes),
            of(seen.kicked, bot.explained.kicks),
            bot.sent,
            bot.heard.count(),
            bot.heard.fetched,
            bot.heard.repeated,
            ledger.on_the_way(&bot.name),
        )
    };
    std::iter::once(head)
        .chain(ledger.bots.iter().map(line))
        .collect()
}

/// Everything that is not as it should be; empty if all is.
pub(super) fn judge(ledger: &Ledger, upstream: &SimStats) -> Vec<String> {
    let mut wrong = ledger.problems.clone();
    for bot in &ledger.bots {
        let name = &bot.name;
        if !bot.is_online() {
            wrong.push(format!("{name} is not online: {}", bot.state()));
        }
        let seen = seen(bot, upstream);
        let counted = [
            ("logins by signature", seen.logins, bot.explained.logins),
            ("resumes by ticket", seen.resumes, bot.explained.resumes),
            ("kicks", seen.kicked, bot.explained.kicks),
        ];
        for (what, seen, explained) in counted {
            if seen != explained {
                wrong.push(format!(
                    "{name}: the upstream counted {seen} {what}; the programme explains {explained}"
                ));
            }
        }
        if let Some(unsent) = &bot.unsent {
            wrong.push(format!("{name} could not send: {unsent}"));
        }
        if bot.sent == 0 {
            wrong.push(format!("{name} has sent nothing"));
        }
        let missing = ledger.on_the_way(name);
        if missing > 0 {
            wrong.push(format!("{name}: {missing} messages to it have not arrived"));
        }
        if bot.heard.late > 0 {
            wrong.push(format!(
                "{name}: {} messages came out of order",
                bot.heard.late
            ));
        }
    }
    wrong
}

fn seen(bot: &Bot, upstream: &SimStats) -> UserStats {
    upstream.users.get(&bot.name).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Session, SessionState};

    type Spoil = fn(&mut Ledger, &mut SimStats);

    /// Two bots that are online and have heard each other once, and what the upstream counted.
    fn good() -> (Ledger, SimStats) {
        let (mut ledger, mut upstream) = (Ledger::new(2), SimStats::default());
        for bot in &mut ledger.bots {
            bot.session = Session {
                state: SessionState::Online.into(),
                ..Session::default()
            };
            bot.sent = 1;
            bot.heard.take(1, false);
            bot.explained.logins = 1;
            let counted = UserStats {
                logins: 1,
                ..UserStats::default()
            };
            upstream.users.insert(bot.name.clone(), counted);
        }
        (ledger, upstream)
    }

    #[test]
    fn each_thing_that_is_wrong_is_said() {
        let (ledger, upstream) = good();
        assert_eq!(judge(&ledger, &upstream), Vec::<String>::new());
        let cases: [(Spoil, &str); 7] = [
            (|ledger, _| ledger.problems.push("a gap".into()), "a gap"),
            (
                |ledger, _| ledger.bots[0].session.set_state(SessionState::BackingOff),
                "bot1 is not online",
            ),
            (
                |ledger, _| ledger.bots[0].explained.resumes = 1,
                "bot1: the upstream counted 0 resumes by ticket; the programme explains 1",
            ),
            (
                |_, upstream| upstream.users.get_mut("bot2").unwrap().logins = 2,
                "bot2: the upstream counted 2 logins by signature; the programme explains 1",
            ),
            (
                |_, upstream| upstream.users.get_mut("bot2").unwrap().kicked = 1,
                "bot2: the upstream counted 1 kicks; the programme explains 0",
            ),
            (
                |ledger, _| ledger.bots[1].sent = 2,
                "bot1: 1 messages to it have not arrived",
            ),
            (
                |ledger, _| {
                    ledger.bots[1].sent = 3;
                    ledger.bots[0].heard.take(3, false);
                    ledger.bots[0].heard.take(2, false);
                },
                "bot1: 1 messages came out of order",
            ),
        ];
        for (spoil, said) in cases {
            let (mut ledger, mut upstream) = good();
            spoil(&mut ledger, &mut upstream);
            let wrong = judge(&ledger, &upstream);
            assert!(
                matches!(wrong.as_slice(), [only] if only.starts_with(said)),
                "{said}: {wrong:?}"
            );
        }
    }
}
