//! Our signatures and those of the vendor's own package (`tls-sig-api-v2`) are the same, and each is good for the other.
//!
//! What is compared is the decoded JSON, which holds the HMAC: the deflate bytes differ between zlib builds.

#![expect(
    clippy::unwrap_used,
    reason = "a failing helper of a test is a failing test"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use imgate::connectors::tencent::usersig::{UserSig, mint};
use imgate::types::{Secret, UnixMillis};
use serde::{Deserialize, Serialize};

#[path = "support/vendor.rs"]
mod vendor;

use vendor::{SDK_APP_ID, SECRET_KEY, node};

/// A signature of ours, and what it was made from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    sdk_app_id: u64,
    key: &'static str,
    user: &'static str,
    expire: u64,
    time: Option<u64>,
    userbuf: Option<&'static str>,
    ours: String,
}

/// What the vendor's package makes of a case.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    theirs: String,
    their_json: String,
    our_json: String,
}

/// Asks the vendor's package.
fn vendor_answers(cases: &[Case]) -> Vec<Answer> {
    let mut child = node("usersig.mjs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for case in cases {
        writeln!(stdin, "{}", serde_json::to_string(case).unwrap()).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "usersig.mjs failed");
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), cases.len());
    answers
}

/// A case minted by the library.
fn minted(
    user: &'static str,
    key: &'static str,
    expire: u64,
    userbuf: Option<&'static str>,
) -> Case {
    let time = 1_700_000_000;
    let signature = mint(
        SDK_APP_ID,
        &Secret::new(key.to_owned()),
        user,
        UnixMillis::from_secs(time),
        Duration::from_secs(expire),
        userbuf.map(str::as_bytes),
    );
    Case {
        sdk_app_id: SDK_APP_ID,
        key,
        user,
        expire,
        time: Some(time),
        userbuf,
        ours: signature.expose().clone(),
    }
}

#[test]
fn both_mint_the_same_and_read_each_other() {
    let long = "u".repeat(64).leak();
    let cases = [
        minted("bot1", SECRET_KEY, 86400, None),
        minted("bot1", "another-key", 604_800, None),
        minted("用户-1@x", "schlüssel", 180, None),
        minted("a \"quoted\" \\ name", SECRET_KEY, 1, None),
        minted(long, SECRET_KEY, 10_000_000_000, None),
        minted("bot1", SECRET_KEY, 86400, Some("hello")),
        minted("bot1", SECRET_KEY, 86400, Some("房间")),
    ];
    for (case, answer) in cases.iter().zip(vendor_answers(&cases)) {
        assert_eq!(answer.our_json, answer.their_json, "{}", case.user);

        let theirs = UserSig::parse(&answer.theirs).unwrap();
        assert_eq!(theirs.account, case.user);
        assert_eq!(theirs.sdk_app_id, case.sdk_app_id);
        assert_eq!(theirs.issued_at.as_secs(), case.time.unwrap());
        assert_eq!(theirs.lifetime.as_secs(), case.expire);
        assert_eq!(theirs.userbuf.as_deref(), case.userbuf.map(str::as_bytes));
        assert!(
            theirs.verify(&Secret::new(case.key.to_owned())),
            "{}",
            case.user
        );
        assert!(
            !theirs.verify(&Secret::new(String::from("wrong"))),
            "{}",
            case.user
        );
    }
}

#[test]
fn what_the_command_line_mints_is_the_vendors_too() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), format!("{SECRET_KEY}\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_imgate"))
        .args(["sig", "mint", "--account", "bot1", "--lifetime", "90s"])
        .args(["--sdk-app-id", &SDK_APP_ID.to_string()])
        .arg("--secret-key-file")
        .arg(key.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "imgate sig mint: {errors}");
    let case = Case {
        sdk_app_id: SDK_APP_ID,
        key: SECRET_KEY,
        user: "bot1",
        expire: 90,
        time: None,
        userbuf: None,
        ours: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
    };
    let answers = vendor_answers(&[case]);
    assert_eq!(answers[0].our_json, answers[0].their_json);
}
