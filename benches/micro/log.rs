//! Events in the log: how they lie there, and their way through its writer to a subscriber.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use imgate::connectors::tencent::message::{self, Parsed};
use imgate::connectors::tencent::push::PushBody;
use imgate::events::entry::Entry;
use imgate::events::hub::Hub;
use imgate::events::log::{Append, LogOptions, LogWriter};
use imgate::events::payload;
use imgate::events::service::{Events, Start, SubscribeOptions, TenantLogs};
use imgate::events::subscription::Subscription;
use imgate::proto::{time, v1};
use imgate::runtime::supervisor::Tasks;
use imgate::store::memory::MemoryStore;
use imgate::store::{Claim, LogEntry, Store};
use imgate::tenants::token::Tokens;
use imgate::types::{AccountId, Epoch, ReplicaId};
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::inputs::{ACCOUNT, PUSH, key, now, partition, push_body, sealer, tenant};
use crate::{Case, Operation};

/// Events of a batch.
const BATCH: usize = 64;
/// An hour: nothing that waits for a time does anything while it is measured.
const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("entry/encode", encode),
        Case::new("entry/decode", || decode(event().encode_to_vec())).by_cpu(),
        Case::new("entry/seal", seal).by_cpu(),
        Case::new("entry/decode sealed", decode_sealed).by_cpu(),
        Case::new("batch of 64/encode", encode_batch),
        // Through the writer, the store in memory, the hub and one subscription.
        Case::new("log/1 event", || Log::operation(1)).by_cpu(),
        Case::new("log/64 events", || Log::operation(BATCH)).by_cpu(),
    ]
}

/// The event of a push.
fn event() -> v1::Event {
    let body = push_body(1);
    let push: PushBody<'_> = serde_json::from_str(&body).unwrap();
    let entries = push.event_array.unwrap();
    let mut parsed = message::parse_push(ACCOUNT, PUSH, &body, entries);
    let Some(Parsed::C2c { message, .. }) = parsed.pop() else {
        panic!("a push has one message");
    };
    v1::Event {
        account: ACCOUNT.into(),
        sequence: 0,
        received_at: Some(time::timestamp(now().wall.0)),
        kind: Some(v1::event::Kind::Message(message)),
    }
}

fn encode() -> Operation {
    let event = event();
    Box::new(move || {
        black_box(black_box(&event).encode_to_vec());
    })
}

fn decode(payload: Vec<u8>) -> Operation {
    let (partition, sealer) = (partition(), sealer());
    let stored = LogEntry {
        sequence: 1_000_000,
        appended_at: now().wall,
        payload,
    };
    Box::new(move || {
        black_box(Entry::open(&partition, &sealer, black_box(&stored)));
    })
}

fn seal() -> Operation {
    let (sealer, tenant, encoded) = (sealer(), tenant(), event().encode_to_vec());
    Box::new(move || {
        black_box(payload::wrap(&sealer, &tenant, black_box(&encoded)).unwrap());
    })
}

fn decode_sealed() -> Operation {
    let sealed = payload::wrap(&sealer(), &tenant(), &event().encode_to_vec());
    decode(sealed.unwrap())
}

/// A batch as it goes to a subscriber.
fn encode_batch() -> Operation {
    let batch = v1::SubscribeResponse {
        events: vec![event(); BATCH],
        cursor: "A".repeat(260),
        subscription_made: false,
    };
    Box::new(move || {
        black_box(black_box(&batch).encode_to_vec());
    })
}

/// A log with its writer and one subscriber, all on this thread.
struct Log {
    runtime: Runtime,
    writer: LogWriter,
    subscription: Subscription,
    encoded: Vec<u8>,
}

impl Log {
    /// Appends so many events at once, and reads them.
    fn operation(events: usize) -> Operation {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.unwrap();
        let (writer, subscription) = runtime.block_on(Self::start());
        let mut log = Self {
            runtime,
            writer,
            subscription,
            encoded: event().encode_to_vec(),
        };
        // The first answer is empty.
        log.read(0);
        Box::new(move || log.pass(events))
    }

    async fn start() -> (LogWriter, Subscription) {
        let (store, hub, tasks) = (Arc::new(MemoryStore::new()), Hub::new(), Tasks::new());
        let (partition, owner) = (partition(), ReplicaId::new("r1"));
        let claim = store.claim(&partition, &owner, LONG, Some(Epoch(0))).await;
        let Claim::Granted(lease) = claim.unwrap() else {
            panic!("nobody else has the partition");
        };
        let options = LogOptions {
            retain_events: 1_000,
            trim_every: LONG,
            ..LogOptions::default()
        };
        let writer = LogWriter::start(
            partition,
            Arc::<MemoryStore>::clone(&store),
            watch::Sender::new(Some(lease)).subscribe(),
            hub.clone(),
            mpsc::channel(1).0,
            options,
            &tasks,
        );
        let events = Events::new(store, sealer(), Tokens::new(&key(), []), hub, tasks);
        let logs = TenantLogs {
            tenant: tenant(),
            partitions: 1,
            max_subscriptions: 1,
        };
        let options = SubscribeOptions {
            start: Start::Latest,
            accounts: [].into(),
            kinds: Vec::new(),
            max_batch: BATCH,
            heartbeat: LONG,
        };
        let subscription = events.subscribe(&logs, options).await;
        (writer, subscription.unwrap())
    }

    fn pass(&mut self, events: usize) {
        let (done, stored) = oneshot::channel();
        let append = Append {
            account: AccountId::new(ACCOUNT),
            record: None,
            sends: Vec::new(),
            events: vec![self.encoded.clone(); events],
            done,
        };
        self.runtime.block_on(async {
            self.writer.append(append).await;
            stored.await.unwrap().unwrap();
        });
        self.read(events);
    }

    fn read(&mut self, events: usize) {
        let next = self.runtime.block_on(self.subscription.next());
        assert_eq!(next.unwrap().events.len(), events);
    }
}
