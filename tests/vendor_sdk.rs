//! The vendor's own SDKs, unmodified, against `imgate sim`: what shows that the wire is the real one.
//!
//! The scenarios are in `tests/vendor_sdk/scenarios.mjs`. Each runs with both SDKs on a simulator of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper of a test is a failing test"
)]

use std::time::Duration;

#[path = "support/process.rs"]
mod process;
#[path = "support/simulator.rs"]
mod simulator;
#[path = "support/vendor.rs"]
mod vendor;

use process::{Finished, Process};
use simulator::{START, Simulator, ask};
use vendor::{SECRET_KEY, node};

/// The SDKs: the present generation, and the one before with the same protocol.
const SDKS: [&str; 2] = ["chat", "tim"];

/// How long a scenario may take; each of its waits has a deadline of its own.
const SCENARIO: Duration = Duration::from_secs(180);

/// Starts a scenario with one of the SDKs.
fn start(simulator: &Simulator, sdk: &str, scenario: &str, key: &str, more: &[&str]) -> Process {
    let mut command = simulator.script("run.mjs", sdk, key);
    command.args(["--scenario", scenario]).args(more);
    Process::start(&format!("{scenario} with {sdk}"), &mut command)
}

/// Runs a scenario with both SDKs side by side; their users are different ones.
fn run(simulator: &Simulator, scenario: &str, key: &str, more: &[&str]) -> [Finished; 2] {
    let running = SDKS.map(|sdk| start(simulator, sdk, scenario, key, more));
    running.map(|process| process.finish(SCENARIO))
}

/// Runs a scenario that must hold.
fn holds(scenario: &str) {
    let simulator = Simulator::start(&["--ack-timeout", "2"]);
    for finished in run(&simulator, scenario, SECRET_KEY, &[]) {
        assert!(finished.success, "{}", finished.transcript);
    }
}

/// Runs a scenario that must fail, for one of the reasons.
fn fails(simulator: &Simulator, scenario: &str, key: &str, more: &[&str], reasons: &[&str]) {
    for finished in run(simulator, scenario, key, more) {
        let answer = &finished.answer;
        assert!(!finished.success, "{scenario} {more:?} held: {answer}");
        let said: serde_json::Value = serde_json::from_str(answer).unwrap();
        let said = said["reason"].as_str().unwrap();
        let known = reasons.iter().any(|reason| said.contains(reason));
        assert!(
            known,
            "{scenario} {more:?} failed for another reason: {answer}"
        );
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        const SCENARIOS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                holds(stringify!($name));
            }
        )*
    };
}

scenarios! {
    login
    c2c
    group
    acked
    duplicate_push
    resent_message
    kicked_by_second_login
    kicked_by_operator
    signature_expired_at_login
    signature_expired_online
    short_signature
    reconnect
    stalled_link
    heartbeat
    catch_up
    waiting_messages
    logout
    wrong_key
    wrong_user
    wrong_app
    broken_signature
    refused_logins
}

/// The SDKs read every form in which the simulator compresses frames.
#[test]
fn every_compression_is_read() {
    for form in ["none", "gzip", "zlib", "sync-flush"] {
        let simulator = Simulator::start(&["--compress", form]);
        for finished in run(&simulator, "c2c", SECRET_KEY, &[]) {
            assert!(finished.success, "{form}: {}", finished.transcript);
        }
    }
}

#[test]
fn no_scenario_is_left_out() {
    let listed = Process::start("the list", node("run.mjs").arg("--list")).finish(START);
    let listed: Vec<String> = serde_json::from_str(&listed.answer).unwrap();
    assert_eq!(listed, SCENARIOS);
}

#[test]
fn the_oracle_sees_a_wrong_key() {
    fails(
        &Simulator::start(&[]),
        "login",
        "not the key",
        &[],
        &["70009"],
    );
}

#[test]
fn the_oracle_sees_a_refusal() {
    let simulator = Simulator::start(&[]);
    ask(
        &simulator.control,
        "POST",
        "/refuse",
        r#"{"code": 70051, "times": 2}"#,
    );
    fails(&simulator, "login", SECRET_KEY, &[], &["70051"]);
    for finished in run(&simulator, "login", SECRET_KEY, &[]) {
        assert!(finished.success, "{}", finished.transcript);
    }
}

/// Without any one of the fields that the SDKs need, a scenario must fail: were it to hold, it would show nothing.
#[test]
fn the_oracle_sees_a_missing_field() {
    let simulator = Simulator::start(&[]);
    let unread = "could not read a push";
    let unheard = "no message \"one\"";
    for (field, scenario, reasons) in [
        ("A2Key", "login", ["2023", "2023"]),
        ("TinyId", "login", ["2022", "2022"]),
        ("seq", "login", ["no answer to login", unread]),
        ("servcmd", "login", ["no answer to login", unread]),
        ("EventArray", "c2c", [unheard, unread]),
        ("From_Account", "c2c", [unheard, "\"one\" came from"]),
        ("MsgBody", "c2c", [unheard, unread]),
        (
            "KickType",
            "kicked_by_second_login",
            ["no KICKED_OUT", unread],
        ),
        (
            "NeedAck",
            "acked",
            ["acknowledgements did not come", unread],
        ),
    ] {
        let spoil = ["--spoil", field, "--deadline", "5"];
        fails(&simulator, scenario, SECRET_KEY, &spoil, &reasons);
    }
}
