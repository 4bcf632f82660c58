//! A bot backend that subscribes once and comes back with its cursor, and the books that it keeps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use imgate::proto::v1;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::world::{LOOK, endpoint, pause, until};

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) text: String,
    pub(crate) backfilled: bool,
    pub(crate) at: Instant,
}

/// All that came, in order.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// The messages of each account.
    pub(crate) messages: BTreeMap<String, Vec<Seen>>,
    /// How many messages came, each counted as often as it came.
    pub(crate) count: usize,
    pub(crate) gaps: Vec<v1::Gap>,
    pub(crate) kicked: Vec<String>,
    /// What is not as it should be.
    pub(crate) faults: Vec<String>,
    /// How each subscription ended.
    pub(crate) ends: Vec<Status>,
    last_sequence: BTreeMap<String, u64>,
    cursor: Option<String>,
}

/// Reads events until it is dropped.
pub(crate) struct Subscriber {
    books: Arc<Mutex<Books>>,
    tasks: Tasks,
}

impl Subscriber {
    /// Subscribes to what happens from now on, and goes on wherever the gateway is.
    pub(crate) async fn start(gateway: watch::Receiver<Option<SocketAddr>>) -> Self {
        let (books, tasks) = (Arc::new(Mutex::default()), Tasks::new());
        let reading = read(gateway, Arc::clone(&books));
        let stop = tasks.clone();
        tasks.spawn("subscriber", TaskKind::Work, async move {
            tokio::select! {
                () = reading => {}
                () = stop.stopping() => {}
            }
        });
        let subscriber = Self { books, tasks };
        until("the subscription has begun", async || {
            subscriber.books().cursor.is_some()
        })
        .await;
        subscriber
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn read(mut gateway: watch::Receiver<Option<SocketAddr>>, books: Arc<Mutex<Books>>) {
    loop {
        let Ok(address) = gateway.wait_for(Option::is_some).await.map(|at| *at) else {
            return;
        };
        if let Some(address) = address {
            let end = subscription(address, &books).await;
            books.lock().unwrap().ends.push(end);
        }
        pause(LOOK).await;
    }
}

/// Reads one stream to its end, and says how it ended.
async fn subscription(address: SocketAddr, books: &Mutex<Books>) -> Status {
    use v1::subscribe_request::Start;
    let cursor = books.lock().unwrap().cursor.clone();
    let latest = Start::At(v1::StartAt::Latest.into());
    let request = v1::SubscribeRequest {
        start: Some(cursor.map_or(latest, Start::Cursor)),
        max_batch_size: 1000,
        ..v1::SubscribeRequest::default()
    };
    let channel = match endpoint(address).connect().await {
        Ok(channel) => channel,
        Err(error) => return Status::unavailable(error.to_string()),
    };
    let mut stream = match EventServiceClient::new(channel).subscribe(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(batch)) => books.lock().unwrap().enter(batch),
            Ok(None) => return Status::ok("the stream has ended"),
            Err(status) => return status,
        }
    }
}

impl Books {
    fn enter(&mut self, batch: v1::SubscribeResponse) {
        let at = Instant::now();
        for event in batch.events {
            let last = self
                .last_sequence
                .insert(event.account.clone(), event.sequence);
            if last.is_some_and(|last| last >= event.sequence) {
                let fault = format!("{}: {} after {last:?}", event.account, event.sequence);
                self.faults.push(fault);
            }
            self.take(event, at);
        }
        self.cursor = Some(batch.cursor);
    }

    fn take(&mut self, event: v1::Event, at: Instant) {
        use v1::event::Kind;
        match event.kind {
            Some(Kind::Message(message)) => {
                if let Some(fault) = wrong(&event.account, &message) {
                    self.faults.push(fault);
                }
                self.count += 1;
                let seen = Seen {
                    text: text(&message),
                    backfilled: message.backfilled,
                    at,
                };
                self.messages.entry(event.account).or_default().push(seen);
            }
            Some(Kind::Gap(gap)) => self.gaps.push(gap),
            Some(Kind::KickedOffline(_)) => self.kicked.push(event.account),
            Some(Kind::SessionChanged(_) | Kind::UpstreamNotice(_)) => {}
            Some(Kind::SignatureExpired(_)) | None => {
                self.faults.push(format!("not expected: {event:?}"));
            }
        }
    }

    /// Whether the message `text` has come to the account.
    pub(crate) fn has(&self, account: &str, text: &str) -> bool {
        let of_account = self.messages.get(account);
        of_account.is_some_and(|seen| seen.iter().any(|seen| seen.text == text))
    }
}

fn text(message: &v1::Message) -> String {
    match message
        .elements
        .first()
        .and_then(|first| first.kind.as_ref())
    {
        Some(v1::element::Kind::Text(text)) => text.text.clone(),
        Some(v1::element::Kind::Custom(_) | v1::element::Kind::Raw(_)) | None => String::new(),
    }
}

/// What is wrong with a message that the sender sent to this account.
fn wrong(account: &str, message: &v1::Message) -> Option<String> {
    let to = v1::message::Conversation::To(account.to_owned());
    let right = message.from == crate::SENDER
        && message.conversation == Some(to)
        && !message.own
        && message.elements.len() == 1
        && !message.id.is_empty();
    (!right).then(|| format!("to {account}: {message:?}"))
}
