//! The keeping of keys, in paused time, on files that change.

use std::path::Path;

use tokio::time::timeout;

use super::*;
use crate::tenants::jwt::{Source, keys::KeySet};

const REFRESH: Duration = Duration::from_secs(60);

fn options(id: &str, path: &Path) -> IssuerOptions {
    IssuerOptions {
        id: id.to_owned(),
        issuer: format!("https://{id}"),
        audience: "imgate".to_owned(),
        source: Source::File(path.to_owned()),
        refresh: REFRESH,
        clock_skew: Duration::ZERO,
    }
}

/// A set of so many keys; what they are is no matter here.
fn set(keys: usize) -> String {
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    format!(r#"{{"keys":[{}]}}"#, vec![key; keys].join(","))
}

fn keys(issuer: &Issuer) -> Option<usize> {
    issuer.keys.load().as_deref().map(KeySet::len)
}

/// Waits until so many keys are there, and answers after how long.
async fn until(issuer: &Issuer, expected: usize) -> Duration {
    let began = Instant::now();
    let reading = async {
        while keys(issuer) != Some(expected) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(600), reading).await.unwrap();
    began.elapsed()
}

/// Issuers whose keys are in one file. The paused clock stands while a file is being read.
struct Stage {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    tasks: Tasks,
    issuers: Issuers,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        Self {
            path: folder.path().join("jwks.json"),
            _folder: folder,
            issuers: Issuers::new(&tasks),
            tasks,
        }
    }

    fn write(&self, keys: usize) {
        std::fs::write(&self.path, set(keys)).unwrap();
    }

    fn run(&mut self, ids: &[&str]) -> Vec<Arc<Issuer>> {
        let options = ids.iter().map(|id| options(id, &self.path)).collect();
        let issuers = self.issuers.prepare(options);
        self.issuers.run(&issuers);
        issuers
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_read_at_once_and_again_and_the_last_good_ones_stay() {
    let mut stage = Stage::new();
    stage.write(1);
    let issuer = stage.run(&["one"]).remove(0);
    assert!(until(&issuer, 1).await < REFRESH);
    stage.write(2);
    until(&issuer, 2).await;
    // A file that is gone or half written changes nothing, for as long as that lasts.
    std::fs::write(&stage.path, &set(3)[..40]).unwrap();
    tokio::time::sleep(REFRESH * 5).await;
    assert_eq!(keys(&issuer), Some(2));
    std::fs::remove_file(&stage.path).unwrap();
    tokio::time::sleep(REFRESH * 5).await;
    assert_eq!(keys(&issuer), Some(2));
    // What failed is tried again soon.
    stage.write(3);
    assert!(until(&issuer, 3).await < RETRY * 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_leads_to_one_reading_at_once_and_then_to_few() {
    let mut stage = Stage::new();
    stage.write(1);
    let issuer = stage.run(&["one"]).remove(0);
    until(&issuer, 1).await;
    stage.write(2);
    issuer.wanted.notify_one();
    assert!(until(&issuer, 2).await < Duration::from_secs(1));
    // Whoever names keys that there are not has the file read no more than that.
    stage.write(3);
    for _ in 0..1000 {
        issuer.wanted.notify_one();
    }
    let waited = until(&issuer, 3).await;
    assert!(waited > WANTED_EVERY / 2, "{waited:?}");
    assert!(waited < WANTED_EVERY * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_stays_goes_on_and_one_that_is_gone_stops() {
    let mut stage = Stage::new();
    stage.write(1);
    let before = stage.run(&["stays", "goes"]);
    until(&before[0], 1).await;
    until(&before[1], 1).await;
    let gone = stage.issuers.running[1].1.clone();
    let after = stage.run(&["stays", "comes"]);
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert_eq!(keys(&after[0]), Some(1));
    until(&after[1], 1).await;
    timeout(Duration::from_secs(1), gone.ended()).await.unwrap();
    stage.write(2);
    until(&after[0], 2).await;
    until(&after[1], 2).await;
    assert_eq!(keys(&before[1]), Some(1));
    // One whose options have changed is another one.
    let options = IssuerOptions {
        refresh: REFRESH * 2,
        ..options("stays", &stage.path)
    };
    let changed = stage.issuers.prepare(vec![options]);
    assert!(!Arc::ptr_eq(&changed[0], &after[0]));
    stage.tasks.stop();
    for (_, tasks) in &stage.issuers.running {
        timeout(Duration::from_secs(1), tasks.ended())
            .await
            .unwrap();
    }
}
