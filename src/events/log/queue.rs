//! The queue to a partition's writer. It is bounded in appends and in bytes: a thousand short appends are little to hold,
//! a thousand large ones are not.

use std::sync::Arc;

use tokio::sync::{Semaphore, TryAcquireError, mpsc};

use super::{Append, AppendError, LogOptions};

/// A queue by these options. Policy when full: [`Sender::try_send`] refuses, [`Sender::send`] waits, first come, first
/// served.
pub(super) fn bounded(options: &LogOptions) -> (Sender, Receiver) {
    let (appends, queued) = mpsc::channel(options.queue.max(1));
    let most = u32::try_from(options.queue_bytes)
        .unwrap_or(u32::MAX)
        .max(1);
    let room = Arc::new(Semaphore::new(most as usize));
    let sender = Sender {
        appends,
        room: Arc::clone(&room),
        most,
    };
    (sender, Receiver { queued, room })
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    appends: mpsc::Sender<Queued>,
    /// One for each byte that there is room for. Closed with the receiver.
    room: Arc<Semaphore>,
    most: u32,
}

#[derive(Debug)]
pub(super) struct Receiver {
    queued: mpsc::Receiver<Queued>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Queued {
    append: Append,
    bytes: u32,
}

impl Sender {
    /// Hands over what there is room for now; gives back what there is none for.
    pub(super) fn try_send(&self, append: Append) -> Result<(), (AppendError, Append)> {
        let queued = self.queued(append);
        let room = match self.room.try_acquire_many(queued.bytes) {
            Ok(room) => room,
            Err(TryAcquireError::NoPermits) => return Err((AppendError::Full, queued.append)),
            Err(TryAcquireError::Closed) => return Err((AppendError::Stopping, queued.append)),
        };
        match self.appends.try_send(queued) {
            Ok(()) => {
                room.forget();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(queued)) => Err((AppendError::Full, queued.append)),
            Err(mpsc::error::TrySendError::Closed(queued)) => {
                Err((AppendError::Stopping, queued.append))
            }
        }
    }

    /// Hands over when there is room; gives back what will never be taken.
    pub(super) async fn send(&self, append: Append) -> Result<(), Append> {
        let queued = self.queued(append);
        let Ok(room) = self.room.acquire_many(queued.bytes).await else {
            return Err(queued.append);
        };
        match self.appends.send(queued).await {
            Ok(()) => {
                room.forget();
                Ok(())
            }
            Err(refused) => Err(refused.0.append),
        }
    }

    /// An append that is larger than the queue fills it.
    fn queued(&self, append: Append) -> Queued {
        let bytes = u32::try_from(append.bytes()).unwrap_or(u32::MAX);
        Queued {
            bytes: bytes.min(self.most),
            append,
        }
    }
}

impl Receiver {
    /// The next one; `None` when nothing will come any more. Safe to cancel.
    pub(super) async fn recv(&mut self) -> Option<Append> {
        let queued = self.queued.recv().await?;
        Some(self.taken(queued))
    }

    /// The next one, if it is there.
    pub(super) fn try_recv(&mut self) -> Option<Append> {
        let queued = self.queued.try_recv().ok()?;
        Some(self.taken(queued))
    }

    /// Takes nothing more but what is queued.
    pub(super) fn close(&mut self) {
        self.queued.close();
        self.room.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queued.is_closed()
    }

    fn taken(&self, queued: Queued) -> Append {
        self.room.add_permits(queued.bytes as usize);
        queued.append
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.room.close();
    }
}
