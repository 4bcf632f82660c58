//! The read that a subscription waits for.

use std::pin::Pin;

use crate::events::place::Stand;
use crate::events::source::{Read, Source};
use crate::events::tail::{Fetch, Stamp};
use crate::store::StoreError;
use crate::types::PartitionId;

/// A read under way, for the partition of this number.
pub(super) enum Reading {
    /// For this subscription alone.
    Own {
        number: u16,
        /// What was known when it began.
        stamp: Stamp,
        answer: Pin<Box<dyn Future<Output = Result<Read, StoreError>> + Send>>,
    },
    /// For the tail, and with it for all that wait for it.
    Shared { number: u16, fetch: Fetch },
}

impl Reading {
    /// Reads at most `limit` entries of a partition behind the stand.
    pub(super) fn own(
        source: &Source,
        partition: &PartitionId,
        stand: &Stand,
        limit: usize,
        stamp: Stamp,
    ) -> Self {
        let number = partition.number;
        let (source, partition) = (source.clone(), partition.clone());
        let place = stand.mark.position.sequence;
        let answer = async move { source.read(&partition, place, limit).await };
        Self::Own {
            number,
            stamp,
            answer: Box::pin(answer),
        }
    }

    pub(super) const fn number(&self) -> u16 {
        match self {
            Self::Own { number, .. } | Self::Shared { number, .. } => *number,
        }
    }
}

/// The end of the read under way, with the answer if it is not the tail's; never, when there is none.
pub(super) async fn finished(reading: &mut Option<Reading>) -> Option<Result<Read, StoreError>> {
    match reading {
        Some(Reading::Own { answer, .. }) => Some(answer.as_mut().await),
        Some(Reading::Shared { fetch, .. }) => {
            fetch.await;
            None
        }
        None => std::future::pending().await,
    }
}
