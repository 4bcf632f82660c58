//! A bare client of the upstream's wire, for tests: it sends what it is told to and hides nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use imgate::connectors::tencent::frame::{self, Credential, Incoming, RequestHead};
use imgate::connectors::tencent::usersig;
use imgate::types::{Secret, WallClock};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The app of every test.
pub(crate) const APP: u64 = 1_400_000_001;
/// Its key.
pub(crate) const KEY: &str = "local-test-key-0123456789abcdef";
/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The app's key as the library takes it.
pub(crate) fn key() -> Secret<String> {
    Secret::new(KEY.to_owned())
}

/// A good signature.
pub(crate) fn sig(account: &str, lifetime: u64) -> String {
    let lifetime = Duration::from_secs(lifetime);
    let sig = usersig::mint(APP, &key(), account, WallClock.now(), lifetime, None);
    sig.expose().clone()
}

/// What a login has given.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) a2: String,
    pub(crate) tinyid: String,
    pub(crate) inst_id: u64,
}

/// One connection.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    seq: u64,
    pub(crate) ticket: Option<Ticket>,
    pushes: VecDeque<Incoming>,
    /// How the last frame began.
    pub(crate) packed: Vec<u8>,
    /// How large it was.
    pub(crate) size: usize,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, instance: &str) -> Self {
        let path = format!(
            "/binfo?sdkappid={APP}&instanceid={instance}&random=0.5&platform=7&host=unknown\
             &version=-1&sdkversion=3.6.6&compress=gzip"
        );
        Self::connect_to(addr, &path).await.unwrap()
    }

    pub(crate) async fn connect_to(addr: SocketAddr, path: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
        let url = format!("ws://{addr}{path}");
        let (socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            socket,
            seq: 1000,
            ticket: None,
            pushes: VecDeque::new(),
            packed: Vec::new(),
            size: 0,
        })
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends a request with this credential, and answers its number.
    pub(crate) async fn send_as(
        &mut self,
        who: Credential<'_>,
        inst_id: u64,
        servcmd: &str,
        body: &Value,
    ) -> u64 {
        self.seq += 1;
        let head = RequestHead {
            credential: who,
            status_instid: inst_id,
            sdk_app_id: APP,
            reqtime: WallClock.now().as_secs(),
            servcmd,
            seq: self.seq,
        };
        let frame = frame::encode_request(&head, &body.to_string(), true);
        self.send_message(Message::binary(frame)).await;
        self.seq
    }

    /// Sends a request by ticket if there is one.
    pub(crate) async fn send(&mut self, servcmd: &str, body: &Value) -> u64 {
        let ticket = self.ticket.clone();
        let (who, inst_id) = match &ticket {
            Some(ticket) => (
                Credential::Ticket {
                    a2: &ticket.a2,
                    tinyid: &ticket.tinyid,
                },
                ticket.inst_id,
            ),
            None => (
                Credential::Signature {
                    identifier: "",
                    usersig: "",
                },
                0,
            ),
        };
        self.send_as(who, inst_id, servcmd, body).await
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            let message = timeout(PATIENCE, self.socket.next())
                .await
                .expect("a frame in time");
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    self.size = bytes.len();
                    self.packed = bytes.iter().copied().take(6).collect();
                    return Some(frame::decode(&bytes, 1 << 20).unwrap());
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The body of the answer to a request.
    pub(crate) async fn answer(&mut self, servcmd: &str, seq: u64) -> Value {
        loop {
            let frame = self.next().await.expect("an answer");
            if frame.seq == seq && frame.servcmd == servcmd {
                return body(&frame);
            }
            assert_eq!(frame.seq, 0, "an answer to nothing: {frame:?}");
            self.pushes.push_back(frame);
        }
    }

    pub(crate) async fn request(&mut self, servcmd: &str, body: Value) -> Value {
        let seq = self.send(servcmd, &body).await;
        self.answer(servcmd, seq).await
    }

    /// Logs in by signature.
    pub(crate) async fn log_in(&mut self, account: &str, sig: &str) -> Value {
        let who = Credential::Signature {
            identifier: account,
            usersig: sig,
        };
        let body = json!({ "State": "Online" });
        let seq = self.send_as(who, 0, "im_open_status.wslogin", &body).await;
        let answer = self.answer("im_open_status.wslogin", seq).await;
        if answer["ErrorCode"] == 0 {
            self.ticket = Some(Ticket {
                a2: answer["A2Key"].as_str().unwrap().to_owned(),
                tinyid: answer["TinyId"].as_str().unwrap().to_owned(),
                inst_id: answer["InstId"].as_u64().unwrap(),
            });
        }
        answer
    }

    /// Comes back by ticket.
    pub(crate) async fn resume(&mut self, ticket: &Ticket) -> Value {
        self.ticket = Some(ticket.clone());
        self.request("im_open_status.wslogin", json!({ "State": "Online" }))
            .await
    }

    /// The next push of this name; others are left out.
    pub(crate) async fn push(&mut self, servcmd: &str) -> Value {
        loop {
            let frame = match self.pushes.pop_front() {
                Some(frame) => frame,
                None => self.next().await.expect("a push"),
            };
            if frame.servcmd == servcmd {
                return body(&frame);
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, push: &Value) {
        let body = json!({ "SessionData": push["SessionData"] });
        self.send("openim.ws_msg_push_ack", &body).await;
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }
}

fn body(frame: &Incoming) -> Value {
    serde_json::from_str(frame.body.get()).unwrap()
}
