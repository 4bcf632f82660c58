//! The chart and the Dockerfile, checked by the tools that know: Helm, the schemas of Kubernetes, hadolint, and
//! imgate's own reader of the configuration that the chart renders.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imgate::config::{Config, StoreKind};
use serde::Deserialize;

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a program of the tests' Python environment and answers what it printed.
fn run(program: &str, args: &[&OsStr]) -> String {
    let path = checkout("tests/.env/venv/bin").join(program);
    assert!(
        path.exists(),
        "{} is not there: run ./tests/run.sh, which installs what the tests need",
        path.display()
    );
    let output = Command::new(path).args(args).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{program}: {}\n{text}",
        output.status
    );
    text
}

/// What the rendered objects say of a pod.
#[derive(Debug, Deserialize)]
struct Facts {
    ports: Ports,
    sleep_seconds: u64,
    termination_seconds: u64,
    replicas: u32,
    environment: Vec<String>,
    args: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Ports {
    grpc: u16,
    ops: u16,
}

#[test]
fn the_chart_renders_what_kubernetes_and_imgate_take() {
    let out = tempfile::tempdir().unwrap();
    let script = checkout("tests/deploy/check.py");
    let chart = checkout("deploy/helm/imgate");
    run(
        "python",
        &[script.as_ref(), chart.as_ref(), out.path().as_ref()],
    );

    let cases: Vec<_> = fs::read_dir(out.path()).unwrap().collect();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let folder = case.unwrap().path();
        let facts = fs::read_to_string(folder.join("facts.json")).unwrap();
        let facts: Facts = serde_json::from_str(&facts).unwrap();
        container_starts(&folder.join("root"), &facts);
    }
}

/// The configuration is whole with the files and variables that the container has, and agrees with the pod.
fn container_starts(root: &Path, facts: &Facts) {
    let [serve, flag, path] = &facts.args[..] else {
        unreachable!("{:?}", facts.args)
    };
    assert_eq!([serve, flag], ["serve", "--config"]);
    let path = root.join(path.trim_start_matches('/'));
    let text = fs::read_to_string(&path).unwrap();
    // The container's root is a folder here.
    let here = text.replace("\"/etc/", &format!("\"{}/etc/", root.display()));
    let environment = |name: &str| {
        let known = facts.environment.iter().any(|one| one == name);
        known.then(|| "hunter2".to_owned())
    };
    let config = match Config::parse(&here, path.parent().unwrap(), &environment) {
        Ok(config) => config,
        Err(errors) => unreachable!("{errors}\n{text}"),
    };
    assert_eq!(config.grpc.listen.port(), facts.ports.grpc);
    assert_eq!(config.ops.listen.port(), facts.ports.ops);
    assert!(config.grpc.listen.ip().is_unspecified() && config.ops.listen.ip().is_unspecified());
    let stop = Duration::from_secs(facts.sleep_seconds) + config.shutdown.grace;
    assert!(stop < Duration::from_secs(facts.termination_seconds));
    match &config.store.kind {
        StoreKind::Embedded { path } => {
            assert_eq!(facts.replicas, 1);
            let folder = path.parent().unwrap().strip_prefix("/").unwrap();
            assert!(
                root.join(folder).is_dir(),
                "{} is not mounted",
                path.display()
            );
        }
        StoreKind::Redis { .. } => {}
        StoreKind::Memory => unreachable!("a pod would lose its sessions"),
    }
}

#[test]
fn the_dockerfile_is_clean() {
    run("hadolint", &[checkout("deploy/Dockerfile").as_ref()]);
}

/// The image runs as the user that the chart names, and its paths are those of the chart.
#[test]
fn the_dockerfile_agrees_with_the_chart() {
    let dockerfile = fs::read_to_string(checkout("deploy/Dockerfile")).unwrap();
    let pod =
        fs::read_to_string(checkout("deploy/helm/imgate/templates/statefulset.yaml")).unwrap();
    for (in_image, in_pod) in [
        ("USER 65532:65532", "runAsUser: 65532"),
        ("WORKDIR /var/lib/imgate", "mountPath: /var/lib/imgate"),
        (
            "CMD [\"serve\", \"--config\", \"/etc/imgate/config/imgate.toml\"]",
            "args: [serve, --config, /etc/imgate/config/imgate.toml]",
        ),
    ] {
        assert!(dockerfile.contains(in_image), "{in_image}");
        assert!(pod.contains(in_pod), "{in_pod}");
    }
}
