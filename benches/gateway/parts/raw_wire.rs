//! What a bare client says on the upstream's wire: the WebSocket handshake and a login, written by hand.

use std::time::Duration;

use imgate::connectors::tencent::frame::{self, Credential, RequestHead};
use imgate::connectors::tencent::usersig;
use imgate::types::{Secret, WallClock};

use crate::upstream::{APP, APP_KEY, account};

/// The request that opens a WebSocket connection at the upstream.
pub(crate) fn handshake(host: &str, instance: usize) -> Vec<u8> {
    format!(
        "GET /binfo?sdkappid={APP}&instanceid=raw{instance}&random=0.5&platform=7&host=unknown&version=-1\
         &sdkversion=3.6.6&compress=gzip HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// How long the answer to the handshake is, once all of it is there.
pub(crate) fn handshake_answer(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    assert!(bytes.starts_with(b"HTTP/1.1 101 "), "no WebSocket");
    Some(end + 4)
}

/// A login by signature, one line of JSON.
pub(crate) fn login(number: usize) -> Vec<u8> {
    let name = account(number);
    let key = Secret::new(APP_KEY.to_owned());
    let lifetime = Duration::from_secs(7 * 24 * 3600);
    let signature = usersig::mint(APP, &key, &name, WallClock.now(), lifetime, None);
    let head = RequestHead {
        credential: Credential::Signature {
            identifier: &name,
            usersig: signature.expose(),
        },
        status_instid: 0,
        sdk_app_id: APP,
        reqtime: WallClock.now().as_secs(),
        servcmd: "im_open_status.wslogin",
        seq: 1,
    };
    frame::encode_request(&head, r#"{"State":"Online"}"#, true)
}

/// How long the upstream's first frame is, once all of it is there. It must say that the login is accepted.
pub(crate) fn login_answer(bytes: &[u8]) -> Option<usize> {
    let (text, length) = frame(bytes)?;
    let needle = br#""ErrorCode":0"#;
    assert!(
        text.windows(needle.len()).any(|part| part == needle),
        "refused: {}",
        String::from_utf8_lossy(text)
    );
    Some(length)
}

/// The payload of the upstream's first frame, and how long the frame is, once all of it is there.
pub(crate) fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (head, length) = match *bytes.get(1)? {
        126 => (
            4,
            usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        ),
        127 => (
            10,
            u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize,
        ),
        short => (2, usize::from(short)),
    };
    Some((bytes.get(head..head + length)?, head + length))
}

/// A final binary frame under the mask 0, which changes nothing: a floor pays for no masking.
pub(crate) fn masked(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len())
        .expect("a request is short")
        .to_be_bytes();
    let mut frame = vec![0x82, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}
