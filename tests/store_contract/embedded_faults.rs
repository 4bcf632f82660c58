//! What is special to the embedded store: restarts, kill -9, a file in use, a broken file, a full disk.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use imgate::store::embedded::EmbeddedStore;
use imgate::store::{Batch, Lease, LogId, Retention, StoreError};
use imgate::types::{MemberId, TenantId, UnixMillis};

use crate::fixture::*;

/// Tells a child process which file to work on.
const FILE: &str = "IMGATE_TEST_FILE";
/// So small a space that it is soon full, in bytes.
const SPACE: u64 = 4 << 20;

fn open(path: &Path) -> Shared {
    Arc::new(EmbeddedStore::open(path).unwrap())
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("imgate.redb");
    let store = open(&path);
    let old = granted(claim(&store, "a", LONG).await);
    let batch = Batch {
        records: vec![session("bot", "record")],
        ..events(["x", "y"])
    };
    let committed = store.commit(&old, &batch).await.unwrap();
    drop(store);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The process that held the lease is gone, so another one need not wait for it to run out.
    let store = open(&path);
    let new = granted(claim(&store, "b", LONG).await);
    assert!(new.epoch > old.epoch);
    assert_eq!(
        fenced(store.commit(&old, &batch).await, &old),
        Some(new.epoch)
    );
    assert_eq!(store.sessions(&here()).await.unwrap(), batch.records);
    let after = append(&store, &new, ["z"]).await;
    assert_eq!((after.log, after.last_sequence), (committed.log, 3));
}

#[tokio::test]
async fn everything_that_is_known_is_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    let store = open(&path);
    let lease = owned(&store, &here()).await;
    let batch = Batch {
        id: batch_id(7),
        sends: vec![send("bot", "id", "record")],
        ..events(["12345", "123", "1"])
    };
    let committed = store.commit(&lease, &batch).await.unwrap();
    let stands = at(committed.log, 2);
    let used = store.advance_subscription(&lease.partition, "main", &stands, UnixMillis(9), false);
    used.await.unwrap();
    let (tenant, member) = (TenantId::new("tenant"), MemberId::new("member"));
    let attended = store.attend(&tenant, "main", &member, Some(LONG)).await;
    assert_eq!(attended.unwrap(), std::slice::from_ref(&member));
    let claimed = store.claim_share(&here(), "main", &member, LONG).await;
    assert!(claimed.unwrap());
    drop(store);

    let store = open(&path);
    let lease = owned(&store, &here()).await;
    // Its answer may have been lost with the process before.
    assert_eq!(store.commit(&lease, &batch).await.unwrap(), committed);
    assert_eq!(store.sends(&here()).await.unwrap(), batch.sends);
    let all = store.subscriptions(&here()).await.unwrap();
    assert_eq!((all[0].position, all[0].used_at), (stands, UnixMillis(9)));
    let keep = |bytes| Retention { bytes, ..ALL };
    assert_eq!(trim(&store, &lease, keep(9)).await, 0);
    assert_eq!(trim(&store, &lease, keep(8)).await, 1);
    drop(store);

    let store = open(&path);
    assert_eq!(store.log_bounds(&here()).await.unwrap().first_sequence, 2);
    // The members went with their process.
    let there = store.members(&tenant, "main").await.unwrap();
    assert!(there.is_empty());
    let other = MemberId::new("other");
    let claimed = store.claim_share(&here(), "main", &other, LONG).await;
    assert!(claimed.unwrap());
}

/// Writes a file as a version did that trimmed by sequences only: entries 5 to 9 of log 77, of 10 bytes each.
fn write_as_an_earlier_version(path: &Path) {
    use redb::TableDefinition;
    let partitions: TableDefinition<'_, (&str, u16), (u64, u64, u64)> =
        TableDefinition::new("partitions");
    let sessions: TableDefinition<'_, (&str, u16, &str), &[u8]> = TableDefinition::new("sessions");
    let log: TableDefinition<'_, (&str, u16, u64), (u64, &[u8])> = TableDefinition::new("log");
    let subscriptions: TableDefinition<'_, (&str, u16, &str), (u64, u64)> =
        TableDefinition::new("subscriptions");
    let transaction = redb::Database::create(path).unwrap().begin_write().unwrap();
    {
        let mut partitions = transaction.open_table(partitions).unwrap();
        partitions.insert(("tenant", 3), (4, 77, 9)).unwrap();
        // All of this one's entries were dropped.
        partitions.insert(("tenant", 4), (4, 78, 6)).unwrap();
        let mut sessions = transaction.open_table(sessions).unwrap();
        sessions
            .insert(("tenant", 3, "bot"), &b"record"[..])
            .unwrap();
        let mut log = transaction.open_table(log).unwrap();
        for sequence in 5..=9 {
            let entry = (1000 + sequence, &b"ten bytes."[..]);
            log.insert(("tenant", 3, sequence), entry).unwrap();
        }
        let mut subscriptions = transaction.open_table(subscriptions).unwrap();
        subscriptions
            .insert(("tenant", 3, "main"), (77, 6))
            .unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_an_earlier_version_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    write_as_an_earlier_version(&path);
    let store = open(&path);
    let bounds = |place| {
        let store = store.clone();
        async move {
            let bounds = store.log_bounds(&place).await.unwrap();
            (bounds.log.0, bounds.first_sequence, bounds.last_sequence)
        }
    };
    let emptied = partition("tenant", 4);
    assert_eq!(bounds(here()).await, (77, 5, 9));
    assert_eq!(bounds(emptied.clone()).await, (78, 7, 6));
    assert_eq!(log(&store, &here()).await.len(), 5);
    let sessions = store.sessions(&here()).await.unwrap();
    assert_eq!(sessions, [session("bot", "record")]);
    assert!(store.sends(&here()).await.unwrap().is_empty());
    // Whether it is in use is not known, so it does not expire before it is.
    let all = store.subscriptions(&here()).await.unwrap();
    assert_eq!(
        (all[0].position, all[0].used_at),
        (at(LogId(77), 6), UnixMillis(0))
    );
    let since = Some(UnixMillis(u64::MAX));
    let removed = store.remove_subscription(&here(), "main", since).await;
    assert!(!removed.unwrap());

    let lease = owned(&store, &here()).await;
    assert_eq!(lease.epoch.0, 5);
    // What was there before counts as well.
    let batch = Batch {
        now: UnixMillis(2000),
        events: vec![b"seven b".to_vec()],
        ..Batch::default()
    };
    store.commit(&lease, &batch).await.unwrap();
    assert_eq!(bounds(here()).await, (77, 5, 10));
    let keep = |bytes| Retention { bytes, ..ALL };
    assert_eq!(trim(&store, &lease, keep(57)).await, 0);
    assert_eq!(trim(&store, &lease, keep(56)).await, 1);
    assert_eq!(trim(&store, &lease, newest(4)).await, 1);
    let since = UnixMillis(1008);
    assert_eq!(trim(&store, &lease, Retention { since, ..ALL }).await, 1);
    assert_eq!(bounds(here()).await, (77, 8, 10));

    let lease = owned(&store, &emptied).await;
    assert_eq!(trim(&store, &lease, newest(0)).await, 0);
    append(&store, &lease, ["on"]).await;
    assert_eq!(bounds(emptied).await, (78, 7, 7));

    let position = at(LogId(77), 5);
    let used = store
        .advance_subscription(&here(), "main", &position, UnixMillis(9), false)
        .await;
    used.unwrap();
    let all = store.subscriptions(&here()).await.unwrap();
    assert_eq!(
        (all[0].position, all[0].used_at),
        (at(LogId(77), 6), UnixMillis(9))
    );
    let removed = store
        .remove_subscription(&here(), "main", Some(UnixMillis(10)))
        .await;
    assert!(removed.unwrap());
}

#[tokio::test]
async fn a_file_of_an_earlier_version_is_trimmed_before_it_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    write_as_an_earlier_version(&path);
    let store = open(&path);
    let lease = owned(&store, &here()).await;
    let bytes = 45;
    assert_eq!(trim(&store, &lease, Retention { bytes, ..ALL }).await, 1);
    assert_eq!(trim(&store, &lease, newest(2)).await, 2);
    let bounds = store.log_bounds(&here()).await.unwrap();
    assert_eq!((bounds.first_sequence, bounds.last_sequence), (8, 9));
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_by_kill_nine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    let mut child = start_child("writes_until_killed", &path, None);
    let mut answered = 0_u64;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(sequence) = line.unwrap().strip_prefix("answered ") {
            answered = sequence.parse().unwrap();
        }
        if answered >= 200 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();

    let store = open(&path);
    let last = store.log_bounds(&here()).await.unwrap().last_sequence;
    assert!(answered >= 200 && last >= answered, "{last} of {answered}");
    let entries = store.read(&here(), 0, usize::MAX).await.unwrap().entries;
    let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (1..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_that_is_in_use_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    let mut child = start_child("writes_until_killed", &path, None);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("answered ")));

    let refused = EmbeddedStore::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("open in another process"), "{text}");
    assert!(text.contains(path.to_str().unwrap()), "{text}");

    child.kill().unwrap();
    child.wait().unwrap();
    open(&path).ping().await.unwrap();
    let twice = (open(&path), EmbeddedStore::open(&path));
    assert!(matches!(twice.1, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = EmbeddedStore::open(file.join("imgate.redb")).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("imgate.redb"), "{refused}");
}

#[tokio::test]
async fn a_broken_file_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    for content in [&b"[server]\nlisten = 1\n"[..], &[0; 5000], &[0xff; 100_000]] {
        std::fs::write(&path, content).unwrap();
        expect_corrupt(&path);
    }
    std::fs::remove_file(&path).unwrap();
    write_some(&path).await;

    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for part in 0..64 {
        std::fs::write(&path, &whole).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let offset = part * whole.len() as u64 / 64;
        file.write_all_at(&[0x5a; 700], offset).unwrap();
        // Bytes of a free page harm nobody; all others must be found before anything is served.
        match EmbeddedStore::open(&path) {
            Ok(store) => check_some(Arc::new(store)).await,
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    expect_corrupt(&path);
    std::fs::write(&path, &whole).unwrap();
    check_some(open(&path)).await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_got_over() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::at(folder.path()) else {
        // Only root may mount. The size limit of the next test has the same effect.
        return;
    };
    let ballast = folder.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    fill_and_get_over(&folder.path().join("imgate.redb"), || {
        std::fs::remove_file(&ballast).unwrap();
    })
    .await;
}

#[test]
fn a_file_size_limit_is_said_and_got_over() {
    let folder = tempfile::tempdir().unwrap();
    let limited = "trap '' XFSZ; ulimit -S -f \"$LIMIT\"; exec \"$0\" \"$@\"";
    let path = folder.path().join("imgate.redb");
    let child = start_child("meets_a_size_limit", &path, Some(limited));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("got over it"), "{text}");
}

#[tokio::test]
#[ignore = "a part of other tests, run in a process of its own"]
async fn writes_until_killed() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let store = open(Path::new(&path));
    let lease = owned(&store, &here()).await;
    loop {
        let sequence = append(&store, &lease, ["x", "y"]).await.last_sequence;
        writeln!(std::io::stdout(), "answered {sequence}").unwrap();
    }
}

#[tokio::test]
#[ignore = "a part of another test, run in a process of its own"]
async fn meets_a_size_limit() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    fill_and_get_over(Path::new(&path), || {
        let limits = Command::new("prlimit")
            .arg(format!("--pid={}", std::process::id()))
            .arg("--fsize=unlimited")
            .status();
        assert!(limits.unwrap().success());
    })
    .await;
    writeln!(std::io::stdout(), "got over it").unwrap();
}

/// Runs an ignored test of this file in a process of its own, through a shell script if one is given.
fn start_child(test: &str, path: &Path, script: Option<&str>) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut command = match script {
        None => Command::new(this),
        Some(script) => {
            let mut shell = Command::new("sh");
            // The shell counts in blocks of 512 bytes.
            shell.env("LIMIT", (SPACE / 512).to_string());
            shell.args([OsStr::new("-c"), script.as_ref(), this.as_os_str()]);
            shell
        }
    };
    command
        .arg(format!("embedded_faults::{test}"))
        .args(["--exact", "--ignored", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Writes until there is no space, makes space by `free`, and writes on.
async fn fill_and_get_over(path: &Path, free: impl FnOnce()) {
    let store = open(path);
    let lease = owned(&store, &here()).await;
    let batch = Batch {
        records: vec![session("bot", "record")],
        events: vec![vec![7; 100_000]],
        ..Batch::default()
    };
    let mut last = 0;
    let full = loop {
        match store.commit(&lease, &batch).await {
            Ok(committed) => last = committed.last_sequence,
            Err(error) => break error,
        }
        assert!(last < 1000, "it never becomes full");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    assert!(last > 0);
    let again = store.commit(&lease, &batch).await.unwrap_err();
    assert!(matches!(again, StoreError::Full(_)), "{again}");
    let entries = store.read(&here(), 0, 1000).await.unwrap().entries;
    assert_eq!(entries.len() as u64, last, "a full store can be read");

    free();
    let committed = store.commit(&lease, &batch).await.unwrap();
    assert_eq!(committed.last_sequence, last + 1);
    let entries = store.read(&here(), 0, 1000).await.unwrap().entries;
    assert_eq!(entries.len() as u64, last + 1);
    assert!(entries.iter().all(|entry| entry.payload == batch.events[0]));
    assert_eq!(store.sessions(&here()).await.unwrap(), batch.records);
}

async fn write_some(path: &Path) {
    let store = open(path);
    let lease: Lease = owned(&store, &here()).await;
    for n in 0..200 {
        let batch = Batch {
            records: vec![session(&format!("bot{n}"), vec![1; 500])],
            events: vec![vec![2; 500]],
            ..Batch::default()
        };
        store.commit(&lease, &batch).await.unwrap();
    }
}

async fn check_some(store: Shared) {
    let sessions = store.sessions(&here()).await.unwrap();
    assert_eq!(sessions.len(), 200);
    assert!(sessions.iter().all(|session| session.record == [1; 500]));
    let entries = store.read(&here(), 0, 1000).await.unwrap().entries;
    assert_eq!(entries.len(), 200);
    assert!(entries.iter().all(|entry| entry.payload == [2; 500]));
}

fn expect_corrupt(path: &Path) {
    match EmbeddedStore::open(path) {
        Err(StoreError::Corrupt { place, detail }) => {
            assert_eq!(place, path.to_str().unwrap());
            assert!(detail.contains("backup"), "{detail}");
        }
        other => panic!("not refused as broken: {other:?}"),
    }
}

/// A small file system in memory, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SPACE}"), "imgate-test"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(folder.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}
