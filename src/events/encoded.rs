//! An event as subscribers get it: encoded once, and shared by all of them.

use prost::Message as _;
use prost::bytes::Bytes;

use crate::proto::v1;

/// An encoded `imgate.v1.Event`, and what decides who gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    bytes: Bytes,
    /// The account's ID, a part of `bytes`.
    account: Bytes,
    /// See [`account_print`].
    account_print: u32,
    kind: Kind,
}

/// What an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What a subscriber can ask for; unspecified is what a later version has written.
    Of(v1::EventKind),
    /// What every subscriber gets.
    Gap(v1::GapReason),
}

/// An event, its parts left as they are.
#[derive(Clone, PartialEq, prost::Message)]
struct Outline {
    #[prost(bytes = "bytes", tag = "1")]
    account: Bytes,
    #[prost(bytes = "bytes", optional, tag = "4")]
    message: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    session_changed: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    signature_expired: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    kicked_offline: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    upstream_notice: Option<Bytes>,
    #[prost(message, optional, tag = "9")]
    gap: Option<v1::Gap>,
}

/// The one field that an event gets after it is in the log.
#[derive(Clone, PartialEq, prost::Message)]
struct Sequence {
    #[prost(uint64, tag = "2")]
    sequence: u64,
}

impl Encoded {
    /// How much room is best left behind an event that is to be appended, for its sequence.
    pub const ROOM: usize = 11;

    /// An event as it was stored, with the sequence of its entry. Its parts are not looked into.
    pub(super) fn with_sequence(
        mut stored: Vec<u8>,
        sequence: u64,
    ) -> Result<Self, prost::DecodeError> {
        // What comes later in a message takes the place of what came before. Writing into memory does not fail.
        let _ = Sequence { sequence }.encode(&mut stored);
        Self::of(stored.into())
    }

    fn of(bytes: Bytes) -> Result<Self, prost::DecodeError> {
        // The account and the parts are not copied.
        let outline = Outline::decode(bytes.clone())?;
        Ok(Self {
            kind: outline.kind(),
            account_print: account_print(&outline.account),
            account: outline.account,
            bytes,
        })
    }

    /// The account that it happened to; none for a gap of a whole partition.
    pub(super) fn account(&self) -> &str {
        std::str::from_utf8(&self.account).unwrap_or_default()
    }

    /// Whether it happened to an account, and not to a partition as a whole.
    pub(super) const fn has_account(&self) -> bool {
        !self.account.is_empty()
    }

    /// The fingerprint of the account's ID.
    pub(super) const fn account_print(&self) -> u32 {
        self.account_print
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The message.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The event, for those who look into it.
    ///
    /// # Errors
    /// Where a part of it is damaged.
    pub fn decode(&self) -> Result<v1::Event, prost::DecodeError> {
        v1::Event::decode(self.bytes.clone())
    }
}

impl From<v1::Gap> for Encoded {
    fn from(gap: v1::Gap) -> Self {
        let kind = Kind::Gap(gap.reason());
        let event = v1::Event {
            sequence: gap.to_sequence,
            kind: Some(v1::event::Kind::Gap(gap)),
            ..v1::Event::default()
        };
        Self {
            bytes: event.encode_to_vec().into(),
            account: Bytes::new(),
            account_print: account_print(b""),
            kind,
        }
    }
}

/// What tells most accounts apart at a glance, made once for all who look.
pub(super) fn account_print(account: &[u8]) -> u32 {
    crc32fast::hash(account)
}

impl Outline {
    fn kind(&self) -> Kind {
        if let Some(gap) = &self.gap {
            return Kind::Gap(gap.reason());
        }
        let session = [
            &self.session_changed,
            &self.signature_expired,
            &self.kicked_offline,
        ];
        Kind::Of(if self.message.is_some() {
            v1::EventKind::Message
        } else if session.into_iter().any(Option::is_some) {
            v1::EventKind::Session
        } else if self.upstream_notice.is_some() {
            v1::EventKind::Notice
        } else {
            v1::EventKind::Unspecified
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::message;

    fn encoded(event: &v1::Event) -> Encoded {
        Encoded::with_sequence(event.encode_to_vec(), 7).unwrap()
    }

    #[test]
    fn an_event_gets_its_sequence() {
        let event = message("bot", "hello");
        let decoded = encoded(&event).decode().unwrap();
        let sequence = 7;
        assert_eq!(decoded, v1::Event { sequence, ..event });
        // It gets this one whatever it had.
        assert_eq!(encoded(&decoded).decode(), Ok(decoded));
    }

    #[test]
    fn what_decides_who_gets_it_is_known() {
        use v1::event::Kind as Of;
        let known = |kind| {
            let account = "bot".into();
            let event = v1::Event {
                account,
                kind,
                ..v1::Event::default()
            };
            let encoded = encoded(&event);
            assert_eq!(encoded.account(), "bot");
            encoded.kind()
        };
        let gap = v1::Gap {
            reason: v1::GapReason::NotStored.into(),
            ..v1::Gap::default()
        };
        for (kind, expected) in [
            (
                Some(Of::Message(Default::default())),
                v1::EventKind::Message,
            ),
            (
                Some(Of::SessionChanged(Default::default())),
                v1::EventKind::Session,
            ),
            (
                Some(Of::SignatureExpired(Default::default())),
                v1::EventKind::Session,
            ),
            (
                Some(Of::KickedOffline(Default::default())),
                v1::EventKind::Session,
            ),
            (
                Some(Of::UpstreamNotice(Default::default())),
                v1::EventKind::Notice,
            ),
            (None, v1::EventKind::Unspecified),
        ] {
            assert_eq!(known(kind), Kind::Of(expected));
        }
        assert_eq!(
            known(Some(Of::Gap(gap))),
            Kind::Gap(v1::GapReason::NotStored)
        );
        let made = Encoded::from(gap);
        assert_eq!((made.account(), made.kind()), ("", Kind::Gap(gap.reason())));
        assert_eq!(made.decode().unwrap().kind, Some(Of::Gap(gap)));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        assert!(Encoded::with_sequence(vec![0xff; 3], 7).is_err());
    }
}
