//! The properties of the fuzz targets, tried on the files of their corpus, on what is near these, and on what was captured
//! of the vendor's own SDKs. The targets themselves are run by `tests/fuzz/run.sh`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

#[path = "fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library of its own as well")]
mod fuzz;

/// No file of a corpus is larger: they are made and read by people.
const MAX_BYTES: u64 = 16 << 10;
/// So many variations of each file are tried.
const VARIATIONS: u64 = 60;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs a check, and says on what it failed.
fn run(check: fuzz::Check, data: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| check(data))).is_err() {
        panic!("{what}: {:?}", String::from_utf8_lossy(data));
    }
}

/// Runs a target on its corpus, and on each file cut short and changed in a place or two.
fn corpus(target: &str) {
    let (_, check) = fuzz::CHECKS
        .into_iter()
        .find(|(name, _)| *name == target)
        .unwrap();
    let folder = folder("fuzz/corpus").join(target);
    let files = names(&folder);
    assert!(
        (10..=60).contains(&files.len()),
        "{target} has {} files",
        files.len()
    );
    let mut dice = 7_u64;
    for name in files {
        let data = fs::read(folder.join(&name)).unwrap();
        assert!(data.len() as u64 <= MAX_BYTES, "{target}/{name} is large");
        run(check, &data, &format!("{target}/{name}"));
        for number in 0..VARIATIONS.min(data.len() as u64) {
            let mut roll = || {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(dice >> 33).unwrap()
            };
            let mut varied = data.clone();
            if number % 3 == 0 {
                varied.truncate(roll() % data.len());
            } else {
                for _ in 0..number % 3 {
                    // The first byte says what the others are.
                    let at = (1 + roll() % data.len()).min(data.len() - 1);
                    varied[at] = u8::try_from(roll() % 256).unwrap();
                }
            }
            run(check, &varied, &format!("near {target}/{name}"));
        }
    }
}

#[test]
fn frames() {
    corpus("frame");
}

#[test]
fn signatures() {
    corpus("usersig");
}

#[test]
fn cursors() {
    corpus("cursor");
}

#[test]
fn configurations() {
    corpus("config");
}

#[test]
fn records() {
    corpus("record");
}

#[test]
fn every_target_is_declared_and_has_a_corpus() {
    let expected: Vec<&str> = fuzz::CHECKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&folder("fuzz/corpus")), expected);
    let manifest = fs::read_to_string(folder("fuzz/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let declared: BTreeSet<&str> = manifest["bin"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    assert_eq!(declared.into_iter().collect::<Vec<_>>(), expected);
}

/// All that the vendor's SDKs and the simulator said to each other.
#[test]
fn captured_frames() {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        frame: Option<&'a RawValue>,
    }
    let mut seen = 0;
    for name in names(&folder("data/captures")) {
        let log = fs::read_to_string(folder("data/captures").join(&name)).unwrap();
        for line in log.lines() {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            if let Some(frame) = line.frame {
                run(fuzz::frame::check, frame.get().as_bytes(), &name);
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

/// What the vendor's own code has signed.
#[test]
fn captured_signatures() {
    let vectors = fs::read_to_string(folder("data/usersig-vectors.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(&vectors).unwrap();
    for vector in &vectors {
        for (kind, field) in [('t', "usersig"), ('j', "json")] {
            let text = format!("{kind}{}", vector[field].as_str().unwrap());
            run(fuzz::usersig::check, text.as_bytes(), "a vector");
        }
    }
    assert!(!vectors.is_empty());
}

/// Every configuration file of the tests and the example.
#[test]
fn known_configurations() {
    let mut seen = 0;
    for kind in ["config_files/valid", "config_files/invalid", "../deploy"] {
        for name in names(&folder(kind))
            .iter()
            .filter(|name| name.ends_with(".toml"))
        {
            let text = fs::read(folder(kind).join(name)).unwrap();
            run(fuzz::config::check, &text, name);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}
