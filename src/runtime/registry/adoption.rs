//! What is stored of a partition, brought back when the partition is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use metrics::counter;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{Partition, Slot, TenantSessions, Term};
use crate::events::log::Append;
use crate::proto::v1;
use crate::runtime::metrics as names;
use crate::runtime::record;
use crate::runtime::sends::remembered::Remembered;
use crate::runtime::session_actor::audit;
use crate::runtime::supervisor::Tasks;
use crate::session::state::ParkReason;
use crate::store::{StoredSend, StoredSession};
use crate::types::{AccountId, UnixMillis, WallClock};

impl TenantSessions {
    /// Begins to hold a partition: brings back what is stored of it. True if some of that is sealed under another key
    /// than the active one.
    pub(in crate::runtime) fn adopt(
        self: &Arc<Self>,
        number: u16,
        stored: Vec<StoredSession>,
        sends: Vec<StoredSend>,
        tasks: &Tasks,
    ) -> bool {
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return false;
        };
        let mut old_seals = false;
        let term = Term {
            lost: CancellationToken::new(),
            tasks: tasks.child(),
            adopted: false,
        };
        // From now on the hold can be ended.
        *partition.hold() = Some(term.clone());
        self.note_held();
        let jitter = self.tenant.settings().start_jitter;
        let mut sends_of: HashMap<AccountId, Vec<StoredSend>> = HashMap::new();
        for send in sends {
            sends_of.entry(send.account.clone()).or_default().push(send);
        }
        for StoredSession { account, record } in stored {
            let key = self.tenant.key(&account);
            old_seals |= record::needs_reseal(&self.tenant.sealer, &record);
            match record::decode(&self.tenant.sealer, &key, &record) {
                Ok(mut restored) if restored.durable.desired => {
                    restored.sends = sends_of.remove(&account).unwrap_or_default();
                    let delay = jitter.mul_f64(rand::random());
                    // Whether there is room for it was decided when it was logged in.
                    let _held = self.spawn(&account, restored, delay, partition, &term, usize::MAX);
                }
                Ok(restored) => self.rest(&account, record::dormant_view(&key, &restored.durable)),
                Err(error) => {
                    counter!(names::CORRUPT_RECORDS).increment(1);
                    error!(%account, %error, "a stored session cannot be read; it is parked");
                    audit::parked(&key, ParkReason::CorruptRecord, 0);
                    self.rest(&account, record::corrupt_view(&key, &error));
                }
            }
        }
        for (account, sends) in sends_of {
            self.rest_sends(account, sends, partition);
        }
        if let Some(term) = partition.hold().as_mut() {
            term.adopted = true;
        }
        old_seals
    }

    fn rest(&self, account: &AccountId, session: v1::Session) {
        let slot = Slot {
            view: Arc::new(Mutex::new(session)),
            mailbox: None,
            resealing: false,
            sends_until: UnixMillis::default(),
        };
        self.slots().by_account.insert(account.clone(), slot);
    }

    /// Forgets the old sends of an account without a task, and notes how long the others are remembered.
    fn rest_sends(&self, account: AccountId, sends: Vec<StoredSend>, partition: &Partition) {
        let (remembered, forgotten) = Remembered::restore(sends, WallClock.now());
        if let Some(slot) = self.slots().by_account.get_mut(&account) {
            slot.sends_until = remembered.until().unwrap_or_default();
        }
        if forgotten.is_empty() {
            return;
        }
        let append = Append {
            account,
            record: None,
            sends: forgotten.into_iter().map(|id| (id, Vec::new())).collect(),
            events: Vec::new(),
            done: oneshot::channel().0,
        };
        if let Err(refused) = partition.writer.try_append(append) {
            // They are too old to be of effect, and the next hold of the partition tries again.
            debug!(error = %refused.error, "old sends are not forgotten");
        }
    }
}
