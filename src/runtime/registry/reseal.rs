//! Sealing the record of one account anew, whether it has a task or rests.

use tokio::sync::{mpsc, oneshot};

use super::{Partition, TenantSessions, not_held};
use crate::events::log::{Append, Record};
use crate::runtime::handle::CallError;
use crate::runtime::record::{self, RecordError};
use crate::runtime::session_actor::{Command, Commands};
use crate::store::{Lease, Store, StoreError};
use crate::types::AccountId;

/// Why a record stays as it is.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum ResealError {
    /// It cannot be opened any more.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The session, or the partition's writer, did not do it.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<StoreError> for ResealError {
    fn from(error: StoreError) -> Self {
        Self::Call(error.into())
    }
}

/// An account without a task, whose record nobody else touches meanwhile: a login that comes finds a mailbox, waits,
/// and tries again when this is gone.
struct AtRest<'a> {
    sessions: &'a TenantSessions,
    account: &'a AccountId,
    _commands: Commands,
}

impl TenantSessions {
    /// The leases of the partitions that are held here, in order.
    pub(in crate::runtime) fn leases(&self) -> impl Iterator<Item = Lease> {
        let adopted = self
            .partitions
            .iter()
            .filter(|partition| partition.present_term().is_ok());
        adopted.filter_map(|partition| partition.writer.lease())
    }

    /// Whether a partition is held here.
    pub(in crate::runtime) fn holds(&self, number: u16) -> bool {
        let partition = self.partitions.get(usize::from(number));
        partition.is_some_and(|partition| partition.present_term().is_ok())
    }

    /// How old an event of a partition's log becomes at the most.
    pub(in crate::runtime) fn retain_age(&self, number: u16) -> std::time::Duration {
        let partition = self.partitions.get(usize::from(number));
        partition.map_or_else(Default::default, |partition| partition.writer.retain_age())
    }

    /// Has the record of an account sealed under the active key, and waits until that is stored.
    pub(in crate::runtime) async fn reseal(
        &self,
        account: &AccountId,
        store: &dyn Store,
    ) -> Result<(), ResealError> {
        let (partition, _) = self.term(account)?;
        match self.keep_at_rest(account)? {
            Some(_at_rest) => self.reseal_at_rest(account, partition, store).await,
            None => self.reseal_running(account).await,
        }
    }

    /// A session stores what it has in its memory: it does not matter whether the stored record could be opened.
    async fn reseal_running(&self, account: &AccountId) -> Result<(), ResealError> {
        let mailbox = self.running(account).ok_or_else(not_held)?;
        let (reply, answer) = oneshot::channel();
        let asked = mailbox.send(Box::new(Command::Reseal(reply))).await;
        // It ended just then: what it left is looked at in the next round.
        asked.map_err(|_| CallError::Stopping)?;
        answer.await.map_err(|_| CallError::Stopping)??;
        Ok(())
    }

    async fn reseal_at_rest(
        &self,
        account: &AccountId,
        partition: &Partition,
        store: &dyn Store,
    ) -> Result<(), ResealError> {
        let key = self.tenant.key(account);
        let place = key.partition(self.tenant.partitions);
        let Some(stored) = store.session(&place, account).await? else {
            return Ok(());
        };
        let sealer = &self.tenant.sealer;
        if !record::needs_reseal(sealer, &stored) {
            return Ok(());
        }
        let record = record::reseal(sealer, &key, &stored)?;
        let (done, outcome) = oneshot::channel();
        let append = Append {
            account: account.clone(),
            record: Some(Record::Whole(record.clone())),
            sends: Vec::new(),
            events: Vec::new(),
            done,
        };
        partition.writer.append(append).await;
        match outcome.await {
            Ok(Ok(())) => {
                // What the store may lose yet is not to come back under the old key.
                self.slots().retired.replace(account, &record);
                Ok(())
            }
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string()).into()),
            Err(_) => Err(CallError::Stopping.into()),
        }
    }

    /// Keeps an account at rest; `None` if it has a task.
    fn keep_at_rest<'a>(&'a self, account: &'a AccountId) -> Result<Option<AtRest<'a>>, CallError> {
        let mut slots = self.slots();
        if slots.mailbox(account).is_some() {
            return Ok(None);
        }
        let slot = slots.by_account.get_mut(account).ok_or_else(not_held)?;
        if slot.is_running() {
            // Its task ended without a word. The next login sees to that.
            return Err(CallError::Stopping);
        }
        // Commands are refused by the end of the mailbox, and come again.
        let (mailbox, commands) = mpsc::channel(1);
        slot.mailbox = Some(mailbox);
        slot.resealing = true;
        Ok(Some(AtRest {
            sessions: self,
            account,
            _commands: commands,
        }))
    }
}

impl Drop for AtRest<'_> {
    fn drop(&mut self) {
        let mut slots = self.sessions.slots();
        // The partition may have been let go, and may have come back, meanwhile.
        if let Some(slot) = slots.by_account.get_mut(self.account)
            && slot.resealing
        {
            slot.mailbox = None;
            slot.resealing = false;
        }
    }
}
