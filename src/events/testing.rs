//! What the tests of this room share: leases and logs in a memory store, and events.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use super::encoded::Encoded;
use super::entry::Entry;
use super::hub::Hub;
use super::service::Events;
use super::source::Read;
use crate::proto::v1;
use crate::runtime::supervisor::Tasks;
use crate::store::memory::MemoryStore;
use crate::store::seal::{KeyRing, Sealer};
use crate::store::{Batch, Claim, Lease, LogBounds, Position, Store as _};
use crate::tenants::token::Tokens;
use crate::types::{Epoch, PartitionId, ReplicaId, Secret, TenantId, UnixMillis};

/// Runs something on paused time, within a test that is none of tokio's.
pub(crate) fn on_paused_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// A lease of a partition.
pub(crate) async fn lease(store: &MemoryStore, partition: &PartitionId) -> Lease {
    let ttl = Duration::from_secs(3600);
    let owner = ReplicaId::new("r1");
    match store.claim(partition, &owner, ttl, Some(Epoch(0))).await {
        Ok(Claim::Granted(lease)) => lease,
        other => panic!("no lease: {other:?}"),
    }
}

/// Appends events as another writer would, and answers where the log ends.
pub(crate) async fn append(
    store: &MemoryStore,
    partition: &PartitionId,
    events: &[v1::Event],
) -> Position {
    let payloads: Vec<_> = events.iter().map(v1::Event::encode_to_vec).collect();
    append_after(store, partition, Position::default(), &payloads).await
}

/// Appends payloads as a writer does that has seen the log end at `seen`, and answers where it ends then.
pub(crate) async fn append_after(
    store: &MemoryStore,
    partition: &PartitionId,
    seen: Position,
    payloads: &[Vec<u8>],
) -> Position {
    let lease = lease(store, partition).await;
    let batch = Batch {
        seen,
        events: payloads.to_vec(),
        ..Batch::default()
    };
    let done = store.commit(&lease, &batch).await.unwrap();
    Position {
        log: done.log,
        sequence: done.last_sequence,
    }
}

/// The events of a store; what is sealed is sealed by [`sealer`] 1.
pub(crate) fn events(store: Arc<MemoryStore>, hub: &Hub, tasks: &Tasks) -> Events {
    let (sealer, tokens) = (Arc::new(sealer(1)), Tokens::for_tests());
    Events::new(store, sealer, tokens, hub.clone(), tasks.clone())
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("t")
}

pub(crate) fn partition(number: u16) -> PartitionId {
    PartitionId {
        tenant: tenant(),
        number,
    }
}

/// An entry of a log: a text message.
pub(crate) fn entry(sequence: u64, text: &str) -> Arc<Entry> {
    let encoded = message("bot", text).encode_to_vec();
    let entry = Entry::appended(&partition(0), sequence, UnixMillis(0), encoded);
    Arc::new(entry)
}

/// What a read that began at `place` gives of a log that has these entries.
pub(crate) fn read(place: u64, mut entries: Vec<Arc<Entry>>, bounds: LogBounds) -> Read {
    let anchor = entries.iter().find(|entry| entry.sequence == place);
    let anchor = anchor.map(|entry| entry.print);
    entries.retain(|entry| entry.sequence > place);
    Read {
        anchor,
        entries,
        bounds,
    }
}

/// A sealer under a key of its own for each seed.
pub(crate) fn sealer(seed: u8) -> Sealer {
    let key = Secret::new(format!("{seed:02x}").repeat(32));
    Sealer::new(KeyRing::parse("k1", [("k1", &key)]).unwrap())
}

/// A text message to an account.
pub(crate) fn message(account: &str, text: &str) -> v1::Event {
    let text = v1::TextElement { text: text.into() };
    let element = v1::Element {
        kind: Some(v1::element::Kind::Text(text)),
    };
    v1::Event {
        account: account.into(),
        kind: Some(v1::event::Kind::Message(v1::Message {
            elements: vec![element],
            ..v1::Message::default()
        })),
        ..v1::Event::default()
    }
}

/// An event as subscribers get it.
pub(crate) fn encoded(event: &v1::Event) -> Encoded {
    Encoded::with_sequence(event.encode_to_vec(), event.sequence).unwrap()
}

/// What an event says in the tests: a message's text, or another kind's name.
pub(crate) fn gist(event: &Encoded) -> String {
    match event.decode().unwrap().kind {
        Some(v1::event::Kind::Message(message)) => message
            .elements
            .iter()
            .map(|element| match element.kind.as_ref() {
                Some(v1::element::Kind::Text(text)) => text.text.clone(),
                Some(v1::element::Kind::Custom(_) | v1::element::Kind::Raw(_)) | None => "?".into(),
            })
            .collect(),
        Some(v1::event::Kind::Gap(gap)) => format!(
            "gap {} {}-{} {}",
            gap.reason().as_str_name().trim_start_matches("GAP_REASON_"),
            gap.from_sequence,
            gap.to_sequence,
            gap.count
        ),
        Some(v1::event::Kind::SessionChanged(_)) => "session".into(),
        Some(v1::event::Kind::SignatureExpired(_)) => "expired".into(),
        Some(v1::event::Kind::KickedOffline(_)) => "kicked".into(),
        Some(v1::event::Kind::UpstreamNotice(_)) => "notice".into(),
        None => "nothing".into(),
    }
}
