//! The keys that seal credentials in the store, and the key file that an embedded store gets by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

use super::StoreKind;
use crate::error::{Classified, ErrorKind};
use crate::types::Secret;

/// AES-256 keys by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealKeys {
    /// The name of the key that seals; `keys` has it.
    pub active: String,
    /// All keys; each opens what it has sealed.
    pub keys: BTreeMap<String, Secret<[u8; 32]>>,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// They are given.
    Keys(SealKeys),
    /// One key in a file that is made at the first start.
    KeyFile {
        /// The key file.
        path: PathBuf,
        /// The database file whose contents the key opens.
        database: PathBuf,
    },
    /// One key for the life of the process.
    Ephemeral,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("the key file {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The key file has no key in it.
    #[error(
        "the key file {path} must hold 32 bytes in base64 or hexadecimal: put the right one back"
    )]
    NotAKey {
        /// Which.
        path: PathBuf,
    },
    /// There is a database but no key.
    #[error(
        "the key file {path} of the database {database} is missing: put it back, or move the database away to begin \
         without it"
    )]
    Missing {
        /// The key file.
        path: PathBuf,
        /// The database file.
        database: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

impl Classified for SealError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File { .. } | Self::NotAKey { .. } | Self::Missing { .. } => {
                ErrorKind::Precondition
            }
            Self::NoRandomness => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the gateway has no key for its store; ask the operator".into()
    }
}

impl Seal {
    /// What stands without a `[seal]` section. Redis has no default; a key of its own lifetime is in its place.
    pub(super) fn default_for(store: &StoreKind) -> Self {
        match store {
            StoreKind::Embedded { path } => Self::KeyFile {
                path: path.with_extension("key"),
                database: path.clone(),
            },
            StoreKind::Redis { .. } | StoreKind::Memory => Self::Ephemeral,
        }
    }

    /// Whether what is sealed by these can be gone on with by the next while imgate runs: given keys can become others, and
    /// a store's own stay.
    pub(super) fn can_become(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Keys(_), Self::Keys(_)) => true,
            (Self::Keys(_) | Self::KeyFile { .. } | Self::Ephemeral, _) => self == next,
        }
    }

    /// The keys. Makes the key file if there is neither it nor a database, and says so in the log.
    pub fn open(&self) -> Result<SealKeys, SealError> {
        match self {
            Self::Keys(keys) => Ok(keys.clone()),
            Self::KeyFile { path, database } => open_key_file(path, database).map(single),
            Self::Ephemeral => generate().map(single),
        }
    }
}

fn single(key: Secret<[u8; 32]>) -> SealKeys {
    SealKeys {
        active: "file".to_owned(),
        keys: BTreeMap::from([("file".to_owned(), key)]),
    }
}

fn open_key_file(path: &Path, database: &Path) -> Result<Secret<[u8; 32]>, SealError> {
    let failed = |error| SealError::File {
        path: path.to_owned(),
        error,
    };
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => parse_key(&text).ok_or_else(|| SealError::NotAKey {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if database.exists() {
                return Err(SealError::Missing {
                    path: path.to_owned(),
                    database: database.to_owned(),
                });
            }
            let key = generate()?;
            write_key(path, &key).map_err(failed)?;
            tracing::info!(path = %path.display(), "made a key file; keep it with the database");
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

fn write_key(path: &Path, key: &Secret<[u8; 32]>) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let text = Zeroizing::new(STANDARD.encode(key.expose()));
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    // The folder's entry must last as well, or a database could outlive its key.
    fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn generate() -> Result<Secret<[u8; 32]>, SealError> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| SealError::NoRandomness)?;
    Ok(Secret::new(key))
}

/// A key as it is written: 32 bytes in base64 or hexadecimal.
pub(super) fn parse_key(text: &str) -> Option<Secret<[u8; 32]>> {
    let text = text.trim();
    let mut key = [0; 32];
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        return Some(Secret::new(key));
    }
    let mut bytes = STANDARD.decode(text).ok()?;
    let right_length = bytes.len() == key.len();
    if right_length {
        key.copy_from_slice(&bytes);
    }
    bytes.zeroize();
    right_length.then(|| Secret::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("data/imgate.redb");
        let seal = Seal::default_for(&StoreKind::Embedded {
            path: database.clone(),
        });
        let first = seal.open().unwrap();
        let path = folder.path().join("data/imgate.key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::write(&database, "").unwrap();
        assert_eq!(seal.open().unwrap().keys, first.keys);

        fs::remove_file(&path).unwrap();
        assert!(matches!(seal.open(), Err(SealError::Missing { .. })));
        fs::write(&path, "garbage").unwrap();
        assert!(matches!(seal.open(), Err(SealError::NotAKey { .. })));
    }

    #[test]
    fn keys_are_read_in_both_forms() {
        let hex = "00".repeat(31) + "ff\n";
        let base64 = STANDARD.encode(parse_key(&hex).unwrap().expose());
        assert_eq!(parse_key(&hex), parse_key(&base64));
        assert_eq!(parse_key(&hex).unwrap().expose()[31], 255);
        for wrong in [
            "",
            "AAAA",
            &"zz".repeat(32),
            &"+1".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(parse_key(wrong).is_none(), "{wrong}");
        }
    }
}
