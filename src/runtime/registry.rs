//! The sessions of this replica, by tenant and account.

mod adoption;
mod reseal;
mod retired;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info_span};

use crate::events::log::{LogOptions, LogWriter};
use crate::proto::v1;
use crate::runtime::handle::CallError;
use crate::runtime::record::{self, Restored};
use crate::runtime::registry::retired::{Retired, again};
use crate::runtime::session_actor::{Command, Commands, Left, Mailbox, Origin, SessionActor, View};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::runtime::tenant::{Settings, Tenant};
use crate::store::{StoreError, StoredSend};
use crate::tenants::quotas::{Exceeded, Quota};
use crate::types::{AccountId, TenantId, UnixMillis, WallClock};

/// How many commands may wait for a session. Policy when full: the caller waits, within its own deadline.
const MAILBOX: usize = 16;
/// How many sessions of a tenant that is removed log out at a time.
const LOGOUTS: usize = 64;

/// The sessions of all tenants.
pub(super) type Registry = HashMap<TenantId, Arc<TenantSessions>>;

/// The sessions of one tenant.
#[derive(Debug)]
pub(super) struct TenantSessions {
    pub(super) tenant: Arc<Tenant>,
    partitions: Vec<Partition>,
    slots: Mutex<Slots>,
}

/// All accounts that have been seen.
#[derive(Debug, Default)]
struct Slots {
    by_account: BTreeMap<AccountId, Slot>,
    /// How many of them have a task.
    running: usize,
    /// The records of those whose task has ended lately.
    retired: Retired,
}

/// What the sessions of a partition write to, and whether they may.
#[derive(Debug)]
struct Partition {
    writer: LogWriter,
    term: Mutex<Option<Term>>,
}

/// One continuous ownership of a partition.
#[derive(Clone, Debug)]
struct Term {
    lost: CancellationToken,
    tasks: Tasks,
    /// All that is stored of the partition is here: a login that comes earlier would begin without it.
    adopted: bool,
}

/// An account that has been seen. One that is logged out has no task.
#[derive(Debug)]
struct Slot {
    view: View,
    mailbox: Option<Mailbox>,
    /// The mailbox is no task's: it keeps logins away while the record is being sealed anew.
    resealing: bool,
    /// Until when the store remembers sends of an account without a task; 0 for none.
    sends_until: UnixMillis,
}

impl TenantSessions {
    pub(super) fn new(tenant: Arc<Tenant>, writers: Vec<LogWriter>) -> Self {
        let partitions = writers
            .into_iter()
            .map(|writer| Partition {
                writer,
                term: Mutex::new(None),
            })
            .collect();
        Self {
            tenant,
            partitions,
            slots: Mutex::default(),
        }
    }

    /// The mailbox of a session that is running.
    pub(super) fn running(&self, account: &AccountId) -> Option<Mailbox> {
        self.slots().mailbox(account)
    }

    /// A session as it is now. Errors while the account's partition is not held here.
    pub(super) fn view(&self, account: &AccountId) -> Result<Option<v1::Session>, CallError> {
        self.term(account)?;
        Ok(self.slots().by_account.get(account).map(Slot::view))
    }

    /// Whether a Login of the account leads to a login by signature. Errors as [`TenantSessions::view`] does.
    pub(super) fn begins_login(&self, account: &AccountId) -> Result<bool, CallError> {
        let view = self.view(account)?;
        let standing = view.map(|view| view.state());
        Ok(match standing {
            None
            | Some(
                v1::SessionState::Unspecified
                | v1::SessionState::LoggedOut
                | v1::SessionState::Parked,
            ) => true,
            Some(
                v1::SessionState::Connecting
                | v1::SessionState::Online
                | v1::SessionState::BackingOff
                | v1::SessionState::RenewingSignature,
            ) => false,
        })
    }

    /// At most `limit` sessions with accounts after `after`, in order.
    pub(super) fn views(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<v1::Session>, CallError> {
        for partition in &self.partitions {
            partition.present_term()?;
        }
        let from = after.map_or(Bound::Unbounded, |after| {
            Bound::Excluded(AccountId::new(after))
        });
        let slots = self.slots();
        Ok(slots
            .by_account
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, slot)| slot.view())
            .collect())
    }

    /// Whether the store may remember sends of an account that has no task.
    pub(super) fn has_sends_at_rest(&self, account: &AccountId) -> bool {
        // A task that ended without a word did not say.
        self.slots()
            .by_account
            .get(account)
            .is_some_and(|slot| slot.mailbox.is_some() || slot.sends_until > WallClock.now())
    }

    /// Brings a session to life for a login, if the tenant may have one more. `stored` is its record, if there is one,
    /// and `sends` what is remembered of its sends.
    pub(super) fn start(
        self: &Arc<Self>,
        account: &AccountId,
        stored: Option<&[u8]>,
        sends: Vec<StoredSend>,
    ) -> Result<Mailbox, CallError> {
        let key = self.tenant.key(account);
        let (partition, term) = self.term(account)?;
        let mut restored =
            match stored.map(|stored| record::decode(&self.tenant.sealer, &key, stored)) {
                Some(Ok(restored)) => restored,
                Some(Err(error)) => {
                    error!(%account, %error, "a login replaces a record that cannot be read");
                    Restored::default()
                }
                None => Restored::default(),
            };
        restored.sends = sends;
        let limit = self.tenant.settings().max_sessions;
        self.spawn(account, restored, Duration::ZERO, partition, &term, limit)
    }

    /// Whether the tenant has as many running sessions as it may.
    pub(super) fn is_full(&self) -> bool {
        self.slots().running >= self.tenant.settings().max_sessions
    }

    /// The refusal of one more session.
    pub(super) fn too_many_sessions(&self) -> CallError {
        let limit = self.tenant.settings().max_sessions;
        Exceeded::count(&self.tenant.id, Quota::Sessions, limit).into()
    }

    /// How many sessions are running.
    pub(super) fn running_count(&self) -> usize {
        self.slots().running
    }

    /// Notes how many partitions are held.
    fn note_held(&self) {
        let held = self.partitions.iter();
        let held = held.filter(|partition| partition.hold().is_some()).count();
        self.tenant
            .set_held(u16::try_from(held).unwrap_or(u16::MAX));
    }

    /// Whether what sessions have to store is stored soon. The partitions share a store: one that waits for it
    /// speaks for all.
    pub(super) fn accept(&self) -> Result<(), StoreError> {
        self.partitions
            .iter()
            .try_for_each(|partition| partition.writer.accepts())
    }

    /// Asks every session of a partition to store its record again, and stores those of sessions whose task has ended
    /// lately. False if not all of these were taken.
    pub(super) fn save_all(&self, number: u16) -> bool {
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return true;
        };
        let Some(term) = partition.hold().clone() else {
            return true;
        };
        let slots = self.slots();
        for (account, slot) in &slots.by_account {
            if let (true, Some(mailbox)) = (self.number(account) == number, &slot.mailbox) {
                match mailbox.try_send(Box::new(Command::Save)) {
                    // A task that has ended has stored what it had; its account is saved by the next login.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    // What waits there need not store anything.
                    Err(mpsc::error::TrySendError::Full(save)) => {
                        let mailbox = mailbox.clone();
                        term.tasks.spawn("save", TaskKind::Work, async move {
                            let _ended = mailbox.send(save).await;
                        });
                    }
                }
            }
        }
        // Under the lock: whoever logs in again stores a newer record behind these.
        let mut retired = slots.retired.recent();
        retired.all(|(account, record)| {
            let slot = slots.by_account.get(account);
            let is_running = slot.is_some_and(Slot::is_running) && slots.mailbox(account).is_some();
            is_running || self.number(account) != number || again(partition, account, record)
        })
    }

    /// Sets how the sessions behave from now on, and how their log is written.
    pub(super) fn set(&self, settings: Settings, log: &LogOptions) {
        self.tenant.set(settings);
        for partition in &self.partitions {
            partition.writer.set(log.clone());
        }
        // One whose mailbox is full looks at the settings with its next command.
        for mailbox in self.mailboxes() {
            let _full = mailbox.try_send(Box::new(Command::Settings));
        }
    }

    /// Logs every session out, and waits until that is stored.
    pub(super) async fn log_out_all(&self) {
        let logouts = self.mailboxes().into_iter().map(|mailbox| async move {
            let (reply, answer) = oneshot::channel();
            let logout = Box::new(Command::Logout(reply));
            if mailbox.send(logout).await.is_ok() {
                // A session that ends without a word has nothing to be logged out.
                let _ended = answer.await;
            }
        });
        futures_util::stream::iter(logouts)
            .buffer_unordered(LOGOUTS)
            .collect::<()>()
            .await;
    }

    /// Ends the present hold of every partition; the sessions store what they have.
    pub(super) async fn let_all_go(&self) {
        for number in 0..self.tenant.partitions {
            self.let_go(number, false).await;
        }
    }

    fn mailboxes(&self) -> Vec<Mailbox> {
        let slots = self.slots();
        let mailboxes = slots.by_account.values();
        mailboxes.filter_map(|slot| slot.mailbox.clone()).collect()
    }

    /// Ends the present hold of a partition. `lost`: another replica owns it; the sessions close at once and store
    /// nothing more. Otherwise they store what they have.
    pub(super) async fn let_go(&self, number: u16, lost: bool) {
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return;
        };
        let Some(term) = partition.hold().take() else {
            return;
        };
        self.note_held();
        if lost {
            term.lost.cancel();
        }
        term.tasks.stop();
        term.tasks.ended().await;
        let mut slots = self.slots();
        let stays = |account: &AccountId| self.number(account) != number;
        slots.by_account.retain(|account, _| stays(account));
        slots.retired.retain(stays);
        let running = slots.by_account.values();
        slots.running = running.filter(|slot| slot.is_running()).count();
    }

    fn spawn(
        self: &Arc<Self>,
        account: &AccountId,
        restored: Restored,
        delay: Duration,
        partition: &Partition,
        term: &Term,
        limit: usize,
    ) -> Result<Mailbox, CallError> {
        let mut slots = self.slots();
        if let Some(mailbox) = slots.mailbox(account) {
            return Ok(mailbox);
        }
        // The hold of the partition may have ended since the caller looked.
        if term.tasks.is_stopping() {
            return Err(not_held());
        }
        // Decided under the lock: of many logins at once only as many go through as there is room for.
        if slots.running >= limit {
            return Err(self.too_many_sessions());
        }
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let view = View::default();
        let actor = SessionActor::new(Origin {
            key: self.tenant.key(account),
            tenant: Arc::clone(&self.tenant),
            restored,
            delay,
            writer: partition.writer.clone(),
            mailbox: commands,
            lease_lost: term.lost.clone(),
            stop: term.tasks.clone(),
            view: Arc::clone(&view),
        });
        let slot = Slot {
            view,
            mailbox: Some(mailbox.clone()),
            resealing: false,
            sends_until: UnixMillis::default(),
        };
        let before = slots.by_account.insert(account.clone(), slot);
        if before.is_none_or(|before| !before.is_running()) {
            slots.running += 1;
        }
        drop(slots);
        let sessions = Arc::clone(self);
        let name = account.clone();
        let task = actor.run(move |mailbox, left| sessions.retire(&name, mailbox, left));
        // Of its own: the call that brings a session to life has long ended while it lives.
        let span = info_span!(parent: None, "session", tenant = %self.tenant.id, %account);
        span.in_scope(|| term.tasks.spawn("session", TaskKind::Work, task));
        Ok(mailbox)
    }

    /// Lets a session's task end, unless a command is waiting for it. An account of which nothing is known is
    /// forgotten, or calls for made-up ones would fill the memory.
    fn retire(&self, account: &AccountId, mailbox: &Commands, left: Left) -> bool {
        let mut slots = self.slots();
        if !mailbox.is_empty() {
            return false;
        }
        if let Some(slot) = slots.by_account.get_mut(account)
            && slot.mailbox.take().is_some()
        {
            slot.sends_until = left.sends_until.unwrap_or_default();
            slots.running -= 1;
        }
        if !left.known {
            slots.by_account.remove(account);
        }
        if let Some(record) = left.record {
            slots.retired.add(account.clone(), record);
        }
        true
    }

    fn term(&self, account: &AccountId) -> Result<(&Partition, Term), CallError> {
        match self.partitions.get(usize::from(self.number(account))) {
            Some(partition) => Ok((partition, partition.present_term()?)),
            None => Err(not_held()),
        }
    }

    /// The number of an account's partition.
    fn number(&self, account: &AccountId) -> u16 {
        let partitions = self.tenant.partitions;
        self.tenant.key(account).partition(partitions).number
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn mailbox(&self, account: &AccountId) -> Option<Mailbox> {
        let mailbox = self.by_account.get(account)?.mailbox.as_ref()?;
        // A task that ended without a word is not to keep its account out for ever.
        (!mailbox.is_closed()).then(|| mailbox.clone())
    }
}

impl Partition {
    fn present_term(&self) -> Result<Term, CallError> {
        let term = self.hold().clone();
        term.filter(|term| term.adopted).ok_or_else(not_held)
    }

    fn hold(&self) -> MutexGuard<'_, Option<Term>> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    const fn is_running(&self) -> bool {
        self.mailbox.is_some() && !self.resealing
    }

    fn view(&self) -> v1::Session {
        self.view
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn not_held() -> CallError {
    CallError::Store(StoreError::Unavailable(
        "the partition is not held by this replica now".into(),
    ))
}
