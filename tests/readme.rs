//! What README.md and the crate's documentation say is so: keys, defaults, metrics, codes, commands, files and tests.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgate::app::App;
use imgate::config::{Config, GrpcTls, JwtIssuer, JwtKeys, StoreKind, Tenant, reference};
use imgate::connectors::tencent::codes;
use imgate::observability::metrics as recorder;
use imgate::proto::v1::LoginRequest;
use imgate::proto::v1::session_service_client::SessionServiceClient;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use imgate::session::disposition::Disposition;
use imgate::types::{Secret, TenantId};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use tokio::time::Instant;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// How long the gateway may take until it has measured everything once.
const MEASURED_WITHIN: Duration = Duration::from_secs(20);

/// Keys that may be left out and have no value of their own then: the table says in words what happens.
const WITHOUT_DEFAULT: [&str; 39] = [
    "replica_id",
    "grpc.tls.cert_file",
    "grpc.tls.key_file",
    "grpc.tls.client_ca_file",
    "store.path",
    "store.url",
    "seal.active",
    "seal.keys",
    "jwt_issuers.id",
    "jwt_issuers.issuer",
    "jwt_issuers.audience",
    "jwt_issuers.jwks_file",
    "jwt_issuers.jwks_url",
    "jwt_issuers.jwks_ca_file",
    "jwt_issuers.jwks_token_file",
    "operators.id",
    "operators.sha256",
    "operators.prefix",
    "operators.not_before",
    "operators.not_after",
    "tenants.api_keys.prefix",
    "tenants.api_keys.not_before",
    "tenants.api_keys.not_after",
    "tenants.client_certificates.id",
    "tenants.client_certificates.name",
    "tenants.client_certificates.scopes",
    "tenants.jwt_subjects.id",
    "tenants.jwt_subjects.issuer",
    "tenants.jwt_subjects.subject",
    "tenants.jwt_subjects.scopes",
    "tenants.upstream_ca_file",
    "tenants.secret_key",
    "tenants.issuers",
    "tenants.callback.url",
    "tenants.callback.ca_file",
    "tenants.callback.cert_file",
    "tenants.callback.key_file",
    "tenants.callback.token",
    "tenants.limits.daily_active_users",
];

/// Labels whose values the table leaves to the gateway: names of its methods, tasks and so on.
const OPEN_LABELS: [&str; 8] = [
    "method",
    "code",
    "operation",
    "task",
    "version",
    "issuer",
    "tenant",
    "subscription",
];

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn readme() -> String {
    fs::read_to_string(checkout("README.md")).unwrap()
}

/// The rows of the one table with this head, as trimmed cells.
fn table(text: &str, head: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| *line != head);
    assert_eq!(lines.next(), Some(head), "the table is not there");
    let rows: Vec<Vec<String>> = lines
        .skip(1)
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|line| {
            line.split(" |")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .map(|mut row: Vec<String>| {
            // What stands behind the last bar.
            row.truncate(head.matches(" | ").count() + 1);
            row
        })
        .collect();
    assert!(!rows.is_empty());
    rows
}

/// What stands between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The lines of all code blocks of one language, block by block.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let found: Vec<String> = text
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect();
    assert!(!found.is_empty(), "no block of {language}");
    found
}

/// Every key of the reference with its value there, and whether it must be set.
fn keys() -> BTreeMap<String, (String, bool)> {
    let mut table = String::new();
    let mut keys = BTreeMap::new();
    for line in reference().lines() {
        let body = line.strip_prefix("# ").unwrap_or(line);
        if body.starts_with('[') && body.ends_with(']') {
            table = format!("{}.", body.trim_matches(['[', ']']));
        } else if let Some((key, value)) = body.split_once(" = ")
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            let required = !line.starts_with('#');
            keys.insert(format!("{table}{key}"), (value.to_owned(), required));
        }
    }
    keys
}

#[test]
fn the_configuration_table_has_every_key_with_its_default() {
    let keys = keys();
    assert!(keys.len() > 40, "{keys:?}");
    let rows = table(&readme(), "| Key | Default | Meaning |");
    let named: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let unique: BTreeSet<&str> = named.iter().copied().collect();
    assert_eq!(unique.len(), named.len(), "a key is there twice");
    assert_eq!(
        unique,
        keys.keys().map(String::as_str).collect::<BTreeSet<_>>()
    );
    for key in WITHOUT_DEFAULT {
        assert!(keys.contains_key(key), "{key} is no key any more");
    }
    for row in &rows {
        let key = row[0].trim_matches('`');
        let (value, required) = &keys[key];
        let default = row[1].as_str();
        if *required {
            assert_eq!(default, "required", "{key}");
        } else if !WITHOUT_DEFAULT.contains(&key) {
            assert_eq!(default, format!("`{value}`"), "{key}");
        }
        assert!(!default.is_empty() && !row[2].is_empty(), "{key}");
    }
}

/// Notes which metrics are described, and with which labels they are made.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    described: BTreeSet<String>,
    /// By name: each label with its values.
    made: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Noting {
    fn describe(&self, name: &KeyName) {
        let mut noted = self.0.lock().unwrap();
        noted.described.insert(name.as_str().to_owned());
    }

    fn make(&self, key: &Key) {
        let mut noted = self.0.lock().unwrap();
        let labels = noted.made.entry(key.name().to_owned()).or_default();
        for label in key.labels() {
            let values = labels.entry(label.key().to_owned()).or_default();
            values.insert(label.value().to_owned());
        }
    }

    fn not_made(&self) -> Vec<String> {
        let noted = self.0.lock().unwrap();
        let missing = |name: &&String| !noted.made.contains_key(*name);
        noted.described.iter().filter(missing).cloned().collect()
    }
}

impl Recorder for Noting {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.make(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.make(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.make(key);
        Histogram::noop()
    }
}

/// Runs a gateway for a moment, with one login and one panic, so that everything is measured once.
async fn measure_everything(noting: &Noting) {
    let handle = recorder::install().unwrap();
    let tenant = Tenant::new(
        TenantId::new("readme"),
        1_400_000_001,
        // Nobody listens on port 1.
        "ws://127.0.0.1:1".to_owned(),
    )
    .with_secret_key(Secret::new("key".to_owned()))
    .with_callback("http://127.0.0.1:1".to_owned());
    let mut config = Config::new(StoreKind::Memory, vec![tenant]);
    config.jwt_issuers = vec![JwtIssuer {
        id: "readme".to_owned(),
        issuer: "https://readme".to_owned(),
        audience: "imgate".to_owned(),
        keys: JwtKeys::File(checkout("tests/config_files/secrets/jwks.json")),
        refresh: Duration::from_secs(300),
        clock_skew: Duration::ZERO,
    }];
    config.grpc.listen = ([127, 0, 0, 1], 0).into();
    config.ops.listen = ([127, 0, 0, 1], 0).into();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = pair.cert.pem();
    config.grpc.tls = Some(GrpcTls {
        cert_pem: certificate.clone().into_bytes(),
        key_pem: Secret::new(pair.signing_key.serialize_pem().into_bytes()),
        client_ca_pem: None,
        clients_optional: false,
    });
    let app = App::start(config, handle).await.unwrap();
    app.ready().await;

    let gateway = Endpoint::from_shared(format!("https://{}", app.grpc_address())).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificate))
        .domain_name("localhost");
    let channel = gateway.tls_config(tls).unwrap().connect().await.unwrap();
    let mut sessions = SessionServiceClient::new(channel);
    let mut login = tonic::Request::new(LoginRequest {
        account: "bot".to_owned(),
        ..LoginRequest::default()
    });
    login.set_timeout(Duration::from_millis(200));
    sessions.login(login).await.unwrap_err();

    let tasks = Tasks::new();
    tasks.spawn("readme", TaskKind::Work, async { panic!("on purpose") });
    tasks.stop();
    tasks.ended().await;

    let end = Instant::now() + MEASURED_WITHIN;
    while !noting.not_made().is_empty() {
        assert!(Instant::now() < end, "never made: {:?}", noting.not_made());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(app.stop().await);
}

#[test]
fn the_metric_table_has_every_metric_with_its_labels() {
    let noting = Noting::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Everything runs on this thread, and so into this recorder.
    with_local_recorder(&noting, || runtime.block_on(measure_everything(&noting)));

    let noted = noting.0.lock().unwrap();
    let made: BTreeSet<&String> = noted.made.keys().collect();
    assert_eq!(
        made,
        noted.described.iter().collect(),
        "made but not described"
    );
    let readme = readme();
    let rows = table(&readme, "| Metric | Labels | Meaning |");
    let named: BTreeSet<String> = rows
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(named.len(), rows.len(), "a metric is there twice");
    assert_eq!(named, noted.described);
    for row in &rows {
        let name = row[0].trim_matches('`');
        let labels = &noted.made[name];
        let said: BTreeSet<&str> = code(&row[1]).into_iter().collect();
        assert_eq!(said, labels.keys().map(String::as_str).collect(), "{name}");
        let meaning = code(&row[2]);
        for (label, values) in labels {
            for value in values {
                assert!(
                    OPEN_LABELS.contains(&label.as_str()) || meaning.contains(&value.as_str()),
                    "{name}: {label} can be {value}, which its line does not say"
                );
            }
        }
    }
    for word in readme.split(|c: char| !(c.is_ascii_lowercase() || c == '_')) {
        let metric = word.starts_with("imgate_") && word != "imgate_";
        assert!(!metric || named.contains(word), "there is no metric {word}");
    }
}

/// A disposition in the table's words.
fn action(disposition: Disposition) -> String {
    match disposition {
        Disposition::Renew => "renew".to_owned(),
        Disposition::ForgetTicket => "ticket".to_owned(),
        Disposition::Retry => "retry".to_owned(),
        Disposition::Throttle(wait) => format!("throttle {} s", wait.as_secs()),
        Disposition::Park => "park".to_owned(),
        Disposition::Kicked => "kick".to_owned(),
    }
}

#[test]
fn the_code_table_agrees_with_the_connector() {
    let rows = table(
        &readme(),
        "| Codes | The upstream says | Action | What imgate does |",
    );
    let mut said = BTreeMap::new();
    for row in &rows {
        if row[0] == "any other" {
            assert_eq!(row[2], "retry");
            continue;
        }
        for code in row[0].split(", ") {
            let code: i32 = code.parse().unwrap();
            assert_eq!(said.insert(code, row[2].clone()), None, "{code} twice");
        }
    }
    let decided: BTreeMap<i32, String> = (-10_000..200_000)
        .map(|code| (code, codes::disposition(code)))
        .filter(|(_, disposition)| *disposition != Disposition::Retry)
        .map(|(code, disposition)| (code, action(disposition)))
        .collect();
    assert_eq!(said, decided);
    assert!(rows.iter().any(|row| row[0] == "any other"));
}

#[test]
fn the_reasons_are_those_that_the_gateway_gives() {
    let readme = readme();
    let listed = readme.split("The gateway's reasons:").nth(1).unwrap();
    let listed = listed.split("\n\n").next().unwrap();
    let said: BTreeSet<&str> = code(listed).into_iter().collect();
    let sources: Vec<String> = [
        "runtime/handle",
        "runtime/purge",
        "events/service",
        "tenants/auth",
        "tenants/quotas",
        "grpc/status",
    ]
    .map(|file| fs::read_to_string(checkout(&format!("src/{file}.rs"))).unwrap())
    .into();
    let given: BTreeSet<&str> = sources
        .iter()
        .map(|source| source.split("#[cfg(test)]").next().unwrap())
        .flat_map(|source| source.split('"').skip(1).step_by(2))
        .filter(|text| text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect();
    assert_eq!(said, given);
}

#[test]
fn the_files_that_are_named_are_there() {
    let readme = readme();
    let mut links = 0;
    for rest in readme.split("](").skip(1) {
        let target = rest.split(')').next().unwrap();
        if target.starts_with("https://") {
            continue;
        }
        links += 1;
        if let Some(heading) = target.strip_prefix('#') {
            let there = readme.lines().any(|line| {
                line.strip_prefix('#')
                    .is_some_and(|line| line.trim_matches(['#', ' ']).to_lowercase() == heading)
            });
            assert!(there, "there is no heading #{heading}");
        } else {
            assert!(checkout(target).exists(), "there is no file {target}");
        }
    }
    assert!(links > 10);
    let documentation = fs::read_to_string(checkout("src/lib.rs")).unwrap();
    let words = readme
        .split(|c: char| c.is_whitespace() || "`()[],;\"".contains(c))
        .chain(code(&documentation));
    for word in words {
        let path = word
            .strip_prefix("./")
            .unwrap_or(word)
            .trim_end_matches(['.', ':']);
        let ours = ["src/", "tests/", "examples/", "deploy/", "proto/", ".ci/"];
        // What run.sh makes is not there before.
        let made = path.starts_with("tests/.env");
        if ours.iter().any(|folder| path.starts_with(folder)) && !made {
            assert!(checkout(path).exists(), "there is no file {path}");
        }
    }
}

#[test]
fn the_tests_of_the_guarantees_are_there() {
    let documentation = fs::read_to_string(checkout("src/lib.rs")).unwrap();
    let lines: Vec<&str> = documentation
        .lines()
        .filter(|line| line.starts_with("//! | G"))
        .collect();
    assert_eq!(lines.len(), 10);
    for line in lines {
        let tests = line.rsplit(" | ").next().unwrap();
        let mut file = String::new();
        let mut named = 0;
        for word in code(tests) {
            if word.ends_with(".rs") {
                file = fs::read_to_string(checkout(word)).unwrap();
            } else {
                named += 1;
                let test = format!("fn {word}(");
                assert!(file.contains(&test), "{line}: there is no test {word}");
            }
        }
        assert!(named > 0, "{line}: no test");
    }
}

/// The command lines of imgate itself: in blocks with their arguments, and in sentences.
fn imgate_commands() -> Vec<Vec<String>> {
    let readme = readme();
    let blocks = blocks(&readme, "sh").join("\n");
    let in_blocks = blocks.lines().filter_map(|line| {
        line.strip_prefix("cargo run --release -- ")
            .or_else(|| line.strip_prefix("imgate "))
    });
    // A sentence may break within a command.
    let sentences = readme.replace('\n', " ");
    let in_sentences = code(&sentences)
        .into_iter()
        .filter_map(|code| code.strip_prefix("imgate "));
    in_blocks
        .chain(in_sentences)
        .map(|line| {
            let line = line.split(" #").next().unwrap();
            let line = line.split(" > ").next().unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        })
        .collect()
}

fn imgate(arguments: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_imgate"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "imgate {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_are_understood_and_none_is_left_out() {
    let commands = imgate_commands();
    for command in &commands {
        // Read after everything that stands before it, so that all of that has to be understood.
        let mut command = command.clone();
        command.push("--help".to_owned());
        imgate(&command);
    }
    let help = imgate(&["--help".to_owned()]);
    let listed = help.split("Commands:").nth(1).unwrap();
    for line in listed.lines().skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap();
        let named = commands.iter().any(|command| command[0] == name);
        assert!(named || name == "help", "imgate {name} is not in README.md");
    }
}

#[test]
fn the_targets_of_cargo_are_there() {
    for line in blocks(&readme(), "sh").join("\n").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let file = match pair[0] {
                "--test" => format!("tests/{}.rs", pair[1]),
                "--example" => format!("examples/{}.rs", pair[1]),
                _ => continue,
            };
            assert!(checkout(&file).exists(), "{line}: there is no file {file}");
        }
    }
}

#[test]
fn the_file_to_begin_with_is_a_good_one() {
    let environment =
        |name: &str| (name == "IMGATE_REDIS_URL").then(|| "redis://127.0.0.1:6379".to_owned());
    let secrets = checkout("tests/config_files/secrets");
    for file in blocks(&readme(), "toml") {
        let config = Config::parse(&file, &secrets, &environment).unwrap();
        assert_eq!(config.warnings(), Vec::<String>::new());
        assert!(matches!(config.store.kind, StoreKind::Redis { .. }));
    }
}
