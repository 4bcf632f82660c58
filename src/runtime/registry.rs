//! The sessions of this replica, by tenant and account.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info_span};

use crate::events::log::LogWriter;
use crate::proto::v1;
use crate::runtime::handle::CallError;
use crate::runtime::metrics as names;
use crate::runtime::record::{self, Restored};
use crate::runtime::session_actor::{Command, Origin, SessionActor, View};
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::runtime::tenant::Tenant;
use crate::store::{StoreError, StoredSession};
use crate::types::{AccountId, TenantId};

/// How many commands may wait for a session. Policy when full: the caller waits, within its own deadline.
const MAILBOX: usize = 16;

/// The sessions of all tenants.
pub(super) type Registry = HashMap<TenantId, Arc<TenantSessions>>;

/// The sessions of one tenant.
#[derive(Debug)]
pub(super) struct TenantSessions {
    pub(super) tenant: Arc<Tenant>,
    partitions: Vec<Partition>,
    slots: Mutex<BTreeMap<AccountId, Slot>>,
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
}

/// An account that has been seen. One that is logged out has no task.
#[derive(Debug)]
struct Slot {
    view: View,
    mailbox: Option<mpsc::Sender<Command>>,
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
            slots: Mutex::new(BTreeMap::new()),
        }
    }

    /// The mailbox of a session that is running.
    pub(super) fn running(&self, account: &AccountId) -> Option<mpsc::Sender<Command>> {
        self.slots()
            .get(account)
            .and_then(|slot| slot.mailbox.clone())
    }

    /// A session as it is now. Errors while the account's partition is not held here.
    pub(super) fn view(&self, account: &AccountId) -> Result<Option<v1::Session>, CallError> {
        self.term(account)?;
        Ok(self.slots().get(account).map(Slot::view))
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
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, slot)| slot.view())
            .collect())
    }

    /// Begins to hold a partition: brings back what is stored of it.
    pub(super) fn adopt(self: &Arc<Self>, number: u16, stored: Vec<StoredSession>, tasks: &Tasks) {
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return;
        };
        let term = Term {
            lost: CancellationToken::new(),
            tasks: tasks.child(),
        };
        *partition
            .term
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(term.clone());
        for StoredSession { account, record } in stored {
            let key = self.tenant.key(&account);
            match record::decode(&self.tenant.sealer, &key, &record) {
                Ok(restored) if restored.durable.desired => {
                    let delay = self.tenant.start_jitter.mul_f64(rand::random());
                    self.spawn(&account, restored, delay, partition, &term);
                }
                Ok(restored) => self.rest(&account, record::dormant_view(&key, &restored.durable)),
                Err(error) => {
                    counter!(names::CORRUPT_RECORDS).increment(1);
                    error!(%account, %error, "a stored session cannot be read; it is parked");
                    self.rest(&account, record::corrupt_view(&key, &error));
                }
            }
        }
    }

    /// Brings a session to life for a login. `stored` is its record, if there is one.
    pub(super) fn start(
        self: &Arc<Self>,
        account: &AccountId,
        stored: Option<&[u8]>,
    ) -> Result<mpsc::Sender<Command>, CallError> {
        let key = self.tenant.key(account);
        let (partition, term) = self.term(account)?;
        let restored = match stored.map(|stored| record::decode(&self.tenant.sealer, &key, stored))
        {
            Some(Ok(restored)) => restored,
            Some(Err(error)) => {
                error!(%account, %error, "a login replaces a record that cannot be read");
                Restored::default()
            }
            None => Restored::default(),
        };
        Ok(self.spawn(account, restored, Duration::ZERO, partition, &term))
    }

    /// How many sessions have a task.
    pub(super) fn count_running(&self) -> usize {
        self.slots()
            .values()
            .filter(|slot| slot.mailbox.is_some())
            .count()
    }

    /// Asks every session of a partition to store its record again.
    pub(super) fn save_all(&self, number: u16) {
        let slots = self.slots();
        for (account, slot) in slots.iter() {
            let here = self
                .tenant
                .key(account)
                .partition(self.tenant.partitions)
                .number
                == number;
            if let (true, Some(mailbox)) = (here, &slot.mailbox) {
                // A full mailbox means that the session is about to store something anyway.
                let _full = mailbox.try_send(Command::Save);
            }
        }
    }

    /// Ends the present hold of a partition. `lost`: another replica owns it; the sessions close at once and store
    /// nothing more. Otherwise they store what they have.
    pub(super) async fn let_go(&self, number: u16, lost: bool) {
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return;
        };
        let term = partition
            .term
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(term) = term else { return };
        if lost {
            term.lost.cancel();
        }
        term.tasks.stop();
        term.tasks.ended().await;
        let partitions = self.tenant.partitions;
        self.slots()
            .retain(|account, _| self.tenant.key(account).partition(partitions).number != number);
    }

    fn spawn(
        self: &Arc<Self>,
        account: &AccountId,
        restored: Restored,
        delay: Duration,
        partition: &Partition,
        term: &Term,
    ) -> mpsc::Sender<Command> {
        let mut slots = self.slots();
        if let Some(mailbox) = slots.get(account).and_then(|slot| slot.mailbox.clone()) {
            return mailbox;
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
        slots.insert(
            account.clone(),
            Slot {
                view,
                mailbox: Some(mailbox.clone()),
            },
        );
        drop(slots);
        let span = info_span!("session", tenant = %self.tenant.id, %account);
        let sessions = Arc::clone(self);
        let name = account.clone();
        let task = async move {
            actor.run(|mailbox| sessions.retire(&name, mailbox)).await;
        };
        term.tasks
            .spawn("session", TaskKind::Work, task.instrument(span));
        mailbox
    }

    /// Lets a session's task end, unless a command is waiting for it.
    fn retire(&self, account: &AccountId, mailbox: &mpsc::Receiver<Command>) -> bool {
        let mut slots = self.slots();
        if !mailbox.is_empty() {
            return false;
        }
        if let Some(slot) = slots.get_mut(account) {
            slot.mailbox = None;
        }
        true
    }

    fn rest(&self, account: &AccountId, session: v1::Session) {
        let view = Arc::new(Mutex::new(session));
        self.slots().insert(
            account.clone(),
            Slot {
                view,
                mailbox: None,
            },
        );
    }

    fn term(&self, account: &AccountId) -> Result<(&Partition, Term), CallError> {
        let number = self
            .tenant
            .key(account)
            .partition(self.tenant.partitions)
            .number;
        match self.partitions.get(usize::from(number)) {
            Some(partition) => Ok((partition, partition.present_term()?)),
            None => Err(not_held()),
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<AccountId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partition {
    fn present_term(&self) -> Result<Term, CallError> {
        let term = self.term.lock().unwrap_or_else(PoisonError::into_inner);
        term.clone().ok_or_else(not_held)
    }
}

impl Slot {
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
