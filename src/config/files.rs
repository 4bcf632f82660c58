//! Where a configuration is read from: files, or folders of files as Kubernetes mounts them, and what they refer to.
//! What was read is remembered by its content, so that a change is found whatever becomes of names, links and times.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use toml::{Table, Value};

use super::Config;
use super::error::{ConfigErrors, Problem};
use super::load::{self, environment};

/// The files of a configuration.
#[derive(Clone, Debug)]
pub struct Files {
    roots: Vec<PathBuf>,
}

/// What a configuration was read from, by content. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The digest of a file's content or of a folder's names; `None` for what could not be read.
    contents: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Files {
    /// The configuration that these files make together. Of a folder, all files are taken whose names end in `.toml`, in the
    /// order of the names, but for hidden ones.
    pub const fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots }
    }

    /// Reads and checks it all. Relative paths in it start at the folder of the first file. What was read is told in any case:
    /// a configuration that is wrong need not be read again before it has changed.
    pub fn load(&self) -> (Result<Config, ConfigErrors>, Seen) {
        let mut seen = Seen::default();
        let loaded = self.read(&mut seen);
        (loaded, seen)
    }

    fn read(&self, seen: &mut Seen) -> Result<Config, ConfigErrors> {
        let files = self.list(seen)?;
        let mut merged = Table::new();
        let mut origins = BTreeMap::new();
        for file in &files {
            let text = fs::read_to_string(file);
            seen.note(file, text.as_ref().ok().map(String::as_bytes));
            let text = text.map_err(|error| unreadable(file, &error))?;
            let table = load::table(&text).map_err(|errors| ConfigErrors {
                file: Some(file.clone()),
                ..errors
            })?;
            merge(&mut merged, table, "", file, &mut origins)?;
        }
        let base = files.first().and_then(|file| file.parent());
        let base = base.unwrap_or_else(|| Path::new(""));
        load::check(merged, base, &environment, seen).map_err(|errors| ConfigErrors {
            file: self.roots.first().cloned(),
            ..errors
        })
    }

    /// All files, in order.
    fn list(&self, seen: &mut Seen) -> Result<Vec<PathBuf>, ConfigErrors> {
        let mut files = Vec::new();
        for root in &self.roots {
            if !root.is_dir() {
                files.push(root.clone());
                continue;
            }
            let names = toml_files(root);
            seen.note_folder(root, names.as_deref().ok());
            let names = names.map_err(|error| unreadable(root, &error))?;
            if names.is_empty() {
                return Err(problem(
                    root,
                    "the folder",
                    "has no file whose name ends in .toml: put one there",
                ));
            }
            files.extend(names);
        }
        Ok(files)
    }
}

impl Seen {
    /// Whether everything still is as it was read.
    pub fn is_current(&self) -> bool {
        self.contents.iter().all(|(path, content)| {
            let now = if path.is_dir() {
                toml_files(path).ok().map(|names| digest_of_names(&names))
            } else {
                digest_of_file(path)
            };
            now == *content
        })
    }

    /// Notes a file as it was read; `None` if it could not be, or was not taken, as one that is too large.
    pub(super) fn note(&mut self, path: &Path, content: Option<&[u8]>) {
        self.contents.insert(
            path.to_owned(),
            content.map_or_else(|| digest_of_file(path), |content| Some(digest_of(content))),
        );
    }

    fn note_folder(&mut self, path: &Path, names: Option<&[PathBuf]>) {
        self.contents
            .insert(path.to_owned(), names.map(digest_of_names));
    }
}

/// Puts what a file says to what the files before it said. Lists go on; everything else is said once.
fn merge(
    into: &mut Table,
    from: Table,
    prefix: &str,
    file: &Path,
    origins: &mut BTreeMap<String, PathBuf>,
) -> Result<(), ConfigErrors> {
    for (key, value) in from {
        let name = format!("{prefix}{key}");
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => {
                merge(into, from, &format!("{name}."), file, origins)?;
            }
            (Some(Value::Array(into)), Value::Array(from))
                if are_tables(into) && are_tables(&from) =>
            {
                into.extend(from);
            }
            (Some(_), _) => {
                let before = origin(origins, &name)
                    .map_or_else(String::new, |origin| format!(" in {}", origin.display()));
                let remedy = format!("is set{before} already: set it in one file only");
                return Err(problem(file, &name, &remedy));
            }
            (None, value) => {
                origins.insert(name, file.to_owned());
                into.insert(key, value);
            }
        }
    }
    Ok(())
}

/// Which file has said a key, or the table that it is in.
fn origin<'a>(origins: &'a BTreeMap<String, PathBuf>, name: &str) -> Option<&'a PathBuf> {
    origins.get(name).or_else(|| {
        let (table, _) = name.rsplit_once('.')?;
        origin(origins, table)
    })
}

fn are_tables(list: &[Value]) -> bool {
    list.iter().all(Value::is_table)
}

fn toml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        // A mounted ConfigMap keeps its versions in hidden folders, to which its names are links.
        let wanted = name.is_some_and(|name| name.ends_with(".toml") && !name.starts_with('.'));
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn digest_of_names(names: &[PathBuf]) -> Vec<u8> {
    let names: Vec<_> = names
        .iter()
        .map(|name| name.as_os_str().as_encoded_bytes())
        .collect();
    digest_of(&names.join(&0))
}

fn digest_of_file(path: &Path) -> Option<Vec<u8>> {
    // What is none was refused, and may have no end.
    if !path.is_file() {
        return None;
    }
    let content = fs::read(path).map(zeroize::Zeroizing::new).ok()?;
    Some(digest_of(&content))
}

fn digest_of(content: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, content).as_ref().to_vec()
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigErrors {
    problem(path, "the file", &format!("cannot be read: {error}"))
}

fn problem(file: &Path, key: &str, remedy: &str) -> ConfigErrors {
    ConfigErrors {
        file: Some(file.to_owned()),
        problems: vec![Problem {
            key: key.to_owned(),
            value: None,
            remedy: remedy.to_owned(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "[[tenants]]\nid = \"NAME\"\nsdk_app_id = 1400000001\n";

    fn tenant(name: &str) -> String {
        TENANT.replace("NAME", name)
    }

    fn names(files: &Files) -> Vec<String> {
        let config = files.load().0.unwrap();
        let tenants = config.tenants.iter();
        tenants.map(|tenant| tenant.id.to_string()).collect()
    }

    fn refusal(files: &Files) -> String {
        files.load().0.unwrap_err().to_string()
    }

    #[test]
    fn files_and_folders_make_one_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("imgate.toml"), "[store]\nkind = \"memory\"\n").unwrap();
        fs::create_dir(at("tenants")).unwrap();
        let files = Files::new(vec![at("imgate.toml"), at("tenants")]);
        assert!(refusal(&files).contains("has no file whose name ends in .toml"));
        fs::write(at("tenants/b.toml"), tenant("b")).unwrap();
        fs::write(at("tenants/a.toml"), tenant("a")).unwrap();
        fs::write(at("tenants/.c.toml"), tenant("c")).unwrap();
        fs::write(at("tenants/d.toml~"), tenant("d")).unwrap();
        assert_eq!(names(&files), ["a", "b"]);
        fs::write(at("tenants/b.toml"), tenant("a")).unwrap();
        assert!(refusal(&files).contains("another tenant has this id"));
        fs::write(at("tenants/b.toml"), "[store]\nkind = \"memory\"\n").unwrap();
        let said = refusal(&files);
        assert!(
            said.contains("tenants/b.toml has a problem:\n  store.kind: is set in "),
            "{said}"
        );
        fs::write(at("tenants/b.toml"), "[[tenants]\n").unwrap();
        let said = refusal(&files);
        assert!(
            said.contains("tenants/b.toml has a problem:\n  line 1: is not TOML"),
            "{said}"
        );
    }

    /// As Kubernetes mounts and replaces it: the names are links through a link to a folder, which alone is replaced.
    #[test]
    fn a_change_is_found_by_content() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let version = |name: &str, text: &str, secret: &str| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("a.toml"), text).unwrap();
            fs::write(at(name).join("app.key"), secret).unwrap();
            let _first = fs::remove_file(at("..data"));
            symlink(name, at("..data")).unwrap();
        };
        let with_key = format!("{}secret_key = {{ file = \"app.key\" }}\n", tenant("a"));
        version("..1", &with_key, "one");
        symlink("..data/a.toml", at("a.toml")).unwrap();
        symlink("..data/app.key", at("app.key")).unwrap();
        let files = Files::new(vec![folder.path().to_owned()]);
        let (config, seen) = files.load();
        config.unwrap();
        assert!(seen.is_current());
        version("..2", &with_key, "one");
        assert!(seen.is_current(), "the same content in another place");
        version("..3", &with_key, "two");
        assert!(!seen.is_current(), "another secret");
        let (config, seen) = files.load();
        assert_eq!(
            config.unwrap().tenants[0]
                .secret_key
                .as_ref()
                .unwrap()
                .expose(),
            "two"
        );
        fs::write(at("b.toml"), tenant("b")).unwrap();
        assert!(!seen.is_current(), "another file");
        fs::remove_file(at("b.toml")).unwrap();
        assert!(seen.is_current());
        fs::remove_file(at("app.key")).unwrap();
        assert!(!seen.is_current(), "a file less");
        let (config, seen) = files.load();
        config.unwrap_err();
        assert!(seen.is_current(), "what is wrong is not read again");
        fs::write(at("app.key"), vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(!seen.is_current());
        let (config, seen) = files.load();
        config.unwrap_err();
        assert!(seen.is_current(), "nor is what is too large");
    }

    #[test]
    fn what_is_no_file_is_not_read_again() {
        let mut seen = Seen::default();
        // It has no end.
        seen.note(Path::new("/dev/zero"), None);
        assert!(seen.is_current());
    }
}
