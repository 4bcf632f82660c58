//! Redis behind Sentinel: a master that dies, hangs, is replaced or is not known, and sentinels that differ.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use imgate::store::redis::{RedisOptions, RedisStore};
use imgate::store::{Lease, Renewal, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::fixture::*;
use crate::redis_server::RedisServer;
use crate::sentinel::{Demotion, MASTER, Watched};

/// A store that gives up early, so that time-outs do not take long.
async fn through(url: &str) -> Shared {
    let options = RedisOptions {
        connect_timeout: Duration::from_millis(300),
        response_timeout: Duration::from_millis(300),
        ..RedisOptions::new(url)
    };
    Arc::new(RedisStore::connect(&options).await.unwrap())
}

fn away<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    error.to_string()
}

/// Appends `text`, again and again while the store is away: there is no telling whether an append without an answer
/// was done.
async fn append_at_last(store: &Shared, lease: &Lease, text: &str) {
    eventually("an append is taken", || async {
        match store.commit(lease, &events([text])).await {
            Ok(_) => Some(()),
            Err(StoreError::Unavailable(_)) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

/// What the log holds, without the repetitions of appends that had no answer.
async fn log_texts(store: &Shared) -> Vec<String> {
    let mut texts: Vec<_> = texts(store.read(&here(), 0, 100_000).await.unwrap().entries)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    texts.dedup();
    texts
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("text-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced_and_nothing_that_was_answered_is_lost() {
    let mut redis = Watched::start(1, 3, Demotion::Soon, &[]);
    let store = through(&redis.url()).await;
    let lease = owned(&store, &here()).await;
    for text in numbered(0..20) {
        append_at_last(&store, &lease, &text).await;
    }
    redis.replicated(0);
    // With the machine of the master goes the sentinel that is asked first.
    redis.sentinels[0].kill();
    redis.servers[0].kill();
    let said = away(store.ping().await);
    for part in redis.sentinels.iter().map(RedisServer::port) {
        assert!(said.contains(&part.to_string()), "{said}");
    }
    append_at_last(&store, &lease, "text-20").await;
    // Not every sentinel knows at once; that is why the newest answer counts.
    eventually("the sentinel learns of it", || async {
        (redis.named_by(1) == 1).then_some(())
    })
    .await;
    // The lease, the epoch, the identity of the log: all is as it was.
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Renewal::Renewed);
    assert_eq!(log_texts(&store).await, numbered(0..21));

    // The former master comes back as what it was, until it is told otherwise.
    redis.restart(0);
    let began = Instant::now();
    let mut count = 21;
    while redis.says_master(0) {
        append_at_last(&store, &lease, &format!("text-{count}")).await;
        count += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it stays a master"
        );
    }
    assert_eq!(redis.scripts_run(0), 0, "it was written to");
    assert_eq!(log_texts(&store).await, numbered(0..count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_replaced_and_not_written_to_when_it_wakes() {
    let redis = Watched::start(1, 1, Demotion::Late, &[]);
    let store = through(&redis.url()).await;
    let lease = owned(&store, &here()).await;
    append_at_last(&store, &lease, "text-0").await;
    redis.replicated(0);
    let before = redis.scripts_run(0);
    redis.servers[0].pause();
    // What nobody reads now the master does when it wakes.
    let sent_to_it = away(store.ping().await);
    assert!(
        sent_to_it.contains("the-master by the sentinels"),
        "{sent_to_it}"
    );
    append_at_last(&store, &lease, "text-1").await;
    assert_eq!(redis.named_by(0), 1);
    redis.servers[0].resume();
    assert!(redis.says_master(0), "the test is too slow to see it");
    for text in numbered(2..30) {
        append_at_last(&store, &lease, &text).await;
    }
    assert!(redis.scripts_run(1) >= 29);
    assert_eq!(redis.scripts_run(0), before, "it was written to");
    assert_eq!(log_texts(&store).await, numbered(0..30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_replaced_and_does_not_know_it_is_left() {
    let redis = Watched::start(1, 1, Demotion::Late, &[]);
    let store = through(&redis.url()).await;
    let lease = owned(&store, &here()).await;
    append_at_last(&store, &lease, "text-0").await;
    redis.replicated(0);
    redis.fail_over();
    eventually("the sentinel names the other", || async {
        (redis.named_by(0) == 1 && redis.says_master(1)).then_some(())
    })
    .await;
    // The gateway asks like this every two seconds.
    eventually("the store asks the sentinels", || async {
        store.ping().await.unwrap();
        let before = redis.scripts_run(1);
        store.renew(&lease, LONG).await.unwrap();
        (redis.scripts_run(1) > before).then_some(())
    })
    .await;
    assert!(redis.says_master(0), "the test is too slow to see it");
    for text in numbered(1..20) {
        append_at_last(&store, &lease, &text).await;
    }
    assert!(redis.scripts_run(1) >= 20);
    assert_eq!(log_texts(&store).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_to_have_a_replica_takes_nothing_once_it_was_replaced() {
    let settings = ["--min-replicas-to-write", "1"];
    // The new master takes nothing either, before the former one follows it.
    let redis = Watched::start(1, 1, Demotion::Soon, &settings);
    let store = through(&redis.url()).await;
    let lease = owned(&store, &here()).await;
    append_at_last(&store, &lease, "text-0").await;
    redis.replicated(0);
    redis.fail_over();
    eventually("the replica is promoted", || async {
        redis.says_master(1).then_some(())
    })
    .await;
    let mut refused = 0;
    for text in numbered(1..20) {
        while let Err(error) = store.commit(&lease, &events([&text])).await {
            refused += usize::from(error.to_string().contains("NOREPLICAS"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(refused > 0);
    assert_eq!(redis.named_by(0), 1);
    assert_eq!(log_texts(&store).await, numbered(0..20));
    redis.replicated(1);
    assert!(!redis.says_master(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_no_master_is_known_each_call_says_who_was_asked() {
    let mut redis = Watched::start(0, 1, Demotion::Soon, &[]);
    let asked = format!("127.0.0.1:{}", redis.sentinels[0].port());
    let unknown = through(&format!("redis-sentinel://{asked}/other")).await;
    let said = away(unknown.ping().await);
    assert!(
        said.contains(&asked) && said.contains("knows no such master"),
        "{said}"
    );
    let no_sentinel = format!(
        "redis-sentinel://127.0.0.1:{}/{MASTER}",
        redis.servers[0].port()
    );
    let said = away(through(&no_sentinel).await.ping().await);
    assert!(said.contains("SENTINEL"), "{said}");

    let store = through(&redis.url()).await;
    let lease = owned(&store, &here()).await;
    redis.servers[0].kill();
    away(store.commit(&lease, &events(["lost"])).await);
    let said = away(store.commit(&lease, &events(["lost"])).await);
    assert!(said.contains(&asked) && said.contains("refused"), "{said}");
    redis.sentinels[0].pause();
    let began = Instant::now();
    let said = away(store.read(&here(), 0, 1).await);
    assert!(
        said.contains(&asked) && said.contains("timed out"),
        "{said}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    redis.sentinels[0].resume();
    redis.restart(0);
    append_at_last(&store, &lease, "text-0").await;
    // Without its sentinels a master goes on.
    redis.sentinels[0].kill();
    store.ping().await.unwrap();
    append_at_last(&store, &lease, "text-1").await;
    assert_eq!(log_texts(&store).await, numbered(0..2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_the_masters_and_a_sentinels_that_asks_for_one() {
    let redis = Watched::start(0, 1, Demotion::Soon, &[]);
    let plain = redis.url();
    let url = plain.replace("://", "://:hush@");
    let run = |server: &RedisServer, words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        let _: () = command
            .arg(&words[1..])
            .query(&mut server.client())
            .unwrap();
    };
    let (server, sentinel) = (&redis.servers[0], &redis.sentinels[0]);
    run(sentinel, &["SENTINEL", "SET", MASTER, "auth-pass", "hush"]);
    run(server, &["CONFIG", "SET", "requirepass", "hush"]);
    let store = through(&url).await;
    store.ping().await.unwrap();
    let said = away(through(&plain).await.ping().await);
    assert!(said.contains("NOAUTH"), "{said}");

    run(
        sentinel,
        &["ACL", "SETUSER", "default", "resetpass", ">hush"],
    );
    let store = through(&url).await;
    store.ping().await.unwrap();
    let shown = format!("{store:?}");
    let wrong = through(&plain.replace("://", "://:hush-hush@")).await;
    let said = away(wrong.ping().await);
    assert!(
        !format!("{shown} {said} {wrong:?}").contains("hush"),
        "{said}"
    );
}

/// Answers as a sentinel does that knows this master since this epoch.
async fn sentinel_that_names(port: u16, config_epoch: u64) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut asked = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            asked.spawn(answer_as_sentinel(stream, port, config_epoch));
        }
    });
    own
}

async fn answer_as_sentinel(mut stream: TcpStream, port: u16, config_epoch: u64) {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let address = format!("*2\r\n{}{}", bulk("127.0.0.1"), bulk(&port.to_string()));
    let epoch = format!(
        "*2\r\n{}{}",
        bulk("config-epoch"),
        bulk(&config_epoch.to_string())
    );
    let (mut seen, mut chunk) = (String::new(), [0; 1024]);
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        seen.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        while let Some((line, rest)) = seen.split_once("\r\n") {
            let said = match line {
                "SETINFO" => "+OK\r\n",
                "GET-MASTER-ADDR-BY-NAME" => &address,
                "MASTER" => &epoch,
                _ => "",
            };
            // Who has gone already need not be told.
            let _gone = stream.write_all(said.as_bytes()).await;
            seen = rest.to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sentinels_that_differ_the_newest_is_believed_and_a_silent_one_not_waited_for() {
    let (former, present) = (RedisServer::start(), RedisServer::start());
    let stale = sentinel_that_names(former.port(), 7).await;
    let newest = sentinel_that_names(present.port(), 8).await;
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let silent = silent
        .local_addr()
        .map(|address| (address.port(), silent))
        .unwrap();
    for order in [[stale, newest, silent.0], [silent.0, newest, stale]] {
        let [a, b, c] = order.map(|port| format!("127.0.0.1:{port}"));
        let mut options = RedisOptions::new(format!("redis-sentinel://{a},{b},{c}/{MASTER}"));
        options.connect_timeout = Duration::from_secs(20);
        let began = Instant::now();
        let store: Shared = Arc::new(RedisStore::connect(&options).await.unwrap());
        owned(&store, &here()).await;
        assert!(began.elapsed() < Duration::from_secs(10));
        let keys = |server: &RedisServer| -> usize {
            redis::cmd("DBSIZE").query(&mut server.client()).unwrap()
        };
        assert_eq!((keys(&former), keys(&present)), (0, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_server_that_is_no_master_is_not_used() {
    let redis = Watched::start(1, 1, Demotion::Soon, &[]);
    let lagging = sentinel_that_names(redis.servers[1].port(), 1).await;
    let store = through(&format!("redis-sentinel://127.0.0.1:{lagging}/{MASTER}")).await;
    let said = away(store.ping().await);
    assert!(said.contains("says that it is none"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth_is_told_by_the_master_there_is() {
    let mut redis = Watched::start(1, 1, Demotion::Soon, &[]);
    let (store, other) = (through(&redis.url()).await, through(&redis.url()).await);
    let lease = owned(&store, &here()).await;
    let mut growth = other.growth().await.unwrap();
    let mut next = async || match tokio::time::timeout(DEADLINE, growth.next()).await {
        Ok(told) => told.map(|(place, end)| (place, end.sequence)),
        Err(_) => panic!("nothing was told in {DEADLINE:?}"),
    };
    append_at_last(&store, &lease, "text-0").await;
    assert_eq!(next().await, Some((here(), 1)));
    redis.replicated(0);
    redis.servers[0].kill();
    assert_eq!(next().await, None);

    growth = eventually("there is a master again", || async {
        other.growth().await.ok()
    })
    .await;
    append_at_last(&store, &lease, "text-1").await;
    let told = tokio::time::timeout(DEADLINE, growth.next()).await;
    assert_eq!(told.unwrap().unwrap().0, here());
}
