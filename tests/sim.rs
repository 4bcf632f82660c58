//! The simulator over real sockets: a bare client on its wire, and HTTP on its control port.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test helpers fail by panicking"
)]

#[path = "sim/client.rs"]
mod client;
#[path = "sim/control.rs"]
mod control;
#[path = "sim/load.rs"]
mod load;

use std::net::SocketAddr;
use std::time::Duration;

use imgate::connectors::websocket::{Dial as _, Dialer};
use imgate::runtime::supervisor::Tasks;
use imgate::sim::{CompressionMode, Sim, SimError, SimHandle, SimOptions, SimTls};
use imgate::types::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{APP, Client, PATIENCE, Ticket, key, sig};

const HEARTBEAT: &str = "heartbeat.alive";
const PUSH: &str = "im_open_push.msg_push";

async fn sim_with(change: impl FnOnce(&mut SimOptions)) -> SimHandle {
    let mut options = SimOptions::new(APP, key());
    change(&mut options);
    Sim::start(options, &Tasks::new()).await.unwrap()
}

async fn sim() -> SimHandle {
    sim_with(|_| {}).await
}

async fn online(sim: &SimHandle, account: &str) -> Client {
    let mut client = Client::connect(sim.listen_addr(), account).await;
    let answer = client.log_in(account, &sig(account, 600)).await;
    assert_eq!(answer["ErrorCode"], 0, "{answer}");
    client
}

fn text(to: &str, seq: u64, text: &str) -> Value {
    json!({
        "To_Account": to, "MsgSeq": seq, "MsgRandom": seq, "MsgClientTime": 1,
        "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }],
    })
}

fn c2c_text(push: &Value) -> &Value {
    &push["EventArray"][0]["C2cMsgArray"][0]["MsgBody"][0]["MsgContent"]["Text"]
}

fn group_seq(push: &Value) -> &Value {
    &push["EventArray"][0]["GroupMsgArray"][0]["MsgSeq"]
}

/// Polls until the condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, polled).await.expect(what);
}

/// One HTTP request to the control port.
async fn http(addr: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("an HTTP answer in time")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_login_gives_a_ticket_and_the_purchase_bits() {
    let sim = sim().await;
    let mut client = Client::connect(sim.listen_addr(), "i").await;
    assert_eq!(client.request(HEARTBEAT, json!({})).await["ErrorCode"], 0);
    let refused = client
        .request("openim.getmsg", json!({ "Cookie": "" }))
        .await;
    assert_eq!(refused["ErrorCode"], 70003);
    let answer = client.log_in("bot1", &sig("bot1", 600)).await;
    assert_eq!(answer["HelloInterval"], 120);
    assert_eq!(answer["TinyId"], "144115200000000001");
    let bits = client
        .push("im_sdk_config_mgr.push_imsdk_purchase_bitsv2")
        .await;
    assert_eq!(bits["uint32_expired_time"], 3600);
    for command in [
        HEARTBEAT,
        "im_open_status.wshello",
        "sns.black_list_get",
        "no.such",
    ] {
        assert_eq!(
            client.request(command, json!({})).await["ErrorCode"],
            0,
            "{command}"
        );
    }
    let config = client
        .request("im_sdk_config_mgr.fetch_config", json!({}))
        .await;
    assert_eq!(config["int32_error_code"], 0);
    assert_eq!(sim.stats().online, 1);
    let out = client
        .request("im_open_status.wslogout", json!({ "wslogout_type": 0 }))
        .await;
    assert_eq!(out["ErrorCode"], 0);
    assert_eq!(sim.stats().online, 0);
    // What was under way behind the logout is refused alone; a heartbeat needs no login.
    let refused = client
        .request("openim.getmsg", json!({ "Cookie": "" }))
        .await;
    assert_eq!(refused["ErrorCode"], 70003);
    let alive = client.request(HEARTBEAT, json!({})).await;
    assert_eq!(alive["ErrorCode"], 0);
    sim.stop().await;
    client.closed().await;
}

#[tokio::test]
async fn only_binary_frames_on_the_one_path_are_understood() {
    let sim = sim().await;
    assert!(
        Client::connect_to(sim.listen_addr(), "/info?platform=7")
            .await
            .is_err()
    );
    let mut client = Client::connect(sim.listen_addr(), "i").await;
    let ignored = r#"{"head":{"servcmd":"heartbeat.alive","seq":1},"body":{}}"#;
    client.send_message(Message::text(ignored)).await;
    client
        .send_message(Message::binary(b"garbage".to_vec()))
        .await;
    // An answer to either of them would be an answer to nothing.
    assert_eq!(client.request(HEARTBEAT, json!({})).await["ErrorCode"], 0);
    let wrong = r#"{"head":{"servcmd":"heartbeat.alive","seq":2000,"cs":7},"body":{}}"#;
    client
        .send_message(Message::binary(wrong.as_bytes().to_vec()))
        .await;
    assert_eq!(client.answer(HEARTBEAT, 2000).await["ErrorCode"], 70402);
}

#[tokio::test]
async fn bad_logins_are_refused_and_the_connection_lives() {
    let sim = sim_with(|options| options.login_spacing = Duration::from_secs(600)).await;
    let mut client = Client::connect(sim.listen_addr(), "i").await;
    for (sig, code) in [
        (String::new(), 70002),
        (String::from("garbage"), 70003),
        (sig("bot2", 600), 70013),
        (sig("bot1", 0), 70001),
        (sig("bot1", 600), 0),
        (sig("bot1", 600), 70402),
    ] {
        assert_eq!(client.log_in("bot1", &sig).await["ErrorCode"], code);
    }
    let (status, stats) = http(sim.control_addr(), "GET", "/stats", "").await;
    assert_eq!(
        (status, &stats["logins"], &stats["refused"]),
        (200, &json!(1), &json!(5))
    );
}

#[tokio::test]
async fn a_drop_costs_a_resume_and_no_login() {
    let sim = sim().await;
    let mut client = online(&sim, "bot1").await;
    let ticket = client.ticket.clone().unwrap();
    let (status, dropped) =
        http(sim.control_addr(), "POST", "/drop", r#"{"user_id":"bot1"}"#).await;
    assert_eq!((status, &dropped["dropped"]), (200, &json!(1)));
    client.closed().await;
    let mut client = Client::connect(sim.listen_addr(), "bot1").await;
    // What was under way when the connection broke is sent again before the login.
    client.ticket = Some(ticket.clone());
    assert_eq!(
        client.request("openim.getmsg", json!({})).await["ErrorCode"],
        0
    );
    let answer = client.resume(&ticket).await;
    assert_eq!(
        (&answer["A2Key"], &answer["InstId"]),
        (&json!(ticket.a2), &json!(ticket.inst_id))
    );
    assert_eq!(sim.drop_connections(None).unwrap(), 1);
    client.closed().await;
    until("nobody is online", || sim.stats().online == 0).await;
    let mut first = Client::connect(sim.listen_addr(), "bot1").await;
    first.resume(&ticket).await;
    let mut second = Client::connect(sim.listen_addr(), "bot1").await;
    second.resume(&ticket).await;
    first.closed().await;
    assert_eq!(second.request(HEARTBEAT, json!({})).await["ErrorCode"], 0);
    let user = sim.stats().users["bot1"];
    assert_eq!(
        (user.logins, user.resumes, user.connections, user.kicked),
        (1, 3, 4, 0)
    );
    assert!(user.online);
}

#[tokio::test]
async fn a_second_login_kicks_the_first() {
    let sim = sim().await;
    let mut first = online(&sim, "bot1").await;
    let mut second = Client::connect(sim.listen_addr(), "another").await;
    second.log_in("bot1", &sig("bot1", 600)).await;
    let kick = first.push("im_open_status.stat_forceoffline").await;
    let notify = &kick["EventArray"][0]["C2cNotifyMsgArray"][0]["KickoutMsgNotify"];
    assert_eq!(notify["KickType"], 1);
    assert_eq!(
        notify["NewInstInfo"]["InstId"],
        second.ticket.as_ref().unwrap().inst_id
    );
    let out = first
        .request("im_open_status.wslogout", json!({ "wslogout_type": 1 }))
        .await;
    assert_eq!(out["ErrorCode"], 0);
    let ticket = first.ticket.clone().unwrap();
    assert_eq!(first.resume(&ticket).await["ErrorCode"], 20002);
    assert_eq!(second.request(HEARTBEAT, json!({})).await["ErrorCode"], 0);
    sim.kick("bot1", 3).unwrap();
    let kick = second.push("im_open_status.stat_forceoffline").await;
    assert_eq!(
        kick["EventArray"][0]["C2cNotifyMsgArray"][0]["KickoutMsgNotify"]["KickType"],
        3
    );
    assert_eq!(sim.stats().users["bot1"].kicked, 2);
}

#[tokio::test]
async fn an_expired_signature_ends_the_session() {
    let sim = sim().await;
    let mut client = online(&sim, "bot1").await;
    sim.expire("bot1").unwrap();
    for command in [HEARTBEAT, "openim.sendmsg", "im_open_status.wshello"] {
        assert_eq!(
            client.request(command, json!({})).await["ErrorCode"],
            70001,
            "{command}"
        );
    }
    let ticket = client.ticket.clone().unwrap();
    assert_eq!(client.resume(&ticket).await["ErrorCode"], 70001);
    // Whole seconds: with 1 the signature could be at its end already.
    let answer = client.log_in("bot1", &sig("bot1", 2)).await;
    assert_eq!(answer["ErrorCode"], 0);
    let expired = async {
        loop {
            let code = client.request(HEARTBEAT, json!({})).await["ErrorCode"].clone();
            if code != 0 {
                return code;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, expired).await.unwrap(), 70001);
}

#[tokio::test]
async fn messages_are_pushed_until_acknowledged_and_sent_once() {
    let sim = sim_with(|options| options.ack_timeout = Duration::from_millis(50)).await;
    let (mut a, mut b) = (online(&sim, "a").await, online(&sim, "b").await);
    let first = a.request("openim.sendmsg", text("b", 1, "one")).await;
    assert_eq!(
        a.request("openim.sendmsg", text("b", 1, "one")).await,
        first
    );
    let push = b.push(PUSH).await;
    assert_eq!(
        (c2c_text(&push), &push["NeedAck"]),
        (&json!("one"), &json!(1))
    );
    let again = b.push(PUSH).await;
    assert_eq!(again, push, "the same push comes again");
    b.acknowledge(&again).await;
    until("the push is acknowledged", || {
        sim.stats().users["b"].acked == 1
    })
    .await;
    a.request("openim.sendmsg", text("b", 2, "two")).await;
    let push = b.push(PUSH).await;
    assert_eq!(
        c2c_text(&push),
        "two",
        "what is acknowledged does not come again"
    );
    let stats = sim.stats();
    assert_eq!(stats.users["a"].sent, 2);
    assert_eq!((stats.users["b"].delivered, stats.users["b"].acked), (2, 1));
    let page = b
        .request("openim.getmsg", json!({ "Cookie": "", "SyncFlag": 0 }))
        .await;
    let texts: Vec<_> = page["MsgList"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["MsgSeq"])
        .collect();
    assert_eq!(
        texts,
        [2],
        "without a cookie only what is not acknowledged comes"
    );
}

#[tokio::test]
async fn what_was_missed_is_caught_up_page_by_page() {
    let sim = sim_with(|options| options.page_size = 2).await;
    let (mut a, mut b) = (online(&sim, "a").await, online(&sim, "b").await);
    let page = b.request("openim.getmsg", json!({ "Cookie": "" })).await;
    let mut cookie = page["Cookie"].clone();
    let ticket = b.ticket.clone().unwrap();
    drop(b);
    until("b is away", || !sim.stats().users["b"].online).await;
    for n in 1..=5 {
        a.request("openim.sendmsg", text("b", n, &n.to_string()))
            .await;
    }
    let mut b = Client::connect(sim.listen_addr(), "b").await;
    b.resume(&ticket).await;
    let mut seen = Vec::new();
    loop {
        let page = b
            .request("openim.getmsg", json!({ "Cookie": cookie, "SyncFlag": 0 }))
            .await;
        let list = page["MsgList"].as_array().unwrap();
        seen.extend(
            list.iter()
                .map(|message| message["MsgSeq"].as_u64().unwrap()),
        );
        cookie = page["Cookie"].clone();
        if page["SyncFlag"] == 2 {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert_eq!(sim.stats().users["b"].delivered, 0);
}

#[tokio::test]
async fn groups_have_numbers_and_reading_positions() {
    let sim = sim().await;
    let (mut a, mut b) = (online(&sim, "a").await, online(&sim, "b").await);
    let body = r#"{"group":"G1","members":["a","b"]}"#;
    assert_eq!(
        http(sim.control_addr(), "POST", "/group", body).await.0,
        200
    );
    let send = json!({
        "GroupId": "G1", "Random": 7, "ClientSeq": 1, "MsgPriority": "Normal",
        "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": "hi" } }],
    });
    let command = "group_open_http_svc.send_group_msg";
    assert_eq!(a.request(command, send.clone()).await["MsgSeq"], 1);
    assert_eq!(a.request(command, send).await["MsgSeq"], 1);
    sim.group_message("a", "G1", "two").unwrap();
    let (first, second) = (b.push(PUSH).await, b.push(PUSH).await);
    assert_eq!(
        (group_seq(&first), group_seq(&second)),
        (&json!(1), &json!(2))
    );
    b.acknowledge(&first).await;
    let list = b
        .request("group_open_http_svc.get_joined_group_list", json!({}))
        .await;
    let group = &list["GroupIdList"][0];
    assert_eq!(
        (&group["NextMsgSeq"], &group["SelfInfo"]["MsgSeq"]),
        (&json!(3), &json!(1))
    );
    let body = json!({ "GroupId": "G1", "ReqMsgNumber": 15, "ReqMsgSeq": 16 });
    let read = b.request("group_open_http_svc.group_msg_get", body).await;
    assert_eq!(read["RspMsgList"][0]["MsgSeq"], 2, "newest first");
    assert_eq!(
        read["RspMsgList"].as_array().unwrap().len(),
        1,
        "number 1 is not asked for"
    );
}

#[tokio::test]
async fn every_compression_is_spoken_to_those_who_ask_for_it() {
    for (mode, opening) in [
        (CompressionMode::None, &b"{\"head"[..]),
        (CompressionMode::Auto, b"{\"head"),
        (CompressionMode::Gzip, b"COMP\x1f\x8b"),
        (CompressionMode::Zlib, b"COMP\x78"),
        (CompressionMode::SyncFlush, b"COMP\x1f\x8b"),
    ] {
        let sim = sim_with(|options| options.compression = mode).await;
        let mut client = online(&sim, "a").await;
        client.request(HEARTBEAT, json!({})).await;
        assert!(
            client.packed.starts_with(opening),
            "{mode:?} {:?}",
            client.packed
        );
        sim.push(
            "a",
            "big.push",
            json!({ "x": "x".repeat(2000) }).to_string(),
        )
        .unwrap();
        client.push("big.push").await;
        let is_packed = client.packed.starts_with(b"COMP");
        assert_eq!(is_packed, mode != CompressionMode::None, "{mode:?}");
        let path = "/binfo?instanceid=i&platform=7&compress=none";
        let mut plain = Client::connect_to(sim.listen_addr(), path).await.unwrap();
        plain.request(HEARTBEAT, json!({})).await;
        assert!(plain.packed.starts_with(b"{\"head"));
    }
}

#[tokio::test]
async fn a_stalled_connection_says_nothing_for_a_while() {
    let sim = sim().await;
    let mut client = online(&sim, "a").await;
    sim.stall("a", Duration::from_millis(300)).unwrap();
    let begin = tokio::time::Instant::now();
    client.request(HEARTBEAT, json!({})).await;
    assert!(
        begin.elapsed() > Duration::from_millis(200),
        "{:?}",
        begin.elapsed()
    );
    sim.stall("a", Duration::from_secs(600)).unwrap();
    let mut other = Client::connect(sim.listen_addr(), "a").await;
    let ticket = client.ticket.clone().unwrap();
    assert_eq!(
        other.resume(&ticket).await["ErrorCode"],
        0,
        "a new connection is not concerned"
    );
    client.closed().await;
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let sim = sim_with(|options| options.heartbeat_timeout = Duration::from_secs(1)).await;
    let mut silent = Client::connect(sim.listen_addr(), "i").await;
    let mut client = online(&sim, "a").await;
    let beats = async {
        loop {
            client.request(HEARTBEAT, json!({})).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = silent.closed() => {}
        () = beats => {}
    }
    until("the silent one is gone", || sim.stats().connections == 1).await;
    assert_eq!(sim.stats().online, 1);
    client.closed().await;
    until("nobody is online", || sim.stats().online == 0).await;
}

#[tokio::test]
async fn hundreds_of_accounts_live_in_one_process() {
    const COUNT: usize = 300;
    let sim = sim().await;
    let names: Vec<String> = (0..COUNT).map(|n| format!("bot{n}")).collect();
    let mut clients = Vec::new();
    for name in &names {
        clients.push(online(&sim, name).await);
    }
    sim.group("all", &names).unwrap();
    sim.group_message("bot0", "all", "hello").unwrap();
    for client in clients.iter_mut().skip(1) {
        let push = client.push(PUSH).await;
        client.acknowledge(&push).await;
    }
    until("all have acknowledged", || {
        sim.stats()
            .users
            .values()
            .map(|user| user.acked)
            .sum::<u64>()
            == COUNT as u64 - 1
    })
    .await;
    let tickets: Vec<Ticket> = clients
        .iter()
        .filter_map(|client| client.ticket.clone())
        .collect();
    assert_eq!(sim.drop_connections(None).unwrap(), COUNT as u64);
    let mut back = Vec::new();
    for (name, ticket) in names.iter().zip(&tickets) {
        let mut client = Client::connect(sim.listen_addr(), name).await;
        assert_eq!(client.resume(ticket).await["ErrorCode"], 0);
        back.push(client);
    }
    let stats = sim.stats();
    let count = COUNT as u64;
    assert_eq!(
        (stats.online, stats.logins, stats.resumes),
        (count, count, count)
    );
    sim.stop().await;
    for client in &mut back {
        client.closed().await;
    }
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls() {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut options = SimOptions::new(APP, key());
    options.tls = Some(SimTls {
        certificate: pair.cert.pem().into_bytes(),
        key: Secret::new(pair.signing_key.serialize_pem().into_bytes()),
    });
    let sim = Sim::start(options.clone(), &Tasks::new()).await.unwrap();
    let url = format!("wss://localhost:{}", sim.listen_addr().port());
    let roots = pair.cert.pem();
    let dialer = Dialer::new(&url, Some(roots.as_bytes()), 1 << 20, PATIENCE).unwrap();
    let connection = dialer.dial("/binfo").await.unwrap();
    assert_eq!(sim.stats().connections, 1);
    drop(connection);
    sim.stop().await;

    options.tls = options.tls.map(|tls| SimTls {
        key: Secret::new(b"no key".to_vec()),
        ..tls
    });
    let refused = Sim::start(options, &Tasks::new()).await.unwrap_err();
    assert!(matches!(refused, SimError::Tls(_)), "{refused}");
}
