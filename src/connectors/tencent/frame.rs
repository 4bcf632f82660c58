//! The frames of the wire: one JSON object each, sometimes compressed, with a checksum over the body.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Classified, ErrorKind};

/// What opens a compressed frame.
const COMPRESSED: &[u8] = b"COMP";

/// The deepest nesting that a body may have; the same bound that `serde_json` sets for a parsed value.
const MAX_DEPTH: usize = 127;

/// How a request's head begins: the constants of the web SDK whose frames these are.
const HEAD: &str = r#"{"ver":"v4","platform":7,"websdkappid":537048168,"websdkversion":"1.7.3""#;
/// And what says what that SDK can do.
const ABILITY: &str = r#","sdkability":75689843,"sdkability_ext":"","cappid":0,"cs":"#;

/// The commands whose checksum is always 0.
const WITHOUT_CHECKSUM: [&str; 4] = [
    "heartbeat.alive",
    "im_open_status.wslogin",
    "im_open_status.wslogout",
    "openim.ws_msg_push_ack",
];

/// A frame that has been read where it lies: an answer or a push at the client.
#[derive(Debug)]
pub struct Frame<'a> {
    /// What it is about, as `service.command`. Never empty.
    pub servcmd: Cow<'a, str>,
    /// The request's number. 0 where it is missing or not a number, as in pushes.
    pub seq: u64,
    /// The whole head.
    pub head: &'a RawValue,
    /// The body as it was sent; `{}` where it is missing.
    pub body: &'a RawValue,
}

/// A frame that has been read as a whole: a request at the upstream.
#[derive(Debug)]
pub struct Incoming {
    /// What it is about, as `service.command`. Never empty.
    pub servcmd: String,
    /// The request's number. 0 where it is missing or not a number, as in pushes.
    pub seq: u64,
    /// The whole head.
    pub head: Value,
    /// The body as it was sent; `{}` where it is missing.
    pub body: Box<RawValue>,
}

/// Why a frame cannot be read. The frame is to be counted and left out; the connection may go on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame, or what it unpacks to, is over the bound.
    #[error("the frame is larger than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: usize,
        /// What it is about, if its beginning says so.
        about: Option<About>,
    },
    /// `COMP` is followed by neither gzip nor zlib data.
    #[error("a compressed frame is neither gzip nor zlib")]
    UnknownCompression,
    /// The compressed data are damaged.
    #[error("a compressed frame does not unpack: {0}")]
    Compression(#[source] std::io::Error),
    /// It is no JSON object with a `head` object.
    #[error("the frame is not a JSON object with a head: {}", reason(.0))]
    Json(#[source] serde_json::Error),
    /// The body is nested too deeply to be parsed safely.
    #[error("the frame's body is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The head does not say what the frame is about.
    #[error("the frame's head has no servcmd")]
    NoCommand,
}

/// What a frame that is not read is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// As `service.command`. Never empty.
    pub servcmd: String,
    /// The request's number; 0 where there is none.
    pub seq: u64,
}

impl About {
    /// From the beginning of a frame: the head comes first.
    fn at_the_beginning(json: &[u8]) -> Option<Self> {
        let rest = json.strip_prefix(b"{\"head\":")?;
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        let Head { servcmd, seq } = Head::read(values.next()?.ok()?)?;
        Some(Self {
            servcmd: servcmd.into_owned(),
            seq,
        })
    }
}

/// What a head says that is of use here.
#[derive(serde::Deserialize)]
pub(super) struct Head<'a> {
    /// What the frame is about; never empty in a [`Frame`].
    #[serde(borrow)]
    pub(super) servcmd: Cow<'a, str>,
    /// The request's number. 0 where it is missing or not a number.
    #[serde(default, deserialize_with = "number_or_zero")]
    pub(super) seq: u64,
}

fn number_or_zero<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = <&RawValue as serde::Deserialize>::deserialize(from)?;
    Ok(value.get().parse().unwrap_or(0))
}

impl<'a> Head<'a> {
    /// From a frame's head, if that says what the frame is about.
    fn read(head: &'a RawValue) -> Option<Self> {
        let head: Self = serde_json::from_str(head.get()).ok()?;
        (!head.servcmd.is_empty()).then_some(head)
    }
}

impl Classified for FrameError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        String::from("the upstream sent a frame that cannot be read")
    }
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    head: &'a RawValue,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

/// The JSON of a binary frame: plain, or `COMP` and then gzip or zlib. Compressed data may end without their trailer, as
/// the real service's do.
///
/// # Errors
///
/// [`FrameError`] for other data, and for a frame that has, or unpacks to, more than `max_bytes`.
pub fn unpack(frame: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, FrameError> {
    if frame.len() > max_bytes {
        let about = About::at_the_beginning(frame);
        return Err(FrameError::TooLarge { max_bytes, about });
    }
    match frame.strip_prefix(COMPRESSED) {
        Some(packed) => Ok(Cow::Owned(decompress(packed, max_bytes)?)),
        None => Ok(Cow::Borrowed(frame)),
    }
}

impl<'a> Frame<'a> {
    /// Reads a frame's JSON.
    ///
    /// # Errors
    ///
    /// [`FrameError`] for anything else.
    pub fn read(json: &'a [u8]) -> Result<Self, FrameError> {
        let envelope: Envelope<'_> = serde_json::from_slice(json).map_err(FrameError::Json)?;
        let Head { servcmd, seq } = Head::read(envelope.head).ok_or(FrameError::NoCommand)?;
        let body = match envelope.body {
            Some(body) => body,
            None => serde_json::from_str("{}").map_err(FrameError::Json)?,
        };
        if is_too_deep(body.get()) {
            return Err(FrameError::TooDeep);
        }
        Ok(Self {
            servcmd,
            seq,
            head: envelope.head,
            body,
        })
    }
}

/// Reads a binary frame with all that its head says, as [`unpack`] and [`Frame::read`] do.
///
/// # Errors
///
/// [`FrameError`] for anything else, and for a frame that has, or unpacks to, more than `max_bytes`.
pub fn decode(frame: &[u8], max_bytes: usize) -> Result<Incoming, FrameError> {
    let json = unpack(frame, max_bytes)?;
    let read = Frame::read(&json)?;
    Ok(Incoming {
        head: serde_json::from_str(read.head.get()).map_err(FrameError::Json)?,
        body: read.body.to_owned(),
        servcmd: read.servcmd.into_owned(),
        seq: read.seq,
    })
}

/// What is wrong with an upstream's JSON, without any of it: it may be a message, and the reason goes to the log.
pub fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Of a value that does not fit, the text has the value and then what was expected.
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if error.is_data() => {
            format!("a value does not fit, expected {expected}")
        }
        Some(_) | None => text,
    }
}

fn decompress(packed: &[u8], max_bytes: usize) -> Result<Vec<u8>, FrameError> {
    let bound = u64::try_from(max_bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut json = Vec::new();
    let end = match packed {
        [0x1f, 0x8b, ..] => GzDecoder::new(packed).take(bound).read_to_end(&mut json),
        [method, flags, ..] if is_zlib(*method, *flags) => {
            ZlibDecoder::new(packed).take(bound).read_to_end(&mut json)
        }
        _ => return Err(FrameError::UnknownCompression),
    };
    match end {
        Ok(_) => {}
        // The end of the input is the end of the data: there may be no trailer. What is cut short is no whole JSON, and
        // fails there.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(FrameError::Compression(error)),
    }
    if json.len() > max_bytes {
        let about = About::at_the_beginning(&json);
        return Err(FrameError::TooLarge { max_bytes, about });
    }
    Ok(json)
}

/// Whether these are the first two bytes of a zlib stream (RFC 1950).
fn is_zlib(method: u8, flags: u8) -> bool {
    method & 0x0f == 8 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
}

/// Whether JSON text is nested deeper than a body may be. Raw values are skipped over without a bound on their depth, so it
/// is looked at before anybody parses the body.
pub(super) fn is_too_deep(json: &str) -> bool {
    // Hardly any body has so many brackets at all, and to find that out takes a tenth of the time.
    if memchr::memchr2_iter(b'{', b'[', json.as_bytes()).count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// A frame as `COMP` and a whole gzip member.
pub fn compress_gzip(json: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(COMPRESSED.to_vec(), Compression::fast());
    // Writing into memory does not fail.
    let _ = packer.write_all(json);
    packer.finish().unwrap_or_default()
}

/// A frame as `COMP` and a whole zlib stream.
pub fn compress_zlib(json: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(COMPRESSED.to_vec(), Compression::fast());
    // Writing into memory does not fail.
    let _ = packer.write_all(json);
    packer.finish().unwrap_or_default()
}

/// A frame as `COMP` and gzip that ends with a sync flush and no trailer, as the real service sends it.
pub fn compress_sync_flush(json: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(COMPRESSED.to_vec(), Compression::fast());
    // Writing into memory does not fail.
    let _ = packer.write_all(json);
    let _ = packer.flush();
    std::mem::take(packer.get_mut())
}

/// Who a request says it is from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Before a login has succeeded. Both are empty when no login has been tried.
    Signature {
        /// The user ID.
        identifier: &'a str,
        /// The signature.
        usersig: &'a str,
    },
    /// After the login, in every request.
    Ticket {
        /// The A2 key of the login's answer.
        a2: &'a str,
        /// The TinyId of the login's answer.
        tinyid: &'a str,
    },
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signature { identifier, .. } => write!(f, "Signature({identifier}, ***)"),
            Self::Ticket { tinyid, .. } => write!(f, "Ticket({tinyid}, ***)"),
        }
    }
}

/// The head of a request, apart from the constants and the checksum.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Who is asking.
    pub credential: Credential<'a>,
    /// 0 before the login, then the `InstId` of its answer.
    pub status_instid: u64,
    /// The upstream app.
    pub sdk_app_id: u64,
    /// The wall clock in Unix seconds.
    pub reqtime: u64,
    /// What is asked for, as `service.command`.
    pub servcmd: &'a str,
    /// The request's number, one more for each request of a connection's life.
    pub seq: u64,
}

/// Writes a request. `body` is JSON text and goes out byte for byte. The head's `cs` is the CRC-32 of those bytes; 0 for the
/// commands that the SDK sends without one, and for every command if `checksum` is false.
pub fn encode_request(head: &RequestHead<'_>, body: &str, checksum: bool) -> Vec<u8> {
    let cs = if checksum && !WITHOUT_CHECKSUM.contains(&head.servcmd) {
        crc32fast::hash(body.as_bytes())
    } else {
        0
    };
    framed(body, |frame| write_head(frame, head, cs))
}

/// Writes the upstream's answer, or with a `seq` of 0 its push. `body` is JSON text and goes out byte for byte.
pub fn encode_response(servcmd: &str, seq: u64, body: &str) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct ResponseHead<'a> {
        seq: u64,
        servcmd: &'a str,
    }
    let head = ResponseHead { seq, servcmd };
    framed(body, |frame| serde_json::to_writer(frame, &head))
}

fn framed<E>(body: &str, head: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 640);
    frame.extend_from_slice(b"{\"head\":");
    // Strings and numbers into memory: there is nothing in a head that cannot be written.
    let _ = head(&mut frame);
    frame.extend_from_slice(b",\"body\":");
    frame.extend_from_slice(body.as_bytes());
    frame.push(b'}');
    frame
}

/// The fields in the SDK's own order, which differs with the credential. Every push is acknowledged with such a head: as a
/// map that is serialized it takes three times as long.
fn write_head(to: &mut Vec<u8>, head: &RequestHead<'_>, cs: u32) -> serde_json::Result<()> {
    to.extend_from_slice(HEAD.as_bytes());
    if let Credential::Ticket { a2, tinyid } = head.credential {
        put_text(to, r#","a2":"#, a2)?;
        put_text(to, r#","tinyid":"#, tinyid)?;
    }
    put(to, r#","status_instid":"#, &head.status_instid)?;
    put(to, r#","sdkappid":"#, &head.sdk_app_id)?;
    put(to, r#","contenttype":"json","reqtime":"#, &head.reqtime)?;
    if let Credential::Signature {
        identifier,
        usersig,
    } = head.credential
    {
        put(to, r#","identifier":"#, identifier)?;
        put(to, r#","usersig":"#, usersig)?;
    }
    put(to, ABILITY, &cs)?;
    put_text(to, r#","servcmd":"#, head.servcmd)?;
    put(to, r#","seq":"#, &head.seq)?;
    to.push(b'}');
    Ok(())
}

/// What is written as it is, and a value after it.
fn put(
    to: &mut Vec<u8>,
    plain: &str,
    value: &(impl serde::Serialize + ?Sized),
) -> serde_json::Result<()> {
    to.extend_from_slice(plain.as_bytes());
    serde_json::to_writer(to, value)
}

/// The same with text. To see that it is as plain as most takes a fifth of the time of a search for what is to be escaped,
/// if all bytes are looked at alike.
fn put_text(to: &mut Vec<u8>, plain: &str, text: &str) -> serde_json::Result<()> {
    let is_plain = |so_far: bool, byte: u8| {
        so_far & (byte >= b' ') & byte.is_ascii() & (byte != b'"') & (byte != b'\\')
    };
    if !text.bytes().fold(true, is_plain) {
        return put(to, plain, text);
    }
    to.extend_from_slice(plain.as_bytes());
    to.push(b'"');
    to.extend_from_slice(text.as_bytes());
    to.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;
    const CHAT: [&str; 3] = [
        include_str!("../../../tests/data/captures/chat-login.jsonl"),
        include_str!("../../../tests/data/captures/chat-recv.jsonl"),
        include_str!("../../../tests/data/captures/chat-kick.jsonl"),
    ];
    const TIM: &str = include_str!("../../../tests/data/captures/tim-login.jsonl");

    #[derive(serde::Deserialize)]
    struct Line<'a> {
        dir: Option<&'a str>,
        bytes: Option<usize>,
        #[serde(borrow)]
        frame: Option<&'a RawValue>,
    }

    /// The captured frames that a client (or the server) sent, as text.
    fn captured(log: &'static str, from_client: bool) -> impl Iterator<Item = &'static str> {
        let wanted = if from_client { "c2s" } else { "s2c" };
        log.lines().filter_map(move |line| {
            let line: Line<'static> = serde_json::from_str(line).unwrap();
            let frame = line.frame.filter(|_| line.dir == Some(wanted))?.get();
            // The log holds the very bytes.
            assert_eq!(Some(frame.len()), line.bytes);
            Some(frame)
        })
    }

    fn text(value: &Value, field: &str) -> String {
        value[field].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn captured_requests_encode_to_the_same_bytes() {
        let mut seen = 0;
        for frame in CHAT.iter().flat_map(|log| captured(log, true)) {
            let read = decode(frame.as_bytes(), MAX).unwrap();
            let head = &read.head;
            if head["contenttype"] != "json" {
                continue; // telemetry, which imgate does not send
            }
            let (identifier, usersig) = (text(head, "identifier"), text(head, "usersig"));
            let (a2, tinyid) = (text(head, "a2"), text(head, "tinyid"));
            let credential = if head.get("a2").is_some() {
                Credential::Ticket {
                    a2: &a2,
                    tinyid: &tinyid,
                }
            } else {
                Credential::Signature {
                    identifier: &identifier,
                    usersig: &usersig,
                }
            };
            let request = RequestHead {
                credential,
                status_instid: head["status_instid"].as_u64().unwrap(),
                sdk_app_id: head["sdkappid"].as_u64().unwrap(),
                reqtime: head["reqtime"].as_u64().unwrap(),
                servcmd: &read.servcmd,
                seq: read.seq,
            };
            let written = encode_request(&request, read.body.get(), true);
            assert_eq!(String::from_utf8(written).unwrap(), frame);
            seen += 1;
        }
        assert!(seen > 60, "{seen}");
    }

    #[test]
    fn captured_checksums_are_ours() {
        for frame in CHAT.iter().flat_map(|log| captured(log, true)) {
            let read = decode(frame.as_bytes(), MAX).unwrap();
            let cs = read.head["cs"].as_u64().unwrap();
            if WITHOUT_CHECKSUM.contains(&read.servcmd.as_str()) {
                assert_eq!(cs, 0, "{}", read.servcmd);
            } else {
                assert_eq!(
                    cs,
                    u64::from(crc32fast::hash(read.body.get().as_bytes())),
                    "{}",
                    read.servcmd
                );
            }
        }
    }

    #[test]
    fn captured_frames_are_read_in_every_form() {
        let logs = CHAT.iter().chain([&TIM]);
        for frame in logs.flat_map(|log| captured(log, false).chain(captured(log, true))) {
            let whole: Value = serde_json::from_str(frame).unwrap();
            for form in forms(frame.as_bytes()) {
                let read = decode(&form, MAX).unwrap();
                assert_eq!(read.servcmd, whole["head"]["servcmd"]);
                assert_eq!(read.seq, whole["head"]["seq"]);
                assert_eq!(read.head, whole["head"]);
                let body: Value = serde_json::from_str(read.body.get()).unwrap();
                assert_eq!(body, whole["body"]);
            }
        }
    }

    fn forms(json: &[u8]) -> [Vec<u8>; 4] {
        [
            json.to_vec(),
            compress_gzip(json),
            compress_zlib(json),
            compress_sync_flush(json),
        ]
    }

    #[test]
    fn sync_flush_has_no_trailer() {
        let json = encode_response("a.b", 1, "{}");
        let packed = compress_sync_flush(&json);
        assert!(packed.ends_with(&[0, 0, 0xff, 0xff]));
        let plain = GzDecoder::new(&packed[4..]).read_to_end(&mut Vec::new());
        assert_eq!(plain.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_missing_has_a_default() {
        let read = decode(br#"{"head":{"servcmd":"a.b"}}"#, MAX).unwrap();
        assert_eq!((read.seq, read.body.get()), (0, "{}"));
        let read = decode(br#"{"body":null,"head":{"servcmd":"a.b","seq":"x"}}"#, MAX).unwrap();
        assert_eq!((read.seq, read.body.get()), (0, "{}"));
        let read = decode(
            br#"{"x":1,"body":[1],"head":{"servcmd":"a.b","seq":7}}"#,
            MAX,
        )
        .unwrap();
        assert_eq!((read.seq, read.body.get()), (7, "[1]"));
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        let cut = compress_gzip(br#"{"head":{"servcmd":"a.b"}}"#);
        let mut damaged = compress_gzip(&[b'x'; 100]);
        damaged[18] ^= 0xff;
        for (frame, reason) in [
            (&b""[..], "not a JSON object"),
            (b"\xff\xfe\x00", "not a JSON object"),
            (b"[]", "not a JSON object"),
            (br#"{"body":{}}"#, "missing field `head`"),
            (br#"{"head":{"seq":1},"body":{}}"#, "no servcmd"),
            (br#"{"head":{"servcmd":""},"body":{}}"#, "no servcmd"),
            (br#"{"head":7,"body":{}}"#, "no servcmd"),
            (br#"{"head":{"servcmd":"a.b"},"body":{}} x"#, "trailing"),
            (b"COMP", "neither gzip nor zlib"),
            (b"COMP{\"head\":{}}", "neither gzip nor zlib"),
            (b"COMP\x1f\x8b", "not a JSON object"),
            (&cut[..cut.len() - 16], "not a JSON object"),
            (&damaged, ""),
        ] {
            let error = decode(frame, MAX).unwrap_err();
            assert!(error.to_string().contains(reason), "{error} ({frame:?})");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_reason_has_nothing_of_the_frame_in_it() {
        let long = "a private word ".repeat(1000);
        for frame in [
            format!(r#""{long}""#),
            format!(r#""{long}, expected {long}""#),
        ] {
            let error = decode(frame.as_bytes(), MAX).unwrap_err().to_string();
            assert!(
                error.contains("expected struct Envelope at line 1"),
                "{error}"
            );
            assert!(!error.contains("private") && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn a_bomb_is_refused_in_bounded_memory() {
        let bomb = vec![b' '; 64 << 20];
        let small = &bomb[..2 << 20];
        for packed in [
            compress_gzip(&bomb),
            compress_zlib(small),
            compress_sync_flush(small),
        ] {
            assert!(packed.len() < MAX);
            let unpacked = unpack(&packed, MAX);
            assert!(matches!(unpacked, Err(FrameError::TooLarge { .. })));
        }
        let error = decode(&bomb, MAX).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { max_bytes: MAX, .. }));
    }

    #[test]
    fn deep_json_is_refused_wherever_it_is() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let in_body = |depth| format!(r#"{{"head":{{"servcmd":"a.b"}},"body":{}}}"#, nested(depth));
        let in_head = |depth| format!(r#"{{"head":{{"servcmd":"a.b","x":{}}}}}"#, nested(depth));
        for depth in [128, 100_000] {
            let error = decode(in_body(depth).as_bytes(), MAX).unwrap_err();
            assert!(matches!(error, FrameError::TooDeep), "{error}");
            let error = decode(in_head(depth).as_bytes(), MAX).unwrap_err();
            assert!(error.to_string().contains("recursion limit"), "{error}");
        }
        let read = decode(in_body(127).as_bytes(), MAX).unwrap();
        serde_json::from_str::<Value>(read.body.get()).unwrap();
        let brackets = format!(
            r#"{{"head":{{"servcmd":"a.b"}},"body":"\"{}"}}"#,
            "[".repeat(500)
        );
        decode(brackets.as_bytes(), MAX).unwrap();
    }

    #[test]
    fn credentials_are_not_printed() {
        let signature = Credential::Signature {
            identifier: "bot1",
            usersig: "secret",
        };
        let ticket = Credential::Ticket {
            a2: "secret",
            tinyid: "144",
        };
        assert!(!format!("{signature:?} {ticket:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes: Vec<u8>, packed: bool) {
            let mut frame = if packed { b"COMP".to_vec() } else { Vec::new() };
            frame.extend(&bytes);
            let _ = decode(&frame, 1000);
        }

        #[test]
        fn damaged_frames_never_panic(form in 0..4_usize, at: prop::sample::Index, xor: u8, keep: prop::sample::Index) {
            let mut frame = forms(&encode_response("a.b", 9, r#"{"text":"hello hello"}"#))[form].clone();
            let at = at.index(frame.len());
            frame[at] ^= xor;
            frame.truncate(keep.index(frame.len() + 1));
            let _ = decode(&frame, 1000);
        }

        #[test]
        fn requests_and_responses_round_trip(servcmd in "[a-z_]{1,9}\\.\\PC{0,9}", seq: u64, text: String, id: String) {
            let body = serde_json::json!({ "Text": text }).to_string();
            let head = RequestHead {
                credential: Credential::Signature { identifier: &id, usersig: &text },
                status_instid: 1,
                sdk_app_id: 2,
                reqtime: 3,
                servcmd: &servcmd,
                seq,
            };
            for frame in [encode_request(&head, &body, true), encode_response(&servcmd, seq, &body)] {
                for form in forms(&frame) {
                    let read = decode(&form, MAX).unwrap();
                    prop_assert_eq!(&read.servcmd, &servcmd);
                    prop_assert_eq!(read.seq, seq);
                    prop_assert_eq!(read.body.get(), &body);
                }
            }
            let read = decode(&encode_request(&head, &body, true), MAX).unwrap();
            prop_assert_eq!(&read.head["identifier"], &id);
            prop_assert_eq!(&read.head["cs"], crc32fast::hash(body.as_bytes()));
        }
    }
}
