//! One account of the simulator: who is logged in to it, by what ticket, on which connection.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::Outgoing;
use super::mailbox::{Delivery, Mailbox, SentBefore};
use super::wire::Wire;
use crate::types::{AccountId, UnixMillis};

/// How many tickets that clients have ended an account remembers.
const MAX_LOGGED_OUT: usize = 16;

/// An answer that says no, by the upstream's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: u32,
    pub(super) text: Cow<'static, str>,
}

impl Refused {
    /// The code of [`Refused::not_logged_in`].
    pub(super) const NOT_LOGGED_IN: u32 = 70003;

    pub(super) fn new(code: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(super) fn expired() -> Self {
        Self::new(70001, "usersig expired")
    }

    /// For no ticket, or one that the client has ended itself. The vendor's SDKs send requests right behind their logout:
    /// this refuses those alone, where 20002 would make the SDK throw away the connection, and with it the next login.
    pub(super) fn not_logged_in() -> Self {
        Self::new(Self::NOT_LOGGED_IN, "not logged in")
    }

    pub(super) fn ticket() -> Self {
        Self::new(20002, "a2 is not known or no longer valid")
    }
}

/// What `GET /stats` counts for an account. All only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) logins: AtomicU64,
    pub(super) resumes: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) kicked: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where an account's connection is reached.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// The connection's number, unique in the simulator.
    pub(super) connection: u64,
    /// What the connection is to send. Bounded; what does not fit is dealt with at each use.
    pub(super) queue: mpsc::Sender<Outgoing>,
    /// Cuts the connection.
    pub(super) cut: CancellationToken,
    /// Where a load writes to; nowhere if it is secured by TLS.
    pub(super) wire: Weak<Wire>,
}

/// What a login or resume gives to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) a2: String,
    pub(super) tiny_id: u64,
    pub(super) inst_id: u32,
}

/// A client that has logged in by signature. It outlives its connections, until logout, kick or the next login.
#[derive(Debug)]
struct Instance {
    platform: u32,
    /// What the client calls itself, the same on each of its connections.
    name: String,
    a2: String,
    inst_id: u32,
    expires_at: UnixMillis,
    seat: Option<Seat>,
}

/// One user ID of the simulator's app.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: AccountId,
    pub(super) tiny_id: u64,
    pub(super) counters: Counters,
    state: Mutex<State>,
    group_sends: Mutex<()>,
}

/// What changes. Never locked across an await, and never together with another account's.
#[derive(Debug, Default)]
pub(super) struct State {
    instances: Vec<Instance>,
    /// The last tickets that clients have ended themselves.
    logged_out: VecDeque<String>,
    last_login: Option<Instant>,
    pub(super) mailbox: Mailbox,
    pub(super) groups: BTreeSet<String>,
    pub(super) sent: SentBefore,
    /// The number of the last message that the control port sent in the account's name.
    pub(super) last_seq: u64,
}

/// A login by signature, after the signature was found good.
#[derive(Debug)]
pub(super) struct NewLogin<'a> {
    pub(super) platform: u32,
    pub(super) instance: &'a str,
    pub(super) expires_at: UnixMillis,
    pub(super) seat: Seat,
    /// The least time between two logins of one account.
    pub(super) spacing: Duration,
}

impl Account {
    pub(super) fn new(id: AccountId, tiny_id: u64) -> Self {
        Self {
            id,
            tiny_id,
            counters: Counters::default(),
            state: Mutex::default(),
            group_sends: Mutex::default(),
        }
    }

    /// Held during a send to a group, so that two copies of it follow each other. Taken before any group's or account's lock.
    pub(super) fn group_send(&self) -> MutexGuard<'_, ()> {
        self.group_sends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make the state less true; the simulator goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seats a new login: kicks another instance of the platform, replaces an older login of the same one.
    pub(super) fn log_in(&self, login: NewLogin<'_>) -> Result<Accepted, Refused> {
        let mut state = self.state();
        let now = Instant::now();
        let too_soon = state
            .last_login
            .is_some_and(|last| now.duration_since(last) < login.spacing);
        if too_soon {
            return Err(Refused::new(70402, "too soon after the last login"));
        }
        state.last_login = Some(now);
        let inst_id = rand::rng().random_range(1..=i32::MAX.unsigned_abs());
        let (old, others) = std::mem::take(&mut state.instances)
            .into_iter()
            .partition(|old| old.platform == login.platform);
        state.instances = others;
        for old in old {
            if old.name == login.instance {
                release(&old, login.seat.connection);
            } else {
                self.kick_out(old, 1, inst_id);
            }
        }
        let accepted = Accepted {
            a2: new_a2(),
            tiny_id: self.tiny_id,
            inst_id,
        };
        state.instances.push(Instance {
            platform: login.platform,
            name: login.instance.to_owned(),
            a2: accepted.a2.clone(),
            inst_id,
            expires_at: login.expires_at,
            seat: Some(login.seat),
        });
        drop(state);
        count(&self.counters.logins);
        count(&self.counters.connections);
        Ok(accepted)
    }

    /// Seats a client that comes back with its ticket: nothing changes but the connection.
    pub(super) fn resume(
        &self,
        a2: &str,
        inst_id: u64,
        seat: Seat,
        now: UnixMillis,
    ) -> Result<Accepted, Refused> {
        let mut state = self.state();
        let instance = state
            .instances
            .iter_mut()
            .find(|instance| instance.a2 == a2)
            .ok_or_else(Refused::ticket)?;
        if u64::from(instance.inst_id) != inst_id {
            return Err(Refused::new(20002, "status_instid is not the ticket's"));
        }
        if instance.expires_at <= now {
            return Err(Refused::expired());
        }
        release(instance, seat.connection);
        instance.seat = Some(seat);
        let accepted = Accepted {
            a2: a2.to_owned(),
            tiny_id: self.tiny_id,
            inst_id: instance.inst_id,
        };
        drop(state);
        count(&self.counters.resumes);
        count(&self.counters.connections);
        Ok(accepted)
    }

    /// Whether the ticket is good for a request.
    pub(super) fn check(&self, a2: &str, now: UnixMillis) -> Result<(), Refused> {
        let state = self.state();
        match state.instances.iter().find(|instance| instance.a2 == a2) {
            None if state.logged_out.iter().any(|ended| ended == a2) => {
                Err(Refused::not_logged_in())
            }
            None => Err(Refused::ticket()),
            Some(instance) if instance.expires_at <= now => Err(Refused::expired()),
            Some(_) => Ok(()),
        }
    }

    /// Ends the ticket at the client's wish.
    pub(super) fn log_out(&self, a2: &str) {
        let mut state = self.state();
        let before = state.instances.len();
        state.instances.retain(|instance| instance.a2 != a2);
        if state.instances.len() < before {
            state.logged_out.push_back(a2.to_owned());
            if state.logged_out.len() > MAX_LOGGED_OUT {
                state.logged_out.pop_front();
            }
        }
    }

    /// Notes that a connection is gone. The tickets live on.
    pub(super) fn leave(&self, connection: u64) {
        for instance in &mut self.state().instances {
            if instance
                .seat
                .as_ref()
                .is_some_and(|seat| seat.connection == connection)
            {
                instance.seat = None;
            }
        }
    }

    /// Whether somebody is connected by a ticket that is still good.
    pub(super) fn is_online(&self, now: UnixMillis) -> bool {
        let state = self.state();
        state
            .instances
            .iter()
            .any(|instance| instance.seat.is_some() && instance.expires_at > now)
    }

    /// Kicks every connected instance. False if there is none.
    pub(super) fn kick(&self, kick_type: u8) -> bool {
        let mut state = self.state();
        let (seated, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.instances)
            .into_iter()
            .partition(|instance| instance.seat.is_some());
        state.instances = rest;
        drop(state);
        let any = !seated.is_empty();
        for instance in seated {
            self.kick_out(instance, kick_type, 0);
        }
        any
    }

    /// Ends every signature now. False if nobody is logged in.
    pub(super) fn expire(&self, now: UnixMillis) -> bool {
        let mut state = self.state();
        for instance in &mut state.instances {
            instance.expires_at = instance.expires_at.min(now);
        }
        !state.instances.is_empty()
    }

    /// The connections of the account, now.
    pub(super) fn seats(&self) -> Vec<Seat> {
        let state = self.state();
        state
            .instances
            .iter()
            .filter_map(|instance| instance.seat.clone())
            .collect()
    }

    fn kick_out(&self, instance: Instance, kick_type: u8, by: u32) {
        count(&self.counters.kicked);
        let Some(seat) = instance.seat else { return };
        // A connection that cannot be told is cut instead: its resume then fails, which says the same.
        if seat
            .queue
            .try_send(Outgoing::Kicked { kick_type, by })
            .is_err()
        {
            seat.cut.cancel();
        }
    }
}

impl State {
    /// Hands a message to whoever is online. What does not fit into a connection's queue is not pushed; it stays in catch-up.
    pub(super) fn push(&self, delivery: &Delivery, now: UnixMillis) {
        for instance in &self.instances {
            if let Some(seat) = instance.seat.as_ref().filter(|_| instance.expires_at > now) {
                let _ = seat.queue.try_send(Outgoing::Deliver(delivery.clone()));
            }
        }
    }
}

/// Cuts the older connection of an instance that has a new one.
fn release(instance: &Instance, new_connection: u64) {
    if let Some(old) = instance
        .seat
        .as_ref()
        .filter(|old| old.connection != new_connection)
    {
        old.cut.cancel();
    }
}

/// A ticket that nobody can guess: 48 random bytes in hexadecimal, as long as the real one.
fn new_a2() -> String {
    let bytes: [u8; 48] = rand::rng().random();
    bytes
        .iter()
        .fold(String::with_capacity(96), |mut hex, byte| {
            use std::fmt::Write as _;
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis::from_secs(1_000);
    const LATER: UnixMillis = UnixMillis::from_secs(2_000);

    fn seat(connection: u64) -> (Seat, mpsc::Receiver<Outgoing>) {
        let (queue, received) = mpsc::channel(1);
        let cut = CancellationToken::new();
        (
            Seat {
                connection,
                queue,
                cut,
                wire: Weak::new(),
            },
            received,
        )
    }

    fn account() -> Account {
        Account::new(AccountId::new("bot1"), 7)
    }

    fn log_in(
        account: &Account,
        instance: &str,
        seat: &Seat,
        spacing: u64,
    ) -> Result<Accepted, Refused> {
        account.log_in(NewLogin {
            platform: 7,
            instance,
            expires_at: LATER,
            seat: seat.clone(),
            spacing: Duration::from_secs(spacing),
        })
    }

    fn code<T>(result: Result<T, Refused>) -> u32 {
        result.err().map_or(0, |refused| refused.code)
    }

    #[test]
    fn another_instance_kicks_and_revokes() {
        let account = account();
        let ((first, mut told), (second, _keep)) = (seat(1), seat(2));
        let old = log_in(&account, "a", &first, 0).unwrap();
        let new = log_in(&account, "b", &second, 0).unwrap();
        let kicked = told.try_recv().unwrap();
        assert!(matches!(kicked, Outgoing::Kicked { kick_type: 1, by } if by == new.inst_id));
        assert!(
            !first.cut.is_cancelled(),
            "a kicked client hangs up by itself"
        );
        assert_eq!(code(account.check(&old.a2, NOW)), 20002);
        assert_eq!(
            code(account.resume(&old.a2, old.inst_id.into(), first, NOW)),
            20002
        );
        assert_eq!(code(account.check(&new.a2, NOW)), 0);
        assert_eq!(account.counters.kicked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_same_instance_replaces_itself_without_a_kick() {
        let account = account();
        let ((first, mut told), (second, _keep)) = (seat(1), seat(2));
        let old = log_in(&account, "a", &first, 0).unwrap();
        let new = log_in(&account, "a", &second, 0).unwrap();
        assert!(told.try_recv().is_err());
        assert!(first.cut.is_cancelled());
        assert_eq!(code(account.check(&old.a2, NOW)), 20002);
        assert_eq!(code(account.check(&new.a2, NOW)), 0);
        assert_eq!(account.counters.kicked.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn other_platforms_live_side_by_side() {
        let account = account();
        let ((first, _a), (second, _b)) = (seat(1), seat(2));
        log_in(&account, "a", &first, 0).unwrap();
        account
            .log_in(NewLogin {
                platform: 8,
                instance: "b",
                expires_at: LATER,
                seat: second,
                spacing: Duration::ZERO,
            })
            .unwrap();
        assert_eq!(account.seats().len(), 2);
    }

    #[test]
    fn a_ticket_outlives_its_connection() {
        let account = account();
        let ((first, _a), (second, _b), (third, _c)) = (seat(1), seat(2), seat(3));
        let login = log_in(&account, "a", &first, 0).unwrap();
        account.leave(1);
        assert!(!account.is_online(NOW));
        let resumed = account
            .resume(&login.a2, login.inst_id.into(), second.clone(), NOW)
            .unwrap();
        assert_eq!(resumed, login);
        assert!(account.is_online(NOW));
        account.leave(1);
        assert!(
            account.is_online(NOW),
            "a late goodbye of the old connection changes nothing"
        );
        account
            .resume(&login.a2, login.inst_id.into(), third, NOW)
            .unwrap();
        assert!(
            second.cut.is_cancelled(),
            "the new connection replaces the old"
        );
    }

    #[test]
    fn a_resume_is_refused_without_reason_to_trust() {
        let account = account();
        let login = log_in(&account, "a", &seat(1).0, 0).unwrap();
        let id = u64::from(login.inst_id);
        assert_eq!(code(account.resume("x", id, seat(2).0, NOW)), 20002);
        assert_eq!(
            code(account.resume(&login.a2, id + 1, seat(2).0, NOW)),
            20002
        );
        assert_eq!(code(account.resume(&login.a2, id, seat(2).0, LATER)), 70001);
        assert_eq!(code(account.check("x", NOW)), 20002);
        account.log_out(&login.a2);
        assert_eq!(code(account.resume(&login.a2, id, seat(2).0, NOW)), 20002);
        assert_eq!(code(account.check(&login.a2, NOW)), 70003);
    }

    #[test]
    fn a_signature_that_runs_out_ends_the_session_at_the_next_request() {
        let account = account();
        let login = log_in(&account, "a", &seat(1).0, 0).unwrap();
        assert_eq!(code(account.check(&login.a2, UnixMillis(LATER.0 - 1))), 0);
        assert_eq!(code(account.check(&login.a2, LATER)), 70001);
        assert!(account.expire(NOW));
        assert_eq!(code(account.check(&login.a2, NOW)), 70001);
        assert!(!account.is_online(NOW));
    }

    #[tokio::test(start_paused = true)]
    async fn logins_keep_their_distance() {
        let account = account();
        log_in(&account, "a", &seat(1).0, 15).unwrap();
        tokio::time::advance(Duration::from_millis(14_999)).await;
        assert_eq!(code(log_in(&account, "a", &seat(2).0, 15)), 70402);
        assert_eq!(
            account.seats()[0].connection,
            1,
            "a refused login changes nothing"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        log_in(&account, "a", &seat(2).0, 15).unwrap();
    }

    #[test]
    fn who_cannot_be_told_of_the_kick_is_cut() {
        let account = account();
        let (full, _keep) = seat(1);
        log_in(&account, "a", &full, 0).unwrap();
        full.queue
            .try_send(Outgoing::Kicked {
                kick_type: 1,
                by: 0,
            })
            .unwrap();
        assert!(account.kick(1));
        assert!(full.cut.is_cancelled());
        assert!(!account.kick(1), "nobody is left");
    }
}
