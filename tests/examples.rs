//! The examples do what they say: they talk with the vendor's SDK through the gateway and the simulator, and come through
//! a restart of the gateway.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper of a test is a failing test"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::Value;

#[path = "support/process.rs"]
mod process;
#[path = "support/simulator.rs"]
mod simulator;
#[path = "support/vendor.rs"]
mod vendor;

use process::Process;
use simulator::{START, Simulator, ask};
use vendor::{SDK_APP_ID, SECRET_KEY};

/// How long an example may take until it is logged in: it may have to be built.
const LOGGED_IN: Duration = Duration::from_secs(180);

/// How long a talk may take.
const TALK: Duration = Duration::from_secs(120);

const API_KEY: &str = "the-key-of-the-example-bots-0123456789abcdef";

/// What the gateway needs to be started again as the same: its folder and its port.
struct Gateway {
    folder: tempfile::TempDir,
    port: u16,
}

impl Gateway {
    /// One that has the app's key.
    fn new(simulator: &Simulator) -> Self {
        Self::with(simulator, r#"secret_key = { file = "app.key" }"#)
    }

    /// One whose tenant has these lines, too.
    fn with(simulator: &Simulator, tenant: &str) -> Self {
        // The port must be the same after a restart, so it is chosen here.
        let any = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = any.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let hash = digest::digest(&digest::SHA256, API_KEY.as_bytes());
        let hash: String = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let config = format!(
            r#"
            grpc.listen = "127.0.0.1:{port}"
            ops.listen = "127.0.0.1:0"
            store.path = "imgate.redb"

            [[tenants]]
            id = "examples"
            sdk_app_id = {SDK_APP_ID}
            upstream_url = "{}"
            {tenant}

            [[tenants.api_keys]]
            id = "bots"
            sha256 = "{hash}"
            scopes = ["sessions", "events", "messages"]
            "#,
            simulator.sim,
        );
        std::fs::write(folder.path().join("app.key"), SECRET_KEY).unwrap();
        std::fs::write(folder.path().join("imgate.toml"), config).unwrap();
        Self { folder, port }
    }

    /// Starts it; dropping what is returned kills it with SIGKILL.
    fn start(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgate"));
        command
            .args(["serve", "--config"])
            .arg(self.folder.path().join("imgate.toml"));
        Process::start("imgate serve", &mut command)
    }

    /// Its address without a scheme.
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn checkout(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `examples/echo_bot.rs`, built as cargo builds it.
fn rust_bot(gateway: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(checkout(""))
        .args(["run", "--quiet", "--example", "echo_bot", "--"])
        .args(["--gateway", &format!("http://{gateway}")]);
    command
}

/// `examples/python/echo_bot.py`, in the tests' Python environment.
fn python_bot(gateway: &str) -> Command {
    let mut command = python("echo_bot.py");
    command.args(["--gateway", gateway]);
    command
}

/// A script of `examples/python`.
fn python(script: &str) -> Command {
    let python = checkout("tests/.env/venv/bin/python");
    assert!(
        python.exists(),
        "the Python packages are not installed: run ./tests/run.sh"
    );
    let mut command = Command::new(python);
    command
        .arg(checkout("examples/python").join(script))
        // A proxy of the machine's is not for this machine.
        .env("no_proxy", "127.0.0.1");
    command
}

/// Lets one of the vendor's SDKs talk with the bot.
fn talk(simulator: &Simulator, sdk: &str) {
    let mut command = simulator.script("bot_and_sdk.mjs", sdk, SECRET_KEY);
    command.args(["--user", &format!("human-{sdk}"), "--bot", "bot1"]);
    let finished = Process::start(&format!("bot and {sdk}"), &mut command).finish(TALK);
    let (answer, transcript) = (finished.answer, finished.transcript);
    assert!(finished.success, "{answer}\n\n{transcript}");
}

/// What the simulator has counted for an account.
fn count(control: &str, account: &str, what: &str) -> u64 {
    let stats: Value = serde_json::from_str(&ask(control, "GET", "/stats", "")).unwrap();
    stats["users"][account][what].as_u64().unwrap()
}

/// A bot talks with both SDKs; the gateway is killed, a message comes meanwhile, and after the restart the bot answers it
/// and talks on, all on one upstream login.
fn echoes_over_a_restart(mut bot: Command, gateway: Gateway, simulator: &Simulator) {
    let control = &simulator.control;
    let running = gateway.start();
    bot.args(["--account", "bot1", "--api-key", API_KEY]);
    let bot = Process::start("the bot", &mut bot);
    bot.printed("logged in as bot1", LOGGED_IN);
    talk(simulator, "chat");
    talk(simulator, "tim");

    drop(running);
    let answered = count(control, "bot1", "sent");
    let message = r#"{"from": "human-chat", "to": "bot1", "text": "while you were away"}"#;
    ask(control, "POST", "/message", message);
    let _running = gateway.start();
    poll("the answer to what came meanwhile", || {
        count(control, "bot1", "sent") > answered
    });
    talk(simulator, "chat");
    assert_eq!(count(control, "bot1", "logins"), 1);
    assert_eq!(count(control, "bot1", "resumes"), 1);
}

/// Polls until the condition holds.
fn poll(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + START;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < end,
            "{what} did not come within {START:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_bots_echo_in_dev() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgate"));
    command.args(["dev", "--bots", "0"]);
    // It is killed at the end, and so leaves its folder.
    let folder = tempfile::tempdir().unwrap();
    command.env("TMPDIR", folder.path());
    for listener in ["--grpc", "--ops", "--sim", "--sim-control"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    let dev = Process::start("imgate dev", &mut command);
    // As the commands that it prints for the two examples have them.
    let gateway = dev
        .printed("--gateway http://", START)
        .replacen("--gateway http://", "", 1);
    let control = dev.printed("curl http://", START);
    let control = control
        .trim_start_matches("curl ")
        .trim_end_matches("/stats");
    ask(control, "POST", "/account", r#"{"user_id": "human"}"#);
    for (account, mut bot) in [
        ("rusty", rust_bot(&gateway)),
        ("snake", python_bot(&gateway)),
    ] {
        let bot = Process::start(account, bot.args(["--account", account]));
        bot.printed(&format!("logged in as {account}"), LOGGED_IN);
        let message = format!(r#"{{"from": "human", "to": "{account}", "text": "hello"}}"#);
        ask(control, "POST", "/message", &message);
        poll("the echo", || count(control, account, "sent") == 1);
    }
}

#[test]
fn the_rust_bot_talks_with_the_vendors_sdk_over_a_restart() {
    let simulator = Simulator::start(&[]);
    let gateway = Gateway::new(&simulator);
    echoes_over_a_restart(rust_bot(&gateway.address()), gateway, &simulator);
}

#[test]
fn the_python_bot_talks_with_the_vendors_sdk_over_a_restart() {
    let simulator = Simulator::start(&[]);
    let gateway = Gateway::new(&simulator);
    echoes_over_a_restart(python_bot(&gateway.address()), gateway, &simulator);
}

/// A bot that has no signature and hears of none stays online over the ends of several: the issuer is asked for the first
/// and, ahead of time, for each next one.
#[test]
fn the_python_issuer_keeps_a_bot_online_over_the_ends_of_its_signatures() {
    let simulator = Simulator::start(&[]);
    let control = &simulator.control;
    let secrets = tempfile::tempdir().unwrap();
    let (key, token) = (secrets.path().join("app.key"), secrets.path().join("token"));
    std::fs::write(&key, SECRET_KEY).unwrap();
    std::fs::write(&token, "the-token-of-the-gateway\n").unwrap();
    let mut issuer = python("signature_issuer.py");
    issuer
        .args(["--listen", "127.0.0.1:0", "--accounts", "bot"])
        .args(["--sdk-app-id", &SDK_APP_ID.to_string()])
        .args(["--lifetime", "4"])
        .arg("--secret-key-file")
        .arg(&key)
        .arg("--token-file")
        .arg(&token);
    let issuer = Process::start("the issuer", &mut issuer);
    let address = issuer.printed("listening on ", START);
    let address = address.trim_start_matches("listening on ");
    let gateway = Gateway::with(
        &simulator,
        &format!(
            r#"
            issuers = ["callback"]
            login_spacing = "0s"
            callback = {{ url = "http://{address}", token = {{ file = "{}" }} }}
            "#,
            token.display()
        ),
    );
    let _running = gateway.start();
    let echo = |account: &str| {
        let mut bot = python_bot(&gateway.address());
        bot.args(["--account", account, "--api-key", API_KEY]);
        Process::start(account, &mut bot)
    };
    let bot = echo("bot1");
    bot.printed("logged in as bot1", LOGGED_IN);
    ask(control, "POST", "/account", r#"{"user_id": "human"}"#);
    let (mut echoed, ends) = (0, 4);
    while count(control, "bot1", "logins") <= ends {
        // At any time it is there, or is back in a moment.
        let message = r#"{"from": "human", "to": "bot1", "text": "still there?"}"#;
        ask(control, "POST", "/message", message);
        echoed += 1;
        poll("the echo", || count(control, "bot1", "sent") == echoed);
    }
    // Every signature was used once, and none was used that had ended.
    assert_eq!(count(control, "bot1", "refused"), 0);

    // Who is none of the tenant's is told so, and is not held.
    let stranger = echo("stranger").finish(LOGGED_IN);
    let said = stranger.transcript;
    assert!(
        !stranger.success && said.contains("FAILED_PRECONDITION"),
        "{said}"
    );
    assert!(said.contains("the issuer refuses the account"), "{said}");
}
