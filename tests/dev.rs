//! `imgate dev` as a user starts it: what it prints, what answers while it runs, and that its verdict can be bad.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper of a test is a failing test"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

#[path = "support/process.rs"]
mod process;

use process::{Finished, Process};

/// How long a process may take to start, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long a demo of 12 s may take on a busy machine, also when it waits in vain for something.
const END: Duration = Duration::from_secs(90);

/// The last line when nothing is wrong.
const GOOD: &str = "verdict: all was as it should be, and the gateway stopped in time";

fn dev(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgate"));
    command.arg("dev").args(arguments).env("NO_COLOR", "1");
    command
}

/// A demo of 12 s on ports of its own.
fn start(more: &[&str]) -> Process {
    let mut command = dev(&["--seconds", "12", "--grpc", "127.0.0.1:0"]);
    command.args(["--ops", "127.0.0.1:0"]).args(more);
    Process::start("imgate dev", &mut command)
}

/// The address behind a label in the list of places.
fn place(dev: &Process, label: &str) -> String {
    let line = format!("{label:<14}http://");
    dev.printed(&line, START).replacen(&line, "", 1)
}

/// Sends a request and returns the whole answer.
fn ask(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(START)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "{path} {body}: {answer}"
    );
    answer
}

fn assert_says(finished: &Finished, words: &[&str]) {
    for words in words {
        let said = finished.transcript.contains(words);
        assert!(said, "no {words:?} in:\n{}", finished.transcript);
    }
}

#[test]
fn every_session_comes_through_and_the_verdict_is_good() {
    let dev = start(&[]);
    let grpc = place(&dev, "gRPC API");
    let ops = place(&dev, "operations");
    let control = place(&dev, "its control");
    dev.printed("1 of 7", START);
    ask(&ops, "GET", "/ready", "");
    let metrics = ask(&ops, "GET", "/metrics", "");
    assert!(metrics.contains("\nimgate_"), "{metrics}");
    let stats = ask(&control, "GET", "/stats", "");
    assert!(stats.contains("\"bot3\""), "{stats}");

    let finished = dev.finish(END);
    assert!(finished.success, "{}", finished.transcript);
    assert_says(
        &finished,
        &[
            &format!(
                "grpcurl -plaintext -d '{{\"account\":\"alice\"}}' {grpc} imgate.v1.SessionService/Login"
            ),
            &format!("echo_bot.py --gateway {grpc} --account alice"),
            &format!("echo_bot -- --gateway http://{grpc} --account alice"),
            "bot1 is back: no login, 1 by ticket",
            "bot2        gets a fresh signature (70001 usersig expired)",
            "bot2 is back: 1 by signature",
            "left out",
        ],
    );
    assert_eq!(finished.answer, GOOD);
    for bot in ["bot1", "bot2", "bot3"] {
        assert_says(&finished, &[&format!("  {bot}        online ")]);
    }
    assert!(!finished.transcript.contains('\x1b'), "colours");
    assert!(
        !finished.transcript.contains("WRONG"),
        "{}",
        finished.transcript
    );
    // Its folder went with it.
    let stays = finished
        .transcript
        .lines()
        .find_map(|line| line.trim().strip_prefix("store "));
    let folder = stays.unwrap().split_whitespace().next().unwrap();
    assert!(folder.contains("imgate-dev-"), "{folder}");
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left");
}

#[test]
fn an_interrupt_ends_it_with_a_verdict() {
    let mut command = Command::new("timeout");
    command
        .args(["--signal", "INT", "--preserve-status", "8"])
        .args([env!("CARGO_BIN_EXE_imgate"), "dev"])
        .args(["--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0"]);
    let finished = Process::start("imgate dev", &mut command).finish(END);
    assert!(finished.success, "{}", finished.transcript);
    assert_says(&finished, &["ending;"]);
    assert_eq!(finished.answer, GOOD);
}

#[test]
fn a_kick_that_nobody_explains_makes_the_verdict_bad() {
    let dev = start(&[]);
    let control = place(&dev, "its control");
    dev.printed("2 of 7", START);
    ask(&control, "POST", "/kick", r#"{"user_id": "bot1"}"#);
    let finished = dev.finish(END);
    assert!(!finished.success, "{}", finished.transcript);
    assert_says(
        &finished,
        &[
            "verdict: NOT as it should be",
            "bot1 is not online: stopped",
            "bot1: the upstream counted 1 kicks; the programme explains 0",
            "bot1 could not send: message",
        ],
    );
}

#[test]
fn a_refusal_for_good_makes_the_verdict_bad() {
    let dev = start(&["--bots", "2"]);
    let control = place(&dev, "its control");
    dev.printed("1 of 7", START);
    ask(
        &control,
        "POST",
        "/refuse",
        r#"{"user_id": "bot2", "code": 70051, "times": 9}"#,
    );
    let finished = dev.finish(END);
    assert!(!finished.success, "{}", finished.transcript);
    assert_says(
        &finished,
        &[
            "WRONG",
            "a signature expires online: bot2 is stopped: the upstream refuses it for good (70051",
            "verdict: NOT as it should be",
        ],
    );
}

#[test]
fn a_port_that_is_taken_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for argument in ["--grpc", "--ops", "--sim", "--sim-control"] {
        let others = ["--grpc", "--ops"]
            .into_iter()
            .filter(|other| *other != argument);
        let mut command = dev(&[argument, &address]);
        for other in others {
            command.args([other, "127.0.0.1:0"]);
        }
        let finished = Process::start("imgate dev", &mut command).finish(START);
        assert!(!finished.success, "{}", finished.transcript);
        assert_says(&finished, &[argument, &address, "127.0.0.1:0 for any"]);
    }
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let mut command = dev(&["--grpc", "0.0.0.0:0"]);
    let finished = Process::start("imgate dev", &mut command).finish(START);
    assert!(!finished.success, "{}", finished.transcript);
    assert_says(&finished, &["--grpc", "loopback", "imgate serve"]);
}

#[test]
fn a_folder_that_is_kept_serves_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    for _ in 0..2 {
        let finished = start(&["--data", path.to_str().unwrap()]).finish(END);
        assert!(finished.success, "{}", finished.transcript);
        assert_says(&finished, &["stays when this ends"]);
        assert!(path.join("imgate.redb").exists());
    }
}
