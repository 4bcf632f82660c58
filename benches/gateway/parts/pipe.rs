//! PIPE: pushes from the upstream to subscribers through the least that can carry them. WebSocket frames are read by hand, the JSON is
//! parsed into borrowed structs, an event is made, and goes over a queue to a tonic stream, one in a message. No state, no store, no
//! acknowledgement, no authentication.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use imgate::proto::v1;
use imgate::proto::v1::event_service_server::{EventService, EventServiceServer};
use imgate::types::WallClock;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::push::Frame;
use super::raw_sessions::exchange;
use super::{orders, raw_wire, report};
use crate::upstream::number_of;

/// How many events wait for a subscriber.
const QUEUE: usize = 4096;
/// The least of a session's read buffer.
const BUFFER: usize = 16 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `HOST:PORT` of the upstream.
    #[arg(long)]
    upstream: String,
    /// How many sessions log in.
    #[arg(long)]
    sessions: usize,
}

/// All sessions are logged in, and subscribers may come to this address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
}

/// Runs until its standard input ends.
#[expect(clippy::disallowed_methods, reason = "a floor has bare tasks")]
pub(crate) async fn run(arguments: Arguments) {
    let mut waiting = Vec::new();
    for number in 0..arguments.sessions {
        let mut stream = TcpStream::connect(&arguments.upstream).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let handshake = raw_wire::handshake(&arguments.upstream, number);
        exchange(&mut stream, &handshake, raw_wire::handshake_answer).await;
        let login = raw_wire::masked(&raw_wire::login(number));
        exchange(&mut stream, &login, raw_wire::login_answer).await;
        let (subscribe, subscribed) = oneshot::channel();
        waiting.push(Some(subscribe));
        tokio::spawn(async move {
            // Unread, the upstream's pushes wait in the socket.
            if let Ok(events) = subscribed.await {
                forward(stream, &events).await;
            }
        });
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pipe = Pipe {
        waiting: Arc::new(Mutex::new(waiting)),
    };
    let incoming = TcpListenerStream::new(listener).map(|accepted| {
        let stream = accepted?;
        stream.set_nodelay(true).map(|()| stream)
    });
    let serving = tonic::transport::Server::builder()
        .add_service(EventServiceServer::new(pipe))
        .serve_with_incoming(incoming);
    report(&Listening { address });
    let mut orders = orders();
    tokio::select! {
        served = serving => served.unwrap(),
        _ended = orders.recv() => {}
    }
}

/// Reads frames and sends their events on, until either side ends.
async fn forward(mut stream: TcpStream, events: &mpsc::Sender<v1::Event>) {
    let mut buffer = vec![0; BUFFER];
    let (mut begin, mut end) = (0, 0);
    loop {
        while let Some((payload, length)) = raw_wire::frame(&buffer[begin..end]) {
            for event in events_of(payload) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            begin += length;
        }
        buffer.copy_within(begin..end, 0);
        (begin, end) = (0, end - begin);
        if end == buffer.len() {
            buffer.resize(2 * end, 0);
        }
        match stream.read(&mut buffer[end..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => end += count,
        }
    }
}

fn events_of(frame: &[u8]) -> Vec<v1::Event> {
    let now = WallClock.now();
    // What is no push of messages is left out.
    let Ok(frame) = serde_json::from_slice::<Frame<'_>>(frame) else {
        return Vec::new();
    };
    let entries = frame.body.event_array.into_iter();
    let messages = entries.flat_map(|entry| entry.c2c_msg_array);
    messages.map(|message| message.into_event(now)).collect()
}

type Waiting = Vec<Option<oneshot::Sender<mpsc::Sender<v1::Event>>>>;

/// The service, and the sessions that nobody has subscribed to yet.
struct Pipe {
    waiting: Arc<Mutex<Waiting>>,
}

#[tonic::async_trait]
impl EventService for Pipe {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<v1::SubscribeResponse, Status>> + Send + 'static>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (events, queued) = mpsc::channel(QUEUE);
        let accounts = request.into_inner().accounts;
        let mut waiting = self.waiting.lock().unwrap();
        let wanted: Vec<usize> = if accounts.is_empty() {
            (0..waiting.len()).collect()
        } else {
            accounts.iter().map(|account| number_of(account)).collect()
        };
        for number in wanted {
            if let Some(session) = waiting[number].take() {
                let _gone = session.send(events.clone());
            }
        }
        // Like the gateway, which says by it that the place is taken.
        let first = tokio_stream::once(v1::SubscribeResponse::default());
        let rest = ReceiverStream::new(queued).map(|event| v1::SubscribeResponse {
            events: vec![event],
            ..v1::SubscribeResponse::default()
        });
        Ok(Response::new(Box::pin(first.chain(rest).map(Ok))))
    }

    async fn acknowledge(
        &self,
        _: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_subscriptions(
        &self,
        _: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_subscription(
        &self,
        _: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
