//! The store moves to another server, under traffic.

use std::cell::Cell;
use std::time::Duration;

use imgate::config::{Config, StoreKind};
use imgate::proto::v1::GapReason;
use imgate::proto::v1::event::Kind;
use imgate::proto::v1::subscribe_request::Start;

use crate::books::{Books, all_stored, assert_undisturbed};
use crate::client::Events;
use crate::fixture::*;
use crate::sentinel::{Demotion, Watched};
use crate::store::{key, tenant_of_one_partition};

fn on_watched(redis: &Watched, upstream: &Upstream) -> Config {
    let url = secret(&redis.url());
    config(
        StoreKind::Redis { url },
        vec![tenant_of_one_partition(upstream)],
    )
}

#[tokio::test]
async fn a_killed_master_under_traffic_costs_no_session_and_no_message() {
    let mut redis = Watched::start(1, 3, Demotion::Soon, &[]);
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_watched(&redis, &upstream))
        .await
        .ready()
        .await;
    let pause = Cell::new(false);
    let trouble = async {
        replicated_at_rest(&redis, &upstream, &pause).await;
        redis.servers[0].kill();
        pause.set(false);
        until("no other is master", || redis.says_master(1)).await;
        stores_again(&gateway).await;
        // The former master comes back, and for a while takes itself for one.
        redis.restart(0);
        until("it stays a master", || !redis.says_master(0)).await;
    };
    let books = Books::with_pauses(&gateway, &upstream, &pause, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    assert_eq!(redis.scripts_run(0), 0, "the former master was written to");
}

#[tokio::test]
async fn a_planned_failover_under_traffic_costs_no_session_and_no_message() {
    // From the promotion on the former master takes nothing, for nobody follows it.
    let redis = Watched::start(1, 1, Demotion::Soon, &["--min-replicas-to-write", "1"]);
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_watched(&redis, &upstream))
        .await
        .ready()
        .await;
    let pause = Cell::new(false);
    let trouble = async {
        replicated_at_rest(&redis, &upstream, &pause).await;
        redis.fail_over();
        until("no other is master", || redis.says_master(1)).await;
        pause.set(false);
        until("the former master stays one", || !redis.says_master(0)).await;
        stores_again(&gateway).await;
    };
    let books = Books::with_pauses(&gateway, &upstream, &pause, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
}

#[tokio::test]
async fn a_master_that_hangs_under_traffic_is_left_and_not_returned_to() {
    let redis = Watched::start(1, 1, Demotion::Late, &[]);
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_watched(&redis, &upstream))
        .await
        .ready()
        .await;
    let (pause, before) = (Cell::new(false), Cell::new(0));
    let trouble = async {
        replicated_at_rest(&redis, &upstream, &pause).await;
        before.set(redis.scripts_run(0));
        redis.servers[0].pause();
        pause.set(false);
        until("no other is master", || redis.says_master(1)).await;
        stores_again(&gateway).await;
        redis.servers[0].resume();
        assert!(redis.says_master(0), "the test is too slow to see it");
        // Longer than it takes the gateway to ask the sentinels again.
        tokio::time::sleep(Duration::from_secs(3)).await;
    };
    let books = Books::with_pauses(&gateway, &upstream, &pause, trouble).await;
    books.are_whole();
    assert_undisturbed(&upstream);
    // What was on the way when it stopped it has done since, for nobody: one call of each of those who write.
    assert!(
        redis.scripts_run(0) <= before.get() + 10,
        "it was written to"
    );
}

#[tokio::test]
async fn what_a_master_had_not_passed_on_is_said_to_be_lost() {
    let mut redis = Watched::start(1, 1, Demotion::Soon, &[]);
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_watched(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    upstream.texts("friend", "bot", ["kept".into()]);
    assert_eq!(events.text("bot").await, "kept");
    let before = events.cursor.clone();
    redis.replicated(0);
    // The replica stands still while its connection is cut, and so does not come back for the next message.
    redis.servers[1].pause();
    let cut: redis::RedisResult<u64> = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "replica"])
        .query(&mut redis.servers[0].client());
    assert_eq!(cut.unwrap(), 1);
    upstream.texts("friend", "bot", ["lost".into()]);
    assert_eq!(events.text("bot").await, "lost");
    redis.servers[0].kill();
    redis.servers[1].resume();
    until("no other is master", || redis.says_master(1)).await;
    upstream.texts("friend", "bot", numbered("after", 3));
    // The subscriber has read what is lost, and misses nothing; one who had not is told. Both get what came after.
    let after = async |events: &mut Events| {
        let (mut gaps, mut texts) = (Vec::new(), Vec::new());
        while texts.len() < 3 {
            match events.next().await.kind {
                Some(Kind::Gap(gap)) => gaps.push((gap.reason(), gap.count)),
                Some(kind) => texts.extend(text_of(kind)),
                None => {}
            }
        }
        assert_eq!(texts, numbered("after", 3));
        gaps
    };
    assert_eq!(within(after(&mut events)).await, []);
    let start = Start::Cursor(before);
    let mut late = client.subscribe_from(start).await.unwrap();
    assert_eq!(within(after(&mut late)).await, [(GapReason::LogReset, 1)]);
}

#[tokio::test]
async fn a_logout_that_a_master_had_not_passed_on_is_one_all_the_same() {
    let mut redis = Watched::start(1, 1, Demotion::Soon, &[]);
    let upstream = Upstream::start().await;
    let mut config = on_watched(&redis, &upstream);
    // So that the replica still knows the lease when it is the master.
    config.store.lease_ttl = Duration::from_secs(15);
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    client.online("out").await;
    client.online("kicked").await;
    redis.replicated(0);
    redis.servers[1].pause();
    let cut: redis::RedisResult<u64> = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "replica"])
        .query(&mut redis.servers[0].client());
    assert_eq!(cut.unwrap(), 1);
    client.logout("out").await.unwrap();
    upstream.sim.kick("kicked", 2).unwrap();
    client.until_state("kicked", SessionState::Parked).await;
    let batch = |redis: &Watched, server: usize| -> redis::RedisResult<String> {
        redis::cmd("HGET")
            .arg(&[key("meta").as_str(), "batch"])
            .query(&mut redis.servers[server].client())
    };
    let written = batch(&redis, 0).unwrap();
    redis.servers[0].kill();
    redis.servers[1].resume();
    until("no other is master", || redis.says_master(1)).await;
    assert_ne!(batch(&redis, 1).unwrap(), written, "nothing was lost");
    // Nobody writes, and nobody calls: by its lease alone the gateway sees what is missing.
    let number = |batch: &str| batch.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    let again = || batch(&redis, 1).is_ok_and(|batch| number(&batch) > number(&written));
    until("it is not written again", again).await;

    let gateway = gateway.restart().await;
    let client = gateway.client().await;
    assert!(!client.session("out").await.unwrap().desired);
    let kicked = client.session("kicked").await.unwrap();
    assert_eq!(kicked.state(), SessionState::Parked);
}

/// Holds the traffic up until the replica has all of it. Of what a master takes in the last moment before it is
/// replaced, the other may not have heard.
async fn replicated_at_rest(redis: &Watched, upstream: &Upstream, pause: &Cell<bool>) {
    pause.set(true);
    all_stored(upstream).await;
    redis.replicated(0);
}

/// Waits until the gateway's appends are taken again.
async fn stores_again(gateway: &Gateway) {
    let appended = || gateway.metrics.sum("imgate_events_appended_total", "");
    let before = appended();
    until("nothing is appended", || appended() > before).await;
}
