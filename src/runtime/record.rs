//! The durable record of a session: what of its state outlives the process, and in which form.

use std::time::Duration;

use prost::Message as _;

use crate::connectors::tencent::protocol::{Identification, Protocol};
use crate::connectors::tencent::sync::Position;
use crate::connectors::tencent::usersig::UserSig;
use crate::error::{Classified, ErrorKind};
use crate::proto::record::{Secrets, SessionRecord, TencentSync, TencentTicket};
use crate::proto::{time, v1};
use crate::runtime::sends::remembered::Remembered;
use crate::session::Session;
use crate::session::effect::Durable;
use crate::session::input::{Life, Signature};
use crate::session::state::{ParkReason, Phase};
use crate::store::StoredSend;
use crate::store::seal::{SealError, SealedFor, Sealer};
use crate::types::{Secret, SessionKey, UnixMillis};

/// The layout that this version writes, and the only one that it reads.
const VERSION: u32 = 1;
/// What the sealed part is, in the associated data.
const SEALED_KIND: &str = "session secrets";

/// Why a record cannot be read. The session is parked until a Login writes a new one.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a record.
    #[error("the record does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    /// From another version of imgate.
    #[error(
        "the record has layout {found}, this version reads {VERSION}: run the version that wrote it"
    )]
    Version {
        /// What it has.
        found: u32,
    },
    /// The credentials cannot be opened: the key is gone, or the record was tampered with.
    #[error("the record's credentials cannot be opened: {0}")]
    Sealed(#[from] SealError),
}

impl Classified for RecordError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the stored record of this session cannot be read; Login writes a new one".into()
    }
}

/// A record that has been read.
#[derive(Debug, Default)]
pub struct Restored {
    /// The session's part.
    pub durable: Durable,
    /// The connector's ticket.
    pub ticket: TencentTicket,
    /// How far the connector has read.
    pub position: Position,
    /// What is remembered of its sends; apart from the record in the store.
    pub sends: Vec<StoredSend>,
}

/// Reads a signature as far as it can be read: one that cannot is the upstream's to judge.
pub fn signature(text: Secret<String>) -> Signature {
    let life = UserSig::parse(text.expose()).ok().map(|parsed| Life {
        issued_at: parsed.issued_at,
        expires_at: parsed.expires_at(),
    });
    Signature { text, life }
}

/// Writes a session's record.
pub fn encode(
    sealer: &Sealer,
    key: &SessionKey,
    session: &Session,
    protocol: &Protocol,
) -> Result<Vec<u8>, SealError> {
    let durable = session.durable();
    let text = |signature: &Option<Signature>| {
        signature
            .as_ref()
            .map(|signature| signature.text.expose().clone())
            .unwrap_or_default()
    };
    // Wiped when dropped, and so is what it is encoded to: `encode_to_vec` does not grow, and leaves no other copy.
    let secrets = Secrets {
        signature: text(&durable.signature),
        next_signature: text(&durable.next_signature),
        ticket: protocol.ticket_record().encode_to_vec(),
    };
    let plain = Secret::new(secrets.encode_to_vec());
    let record = SessionRecord {
        version: VERSION,
        desired: durable.desired,
        sealed_secrets: sealer.seal(&belongs(key), plain.expose())?,
        park_reason: park_reason(durable.parked).into(),
        code: durable.code,
        desc: durable.desc.clone(),
        state: state(session.state().phase()).into(),
        since_ms: durable.since.0,
        last_login_ms: durable.last_login.map_or(0, |at| at.0),
        last_accepted_ms: durable.last_accepted.map_or(0, |at| at.0),
        logins: durable.logins,
        resumes: durable.resumes,
        sync: protocol.position().to_record().encode_to_vec(),
        retaken: durable.retaken,
        signature_refused: durable.signature_refused,
        added_sync: Vec::new(),
    };
    Ok(record.encode_to_vec())
}

/// What is put behind a session's record, where nothing but this has changed: the two are read as one message.
pub fn encode_addition(sync: &TencentSync) -> Vec<u8> {
    let addition = SessionRecord {
        added_sync: sync.encode_to_vec(),
        ..SessionRecord::default()
    };
    addition.encode_to_vec()
}

/// Reads a session's record.
pub fn decode(sealer: &Sealer, key: &SessionKey, bytes: &[u8]) -> Result<Restored, RecordError> {
    let record = SessionRecord::decode(bytes)?;
    if record.version != VERSION {
        return Err(RecordError::Version {
            found: record.version,
        });
    }
    let plain = sealer.open(&belongs(key), &record.sealed_secrets)?;
    let mut secrets = Secrets::decode(plain.expose().as_slice())?;
    let ticket = TencentTicket::decode(secrets.ticket.as_slice())?;
    let sync = [record.sync, record.added_sync].concat();
    let position = Position::from_record(TencentSync::decode(sync.as_slice())?);
    let some = |text: String| (!text.is_empty()).then(|| signature(Secret::new(text)));
    let durable = Durable {
        desired: record.desired,
        // A reason of a later version stops the session all the same.
        parked: parked(
            v1::ParkReason::try_from(record.park_reason).unwrap_or(v1::ParkReason::Refused),
        ),
        signature: some(std::mem::take(&mut secrets.signature)),
        next_signature: some(std::mem::take(&mut secrets.next_signature)),
        has_ticket: !ticket.a2.is_empty(),
        code: record.code,
        desc: record.desc,
        since: UnixMillis(record.since_ms),
        last_login: (record.last_login_ms > 0).then_some(UnixMillis(record.last_login_ms)),
        last_accepted: (record.last_accepted_ms > 0).then_some(UnixMillis(record.last_accepted_ms)),
        logins: record.logins,
        resumes: record.resumes,
        retaken: record.retaken,
        signature_refused: record.signature_refused,
    };
    Ok(Restored {
        durable,
        ticket,
        position,
        sends: Vec::new(),
    })
}

/// Whether a record is sealed under another key than the active one. One that cannot be read is not known not to be.
pub fn needs_reseal(sealer: &Sealer, bytes: &[u8]) -> bool {
    SessionRecord::decode(bytes).map_or(true, |record| sealer.needs_reseal(&record.sealed_secrets))
}

/// The record with its credentials sealed under the active key, and else as it was.
pub fn reseal(sealer: &Sealer, key: &SessionKey, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut record = SessionRecord::decode(bytes)?;
    if record.version != VERSION {
        return Err(RecordError::Version {
            found: record.version,
        });
    }
    let plain = sealer.open(&belongs(key), &record.sealed_secrets)?;
    record.sealed_secrets = sealer.seal(&belongs(key), plain.expose())?;
    Ok(record.encode_to_vec())
}

/// Reads what the store has of a session's sends as the session does, for the fuzz targets alone: the IDs and records of
/// those that are remembered, and the IDs of those that are not.
#[doc(hidden)]
pub fn sends_again(
    stored: Vec<StoredSend>,
    now: UnixMillis,
) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let (remembered, forgotten) = Remembered::restore(stored, now);
    let kept = remembered
        .iter()
        .map(|entry| (entry.client_message_id.clone(), entry.record()));
    (kept.collect(), forgotten)
}

fn belongs(key: &SessionKey) -> SealedFor<'_> {
    SealedFor {
        tenant: &key.tenant,
        account: &key.account,
        kind: SEALED_KIND,
    }
}

/// The connector's part of a session that is being brought to life.
pub fn protocol(who: Identification, seed: u64, restored: &Restored) -> Protocol {
    Protocol::new(who, seed, &restored.ticket, restored.position.clone())
}

/// A session as the API shows it.
pub fn view(key: &SessionKey, session: &Session) -> v1::Session {
    let durable = session.durable();
    let parked = match session.state().phase() {
        Phase::Parked => durable.parked,
        Phase::LoggedOut
        | Phase::Connecting
        | Phase::Online
        | Phase::BackingOff
        | Phase::RenewingSignature => None,
    };
    describe(
        key,
        durable,
        session.state().phase(),
        parked,
        session.attempt(),
    )
}

/// A session that is not running, as the API shows it.
pub fn dormant_view(key: &SessionKey, durable: &Durable) -> v1::Session {
    describe(key, durable, Phase::LoggedOut, None, 0)
}

/// A session whose record cannot be read, as the API shows it.
pub fn corrupt_view(key: &SessionKey, error: &RecordError) -> v1::Session {
    let durable = Durable {
        desired: true,
        desc: error.public_text(),
        ..Durable::default()
    };
    describe(
        key,
        &durable,
        Phase::Parked,
        Some(ParkReason::CorruptRecord),
        0,
    )
}

fn describe(
    key: &SessionKey,
    durable: &Durable,
    phase: Phase,
    parked: Option<ParkReason>,
    attempt: u32,
) -> v1::Session {
    let life = durable
        .signature
        .as_ref()
        .and_then(|signature| signature.life);
    v1::Session {
        account: key.account.as_str().to_owned(),
        state: state(phase).into(),
        park_reason: park_reason(parked).into(),
        code: durable.code,
        desc: durable.desc.clone(),
        desired: durable.desired,
        since: (durable.since.0 > 0).then(|| timestamp(durable.since)),
        signature_expires_at: life.map(|life| timestamp(life.expires_at)),
        attempt,
        logins: durable.logins,
        resumes: durable.resumes,
    }
}

/// A moment, for the API.
pub fn timestamp(at: UnixMillis) -> prost_types::Timestamp {
    time::timestamp(at.0)
}

const fn state(phase: Phase) -> v1::SessionState {
    match phase {
        Phase::LoggedOut => v1::SessionState::LoggedOut,
        Phase::Connecting => v1::SessionState::Connecting,
        Phase::Online => v1::SessionState::Online,
        Phase::BackingOff => v1::SessionState::BackingOff,
        Phase::RenewingSignature => v1::SessionState::RenewingSignature,
        Phase::Parked => v1::SessionState::Parked,
    }
}

const fn park_reason(reason: Option<ParkReason>) -> v1::ParkReason {
    match reason {
        None => v1::ParkReason::Unspecified,
        Some(ParkReason::Kicked) => v1::ParkReason::Kicked,
        Some(ParkReason::Refused) => v1::ParkReason::Refused,
        Some(ParkReason::Signature) => v1::ParkReason::Signature,
        Some(ParkReason::CorruptRecord) => v1::ParkReason::CorruptRecord,
    }
}

const fn parked(reason: v1::ParkReason) -> Option<ParkReason> {
    match reason {
        v1::ParkReason::Unspecified => None,
        v1::ParkReason::Kicked => Some(ParkReason::Kicked),
        v1::ParkReason::Refused => Some(ParkReason::Refused),
        v1::ParkReason::Signature => Some(ParkReason::Signature),
        v1::ParkReason::CorruptRecord => Some(ParkReason::CorruptRecord),
    }
}
