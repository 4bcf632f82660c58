//! A whole bot in one file: it logs an account in through imgate and sends every text back where it came from.
//!
//! `cargo run --example echo_bot -- --gateway http://127.0.0.1:50051 --account bot1`

#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use clap::Parser;
use imgate::proto::v1 as api;
use imgate::proto::v1::event::Kind;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::message_service_client::MessageServiceClient;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

#[derive(Parser)]
struct Bot {
    /// Where imgate listens.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    gateway: String,
    /// The account to be.
    #[arg(long)]
    account: String,
    /// The tenant's API key, if the gateway asks for one.
    #[arg(long, value_parser = |key: &str| format!("Bearer {key}").parse::<MetadataValue<Ascii>>())]
    api_key: Option<MetadataValue<Ascii>>,
    /// A login signature, if the gateway cannot make one itself.
    #[arg(long, default_value = "")]
    signature: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bot = Bot::parse();
    // One channel for all calls; it reconnects by itself.
    let channel = Endpoint::from_shared(bot.gateway.clone())?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .connect_lazy();

    // Everything before this place has been answered. It dies with this process: keep yours in your
    // database, in the transaction that stores what you did about the events.
    let mut cursor = None;
    let mut failures = 0;
    loop {
        let before = cursor.clone();
        match bot.run(&channel, &mut cursor).await {
            Ok(()) => println!("the gateway ended the stream"),
            Err(status) if passes(&status) => println!("away: {}", status.message()),
            Err(status) => return Err(status.into()),
        }
        failures = if cursor == before { failures + 1 } else { 0 };
        // Jitter keeps a thousand bots from coming back at the same moment.
        let wait = rand::random_range(0.1..0.5) * f64::from(1 << failures.min(5));
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
    }
}

/// Whether the same call may work later.
fn passes(status: &Status) -> bool {
    use Code::{Cancelled, Internal, Unavailable, Unknown};
    matches!(status.code(), Unavailable | Unknown | Internal | Cancelled)
}

impl Bot {
    /// Logs in and answers events until the gateway goes away.
    async fn run(&self, channel: &Channel, cursor: &mut Option<String>) -> Result<(), Status> {
        use api::subscribe_request::Start;
        // Subscribe before Login, so that nothing is missed that comes right after it.
        let latest = Start::At(api::StartAt::Latest.into());
        let subscribe = self.request(api::SubscribeRequest {
            start: Some(cursor.clone().map_or(latest, Start::Cursor)),
            accounts: vec![self.account.clone()],
            ..Default::default()
        });
        let mut events = EventServiceClient::new(channel.clone());
        let mut events = events.subscribe(subscribe).await?.into_inner();

        // Costs nothing when the gateway has kept the account logged in.
        let login = self.request(api::LoginRequest {
            account: self.account.clone(),
            signature: self.signature.clone(),
        });
        let mut sessions = SessionServiceClient::new(channel.clone());
        let login = sessions.login(login).await?.into_inner();
        if login.code != 0 {
            return Err(Status::failed_precondition(format!("refused: {login:?}")));
        }
        println!("logged in as {}", self.account);

        while let Some(batch) = events.message().await? {
            for kind in batch.events.into_iter().filter_map(|event| event.kind) {
                if let Kind::Message(message) = kind {
                    self.echo(channel, message).await?;
                } else if let Kind::SignatureExpired(_) = kind {
                    println!("the signature has ended: call RenewSignature with a fresh one");
                } else {
                    println!("{kind:?}");
                }
            }
            // Only now: what was not dealt with comes again.
            *cursor = Some(batch.cursor);
        }
        Ok(())
    }

    /// Sends the texts of a message back.
    async fn echo(&self, channel: &Channel, message: api::Message) -> Result<(), Status> {
        use api::{message::Conversation as From, send_request::Conversation as To};
        let mut elements = message.elements;
        elements.retain(|part| matches!(part.kind, Some(api::element::Kind::Text(_))));
        if message.own || message.from == self.account || elements.is_empty() {
            return Ok(());
        }
        // The same message gives the same ID: an event that comes twice is answered once.
        let mut id = DefaultHasher::new();
        message.id.hash(&mut id);
        let send = self.request(api::SendRequest {
            account: self.account.clone(),
            conversation: Some(match message.conversation {
                Some(From::Group(group)) => To::Group(group),
                Some(From::To(_)) | None => To::To(message.from),
            }),
            elements,
            client_message_id: format!("echo-{:016x}", id.finish()),
            ..Default::default()
        });
        let mut messages = MessageServiceClient::new(channel.clone());
        match messages.send(send).await.map(tonic::Response::into_inner) {
            Ok(sent) if sent.code == 0 => println!("echoed {}", message.id),
            Ok(refused) => println!("not echoed: {} {}", refused.code, refused.desc),
            Err(status) if passes(&status) => return Err(status),
            Err(status) => println!("not echoed: {status}"),
        }
        Ok(())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.api_key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        request
    }
}
