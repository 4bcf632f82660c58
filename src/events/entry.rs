//! A log entry as subscribers need it: read once, and shared by all of them.

use prost::Message as _;
use tracing::error;

use super::encoded::Encoded;
use super::payload;
use crate::proto::v1;
use crate::store::LogEntry;
use crate::store::seal::Sealer;
use crate::types::{PartitionId, UnixMillis};

/// An entry of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the log.
    pub sequence: u64,
    /// When it was appended.
    pub appended_at: UnixMillis,
    /// The event, which has the entry's sequence; `None` if it cannot be read.
    pub event: Option<Encoded>,
    /// How many bytes the encoded event has.
    pub size: usize,
    /// What tells it from another entry at the same place.
    pub print: Print,
}

/// A fingerprint of an entry: whoever comes back to a place sees by it whether the log is still the one that it read.
/// Never 0, which stands for none in a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print(pub u32);

impl Print {
    /// The fingerprint of what the store has, without a word if that does not open.
    pub(super) fn of_stored(partition: &PartitionId, sealer: &Sealer, stored: &LogEntry) -> Self {
        let opened = payload::unwrap(sealer, &partition.tenant, &stored.payload);
        opened.map_or_else(|_| Self::of(&stored.payload), |encoded| Self::of(&encoded))
    }

    /// CRC-32 is stable over versions and machines, as cursors need it, and no store loses its entries on purpose.
    fn of(encoded: &[u8]) -> Self {
        Self(crc32fast::hash(encoded).max(1))
    }
}

impl Entry {
    /// Reads what the store has. An event that does not open or decode is told in the log of the program, here, once.
    pub fn open(partition: &PartitionId, sealer: &Sealer, stored: &LogEntry) -> Self {
        let (sequence, appended_at) = (stored.sequence, stored.appended_at);
        match payload::unwrap(sealer, &partition.tenant, &stored.payload) {
            Ok(encoded) => {
                let sound = v1::Event::decode(&*encoded).map(drop);
                Self::read(
                    partition,
                    sequence,
                    appended_at,
                    encoded.into_owned(),
                    sound,
                )
            }
            Err(problem) => {
                error!(%partition, sequence, error = %problem, "an event in the log does not open");
                Self {
                    sequence,
                    appended_at,
                    event: None,
                    size: stored.payload.len(),
                    print: Print::of(&stored.payload),
                }
            }
        }
    }

    /// Takes over an event that was appended just now, as it is before it is sealed.
    pub(super) fn appended(
        partition: &PartitionId,
        sequence: u64,
        appended_at: UnixMillis,
        encoded: Vec<u8>,
    ) -> Self {
        Self::read(partition, sequence, appended_at, encoded, Ok(()))
    }

    fn read(
        partition: &PartitionId,
        sequence: u64,
        appended_at: UnixMillis,
        encoded: Vec<u8>,
        sound: Result<(), prost::DecodeError>,
    ) -> Self {
        let (size, print) = (encoded.len(), Print::of(&encoded));
        let event = sound.and_then(|()| Encoded::with_sequence(encoded, sequence));
        if let Err(problem) = &event {
            error!(%partition, sequence, error = %problem, "an event in the log cannot be read");
        }
        Self {
            sequence,
            appended_at,
            event: event.ok(),
            size,
            print,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::{gist, message, partition, sealer, tenant};

    fn stored(payload: Vec<u8>) -> LogEntry {
        LogEntry {
            sequence: 7,
            appended_at: UnixMillis(5),
            payload,
        }
    }

    #[test]
    fn it_is_the_same_sealed_or_not() {
        let encoded = message("bot", "hello").encode_to_vec();
        let sealed = payload::wrap(&sealer(1), &tenant(), &encoded).unwrap();
        let open = |payload| Entry::open(&partition(0), &sealer(1), &stored(payload));
        let entry = open(encoded.clone());
        assert_eq!(open(sealed), entry);
        assert_eq!((entry.sequence, entry.size), (7, encoded.len()));
        let event = entry.event.unwrap();
        assert_eq!(event.decode().unwrap().sequence, 7);
        assert_eq!(gist(&event), "hello");
        let other = open(message("bot", "hallo").encode_to_vec());
        assert_ne!(other.print, entry.print);
    }

    #[test]
    fn what_cannot_be_read_is_an_entry_all_the_same() {
        let sealed = payload::wrap(&sealer(2), &tenant(), b"").unwrap();
        for payload in [vec![0xff; 3], vec![0], sealed] {
            let entry = Entry::open(&partition(0), &sealer(1), &stored(payload));
            assert_eq!((entry.sequence, entry.event), (7, None));
        }
    }
}
