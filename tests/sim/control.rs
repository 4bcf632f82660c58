//! The control port by HTTP, and the binary as a process of its own.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::client::{APP, Client, KEY, PATIENCE, sig};
use crate::{HEARTBEAT, PUSH, c2c_text, http, online, sim};

#[tokio::test]
async fn trouble_can_be_made() {
    let sim = sim().await;
    let control = sim.control_addr();
    let mut client = online(&sim, "a").await;
    let post =
        async |path: &str, body: Value| http(control, "POST", path, &body.to_string()).await.0;
    assert_eq!(
        post(
            "/overload",
            json!({ "user_id": "a", "command": "openim.sendmsg", "seconds": 5 })
        )
        .await,
        200
    );
    let push = client.push("OverLoadPush.notify2").await;
    assert_eq!(
        push,
        json!({ "OverLoadServCmd": "openim.sendmsg", "DelaySecs": 5 })
    );
    assert_eq!(
        post(
            "/push",
            json!({ "user_id": "a", "servcmd": "x.y", "body": [1] })
        )
        .await,
        200
    );
    assert_eq!(client.push("x.y").await, json!([1]));
    let frame = br#"{"head":{"servcmd":"raw.push"},"body":{"n":1}}"#;
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        post("/raw", json!({ "user_id": "a", "hex": hex })).await,
        200
    );
    assert_eq!(client.push("raw.push").await, json!({ "n": 1 }));
    assert_eq!(
        post("/refuse", json!({ "code": 50001, "times": 2 })).await,
        200
    );
    let ticket = client.ticket.clone().unwrap();
    assert_eq!(client.resume(&ticket).await["ErrorCode"], 50001);
    assert_eq!(client.log_in("a", &sig("a", 600)).await["ErrorCode"], 50001);
    assert_eq!(client.resume(&ticket).await["ErrorCode"], 0);
    assert_eq!(post("/account", json!({ "user_id": "human" })).await, 200);
    assert_eq!(
        post(
            "/message",
            json!({ "from": "human", "to": "a", "text": "hi" })
        )
        .await,
        200
    );
    assert_eq!(c2c_text(&client.push(PUSH).await), "hi");
    assert_eq!(post("/expire", json!({ "user_id": "a" })).await, 200);
    assert_eq!(
        client.request(HEARTBEAT, json!({})).await["ErrorCode"],
        70001
    );
    assert_eq!(client.log_in("a", &sig("a", 600)).await["ErrorCode"], 0);
    assert_eq!(
        post("/stall", json!({ "user_id": "a", "seconds": 0.01 })).await,
        200
    );
    assert_eq!(post("/kick", json!({ "user_id": "a" })).await, 200);
    client.push("im_open_status.stat_forceoffline").await;
    assert_eq!(post("/kick", json!({ "user_id": "a" })).await, 409);
}

/// Method, path, body, status, and what the error must say.
const WRONG: &str = r#"
    POST /kick {"user_id":"nobody"} -> 404 unknown user "nobody"
    POST /kick {"user":"a"} -> 400 unknown field `user`
    POST /kick  -> 400 missing field `user_id`
    POST /kick {"user_id":"a","kick_type":4} -> 400 kick_type
    POST /kick garbage -> 400 expected
    POST /expire {"user_id":"nobody"} -> 404 nobody
    POST /drop {"user_id":"nobody"} -> 404 nobody
    POST /stall {"user_id":"a","seconds":-1} -> 400 seconds
    POST /refuse {"user_id":"nobody","code":1} -> 404 nobody
    POST /refuse {"code":0} -> 400 greater than 0
    POST /message {"from":"a","to":"nobody","text":""} -> 404 nobody
    POST /message {"from":"a","text":""} -> 400 one of `to` and `group`
    POST /message {"from":"a","group":"g","text":""} -> 404 unknown group
    POST /group {"group":"g","members":["nobody"]} -> 404 nobody
    POST /group {"group":"","members":[]} -> 400 must not be empty
    POST /account {"user_id":""} -> 400 must not be empty
    POST /raw {"user_id":"a","hex":"zz"} -> 400 hex
    POST /load {"seconds":0} -> 400 seconds
    POST /load {"text_bytes":1} -> 400 text_bytes
    POST /load {"per_write":0} -> 400 per_write
    POST /load {"per_write":2,"unacknowledged":1} -> 400 unacknowledged
    POST /load {"events_per_second":-1} -> 400 events_per_second
    POST /load {"prefix":"nobody"} -> 400 nobody is online
    POST /stats  -> 404 GET /stats
    GET /nothing  -> 404 GET /stats
"#;

#[tokio::test]
async fn wrong_control_requests_are_refused_with_a_reason() {
    let sim = sim().await;
    online(&sim, "a").await;
    let mut seen = 0;
    for line in WRONG.lines().filter(|line| !line.is_empty()) {
        let (request, expected) = line.trim().split_once("-> ").unwrap();
        let [method, path, body] = request.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (status, reason) = expected.split_once(' ').unwrap();
        let (got, answer) = http(sim.control_addr(), method, path, body.trim()).await;
        assert_eq!(got.to_string(), status, "{line} {answer}");
        let text = answer["error"].as_str().unwrap();
        assert!(text.contains(reason), "{line} {text}");
        seen += 1;
    }
    assert_eq!(seen, 25);
    let users = sim.stats().users;
    assert_eq!(users.len(), 1, "no refused request has made an account");
}

#[tokio::test]
async fn the_binary_prints_where_it_is_and_stops_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("key");
    std::fs::write(&key_file, format!("{KEY}\n")).unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_imgate"))
        .args(["sim", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"])
        .args(["--sdk-app-id", &APP.to_string(), "--secret-key-file"])
        .arg(&key_file)
        .args(["--hello-interval", "7", "--compress", "sync-flush"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = async |prefix: &str| -> SocketAddr {
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        line.strip_prefix(prefix).expect(prefix).parse().unwrap()
    };
    let listen = address("sim listening on ").await;
    let control = address("sim control on http://").await;
    let mut client = Client::connect(listen, "i").await;
    assert_eq!(
        client.log_in("bot1", &sig("bot1", 600)).await["HelloInterval"],
        7
    );
    let (status, stats) = http(control, "GET", "/stats", "").await;
    assert_eq!(
        (status, &stats["users"]["bot1"]["online"]),
        (200, &json!(true))
    );
    let pid = child.id().unwrap().to_string();
    let killed = tokio::process::Command::new("sh")
        .args(["-c", "kill -TERM \"$0\"", &pid])
        .status()
        .await;
    assert!(killed.unwrap().success());
    let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn the_binary_mints_and_inspects() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("key");
    std::fs::write(&key_file, KEY).unwrap();
    let imgate = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_imgate"))
            .args(args)
            .output()
            .unwrap()
    };
    let key_file = key_file.to_str().unwrap();
    let minted = imgate(&[
        "sig",
        "mint",
        "--sdk-app-id",
        "7",
        "--secret-key-file",
        key_file,
        "--account",
        "b",
    ]);
    assert!(minted.status.success());
    let sig = String::from_utf8(minted.stdout).unwrap();
    let read = imgate(&["sig", "inspect", sig.trim(), "--secret-key-file", key_file]);
    let text = String::from_utf8(read.stdout).unwrap();
    assert!(
        read.status.success() && text.contains("signature: valid"),
        "{text}"
    );
    let bad = imgate(&["sig", "inspect", "garbage"]);
    let text = String::from_utf8(bad.stderr).unwrap();
    assert!(
        bad.status.code() == Some(1) && text.starts_with("error: the signature"),
        "{text}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let sim = imgate(&[
        "sim",
        "--listen",
        &addr,
        "--control",
        "127.0.0.1:0",
        "--sdk-app-id",
        "7",
        "--secret-key-file",
        key_file,
    ]);
    let text = String::from_utf8(sim.stderr).unwrap();
    assert!(
        sim.status.code() == Some(1) && text.contains("cannot listen on"),
        "{text}"
    );
}
