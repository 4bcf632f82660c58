//! What `build.rs` generates from `proto/`. Messages that carry a credential are printed without it, and those that are
//! stored are wiped when dropped.
//!
//! Not wiped, for they are the libraries': the buffers that a message was read from, and is written to.

#![expect(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]

pub mod time;

use std::fmt;

use zeroize::Zeroize as _;

/// The bot-facing API.
pub mod v1 {
    tonic::include_proto!("imgate.v1");
}

/// The services of a server that has its events encoded already. On the wire it is the same API.
pub mod encoded {
    use prost::bytes::Bytes;

    include!(concat!(env!("OUT_DIR"), "/encoded/imgate.v1.rs"));

    /// A [`v1::SubscribeResponse`](super::v1::SubscribeResponse).
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SubscribeResponse {
        /// Encoded [`v1::Event`](super::v1::Event)s.
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub events: Vec<Bytes>,
        /// The place after them.
        #[prost(string, tag = "2")]
        pub cursor: String,
        /// The named subscription was made.
        #[prost(bool, tag = "3")]
        pub subscription_made: bool,
    }
}

/// What is stored.
pub mod record {
    tonic::include_proto!("imgate.store.v1");
}

/// The descriptor set of the API, for reflection.
pub const DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/imgate_descriptor.bin"));

impl fmt::Debug for v1::LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::RenewSignatureRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewSignatureRequest")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::IssueSignatureResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueSignatureResponse")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for record::Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl fmt::Debug for record::TencentTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TencentTicket")
            .field("tiny_id", &self.tiny_id)
            .finish_non_exhaustive()
    }
}

impl Drop for record::Secrets {
    fn drop(&mut self) {
        self.signature.zeroize();
        self.next_signature.zeroize();
        self.ticket.zeroize();
    }
}

impl Drop for record::TencentTicket {
    fn drop(&mut self) {
        self.a2.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_encoded_answer_is_one_on_the_wire() {
        let event = |sequence| v1::Event {
            sequence,
            ..v1::Event::default()
        };
        let events = vec![event(7), event(8)];
        let encoded = encoded::SubscribeResponse {
            events: events
                .iter()
                .map(|event| event.encode_to_vec().into())
                .collect(),
            cursor: "c".into(),
            subscription_made: true,
        };
        let plain = v1::SubscribeResponse {
            events,
            cursor: "c".into(),
            subscription_made: true,
        };
        assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secret = || "hush".to_owned();
        let mut ticket = record::TencentTicket::default();
        ticket.a2 = secret();
        let mut secrets = record::Secrets::default();
        secrets.signature = secret();
        secrets.next_signature = secret();
        secrets.ticket = secret().into_bytes();
        let printed = [
            format!("{ticket:?}"),
            format!("{secrets:?}"),
            format!(
                "{:?}",
                v1::LoginRequest {
                    signature: secret(),
                    account: "bot".into()
                }
            ),
            format!(
                "{:?}",
                v1::RenewSignatureRequest {
                    signature: secret(),
                    account: "bot".into()
                }
            ),
            format!(
                "{:?}",
                v1::IssueSignatureResponse {
                    signature: secret()
                }
            ),
        ];
        for text in printed {
            assert!(!text.contains("hush") && !text.contains("104"), "{text}");
        }
    }
}
