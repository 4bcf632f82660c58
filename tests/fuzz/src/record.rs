//! What comes back from the store: sessions, sealed values, events and sends.

use std::sync::Arc;
use std::time::Duration;

use imgate::connectors::tencent::protocol::Identification;
use imgate::error::Classified as _;
use imgate::events::entry::Entry;
use imgate::events::payload;
use imgate::proto::record::{SessionRecord, TencentTicket};
use imgate::proto::v1;
use imgate::runtime::record::{self, Restored};
use imgate::session::Session;
use imgate::session::input::Now;
use imgate::session::policy::Policy;
use imgate::store::seal::{SealedFor, Sealer};
use imgate::store::{LogEntry, StoredSend};
use imgate::types::{AccountId, PartitionId, SessionKey, TenantId, UnixMillis};
use prost::Message as _;

use super::{place, sealer, session_key};

/// What the sealed part of a session's record is.
const SECRETS: &str = "session secrets";

/// A letter and the bytes: `r` a session's record as it is in the store, `s` one whose secrets are yet to be sealed, `e` a
/// sealed value or what is to be one, `l` a log's entry, `m` the record of a send.
pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((b'r', bytes)) => stored_session(bytes),
        Some((b's', bytes)) => session(bytes),
        Some((b'e', bytes)) => sealed(bytes),
        Some((b'l', bytes)) => entry(bytes),
        Some((b'm', bytes)) => send(bytes),
        Some(_) | None => {}
    }
}

fn now() -> Now {
    Now {
        at: tokio::time::Instant::now().into_std(),
        wall: UnixMillis::from_secs(1_795_000_000),
    }
}

/// Nobody who lacks the keys can make a record that is read.
fn stored_session(bytes: &[u8]) {
    let key = session_key("acme", "bot1");
    let error = record::decode(&sealer(&[1]), &key, bytes).expect_err("nobody sealed it");
    let view = record::corrupt_view(&key, &error);
    assert_eq!(view.desc, error.public_text());
    assert!(error.to_string().len() < 400, "{error}");
}

fn session(bytes: &[u8]) {
    let Ok(mut record) = SessionRecord::decode(bytes) else {
        return;
    };
    let (sealer, key) = (sealer(&[1, 2]), session_key("acme", "bot1"));
    let belongs = belongs(&key, SECRETS);
    let plain = std::mem::take(&mut record.sealed_secrets);
    record.sealed_secrets = sealer.seal(&belongs, &plain).expect("it is sealed");
    let bytes = record.encode_to_vec();
    // Whatever is in it, it is one account's and under one key.
    for other in [session_key("acme", "bot2"), session_key("globex", "bot1")] {
        assert!(record::decode(&sealer, &other, &bytes).is_err());
    }
    assert!(record::decode(&super::sealer(&[3]), &key, &bytes).is_err());
    let mut changed = record.clone();
    let at = place(&bytes, changed.sealed_secrets.len());
    changed.sealed_secrets[at] ^= 1;
    assert!(record::decode(&sealer, &key, &changed.encode_to_vec()).is_err());

    let Ok(restored) = record::decode(&sealer, &key, &bytes) else {
        return;
    };
    prints_no_secret(&restored);
    let (once, shown) = again(&sealer, &key, &restored);
    let (twice, shown_again) = again(&sealer, &key, &once);
    assert_eq!(
        (&once.durable, &once.position),
        (&twice.durable, &twice.position)
    );
    assert_eq!((once.ticket, shown), (twice.ticket, shown_again));
    // Of a ticket with a part missing, and of one after a logout, nothing is left.
    let is_whole = |ticket: &TencentTicket| !ticket.a2.is_empty() && !ticket.tiny_id.is_empty();
    let mut durable = restored.durable;
    durable.has_ticket = is_whole(&restored.ticket);
    assert_eq!(durable, once.durable);
    assert_eq!(restored.position, once.position);
}

fn belongs<'a>(key: &'a SessionKey, kind: &'a str) -> SealedFor<'a> {
    SealedFor {
        tenant: &key.tenant,
        account: &key.account,
        kind,
    }
}

/// Brings a session to life, looks at it, and stores it again.
fn again(sealer: &Sealer, key: &SessionKey, restored: &Restored) -> (Restored, v1::Session) {
    let who = Identification {
        account: key.account.as_str().to_owned(),
        sdk_app_id: 1_400_000_001,
        max_frame_bytes: 1 << 20,
    };
    let policy = Arc::new(Policy::default());
    let durable = restored.durable.clone();
    let session = Session::restore(policy, 7, durable, now(), Duration::ZERO);
    let protocol = record::protocol(who, 7, restored);
    let view = record::view(key, &session);
    for view in [&view, &record::dormant_view(key, &restored.durable)] {
        assert!(super::is_valid(view.since.as_ref()));
        assert!(super::is_valid(view.signature_expires_at.as_ref()));
    }
    let bytes = record::encode(sealer, key, &session, &protocol).expect("it is sealed");
    let read = record::decode(sealer, key, &bytes).expect("what was written is read");
    (read, view)
}

fn prints_no_secret(restored: &Restored) {
    let shown = format!("{:?}", restored.durable);
    let secrets = [
        &restored.durable.signature,
        &restored.durable.next_signature,
    ];
    let secrets = secrets
        .into_iter()
        .flatten()
        .map(|signature| signature.text.expose());
    let public = [&restored.durable.desc];
    for secret in secrets {
        let by_chance = public.iter().any(|text| text.contains(secret));
        assert!(
            secret.len() < 12 || by_chance || !shown.contains(secret),
            "{shown}"
        );
    }
}

fn sealed(bytes: &[u8]) {
    let (sealer, key) = (sealer(&[1, 2]), session_key("acme", "bot1"));
    let belongs = belongs(&key, "a kind");
    assert!(sealer.open(&belongs, bytes).is_err(), "nobody sealed it");
    let _ = sealer.needs_reseal(bytes);

    let sealed = sealer.seal(&belongs, bytes).expect("it is sealed");
    assert!(!sealer.needs_reseal(&sealed));
    let opened = sealer.open(&belongs, &sealed).expect("it opens");
    assert_eq!(opened.expose(), bytes);
    for (tenant, account, kind) in [
        ("acme", "bot2", "a kind"),
        ("globex", "bot1", "a kind"),
        ("acme", "bot1", "b kind"),
        ("acmeb", "ot1", "a kind"),
    ] {
        let other = session_key(tenant, account);
        let other = self::belongs(&other, kind);
        assert!(sealer.open(&other, &sealed).is_err());
    }
    let at = place(bytes, sealed.len());
    assert!(sealer.open(&belongs, &sealed[..at]).is_err());
    let mut changed = sealed.clone();
    changed[at] ^= 1 << (at % 8);
    assert!(sealer.open(&belongs, &changed).is_err());
    changed[at] = sealed[at];
    changed.push(0);
    assert!(sealer.open(&belongs, &changed).is_err());
    // Under a rotated ring it opens, and is to be sealed again.
    let rotated = super::sealer(&[2, 1]);
    assert!(rotated.open(&belongs, &sealed).is_ok() && rotated.needs_reseal(&sealed));
    assert!(super::sealer(&[2]).open(&belongs, &sealed).is_err());
}

fn entry(bytes: &[u8]) {
    let (sealer, tenant) = (sealer(&[1]), TenantId::new("acme"));
    let partition = |tenant: &TenantId| PartitionId {
        tenant: tenant.clone(),
        number: 3,
    };
    let open = |tenant: &TenantId, payload: &[u8]| {
        let stored = LogEntry {
            sequence: 7,
            appended_at: UnixMillis(5),
            payload: payload.to_vec(),
        };
        Entry::open(&partition(tenant), &sealer, &stored)
    };
    let decoded = |entry: &Entry| {
        let event = entry.event.as_ref();
        event.map(|event| event.decode().expect("what was opened is sound"))
    };
    let read = open(&tenant, bytes);
    assert_eq!((read.sequence, read.appended_at), (7, UnixMillis(5)));
    assert_ne!(read.print.0, 0);
    if bytes.first() == Some(&0) {
        assert_eq!(read.event, None, "nobody sealed it");
    }
    if let Some(event) = decoded(&read) {
        assert_eq!(event.sequence, 7);
        let again = open(&tenant, &event.encode_to_vec());
        assert_eq!(decoded(&again), Some(event));
    }
    let wrapped = payload::wrap(&sealer, &tenant, bytes).expect("it is sealed");
    let opened = open(&tenant, &wrapped);
    assert_eq!(
        decoded(&opened),
        v1::Event::decode(bytes).ok().map(|event| v1::Event {
            sequence: 7,
            ..event
        })
    );
    if bytes.first() != Some(&0) {
        assert_eq!(opened, read);
    }
    assert_eq!(open(&TenantId::new("globex"), &wrapped).event, None);
    let at = place(bytes, wrapped.len() - 1) + 1;
    let mut changed = wrapped;
    changed[at] ^= 1;
    assert_eq!(open(&tenant, &changed).event, None);
}

fn send(bytes: &[u8]) {
    let stored = |id: &str, record: Vec<u8>| StoredSend {
        account: AccountId::new("bot1"),
        client_message_id: id.to_owned(),
        record,
    };
    let sends = vec![stored("a", bytes.to_vec()), stored("b", Vec::new())];
    let (kept, forgotten) = record::sends_again(sends, now().wall);
    assert_eq!(kept.len() + forgotten.len(), 2);
    for (id, record) in kept {
        let (again, _) = record::sends_again(vec![stored(&id, record.clone())], now().wall);
        assert_eq!(again, [(id, record)]);
    }
}
