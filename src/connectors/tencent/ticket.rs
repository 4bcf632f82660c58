//! What the upstream gave at a login so that the session can come back without another.

use crate::proto::record::TencentTicket;
use crate::types::Secret;

/// A login's fruit. The A2 key is as good as the signature while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The A2 key, sent in the place of the signature.
    pub a2: Secret<String>,
    /// The account's TinyId; text, for it exceeds 2^53.
    pub tiny_id: String,
    /// Sent as `status_instid`.
    pub inst_id: u64,
    /// Seconds between hellos.
    pub hello_interval: u32,
}

impl Ticket {
    /// From the record; `None` if there is none in it.
    pub fn from_record(record: &TencentTicket) -> Option<Self> {
        (!record.a2.is_empty() && !record.tiny_id.is_empty()).then(|| Self {
            a2: Secret::new(record.a2.clone()),
            tiny_id: record.tiny_id.clone(),
            inst_id: record.inst_id,
            hello_interval: record.hello_interval,
        })
    }
}
