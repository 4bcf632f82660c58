//! Sealed events in the store.

use std::borrow::Cow;

use super::*;
use crate::events::payload;
use crate::events::testing::tenant;
use crate::store::seal::{KeyRing, SealError};
use crate::types::{Secret, TenantId};

const TEXT: &str = "the quick brown fox";

fn sealer(active: &str, ids: &[&str]) -> Arc<Sealer> {
    let key = |id: &str| Secret::new(format!("{:02x}", id.as_bytes()[0]).repeat(32));
    let keys: Vec<_> = ids.iter().map(|id| (*id, key(id))).collect();
    let keys = keys.iter().map(|(id, key)| (*id, key));
    Arc::new(Sealer::new(KeyRing::parse(active, keys).unwrap()))
}

fn sealing(sealer: &Arc<Sealer>) -> LogOptions {
    LogOptions {
        sealer: Some(Arc::clone(sealer)),
        ..LogOptions::default()
    }
}

fn has_text(payload: &[u8]) -> bool {
    payload
        .windows(TEXT.len())
        .any(|part| part == TEXT.as_bytes())
}

/// The texts in the store, opened.
async fn read(world: &World, sealer: &Sealer) -> Vec<String> {
    let entries = world.entries().await;
    let events = entries.iter().map(|entry| {
        let opened = payload::unwrap(sealer, &tenant(), &entry.payload).unwrap();
        let event = v1::Event::decode(opened.as_ref()).unwrap();
        testing::gist(&testing::encoded(&event))
    });
    events.collect()
}

#[tokio::test(start_paused = true)]
async fn the_store_gets_sealed_events_if_the_tenant_asks_for_it() {
    let plain = world(LogOptions::default()).await;
    plain.append(TEXT).await;
    assert!(has_text(&plain.entries().await[0].payload));

    let sealer = sealer("a", &["a"]);
    let world = world(sealing(&sealer)).await;
    world.append(TEXT).await;
    let entries = world.entries().await;
    assert_eq!(entries[0].payload[0], 0);
    assert!(!has_text(&entries[0].payload));
    assert_eq!(read(&world, &sealer).await, [TEXT]);
    // It opens for its tenant only.
    let other = payload::unwrap(&sealer, &TenantId::new("other"), &entries[0].payload);
    assert!(matches!(other, Err(SealError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn plain_old_and_new_events_are_read_after_a_rotation() {
    let store = Arc::new(MemoryStore::new());
    let (old, both, new) = (
        sealer("a", &["a"]),
        sealer("b", &["a", "b"]),
        sealer("b", &["b"]),
    );
    for (options, text) in [
        (LogOptions::default(), "plain"),
        (sealing(&old), "old"),
        (sealing(&both), "new"),
    ] {
        let world = world_on(store.clone(), options).await;
        world.append(text).await;
    }
    let world = world_on(store, LogOptions::default()).await;
    assert_eq!(read(&world, &both).await, ["plain", "old", "new"]);
    let entries = world.entries().await;
    let opened = |entry: &LogEntry| {
        payload::unwrap(&new, &tenant(), &entry.payload)
            .map(Cow::into_owned)
            .map_err(|error| error.to_string())
    };
    assert!(opened(&entries[0]).is_ok() && opened(&entries[2]).is_ok());
    assert!(opened(&entries[1]).unwrap_err().contains("\"a\""));
}
