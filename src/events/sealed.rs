//! What a log holds that another key than the active one has sealed. A log is not written over, so this cannot be sealed
//! anew: it ages out.

use std::time::Duration;

use super::payload;
use crate::store::seal::Sealer;
use crate::store::{Store, StoreError};
use crate::types::{PartitionId, UnixMillis};

/// How many entries one read takes: an entry can be some megabytes.
const PAGE: usize = 64;
/// How long a reader rests after each page, so that those who write are not kept waiting.
const REST: Duration = Duration::from_millis(2);

/// Events under keys that do not seal any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldEvents {
    /// How many.
    pub events: u64,
    /// When the youngest of them was appended; `None` if there are none.
    pub youngest: Option<UnixMillis>,
}

/// Reads through a log and counts them.
pub async fn old_events(
    store: &dyn Store,
    sealer: &Sealer,
    partition: &PartitionId,
) -> Result<OldEvents, StoreError> {
    let mut found = OldEvents::default();
    let mut after = 0;
    loop {
        let entries = store.read(partition, after, PAGE).await?.entries;
        let Some(last) = entries.last() else {
            return Ok(found);
        };
        after = last.sequence;
        for entry in &entries {
            if payload::needs_reseal(sealer, &entry.payload) {
                found.events += 1;
                found.youngest = found.youngest.max(Some(entry.appended_at));
            }
        }
        if entries.len() < PAGE {
            return Ok(found);
        }
        tokio::time::sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::testing::{append_after, partition, sealer, tenant};
    use crate::store::Position;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::KeyRing;
    use crate::types::Secret;

    #[tokio::test(start_paused = true)]
    async fn events_under_another_key_are_counted_with_the_youngest() {
        let (store, partition) = (Arc::new(MemoryStore::new()), partition(0));
        let none = old_events(&*store, &sealer(1), &partition).await.unwrap();
        assert_eq!(none, OldEvents::default());

        let sealer = sealer(1);
        let wrap = |sealer: &Sealer| payload::wrap(sealer, &tenant(), b"event").unwrap();
        let old = vec![wrap(&sealer); PAGE + 3];
        let end = append_after(&store, &partition, Position::default(), &old).await;
        let keys =
            [("k1", "01"), ("k2", "02")].map(|(id, byte)| (id, Secret::new(byte.repeat(32))));
        let ring = KeyRing::parse("k2", keys.iter().map(|(id, key)| (*id, key)));
        sealer.replace(ring.unwrap()).unwrap();
        // Neither what the new key has sealed nor what nobody has is old.
        let rest = [wrap(&sealer), vec![8, 1]];
        append_after(&store, &partition, end, &rest).await;

        let found = old_events(&*store, &sealer, &partition).await.unwrap();
        assert_eq!(found.events, old.len() as u64);
        let entries = store.read(&partition, 0, 1000).await.unwrap().entries;
        let youngest = entries[old.len() - 1].appended_at;
        assert_eq!(found.youngest, Some(youngest));
    }
}
