//! Calls without types: bytes in, and everything that comes back.

use std::time::Duration;

use prost::bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::world::World;

/// How long a stream is listened to: longer than it takes to answer, shorter than its heartbeat.
const LISTEN: Duration = Duration::from_millis(700);

/// A caller with one key.
#[derive(Clone)]
pub(crate) struct Raw {
    channel: Channel,
    key: Option<String>,
    tenant: Option<String>,
}

/// All that a call brought: messages, or the refusal with its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) messages: Vec<Vec<u8>>,
    /// Code, text and details.
    status: Option<(i32, String, Vec<u8>)>,
    /// The names of the headers beside the usual ones.
    headers: Vec<String>,
}

impl Raw {
    pub(crate) fn new(world: &World, key: &str) -> Self {
        Self::with(world, Some(key))
    }

    pub(crate) fn with(world: &World, key: Option<&str>) -> Self {
        Self {
            channel: world.channel(),
            key: key.map(str::to_owned),
            tenant: None,
        }
    }

    /// The same caller, who names a tenant.
    pub(crate) fn named(&self, tenant: &str) -> Self {
        Self {
            tenant: Some(tenant.to_owned()),
            ..self.clone()
        }
    }

    /// Calls `Service/Method`. Of a stream, what comes at first.
    pub(crate) async fn ask(&self, method: &str, message: Vec<u8>) -> Answer {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(key) = &self.key {
            metadata.insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        if let Some(tenant) = &self.tenant {
            metadata.insert("imgate-tenant", tenant.parse().unwrap());
        }
        let path = format!("/imgate.v1.{method}").parse().unwrap();
        let mut stream = match client.server_streaming(request, path, Bytes).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Answer::of(Vec::new(), Some(&status)),
        };
        let mut messages = Vec::new();
        loop {
            match tokio::time::timeout(LISTEN, stream.message()).await {
                Ok(Ok(Some(message))) => messages.push(message),
                Ok(Ok(None)) | Err(_) => return Answer::of(messages, None),
                Ok(Err(status)) => return Answer::of(messages, Some(&status)),
            }
        }
    }
}

impl Answer {
    fn of(messages: Vec<Vec<u8>>, status: Option<&Status>) -> Self {
        let usual = ["date", "content-type", "grpc-status", "grpc-message"];
        let headers = status.map(|status| {
            let keys = status.metadata().keys();
            let mut names: Vec<_> = keys.map(|key| format!("{key:?}")).collect();
            names.retain(|name| !usual.iter().any(|usual| name.contains(usual)));
            names.sort();
            names
        });
        Self {
            messages,
            status: status.map(|status| {
                let details = status.details().to_vec();
                (status.code() as i32, status.message().to_owned(), details)
            }),
            headers: headers.unwrap_or_default(),
        }
    }

    pub(crate) fn refusal(code: i32, text: &str) -> Self {
        Self {
            messages: Vec::new(),
            status: Some((code, text.to_owned(), text.as_bytes().to_vec())),
            headers: Vec::new(),
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.status.is_some() && self.messages.is_empty()
    }

    /// Whether a text is anywhere in it.
    pub(crate) fn contains(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let within = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        let status = self.status.as_ref();
        self.messages.iter().any(|message| within(message))
            || status.is_some_and(|(_, said, details)| within(said.as_bytes()) || within(details))
    }

    /// The same with another name of the same length in the place of a name.
    pub(crate) fn renamed(&self, from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len(), "lengths are part of a message");
        let rename = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let mut at = 0;
            while at + from.len() <= bytes.len() {
                if bytes[at..at + from.len()] == *from.as_bytes() {
                    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
                }
                at += 1;
            }
            bytes
        };
        let status = self.status.as_ref();
        Self {
            messages: self
                .messages
                .iter()
                .map(|message| rename(message))
                .collect(),
            status: status
                .map(|(code, said, details)| (*code, said.replace(from, to), rename(details))),
            headers: self.headers.clone(),
        }
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
