//! The client's side of the WebSocket handshake (RFC 6455, section 4).
//!
//! The library makes the key and reads the response. Its own handshake ends in its own reader, whose buffers are what a
//! connection of ours does without; and it makes the request of a URL and a map of headers, which takes ten times as long.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_key};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, StatusCode};

use super::Transport;

/// What a response has room for at first. Servers send a few hundred bytes.
const USUAL_RESPONSE: usize = 1024;
/// The longest response.
const MAX_RESPONSE: usize = 16 * 1024;

/// Asks a `host`, with its port, for a WebSocket at `path`. Answers what the server has sent behind its response.
pub(super) async fn handshake(
    stream: &mut dyn Transport,
    host: &str,
    path: &str,
) -> Result<BytesMut, Error> {
    let key = generate_key();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut read = BytesMut::with_capacity(USUAL_RESPONSE);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(Error::Protocol(ProtocolError::HandshakeIncomplete));
        }
        if let Some((length, response)) = Response::try_parse(&read)? {
            verify(response, &derive_accept_key(key.as_bytes()))?;
            return Ok(read.split_off(length));
        }
        if read.len() > MAX_RESPONSE {
            return Err(Error::AttackAttempt);
        }
    }
}

/// Whether the server has agreed to what was asked for, and to nothing else.
fn verify(response: Response, accept_key: &str) -> Result<(), Error> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::Http(Box::new(response)));
    }
    let header = |name| {
        let value = response.headers().get(name)?;
        value.to_str().ok()
    };
    let is = |name, expected: &str| {
        header(name).is_some_and(|value: &str| value.eq_ignore_ascii_case(expected))
    };
    if !is("upgrade", "websocket") {
        return Err(ProtocolError::MissingUpgradeWebSocketHeader.into());
    }
    if !is("connection", "upgrade") {
        return Err(ProtocolError::MissingConnectionUpgradeHeader.into());
    }
    if header("sec-websocket-accept") != Some(accept_key) {
        return Err(ProtocolError::SecWebSocketAcceptKeyMismatch.into());
    }
    for unasked in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        if response.headers().contains_key(unasked) {
            let name = HeaderName::from_static(unasked);
            return Err(ProtocolError::InvalidHeader(Box::new(name)).into());
        }
    }
    Ok(())
}
