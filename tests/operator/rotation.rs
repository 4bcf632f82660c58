//! Sealing keys that are rotated, from the command line and from the file.

use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::world::{World, until};

/// What `--json` printed last.
fn summary(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, before) = lines.split_last().unwrap();
    for partition in before {
        assert_eq!(partition["partition"]["tenant"], "acme", "{partition}");
    }
    last["summary"].clone()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn keys_are_rotated_while_sessions_live_and_the_old_one_is_taken_out() {
    let mut world = World::start("info").await;
    world.log_in("steady", 0).await;
    world.log_in("resting", 0).await;
    world.log_out("resting").await;

    // Nothing to do under the only key.
    let idle = world.rotate("operator.key", &["--json"]).await;
    assert!(idle.status.success(), "{}", errors(&idle));
    let none = summary(&idle);
    assert_eq!(
        (&none["active_key"], &none["total"]),
        (&"k1".into(), &0.into())
    );
    assert_eq!(none["old_events"], 0);

    world.configure("k2", &["k1", "k2"], "");
    world.reload("applied", 1.0).await;
    let rotated = world.rotate("operator.key", &["--json"]).await;
    assert!(rotated.status.success(), "{}", errors(&rotated));
    let done = summary(&rotated);
    assert_eq!(done["complete"], true, "{done}");
    assert_eq!(done["active_key"], "k2");
    assert_eq!((&done["records"], &done["failed"]), (&2.into(), &0.into()));
    // The sessions' own events were sealed, and cannot be sealed anew.
    assert!(done["old_events"].as_u64().unwrap() > 0, "{done}");
    let until_when = done["old_events_until"].as_str().unwrap();
    assert!(until_when.ends_with('Z'), "{until_when}");
    // For people.
    let text = world.rotate("operator.key", &[]).await;
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    for said in [
        "acme:0",
        "2 partitions, 2 records: 0 of 0 sealed anew under key k2, 0 failed",
        &format!("keep those keys until {until_when}"),
        "cursors and page tokens made under another key",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }

    world.configure("k2", &["k2"], "");
    world.reload("applied", 2.0).await;
    assert!(world.is_online("steady").await);
    world.restart().await;
    until("the session is back", async || {
        world.is_online("steady").await
    })
    .await;
    let steady = world.session("steady").await;
    assert_eq!((steady.logins, steady.resumes), (1, 1));
    assert_eq!(world.session("resting").await.logins, 1);
    world.log_in("resting", 0).await;

    let by_operator = |line: &&Value| {
        line["action"] == "rotate_keys"
            && line["caller_kind"] == "operator"
            && line["caller_id"] == "ops-1"
            && line["outcome"] == "OK"
    };
    assert_eq!(world.audit().iter().filter(by_operator).count(), 3);
}

#[tokio::test]
async fn a_key_that_is_gone_fails_and_is_told() {
    let mut world = World::start("info").await;
    world.log_in("steady", 0).await;
    world.log_in("resting", 0).await;
    world.log_out("resting").await;
    // The key goes before its records were sealed anew. Who runs does not need it.
    world.configure("k3", &["k3"], "");
    world.reload("applied", 1.0).await;
    let failed = world.rotate("operator.key", &["--json"]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(errors(&failed).contains("not every record is under the active key"));
    let summary = summary(&failed);
    assert_eq!(summary["complete"], false);
    assert_eq!(
        (&summary["failed"], &summary["partitions_failed"]),
        (&1.into(), &1.into())
    );
    assert!(world.is_online("steady").await);
    let incomplete = |line: &&Value| line["reason"] == "INCOMPLETE";
    assert_eq!(world.audit().iter().filter(incomplete).count(), 1);
    // A login writes the record anew.
    world.log_in("resting", 0).await;
    let mended = world.rotate("operator.key", &["--json"]).await;
    assert!(mended.status.success(), "{}", errors(&mended));
    world.restart().await;
    for account in ["steady", "resting"] {
        until("the session is back", async || {
            world.is_online(account).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_key_that_keeps_its_name_and_changes_is_refused() {
    let world = World::start("info").await;
    world.log_in("steady", 0).await;
    std::fs::write(world.file("k1.key"), "44".repeat(32)).unwrap();
    world.reload("refused", 1.0).await;
    let log = std::fs::read_to_string(world.file("imgate.log")).unwrap();
    assert!(log.contains("give the new key an ID of its own"), "{log}");
    assert!(world.is_online("steady").await);
}

#[tokio::test]
async fn nobody_but_an_operator_rotates() {
    let world = World::start("info").await;
    std::fs::write(world.file("wrong.key"), "nobody's-key-0123456789abcdef").unwrap();
    for (key, said) in [
        ("api.key", "PermissionDenied"),
        ("wrong.key", "Unauthenticated"),
        ("none.key", "cannot read"),
    ] {
        let refused = world.rotate(key, &[]).await;
        assert_eq!(refused.status.code(), Some(1), "{key}");
        let errors = errors(&refused);
        assert!(errors.contains(said), "{key}: {errors}");
        assert!(!errors.contains("0123456789abcdef"), "{key}: {errors}");
    }
}

#[test]
fn a_new_key_is_one_that_can_be_used() {
    let new = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_imgate"));
        let output = command.args(["keys", "new"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let (one, other) = (new(), new());
    assert_ne!(one, other);
    assert_eq!(STANDARD.decode(one.trim_end()).unwrap().len(), 32);
}
