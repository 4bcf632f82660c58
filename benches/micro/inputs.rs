//! What the operations are given. The same in every run.

use std::sync::Arc;

use imgate::connectors::tencent::frame;
use imgate::session::input::{Life, Now, Signature};
use imgate::store::seal::{KeyRing, Sealer};
use imgate::types::{AccountId, PartitionId, Secret, SessionKey, TenantId, UnixMillis};

/// The account of all sessions here.
pub(crate) const ACCOUNT: &str = "bot1";
/// The upstream app.
pub(crate) const APP: u64 = 1_400_000_001;
/// A tenant's limit of a frame.
pub(crate) const MAX_FRAME: usize = 1 << 20;
/// What a push of messages is called.
pub(crate) const PUSH: &str = "im_open_push.msg_push";
/// Messages of a flood.
pub(crate) const FLOOD: usize = 100;

/// Where the number of a message stands, which tells it from the others.
const NUMBER: &str = "\"MsgRandom\":";
/// The first number. All have as many digits.
const FIRST_NUMBER: u32 = 10_000_000;

const WALL: UnixMillis = UnixMillis::from_secs(1_795_382_968);

/// A moment; the clock stands still.
pub(crate) fn now() -> Now {
    Now {
        at: tokio::time::Instant::now().into_std(),
        wall: WALL,
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("acme")
}

pub(crate) fn session_key() -> SessionKey {
    SessionKey {
        tenant: tenant(),
        account: AccountId::new(ACCOUNT),
    }
}

pub(crate) fn partition() -> PartitionId {
    PartitionId {
        tenant: tenant(),
        number: 0,
    }
}

pub(crate) fn key() -> Secret<[u8; 32]> {
    Secret::new([7; 32])
}

pub(crate) fn sealer() -> Arc<Sealer> {
    let ring = KeyRing::of("k1", [(&String::from("k1"), &key())]);
    Arc::new(Sealer::new(ring.unwrap()))
}

/// A signature of the usual length, good for a month.
pub(crate) fn signature() -> Signature {
    Signature {
        text: Secret::new("eJyrVgrxCdYrSy1SslIy0jNQ0gHz".repeat(7)),
        life: Some(Life {
            issued_at: WALL,
            expires_at: UnixMillis(WALL.0 + 30 * 24 * 3_600_000),
        }),
    }
}

/// One message as it stands in a push.
fn message() -> String {
    format!(
        r#"{{"From_Account":"bob","To_Account":"{ACCOUNT}","From_AccountNick":"nick_bob","From_AccountHeadurl":"","TinyId":"144115200000000002","MsgSeq":2129280001,{NUMBER}{FIRST_NUMBER},"MsgTimeStamp":1795382968,"MsgClientTime":1795382967,"MsgKey":"2129280001_14338102_1795382968","MsgBody":[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"ping e5929863-a9cb-491d-a199-b498cd979a5b, and then some more words, 80 in all"}}}}],"CloudCustomData":"","IsSyncMsg":0,"SupportMessageExtension":0,"IsNeedReadReceipt":0}}"#
    )
}

/// The body of a push of so many messages.
pub(crate) fn push_body(messages: usize) -> String {
    let messages = vec![message(); messages].join(",");
    format!(
        r#"{{"EventArray":[{{"Event":9,"C2cMsgArray":[{messages}]}}],"NeedAck":1,"SessionData":"sess-1"}}"#
    )
}

/// Pushes without end, each with other messages than the ones before.
pub(crate) struct Pushes {
    frame: Vec<u8>,
    /// Where the numbers of the messages are.
    places: Vec<usize>,
    next: u32,
}

impl Pushes {
    /// Of so many messages each.
    pub(crate) fn of(messages: usize) -> Self {
        let frame = frame::encode_response(PUSH, 0, &push_body(messages));
        let text = std::str::from_utf8(&frame).unwrap();
        let places = text.match_indices(NUMBER).map(|(at, _)| at + NUMBER.len());
        Self {
            places: places.collect(),
            frame,
            next: FIRST_NUMBER,
        }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> &[u8] {
        for &place in &self.places {
            let mut rest = self.next;
            for digit in self.frame[place..place + 8].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            self.next = self.next % 99_999_999 + 1;
        }
        &self.frame
    }
}
