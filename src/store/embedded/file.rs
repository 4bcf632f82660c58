//! The database file: opening it, what its errors mean, and opening it anew after one.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Builder, Database};
use tracing::warn;

use super::tables::Step;
use crate::store::StoreError;

/// How much of the file is held in memory, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// An open database file. redb answers nothing more after the first failed read or write, so the file is then
/// opened anew, which takes it back to the last whole transaction.
pub(super) struct DatabaseFile {
    path: PathBuf,
    open: RwLock<Open>,
}

struct Open {
    /// Counts how often it was opened, so that of many who saw one failure only the first acts on it.
    generation: u64,
    /// None after opening anew has failed.
    database: Option<Database>,
}

/// Why a transaction did not happen. Everyone whose operation was in it gets a copy.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// No space, or a limit on size.
    Full(String),
    /// The file cannot be used at present.
    Away(String),
    /// The file's content is broken.
    Corrupt { file: String, detail: String },
    /// An earlier failure: nothing is known of this transaction's own chances.
    Earlier(String),
}

impl DatabaseFile {
    /// Opens the file, making it and its folder when they are not there, and checks all of it.
    pub(super) fn open(path: &Path) -> Result<Self, Trouble> {
        create(path).map_err(|error| of_io(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            open: RwLock::new(Open {
                generation: 0,
                database: Some(database(path, true)?),
            }),
        })
    }

    /// Runs `work` on the database; blocks. When the database only answers that something failed earlier, it is
    /// opened anew and `work` runs once more, so nothing may be kept of a run that failed.
    pub(super) fn run<T>(&self, mut work: impl FnMut(&Database) -> Step<T>) -> Result<T, Trouble> {
        match self.run_once(&mut work) {
            Err(Trouble::Earlier(_)) => self.run_once(&mut work),
            other => other,
        }
    }

    fn run_once<T>(&self, work: &mut impl FnMut(&Database) -> Step<T>) -> Result<T, Trouble> {
        let (generation, result) = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            let result = open.database.as_ref().map(|database| {
                // redb panics on some of what a broken file may hold.
                catch_unwind(AssertUnwindSafe(|| work(database)))
            });
            (open.generation, result)
        };
        let trouble = match result {
            Some(Ok(Ok(done))) => return Ok(done),
            Some(Ok(Err(error))) => of_redb(&self.path, &error),
            Some(Err(_panic)) => corrupt(&self.path, "reading it caused a panic"),
            None => Trouble::Earlier("it was closed after an error".into()),
        };
        self.open_anew(generation, &trouble)?;
        Err(trouble)
    }

    /// Closes and opens the file, unless somebody has done so since `generation`.
    fn open_anew(&self, generation: u64, after: &Trouble) -> Result<(), Trouble> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.generation != generation {
            return Ok(());
        }
        warn!(path = %self.path.display(), reason = %after, "opening the store's file anew");
        // The old one has the lock on the file and must be gone first.
        open.database = None;
        open.database = Some(database(&self.path, false)?);
        open.generation += 1;
        Ok(())
    }
}

impl fmt::Debug for DatabaseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseFile").field(&self.path).finish()
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(text) | Self::Away(text) | Self::Earlier(text) => f.write_str(text),
            Self::Corrupt { detail, .. } => f.write_str(detail),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full(text) => Self::Full(text),
            Trouble::Away(text) | Trouble::Earlier(text) => Self::Unavailable(text),
            Trouble::Corrupt { file, detail } => Self::Corrupt {
                place: file,
                detail,
            },
        }
    }
}

/// Makes the file, readable by its owner only, and the folder that it is in.
fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
}

fn database(path: &Path, check: bool) -> Result<Database, Trouble> {
    let opened = catch_unwind(|| {
        Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(check)
            .create(path)
    });
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(of_redb(path, &error.into())),
        Err(_panic) => Err(corrupt(path, "opening it caused a panic")),
    }
}

fn of_redb(path: &Path, error: &redb::Error) -> Trouble {
    use redb::Error;
    // redb may add errors: those that are not named here are of a file that does not hold what it should.
    if let Error::Io(error) = error {
        return of_io(path, error);
    }
    let name = path.display();
    if matches!(
        error,
        Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch
    ) {
        return Trouble::Away(format!(
            "{name} is open in another process: stop that one, or give this one a data folder of its own"
        ));
    }
    if matches!(
        error,
        Error::PreviousIo | Error::DatabaseClosed | Error::LockPoisoned(_)
    ) {
        return Trouble::Earlier(format!("{name}: {error}"));
    }
    if matches!(error, Error::ValueTooLarge(_)) {
        return Trouble::Full(format!("{name}: {error}"));
    }
    corrupt(path, error)
}

fn of_io(path: &Path, error: &io::Error) -> Trouble {
    use io::ErrorKind;
    let kind = error.kind();
    let text = format!("{}: {error}", path.display());
    if matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    ) {
        Trouble::Full(text)
    } else if matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
        corrupt(path, error)
    } else {
        Trouble::Away(text)
    }
}

fn corrupt(path: &Path, detail: impl fmt::Display) -> Trouble {
    Trouble::Corrupt {
        file: path.display().to_string(),
        detail: format!(
            "{detail}; put a backup in the file's place, or move it away to begin with an empty store"
        ),
    }
}
