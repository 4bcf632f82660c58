//! The rooms of `src/` import only in the allowed directions, and what is to be pure is.
//!
//! A crate boundary would have the compiler see to it; within one crate this reading of the sources does. Test code
//! may import what it likes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources is to fail"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room, and what of `crate::` it may name beside itself. The first entry that a file's path begins with holds.
/// `types` and `error` are everybody's, unless the room is in [`ALONE`].
const ROOMS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &[]),
    ("types", &[]),
    ("error", &[]),
    ("net", &[]),
    ("proto", &[]),
    ("session", &[]),
    (
        "connectors",
        &[
            "session::input",
            "session::effect",
            "session::disposition",
            "session::backoff",
            "proto",
        ],
    ),
    ("store", &[]),
    (
        "config",
        &["session", "store::redis_url", "connectors::invoke"],
    ),
    (
        "tenants",
        &["session::policy", "proto", "runtime::supervisor"],
    ),
    (
        "events/cursor",
        &["store", "tenants::token", "tenants::directory"],
    ),
    ("events/assignment", &[]),
    (
        "events",
        &["store", "tenants", "proto", "runtime::supervisor"],
    ),
    ("cluster/assignment", &[]),
    ("cluster/lease", &[]),
    (
        "cluster",
        &["runtime::handle", "runtime::supervisor", "store", "proto"],
    ),
    ("runtime/supervisor", &[]),
    (
        "runtime",
        &[
            "session",
            "connectors",
            "store",
            "events",
            "tenants",
            "proto",
        ],
    ),
    (
        "grpc",
        &[
            "runtime::handle",
            "runtime::supervisor",
            "tenants",
            "store",
            "events",
            "proto",
        ],
    ),
    (
        "observability",
        // It has every room declare its metrics.
        &[
            "config", "runtime", "cluster", "events", "grpc", "store", "tenants",
        ],
    ),
    (
        "sim",
        &[
            "session",
            "connectors",
            "store",
            "events",
            "runtime",
            "net",
            "proto",
        ],
    ),
    // What puts the program together names every part; nobody names it.
    (
        "app",
        &[
            "config",
            "tenants",
            "grpc",
            "runtime",
            "session",
            "connectors",
            "cluster",
            "store",
            "events",
            "observability",
            "sim",
            "net",
            "proto",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "sim",
            "connectors",
            "runtime",
            "tenants::keys",
            "observability",
            "proto",
        ],
    ),
];

/// Rooms that do not even see `types` and `error`.
const ALONE: &[&str] = &["types", "error", "net", "proto"];

/// Only the program's assembly and the simulation choose an implementation of the store.
const STORES: &[&str] = &["store::redis", "store::embedded", "store::memory"];
const CHOOSE_STORES: &[&str] = &["store", "app", "sim", "cli"];

/// Files and folders without clock, socket, task, store or environment.
const PURE: &[&str] = &[
    "session",
    "connectors/invoke",
    "connectors/tencent/frame",
    "connectors/tencent/usersig",
    "connectors/tencent/codes",
    "connectors/tencent/protocol",
    "connectors/tencent/sync",
    "connectors/tencent/push",
    "connectors/tencent/send",
    "events/cursor",
    "events/assignment",
    "cluster/assignment",
    "cluster/lease",
    "runtime/issuer/answer",
    "runtime/issuer/breaker",
];

const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio_util",
    "tokio_stream",
    "tokio_tungstenite",
    "tonic",
    "redis",
    "redb",
    "axum",
    "metrics",
    "rand",
];

const IMPURE_PATHS: &[&str] = &[
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
];

const IMPURE_CALLS: &[&str] = &["Instant::now", "SystemTime::now", "WallClock"];

#[test]
fn the_sources_keep_to_their_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
            (
                name.replace('\\', "/"),
                std::fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    assert!(sources.iter().any(|(path, _)| path == "session/mod.rs"));
    let wrong = check(&sources);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What is wrong with sources, named by their paths within `src/`.
fn check(sources: &[(String, String)]) -> Vec<String> {
    let stripped: Vec<(&String, String, Vec<String>)> = sources
        .iter()
        .map(|(path, source)| {
            let (code, test_modules) = without_tests(&code_only(source));
            (path, code, test_modules)
        })
        .collect();
    let tests: BTreeSet<String> = stripped
        .iter()
        .flat_map(|(path, _, modules)| modules.iter().map(|name| child(path, name)))
        .collect();
    stripped
        .iter()
        .filter(|(path, _, _)| !tests.iter().any(|test| is_within(path, test)))
        .flat_map(|(path, code, _)| check_file(path, code))
        .collect()
}

fn check_file(path: &str, code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some((room, allowed)) = ROOMS.iter().find(|(room, _)| is_within(path, room)) else {
        return vec![format!(
            "{path}: a new room: fix its arrows in tests/layering.rs"
        )];
    };
    let own = room.split('/').next().unwrap();
    for named in paths(code, "crate") {
        let part = |room: &str| named == room || named.starts_with(&format!("{room}::"));
        let common = !ALONE.contains(room) && (part("types") || part("error"));
        let metrics = *room == "observability" && named.contains("::metrics");
        if !(part(own) || common || metrics || allowed.iter().any(|room| part(room))) {
            wrong.push(format!("{path}: {room} may not name crate::{named}"));
        }
        if STORES.iter().any(|store| part(store)) && !CHOOSE_STORES.contains(&own) {
            wrong.push(format!(
                "{path}: crate::{named}: only the traits of the store"
            ));
        }
    }
    // `super` as often as the file is deep leads out of the room.
    let deep = path.split('/').count() - usize::from(path.ends_with("/mod.rs"));
    if code.contains(&"super::".repeat(deep)) {
        wrong.push(format!("{path}: leaves its room by super::"));
    }
    if PURE.iter().any(|pure| is_within(path, pure)) {
        let crates = IMPURE_CRATES.iter().filter(|name| names(code, name));
        let calls = IMPURE_CALLS.iter().filter(|call| code.contains(**call));
        let std: Vec<String> = paths(code, "std")
            .into_iter()
            .map(|path| format!("std::{path}"))
            .collect();
        let std = IMPURE_PATHS
            .iter()
            .filter(|path| std.iter().any(|named| named.starts_with(**path)));
        for found in crates.chain(calls).chain(std) {
            wrong.push(format!("{path}: is to be pure, but mentions {found}"));
        }
    }
    wrong
}

/// Whether a file is that module, or within it.
fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The module that `mod name;` in the file `path` stands for.
fn child(path: &str, name: &str) -> String {
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod.rs")) => format!("{folder}/"),
        None if path == "lib.rs" || path == "main.rs" => String::new(),
        Some(_) | None => format!("{}/", path.trim_end_matches(".rs")),
    };
    format!("{folder}{name}")
}

/// Whether the code names the crate.
fn names(code: &str, krate: &str) -> bool {
    code.match_indices(krate).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let (before, after) = (&code[..at], &code[at + krate.len()..]);
        let path = after.trim_start().starts_with("::");
        let used = before.trim_end().ends_with("use") && !after.starts_with(part);
        !before.ends_with(part) && (path || used)
    })
}

/// Every path that begins with `root::`, without that, and with groups written out.
fn paths(code: &str, root: &str) -> Vec<String> {
    let begin = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&begin) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            write_out(&code[at + begin.len()..], "", &mut found);
        }
    }
    found
}

/// Writes out one use tree; answers what follows it.
fn write_out<'a>(tree: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let tree = tree.trim_start();
    if let Some(mut rest) = tree.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let before = rest.len();
            rest = write_out(rest, prefix, found);
            // To the next branch, past ` as name` and the comma.
            rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.is_empty() || rest.len() == before {
                return rest;
            }
        }
    }
    let end = tree
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'))
        .unwrap_or(tree.len());
    let (name, rest) = tree.split_at(end);
    let path = format!("{prefix}{name}");
    match rest.trim_start().strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => write_out(rest, &format!("{path}::"), found),
        Some(_) | None => {
            found.push(path);
            rest
        }
    }
}

/// The code with comments and literals blanked out.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skip = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#") => raw_string(rest, &code),
            '\'' => character(rest),
            _ => 0,
        };
        if skip > 0 {
            code.push(' ');
            rest = &rest[skip..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str, before: &str) -> usize {
    let within_word =
        before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.ends_with('b');
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if within_word || !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 2 + hashes;
    rest[begin..]
        .find(&end)
        .map_or(rest.len(), |at| begin + at + end.len())
}

/// A character, as opposed to a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |at| 3 + at + 1),
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 1,
            Some(_) | None => 0,
        },
        None => 0,
    }
}

/// The code without the items under `#[cfg(test)]`, and the names of the modules among those.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut kept = String::with_capacity(code.len());
    let mut modules = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at + "#[cfg(test)]".len()..];
        while rest.trim_start().starts_with("#[") {
            rest = &rest[rest.find(']').map_or(rest.len(), |at| at + 1)..];
        }
        let end = item_end(rest);
        let mut words = rest[..end].split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if rest[..end].ends_with(';') && words.any(|word| word == "mod") {
            modules.extend(words.find(|word| !word.is_empty()).map(str::to_owned));
        }
        rest = &rest[end..];
    }
    kept.push_str(rest);
    (kept, modules)
}

/// Where an item ends: at its semicolon, or with its braces.
fn item_end(item: &str) -> usize {
    let is_use = item
        .split_whitespace()
        .find(|word| !word.starts_with("pub"))
        == Some("use");
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if c == '}' && depth == 0 && !is_use {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// What is wrong with one planted file.
fn planted(path: &str, source: &str) -> usize {
    check(&[(path.to_owned(), source.to_owned())]).len()
}

#[test]
fn planted_violations_are_caught() {
    for (path, source) in [
        ("session/state.rs", "use tokio::time::sleep;"),
        ("session/state.rs", "use tokio as t;"),
        ("session/mod.rs", "fn f() { let _ = Instant::now(); }"),
        ("session/mod.rs", "fn f() { metrics::counter!(\"x\"); }"),
        ("session/mod.rs", "use std::{fmt, net::TcpStream};"),
        ("session/mod.rs", "use crate::store::Store;"),
        ("session/mod.rs", "use crate::{types, store};"),
        ("session/mod.rs", "use crate::types::WallClock;"),
        ("session/mod.rs", "use super::store::Store;"),
        ("session/deep/mod.rs", "use super::super::store::Store;"),
        ("events/cursor.rs", "fn f() { std::fs::read(\"x\"); }"),
        ("connectors/tencent/frame.rs", "use tonic::Status;"),
        ("connectors/tencent/frame/head.rs", "use redis::Client;"),
        ("connectors/websocket.rs", "use crate::session::Session;"),
        (
            "connectors/mod.rs",
            "use crate::{types::{A, B as C}, runtime::handle};",
        ),
        ("store/mod.rs", "fn f(_: crate::grpc::Server) {}"),
        (
            "grpc/sessions.rs",
            "use crate::runtime::registry::Registry;",
        ),
        ("grpc/sessions.rs", "use crate::store::redis::RedisStore;"),
        ("runtime/mod.rs", "use crate::app::App;"),
        ("cluster/lease.rs", "use crate::store::Lease;"),
        ("types.rs", "use crate::error::ErrorKind;"),
        (
            "session/a.rs",
            "fn f<'a>(c: char) { c == '\"'; tokio::spawn(x) }",
        ),
        (
            "session/a.rs",
            "#[cfg(test)]\nmod tests { fn f() {} }\nuse redis::Client;",
        ),
        (
            "session/a.rs",
            "#[cfg(test)]\nuse std::{fmt, fs};\nuse redis::Client;",
        ),
        ("elsewhere/mod.rs", ""),
    ] {
        assert_eq!(planted(path, source), 1, "{path}: {source}");
    }
}

#[test]
fn what_is_allowed_passes() {
    for (path, source) in [
        ("session/state.rs", "use std::time::{Duration, Instant};"),
        (
            "session/state.rs",
            "//! Not `tokio::time`.\nuse crate::types::UnixMillis;",
        ),
        (
            "session/state.rs",
            "/* crate::store /* nested */ */ const A: &str = \"redis::x\";",
        ),
        (
            "session/state.rs",
            "const A: &str = r#\"crate::store \" \"#;",
        ),
        (
            "session/state.rs",
            "#[cfg(test)]\n#[expect(x)]\nmod tests { use tokio::time; }",
        ),
        (
            "session/state.rs",
            "use crate::session::{input::Input, Session};",
        ),
        ("session/state.rs", "use super::input::Input;"),
        (
            "session/state.rs",
            "fn f(my_metrics: crate::error::ErrorKind) {}",
        ),
        (
            "grpc/events.rs",
            "use crate::{runtime::handle::Gateway, store::Store};",
        ),
        (
            "observability/metrics.rs",
            "fn f() { crate::runtime::metrics::describe(); }",
        ),
        (
            "connectors/websocket.rs",
            "use crate::session::input::Input; use tokio::net;",
        ),
    ] {
        assert_eq!(planted(path, source), 0, "{path}: {source}");
    }
}

#[test]
fn files_that_only_tests_see_are_left_alone() {
    let sources = [
        ("session/mod.rs", "#[cfg(test)]\nmod tests;\nmod state;"),
        ("session/tests/mod.rs", "use tokio::time;"),
        ("session/tests/deep.rs", "use crate::store::memory;"),
        ("session/state.rs", ""),
    ]
    .map(|(path, source)| (path.to_owned(), source.to_owned()));
    assert_eq!(check(&sources), Vec::<String>::new());
}
