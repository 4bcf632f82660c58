//! A subscriber that says how fast it reads, and checks what it gets as it comes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::subscribe_request::Start;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::fixture::*;

/// The flow-control window that HTTP/2 begins with, and that clients in many languages leave as it is; this one's takes
/// 2 MiB for a stream unless told otherwise, and hides for long whether the gateway holds back.
pub(crate) const WINDOW: u32 = 65_535;

/// A connection of its own to a gateway, as the tenant `acme`.
#[derive(Clone)]
pub(crate) struct Connection(Channel);

impl Connection {
    /// With the default windows.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(endpoint(address).connect().await.unwrap())
    }

    /// With small windows, so that what is not read soon waits at the gateway.
    pub(crate) async fn narrow(address: SocketAddr) -> Self {
        let endpoint = endpoint(address)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Self(endpoint.connect().await.unwrap())
    }

    fn client(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.0.clone())
    }

    /// Subscribes, and waits for the first response, which says that the place is taken.
    pub(crate) async fn subscribe(&self, start: Start, batch: i32) -> Result<Subscriber, Status> {
        let request = keyed(v1::SubscribeRequest {
            start: Some(start),
            max_batch_size: batch,
            ..v1::SubscribeRequest::default()
        });
        let mut stream = self.client().subscribe(request).await?.into_inner();
        let first = within(stream.message()).await?.expect("a first response");
        assert_eq!(first.events, []);
        Ok(Subscriber {
            stream,
            cursor: first.cursor,
            last: BTreeMap::new(),
        })
    }

    /// Subscribes to what happens from now on, by the default batches.
    pub(crate) async fn subscribe_to_latest(&self) -> Subscriber {
        self.subscribe(latest(), 0).await.unwrap()
    }

    pub(crate) async fn acknowledge(&self, subscription: &str, cursor: &str) -> Result<(), Status> {
        let request = keyed(v1::AcknowledgeRequest {
            subscription: subscription.into(),
            cursor: cursor.into(),
        });
        self.client().acknowledge(request).await?;
        Ok(())
    }
}

pub(crate) fn latest() -> Start {
    Start::At(v1::StartAt::Latest.into())
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

fn keyed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let key = MetadataValue::try_from(format!("Bearer {}", key_of("acme"))).unwrap();
    request.metadata_mut().insert("authorization", key);
    request
}

/// A subscription that is read batch by batch.
pub(crate) struct Subscriber {
    stream: Streaming<v1::SubscribeResponse>,
    pub(crate) cursor: String,
    /// The last sequence of each account.
    last: BTreeMap<String, u64>,
}

/// What came in one batch.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) messages: Vec<Text>,
    pub(crate) gaps: Vec<v1::Gap>,
    /// How many events there were of any kind.
    pub(crate) events: usize,
}

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) account: String,
    pub(crate) text: String,
    pub(crate) backfilled: bool,
}

impl Subscriber {
    /// The next batch. Fails the test when nothing comes for long, or when an account's events are not in order.
    pub(crate) async fn batch(&mut self) -> Came {
        let batch = within(self.stream.message()).await.unwrap();
        let batch = batch.expect("the subscription has ended");
        self.cursor = batch.cursor;
        let mut came = Came {
            events: batch.events.len(),
            ..Came::default()
        };
        for event in batch.events {
            let account = event.account;
            if !account.is_empty() {
                let last = self.last.insert(account.clone(), event.sequence);
                let in_order = last.is_none_or(|last| last < event.sequence);
                assert!(in_order, "{account}: {} after {last:?}", event.sequence);
            }
            match event.kind {
                Some(Kind::Message(message)) => came.messages.push(Text {
                    account,
                    backfilled: message.backfilled,
                    text: text_of(Kind::Message(message)).unwrap_or_default(),
                }),
                Some(Kind::Gap(gap)) => came.gaps.push(gap),
                _ => {}
            }
        }
        came
    }
}

/// Numbered messages of one size to `bot0`, `bot1` and so on, in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) bots: usize,
    /// Of a text.
    pub(crate) bytes: usize,
}

impl Traffic {
    /// The accounts.
    pub(crate) fn accounts(self) -> impl Iterator<Item = String> {
        (0..self.bots).map(account)
    }

    /// Logs the accounts in.
    pub(crate) async fn online(self, client: &Client) {
        for account in self.accounts() {
            client.online(&account).await;
        }
    }

    /// Has the upstream push these messages. It has room for 256 that an account's connection has not taken yet.
    pub(crate) fn push(self, upstream: &Upstream, numbers: Range<usize>) {
        for number in numbers {
            let to = account(number % self.bots);
            upstream.texts("friend", &to, [self.text(number)]);
        }
    }

    fn text(self, number: usize) -> String {
        format!("{:x<1$}", format!("{number} "), self.bytes)
    }
}

fn account(number: usize) -> String {
    format!("bot{number}")
}

/// What a subscriber has got of the traffic: all from a place on, each once, in order.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    traffic: Traffic,
    /// The number that each account's next message has.
    next: BTreeMap<String, usize>,
    pub(crate) count: usize,
}

impl Books {
    /// For a subscriber that gets the messages from this number on.
    pub(crate) fn from(traffic: Traffic, first: usize) -> Self {
        let next =
            (first..first + traffic.bots).map(|number| (account(number % traffic.bots), number));
        Self {
            traffic,
            next: next.collect(),
            count: 0,
        }
    }

    /// Enters messages. Fails the test when one is missing, has come before or is not as it was sent.
    pub(crate) fn enter(&mut self, messages: &[Text]) {
        for Text { account, text, .. } in messages {
            let next = self
                .next
                .get_mut(account)
                .expect("an account of the traffic");
            let expected = self.traffic.text(*next);
            // Its beginning tells enough of a text of kilobytes.
            assert!(
                *text == expected,
                "{account}: {text:.20}, not {expected:.20}"
            );
            *next += self.traffic.bots;
            self.count += 1;
        }
    }

    /// Reads until so many messages have come in all. None may be missing.
    pub(crate) async fn read(&mut self, subscriber: &mut Subscriber, count: usize) {
        while self.count < count {
            let came = subscriber.batch().await;
            assert_eq!(came.gaps, []);
            self.enter(&came.messages);
        }
    }
}
