//! What must hold of whatever imgate reads from others, for any bytes at all.
//!
//! Each module has one `check`, which takes the bytes and panics where a property does not hold. The fuzz targets call
//! it with what libFuzzer makes up, `tests/fuzz_corpus.rs` with the files of `corpus/`.

pub mod config;
pub mod cursor;
pub mod frame;
pub mod record;
pub mod usersig;

use std::collections::BTreeMap;

use imgate::store::seal::{KeyRing, Sealer};
use imgate::types::{AccountId, Secret, SessionKey, TenantId};

/// A check of bytes.
pub type Check = fn(&[u8]);

/// All checks, by the name of the fuzz target and of its folder in the corpus.
pub const CHECKS: [(&str, Check); 5] = [
    ("config", config::check),
    ("cursor", cursor::check),
    ("frame", frame::check),
    ("record", record::check),
    ("usersig", usersig::check),
];

/// The latest moment that a timestamp of protobuf can name, in Unix seconds.
const END_OF_TIME: i64 = 253_402_300_799;

/// Takes whole numbers off the front of the bytes; what is missing is 0.
fn number(data: &mut &[u8]) -> u64 {
    let (head, rest) = data.split_at(data.len().min(8));
    *data = rest;
    head.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// A place in something of that length, which differs with the bytes.
fn place(data: &[u8], length: usize) -> usize {
    crc32fast::hash(data) as usize % length.max(1)
}

/// A sealer whose keys are made of these bytes, the first of them active.
fn sealer(seeds: &[u8]) -> Sealer {
    let keys: BTreeMap<String, Secret<String>> = seeds
        .iter()
        .map(|seed| {
            let key = Secret::new(format!("{seed:02x}").repeat(32));
            (format!("k{seed}"), key)
        })
        .collect();
    let active = format!("k{}", seeds[0]);
    let keys = keys.iter().map(|(id, key)| (id.as_str(), key));
    Sealer::new(KeyRing::parse(&active, keys).expect("good keys"))
}

/// A session's name.
fn session_key(tenant: &str, account: &str) -> SessionKey {
    SessionKey {
        tenant: TenantId::new(tenant),
        account: AccountId::new(account),
    }
}

/// Whether a timestamp is one that every protobuf library takes.
fn is_valid(timestamp: Option<&prost_types::Timestamp>) -> bool {
    timestamp.is_none_or(|at| {
        (0..=END_OF_TIME).contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos)
    })
}
