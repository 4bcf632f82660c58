//! One socket of the simulator: frames in, answers and pushes out, pushes repeated until they are acknowledged.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::accounts::{Seat, count};
use super::commands::{Client, Reply, purchase_bits, to_json};
use super::login::ClientName;
use super::mailbox::Delivery;
use super::wire::{Duplex, Wire};
use super::world::World;
use super::{CompressionMode, load};
use crate::connectors::tencent::frame;
use crate::connectors::websocket::Transport;
use crate::types::WallClock;

/// How long a client may take for the handshakes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request.
const MAX_REQUEST: usize = 1 << 20;

/// What waits for a connection. A push that finds the queue full is left out: it stays in catch-up.
const QUEUE: usize = 256;

/// The pushes of a connection that are repeated. The oldest is given up beyond that: it stays in catch-up.
const MAX_IN_FLIGHT: usize = 1024;

/// From this size on a frame is compressed by [`CompressionMode::Auto`].
const LARGE: usize = 1024;

/// What a connection is to do, on behalf of others.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Push a message, and again until it is acknowledged.
    Deliver(Delivery),
    /// Say that the ticket has been ended: 1 by another login, 2 by another device, 3 by the REST API.
    Kicked {
        kick_type: u8,
        /// The `InstId` of who did it; 0 is nobody.
        by: u32,
    },
    /// Push any JSON.
    Push { servcmd: String, body: String },
    /// Send any bytes.
    Raw(Vec<u8>),
    /// Read nothing and send nothing for so long.
    Stall(Duration),
}

/// What the address of a connection says.
#[derive(Debug, Default)]
struct Query {
    platform: u32,
    instance: String,
    takes_gzip: bool,
}

impl Query {
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "platform" => parsed.platform = value.parse().unwrap_or_default(),
                "instanceid" => value.clone_into(&mut parsed.instance),
                "compress" => parsed.takes_gzip = value == "gzip",
                _ => {}
            }
        }
        parsed
    }
}

/// Keeps a count up for as long as it lives.
struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    fn up(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a TCP connection until it is closed, cut or silent for too long.
pub(super) async fn serve(world: Arc<World>, stream: TcpStream, cut: CancellationToken) {
    let mut query = Query::default();
    let opening = open(stream, world.tls.as_ref(), &mut query);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, opening);
    let (socket, wire) = tokio::select! {
        () = cut.cancelled() => return,
        opened = handshake => match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return debug!(%error, "no handshake"),
            Err(_) => return debug!("no handshake in time"),
        },
    };
    let _open = Gauge::up(&world.open_connections);
    let (queue, queued) = mpsc::channel(QUEUE);
    let connection = world.next_number();
    let instance = if query.instance.is_empty() {
        // Who does not say which instance it is is another one each time.
        format!("connection-{connection}")
    } else {
        query.instance
    };
    let last_frame = Instant::now();
    let armed = last_frame + world.options.heartbeat_timeout;
    let mut connection = Connection {
        socket,
        compression: effective(world.options.compression, query.takes_gzip),
        queued,
        in_flight: VecDeque::new(),
        last_frame,
        timer: Box::pin(tokio::time::sleep_until(armed)),
        client: Client {
            world: Arc::clone(&world),
            name: ClientName {
                platform: query.platform,
                instance,
            },
            seat: Seat {
                connection,
                queue,
                cut,
                wire,
            },
            account: None,
        },
    };
    if let Err(end) = connection.run().await {
        debug!(?end, "a connection has ended");
    }
}

/// The handshakes: TLS if that is spoken here, and WebSocket, on the one path that the clients use.
async fn open(
    stream: TcpStream,
    tls: Option<&Arc<ServerConfig>>,
    query: &mut Query,
) -> Result<(WebSocketStream<Box<dyn Transport>>, Weak<Wire>), tokio_tungstenite::tungstenite::Error>
{
    stream.set_nodelay(true)?;
    let (stream, wire): (Box<dyn Transport>, _) = match tls {
        Some(tls) => {
            let secured = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await?;
            (Box::new(secured), Weak::new())
        }
        None => {
            let duplex = Duplex::new(stream);
            let wire = Arc::downgrade(duplex.wire());
            (Box::new(duplex), wire)
        }
    };
    // Small buffers: there may be tens of thousands of connections. Nothing waits in the library's own, or a frame of the load could come
    // into the middle of one.
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_REQUEST))
        .max_frame_size(Some(MAX_REQUEST));
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        if request.uri().path() != "/binfo" {
            let mut refusal = ErrorResponse::new(Some(String::from("the path is /binfo")));
            *refusal.status_mut() = StatusCode::NOT_FOUND;
            return Err(refusal);
        }
        *query = Query::parse(request.uri().query().unwrap_or_default());
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async_with_config(stream, check, Some(config))
        .await
        .map(|socket| (socket, wire))
}

/// How this connection's frames are compressed.
fn effective(mode: CompressionMode, takes_gzip: bool) -> CompressionMode {
    if takes_gzip {
        mode
    } else {
        CompressionMode::None
    }
}

/// Why a connection has ended.
#[derive(Debug)]
enum End {
    /// The client closed it, or it broke.
    Closed,
    /// The control port, or a newer connection of the same client, cut it.
    Cut,
    /// No frame came for too long.
    Silent,
}

/// A push that is not acknowledged yet.
#[derive(Debug)]
struct InFlight {
    session_data: String,
    delivery: Delivery,
    due: Instant,
}

struct Connection {
    socket: WebSocketStream<Box<dyn Transport>>,
    compression: CompressionMode,
    queued: mpsc::Receiver<Outgoing>,
    /// In the order in which they fall due.
    in_flight: VecDeque<InFlight>,
    last_frame: Instant,
    /// Set to the next thing that may fall due, or earlier.
    timer: Pin<Box<Sleep>>,
    client: Client,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(account) = &self.client.account {
            account.leave(self.client.seat.connection);
        }
    }
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                () = self.client.seat.cut.cancelled() => return Err(End::Cut),
                Some(outgoing) = self.queued.recv() => self.on_outgoing(outgoing).await?,
                frame = self.socket.next() => match frame {
                    Some(Ok(message)) => self.on_message(message).await?,
                    Some(Err(_)) | None => return Err(End::Closed),
                },
                () = self.timer.as_mut() => self.on_timer().await?,
            }
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<(), End> {
        self.last_frame = Instant::now();
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return Err(End::Closed),
            // The real service ignores text here, without a word.
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                return Ok(());
            }
        };
        if load::is_acknowledgement(&bytes) {
            self.acknowledge_load();
            return Ok(());
        }
        let request = match frame::decode(&bytes, MAX_REQUEST) {
            Ok(request) => request,
            Err(error) => {
                debug!(%error, "a frame that cannot be read is left out");
                return Ok(());
            }
        };
        match self.client.answer(&request, WallClock.now()) {
            Reply::Answer(body) => self.send(&request.servcmd, request.seq, &body).await,
            Reply::AnswerThenBits(body) => {
                self.send(&request.servcmd, request.seq, &body).await?;
                let bits = purchase_bits().to_string();
                self.send("im_sdk_config_mgr.push_imsdk_purchase_bitsv2", 0, &bits)
                    .await
            }
            Reply::LoggedOut(body) => {
                self.in_flight.clear();
                self.send(&request.servcmd, request.seq, &body).await
            }
            Reply::Acknowledged(session_data) => {
                self.acknowledge(&session_data);
                Ok(())
            }
        }
    }

    fn acknowledge(&mut self, session_data: &str) {
        let found = self
            .in_flight
            .iter()
            .position(|push| push.session_data == session_data);
        let Some(push) = found.and_then(|index| self.in_flight.remove(index)) else {
            return;
        };
        let Some(account) = &self.client.account else {
            return;
        };
        count(&account.counters.acked);
        match push.delivery {
            Delivery::C2c { position, .. } => {
                if let Some(position) = position {
                    account.state().mailbox.acknowledge(position);
                }
            }
            Delivery::Group { group, message } => group.acknowledge(&account.id, message.msg_seq),
        }
    }

    fn acknowledge_load(&self) {
        if let Some(account) = &self.client.account {
            count(&account.counters.acked);
        }
        if let Some(wire) = self.client.seat.wire.upgrade() {
            wire.note_acknowledged();
        }
    }

    async fn on_outgoing(&mut self, outgoing: Outgoing) -> Result<(), End> {
        match outgoing {
            Outgoing::Deliver(delivery) => self.deliver(delivery).await,
            Outgoing::Kicked { kick_type, by } => {
                self.in_flight.clear();
                let notify = json!({
                    "KickType": kick_type,
                    "NewInstInfo": { "InstId": by, "Platform": "Web" },
                });
                let body = json!({ "EventArray": [{
                    "Event": 10,
                    "C2cNotifyMsgArray": [{ "KickoutMsgNotify": notify }],
                }] });
                self.send("im_open_status.stat_forceoffline", 0, &body.to_string())
                    .await
            }
            Outgoing::Push { servcmd, body } => self.send(&servcmd, 0, &body).await,
            Outgoing::Raw(bytes) => self.write(bytes).await,
            Outgoing::Stall(duration) => {
                tokio::select! {
                    () = self.client.seat.cut.cancelled() => Err(End::Cut),
                    () = tokio::time::sleep(duration) => {
                        // The client's silence was ours.
                        self.last_frame = Instant::now();
                        Ok(())
                    }
                }
            }
        }
    }

    async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        let number = self.client.world.next_number();
        let session_data = format!("sess-{number}");
        let body = push_body(&delivery, &session_data);
        if let Some(account) = &self.client.account {
            count(&account.counters.delivered);
        }
        let due = Instant::now() + self.client.world.options.ack_timeout;
        self.in_flight.push_back(InFlight {
            session_data,
            delivery,
            due,
        });
        if self.in_flight.len() > MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        self.send("im_open_push.msg_push", 0, &body).await
    }

    async fn on_timer(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let silent_at = self.last_frame + self.client.world.options.heartbeat_timeout;
        if silent_at <= now {
            return Err(End::Silent);
        }
        let again = self.client.world.options.ack_timeout;
        // Each is looked at once: what is repeated now falls due again later.
        for _ in 0..self.in_flight.len() {
            let Some(mut push) = self.in_flight.pop_front_if(|push| push.due <= now) else {
                break;
            };
            let body = push_body(&push.delivery, &push.session_data);
            push.due = now + again;
            self.in_flight.push_back(push);
            self.send("im_open_push.msg_push", 0, &body).await?;
        }
        let next_due = self.in_flight.front().map_or(silent_at, |push| push.due);
        self.timer.as_mut().reset(next_due.min(silent_at));
        Ok(())
    }

    async fn send(&mut self, servcmd: &str, seq: u64, body: &str) -> Result<(), End> {
        let plain = frame::encode_response(servcmd, seq, body);
        let bytes = match self.compression {
            CompressionMode::Auto if plain.len() > LARGE => frame::compress_gzip(&plain),
            CompressionMode::Auto | CompressionMode::None => plain,
            CompressionMode::Gzip => frame::compress_gzip(&plain),
            CompressionMode::Zlib => frame::compress_zlib(&plain),
            CompressionMode::SyncFlush => frame::compress_sync_flush(&plain),
        };
        self.write(bytes).await
    }

    /// Writes a frame. A client that takes nothing for as long as it may be silent is gone.
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let timeout = self.client.world.options.heartbeat_timeout;
        tokio::select! {
            () = self.client.seat.cut.cancelled() => Err(End::Cut),
            () = tokio::time::sleep(timeout) => Err(End::Silent),
            sent = self.socket.send(Message::binary(bytes)) => sent.map_err(|_| End::Closed),
        }
    }
}

/// The body of a message's push.
pub(super) fn push_body(delivery: &Delivery, session_data: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Push<'a, E> {
        event_array: [E; 1],
        need_ack: u8,
        session_data: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct C2c<'a> {
        event: u8,
        c2c_msg_array: [&'a super::mailbox::C2cMessage; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Group<'a> {
        event: u8,
        group_msg_array: [&'a super::groups::GroupMessage; 1],
    }
    match delivery {
        Delivery::C2c { message, .. } => to_json(&Push {
            event_array: [C2c {
                event: 9,
                c2c_msg_array: [message],
            }],
            need_ack: 1,
            session_data,
        }),
        Delivery::Group { message, .. } => to_json(&Push {
            event_array: [Group {
                event: 3,
                group_msg_array: [message],
            }],
            need_ack: 1,
            session_data,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sim::mailbox::tests::message;

    #[test]
    fn the_address_says_who_connects() {
        let query = Query::parse("sdkappid=1&instanceid=abc&platform=7&compress=gzip&x");
        assert_eq!((query.platform, query.instance.as_str()), (7, "abc"));
        assert!(query.takes_gzip);
        assert!(!Query::parse("compress=none").takes_gzip);
        assert_eq!(
            effective(CompressionMode::Zlib, false),
            CompressionMode::None
        );
    }

    #[test]
    fn a_push_has_the_fields_that_clients_read() {
        let delivery = Delivery::C2c {
            position: Some(0),
            message: message(5),
        };
        let body: Value = serde_json::from_str(&push_body(&delivery, "sess-1")).unwrap();
        assert_eq!(
            (&body["NeedAck"], &body["SessionData"]),
            (&json!(1), &json!("sess-1"))
        );
        let item = &body["EventArray"][0]["C2cMsgArray"][0];
        for field in [
            "From_Account",
            "To_Account",
            "From_AccountNick",
            "From_AccountHeadurl",
            "TinyId",
            "MsgSeq",
            "MsgRandom",
            "MsgTimeStamp",
            "MsgClientTime",
            "MsgKey",
            "MsgBody",
            "CloudCustomData",
            "IsSyncMsg",
            "SupportMessageExtension",
            "IsNeedReadReceipt",
        ] {
            assert!(item.get(field).is_some(), "{field}");
        }
        assert_eq!(item.as_object().unwrap().len(), 15);
    }
}
