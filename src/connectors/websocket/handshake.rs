//! The client's side of the WebSocket handshake (RFC 6455, section 4).
//!
//! The library writes the request and reads the response; its own handshake ends in its own reader, whose buffers are
//! what a connection of ours does without.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, StatusCode};

use super::Transport;

/// What a response has room for at first. Servers send a few hundred bytes.
const USUAL_RESPONSE: usize = 1024;
/// The longest response.
const MAX_RESPONSE: usize = 16 * 1024;

/// Asks for a WebSocket at this URL. Answers what the server has sent behind its response.
pub(super) async fn handshake(stream: &mut dyn Transport, url: &str) -> Result<BytesMut, Error> {
    let (request, key) = generate_request(url.into_client_request()?)?;
    stream.write_all(&request).await?;
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
