//! The one thread that writes. It takes what has arrived while it was writing and makes one transaction of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::file::{DatabaseFile, Trouble};
use super::tables::{Step, Tables};
use crate::store::{Lease, StoreError};
use crate::types::PartitionId;

/// How many operations may wait for the writer. Further callers wait for a place.
const WAITING: usize = 1024;
/// The most operations in one transaction.
const GROUP: usize = 256;

/// A lease that lasts until a moment. Leases live in memory only: the file has one process at a time, so whoever
/// held a lease before this process is gone. The epochs are in the file.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) until: Instant,
}

pub(super) type Leases = Arc<Mutex<HashMap<PartitionId, Held>>>;

/// The transaction that operations of one group share.
pub(super) struct Group<'txn> {
    pub(super) tables: Tables<'txn>,
    leases: &'txn Leases,
    /// Granted in this group; theirs only once it is in the file.
    granted: HashMap<PartitionId, Held>,
}

/// The sending end, and the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// An operation on its way through the writer.
trait Job: Send + std::fmt::Debug {
    /// Does it within the group's transaction. Runs again when the transaction does.
    fn run(&mut self, group: &mut Group<'_>) -> Step<()>;

    /// Answers the caller.
    fn answer(self: Box<Self>, written: Result<(), Trouble>);
}

struct Operation<T, F> {
    work: F,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl Group<'_> {
    /// Who holds a partition at `now`.
    pub(super) fn held(&self, partition: &PartitionId, now: Instant) -> Option<Held> {
        let held = match self.granted.get(partition) {
            Some(held) => Some(held.clone()),
            None => locked(self.leases).get(partition).cloned(),
        };
        held.filter(|held| held.until > now)
    }

    /// Gives a partition to somebody.
    pub(super) fn grant(&mut self, held: Held) {
        self.granted.insert(held.lease.partition.clone(), held);
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(file: Arc<DatabaseFile>, leases: Leases) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(&file, &leases, waiting))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Does `work` in a transaction and answers when that is on the disk. `work` may run more than once; the
    /// last run counts.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Group<'_>) -> Step<Result<T, StoreError>> + Send + 'static,
    {
        let stopped = || StoreError::Unavailable("the store's writer has stopped".into());
        let (reply, answer) = oneshot::channel();
        let operation = Operation {
            work,
            outcome: None,
            reply,
        };
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(Box::new(operation))
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    /// Waits until the last group is written: whoever opens the file next finds it closed.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the thread itself.
            let _ended = thread.join();
        }
    }
}

fn write_all(file: &DatabaseFile, leases: &Leases, mut waiting: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
        let written = file.run(|database| write_group(database, leases, &mut group));
        match written {
            Ok(granted) => {
                locked(leases).extend(granted);
                group.drain(..).for_each(|job| job.answer(Ok(())));
            }
            Err(trouble) => group
                .drain(..)
                .for_each(|job| job.answer(Err(trouble.clone()))),
        }
    }
}

fn write_group(
    database: &Database,
    leases: &Leases,
    jobs: &mut [Box<dyn Job>],
) -> Step<HashMap<PartitionId, Held>> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let granted = {
        let mut group = Group {
            tables: Tables::open(&transaction)?,
            leases,
            granted: HashMap::new(),
        };
        for job in jobs {
            job.run(&mut group)?;
        }
        group.granted
    };
    transaction.commit()?;
    Ok(granted)
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnMut(&mut Group<'_>) -> Step<Result<T, StoreError>> + Send,
{
    fn run(&mut self, group: &mut Group<'_>) -> Step<()> {
        self.outcome = Some((self.work)(group)?);
        Ok(())
    }

    fn answer(self: Box<Self>, written: Result<(), Trouble>) {
        let result = match (written, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(StoreError::Unavailable("it was not run".into())),
            (Err(trouble), _) => Err(trouble.into()),
        };
        // The caller may have gone; the operation is done all the same.
        let _gone = self.reply.send(result);
    }
}

impl<T, F> std::fmt::Debug for Operation<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation").finish_non_exhaustive()
    }
}

/// The leases. Nothing panics while it has them, so a poisoned lock is as good as any.
pub(super) fn locked(leases: &Leases) -> std::sync::MutexGuard<'_, HashMap<PartitionId, Held>> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}
