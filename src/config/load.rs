//! Reads the file and what it refers to: secrets in files and in the environment, certificates, the host name.
//! The only reader of the environment.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use toml::Table;
use zeroize::Zeroizing;

use super::error::{ConfigErrors, Problem, Problems};
use super::files::{Files, Seen};
use super::options::Options;
use super::section::Reader;
use super::setting::{MaybeSecret, SecretRef, Setting as _};
use super::{Config, check};
use crate::types::Secret;

/// No secret and no certificate is greater than this.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads and checks a file. Relative paths in it start at its folder.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file and with what it refers to.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Files::new(vec![path.to_owned()]).load().0
    }

    /// Reads and checks the text of a file, with relative paths starting at `base` and variables of `environment`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text and with what it refers to.
    pub fn parse(
        text: &str,
        base: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        check(table(text)?, base, environment, &mut Seen::default())
    }
}

/// The variables of this process.
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of the environment"
)]
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the text of a file.
pub(super) fn table(text: &str) -> Result<Table, ConfigErrors> {
    text.parse().map_err(|error| syntax_error(text, &error))
}

/// Checks what the files say together; notes what that refers to.
pub(super) fn check(
    table: Table,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    seen: &mut Seen,
) -> Result<Config, ConfigErrors> {
    let (options, problems) = Reader::read::<Options>(table);
    let mut sources = Sources {
        base,
        environment,
        seen,
        problems,
    };
    let config = check::check(options, &mut sources);
    sources.problems.into_result(config, None)
}

/// The line and the reason, but not the line's text, for it may hold a secret.
fn syntax_error(text: &str, error: &toml::de::Error) -> ConfigErrors {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.matches('\n').count().saturating_add(1));
    ConfigErrors {
        file: None,
        problems: vec![Problem {
            key: format!("line {line}"),
            value: None,
            remedy: format!("is not TOML: {}", error.message().replace('\n', ", ")),
        }],
    }
}

/// What a file refers to, and the problems found so far.
pub(super) struct Sources<'a> {
    base: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
    seen: &'a mut Seen,
    pub(super) problems: Problems,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Sources<'_> {
    /// A path of the file, seen from where imgate runs.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The name of this host.
    pub(super) fn host_name(&self) -> Option<String> {
        let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        kernel
            .or_else(|| (self.environment)("HOSTNAME"))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
    }

    /// The secret that `place` refers to.
    pub(super) fn secret(&mut self, key: &str, place: &SecretRef) -> Option<Secret<String>> {
        let found = match place {
            SecretRef::File(path) => self.read(path).and_then(|bytes| {
                let text = str::from_utf8(&bytes)
                    .map_err(|_| "the file must hold text in UTF-8".to_owned())?;
                Ok(text.trim_end().to_owned())
            }),
            SecretRef::Env(name) => {
                (self.environment)(name).ok_or_else(|| format!("set the variable {name}"))
            }
        };
        let found = match found {
            Ok(text) if text.is_empty() => Err("must not be empty".to_owned()),
            other => other,
        };
        found
            .map_err(|remedy| {
                self.problems.report(&[key], Some(place.to_toml()), remedy);
            })
            .ok()
            .map(Secret::new)
    }

    /// The value itself, or the secret that it refers to.
    pub(super) fn maybe_secret(
        &mut self,
        key: &str,
        value: &MaybeSecret,
    ) -> Option<Secret<String>> {
        match value {
            MaybeSecret::Plain(text) => Some(text.clone()),
            MaybeSecret::Reference(place) => self.secret(key, place),
        }
    }

    /// A file with one certificate or more.
    pub(super) fn certificates(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        self.pem(key, path, "certificate", holds_certificates)
    }

    /// A file with a private key.
    pub(super) fn private_key(&mut self, key: &str, path: &Path) -> Option<Secret<Vec<u8>>> {
        self.pem(key, path, "private key", |bytes| {
            PrivateKeyDer::from_pem_slice(bytes).is_ok()
        })
        .map(Secret::new)
    }

    /// A file that is read again whenever it is needed; the path, seen from where imgate runs. That it changes is no change of
    /// the configuration.
    pub(super) fn readable(&mut self, key: &str, path: &Path) -> PathBuf {
        self.look_at(key, path, |_| Ok(()))
    }

    /// The same of a file with one certificate or more.
    pub(super) fn readable_certificates(&mut self, key: &str, path: &Path) -> PathBuf {
        self.look_at(key, path, |content| {
            if holds_certificates(content) {
                Ok(())
            } else {
                Err("the file must hold a certificate in PEM".to_owned())
            }
        })
    }

    fn look_at(
        &mut self,
        key: &str,
        path: &Path,
        check: impl Fn(&[u8]) -> Result<(), String>,
    ) -> PathBuf {
        let full = self.path(path);
        if let Err(remedy) = read_small(&full).and_then(|content| check(&content)) {
            let shown = path.to_path_buf().to_toml();
            self.problems.report(&[key], Some(shown), remedy);
        }
        full
    }

    fn pem(
        &mut self,
        key: &str,
        path: &Path,
        what: &str,
        holds_one: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let checked = self.read(path).and_then(|bytes| {
            if holds_one(&bytes) {
                Ok(bytes.to_vec())
            } else {
                Err(format!("the file must hold a {what} in PEM"))
            }
        });
        checked
            .map_err(|remedy| {
                self.problems
                    .report(&[key], Some(path.to_path_buf().to_toml()), remedy);
            })
            .ok()
    }

    fn read(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        let path = self.path(path);
        let content = read_small(&path);
        let noted = content.as_ref().ok().map(|content| content.as_slice());
        self.seen.note(&path, noted);
        content
    }
}

fn holds_certificates(pem: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem).peekable();
    certificates.peek().is_some() && certificates.all(|one| one.is_ok())
}

fn read_small(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    // A device or a pipe may have no end, or no beginning.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let file = fs::File::open(path).map_err(failed)?;
    // Room for all of it from the start, so that no copy of a part is left behind. But its own word is not the bound: it
    // may grow, and files of /proc say 0.
    let size = file.metadata().map_err(failed)?.len().min(MAX_FILE_BYTES);
    let room = usize::try_from(size).unwrap_or(0).saturating_add(2);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{} is greater than 1 MiB", path.display()));
    }
    Ok(bytes)
}
