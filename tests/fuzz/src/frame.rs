//! Frames, packed and unpacked, and what a session makes of them.

use std::time::Duration;

use imgate::connectors::tencent::frame::{self, Credential, FrameError, Incoming, RequestHead};
use imgate::connectors::tencent::protocol::{Identification, Protocol};
use imgate::connectors::tencent::sync::Position;
use imgate::connectors::{Delivery, Report, greatest_frame};
use imgate::proto::record::TencentTicket;
use imgate::proto::v1::event::Kind;
use imgate::session::effect;
use imgate::session::input::Now;
use imgate::types::{Secret, UnixMillis};
use prost::Message as _;
use serde_json::Value;

/// A bound that all frames of a corpus are within, packed; what they unpack to may not be.
const MAX: usize = 64 << 10;
/// The limit of the session's tenant.
const LIMIT: usize = 16 << 10;
/// The longest text about a frame that cannot be read.
const MAX_REASON: usize = 300;

/// A frame, as it comes.
pub fn check(data: &[u8]) {
    let read = frame::decode(data, MAX);
    for bound in [data.len(), data.len() / 2, 64] {
        a_narrower_bound_only_refuses(data, bound, read.as_ref().ok());
    }
    match &read {
        Ok(incoming) => {
            what_is_read_is_whole(incoming);
            what_is_read_is_written_again(incoming);
        }
        Err(error) => refused(error),
    }
    conversation(data, read.ok().as_ref());
}

fn a_narrower_bound_only_refuses(data: &[u8], bound: usize, whole: Option<&Incoming>) {
    match frame::decode(data, bound) {
        Ok(narrow) => {
            assert!(data.len() <= bound && narrow.body.get().len() <= bound);
            if bound <= MAX {
                let whole = whole.expect("a wider bound reads what a narrower one reads");
                assert!(same(whole, &narrow));
            }
        }
        Err(error) => {
            let too_large =
                matches!(error, FrameError::TooLarge { max_bytes, .. } if max_bytes == bound);
            assert!(too_large || data.len() <= bound);
            refused(&error);
        }
    }
}

fn refused(error: &FrameError) {
    let text = error.to_string();
    assert!(text.len() <= MAX_REASON, "{text}");
    if let FrameError::TooLarge { about, .. } = error {
        assert!(about.as_ref().is_none_or(|about| !about.servcmd.is_empty()));
    }
}

fn what_is_read_is_whole(incoming: &Incoming) {
    assert!(!incoming.servcmd.is_empty());
    assert_eq!(incoming.head["servcmd"], incoming.servcmd.as_str());
    assert!(incoming.body.get().len() <= MAX);
    if let Err(error) = serde_json::from_str::<Value>(incoming.body.get()) {
        // A number beyond a double, half a surrogate: for whoever reads the field. But never a body that is too deep.
        assert!(!error.to_string().contains("recursion"), "{error}");
    }
}

fn what_is_read_is_written_again(incoming: &Incoming) {
    let (servcmd, seq, body) = (&incoming.servcmd, incoming.seq, incoming.body.get());
    let response = frame::encode_response(servcmd, seq, body);
    let head = RequestHead {
        credential: Credential::Signature {
            identifier: servcmd,
            usersig: body,
        },
        status_instid: seq,
        sdk_app_id: seq,
        reqtime: seq,
        servcmd,
        seq,
    };
    let request = frame::encode_request(&head, body, true);
    for written in [&response, &request] {
        for form in [
            written.clone(),
            frame::compress_gzip(written),
            frame::compress_zlib(written),
            frame::compress_sync_flush(written),
        ] {
            let bound = written.len().max(form.len());
            let again = frame::decode(&form, bound).expect("what was written is read");
            let expected = if body == "null" { "{}" } else { body };
            assert_eq!((&again.servcmd, again.seq), (servcmd, seq));
            assert_eq!(again.body.get(), expected);
        }
    }
    let again = frame::decode(&request, request.len()).expect("what was written is read");
    assert_eq!(again.head["usersig"], body);
}

fn same(one: &Incoming, other: &Incoming) -> bool {
    one.servcmd == other.servcmd
        && one.seq == other.seq
        && one.head == other.head
        && one.body.get() == other.body.get()
}

/// A session gets the frame before and after its login, and its body as the answer to whatever it asks.
fn conversation(data: &[u8], read: Option<&Incoming>) {
    let mut talk = Talk::new();
    talk.receive(data);
    talk.log_in();
    talk.receive(data);
    let body = read.map_or("{}", |incoming| incoming.body.get());
    for _ in 0..6 {
        talk.answer(body);
        talk.receive(data);
        talk.pass(Duration::from_secs(7));
    }
    talk.protocol.disconnected();
    talk.reports();
    // As it is after a login that is like any other.
    let mut talk = Talk::new();
    talk.log_in();
    talk.answer(r#"{"A2Key":"a2","TinyId":"144","InstId":1,"HelloInterval":120}"#);
    for _ in 0..3 {
        talk.answer(
            r#"{"Cookie":"c","SyncFlag":2,"GroupIdList":[{"GroupId":"@TGS#1","NextMsgSeq":8}]}"#,
        );
    }
    for _ in 0..4 {
        talk.receive(data);
        talk.answer(body);
        talk.pass(Duration::from_secs(130));
    }
}

struct Talk {
    protocol: Protocol,
    now: Now,
}

impl Talk {
    fn new() -> Self {
        let who = Identification {
            account: "bot1".into(),
            sdk_app_id: 1_400_000_001,
            max_frame_bytes: LIMIT,
        };
        let now = Now {
            at: tokio::time::Instant::now().into_std(),
            wall: UnixMillis::from_secs(1_795_000_000),
        };
        Self {
            protocol: Protocol::new(who, 7, &TencentTicket::default(), Position::default()),
            now,
        }
    }

    fn log_in(&mut self) {
        let signature = Secret::new("hush-the-signature".to_owned());
        let credential = effect::Credential::Signature(signature);
        self.protocol.log_in(self.now, &credential);
    }

    fn receive(&mut self, bytes: &[u8]) {
        let before = self.protocol.out.frames.len();
        self.protocol.receive(self.now, bytes);
        let asked = self.protocol.out.frames.len() - before;
        assert!(asked < 16, "one frame asks for {asked}");
        self.reports();
    }

    /// Answers all that has been asked until now.
    fn answer(&mut self, body: &str) {
        for frame in std::mem::take(&mut self.protocol.out.frames) {
            let asked = frame::decode(&frame, usize::MAX - 1).expect("the session writes frames");
            self.receive(&frame::encode_response(&asked.servcmd, asked.seq, body));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall = self.now.wall.plus(time);
        if self
            .protocol
            .poll_timeout()
            .is_some_and(|at| at <= self.now.at)
        {
            self.protocol.timeout(self.now);
            self.reports();
        }
    }

    /// Looks at all that is reported, and stores the events.
    fn reports(&mut self) {
        while let Some(report) = self.protocol.out.reports.pop_front() {
            match report {
                Report::Events(delivery) => self.store(&delivery),
                Report::BadFrame(reason) => assert!(reason.len() <= MAX_REASON, "{reason}"),
                Report::Kicked { desc, .. } => assert!(desc.len() <= greatest_frame(LIMIT)),
                Report::Refused(refusal) | Report::Expired(refusal) => {
                    assert!(refusal.desc.len() <= 2048, "{}", refusal.desc.len());
                }
                Report::Accepted
                | Report::LoggedOut
                | Report::Dead(_)
                | Report::Answered(..)
                | Report::Unanswered(_)
                | Report::Unsent(_) => {}
            }
        }
        assert!(self.protocol.out.frames.len() < 100);
    }

    fn store(&mut self, delivery: &Delivery) {
        for event in &delivery.events {
            let bytes = match event {
                Kind::Message(message) => {
                    assert!(super::is_valid(message.sent_at.as_ref()));
                    message.encoded_len()
                }
                Kind::UpstreamNotice(notice) => notice.encoded_len(),
                Kind::SessionChanged(_)
                | Kind::SignatureExpired(_)
                | Kind::KickedOffline(_)
                | Kind::Gap(_) => 0,
            };
            assert!(bytes <= 2 * LIMIT, "an event of {bytes} bytes");
        }
        self.protocol.stored(self.now, &delivery.acks);
    }
}
