//! Records that cannot be read, and a partition that another replica takes.

use imgate::config::Seal;
use imgate::proto::v1;
use imgate::store::redis::RedisStore;
use imgate::store::{Batch, Claim, Lease, Store, StoredSession};
use imgate::types::{AccountId, Epoch, ReplicaId, WallClock};
use prost::Message as _;
use redis::Commands as _;

use crate::fixture::*;
use crate::redis_server::RedisServer;
use crate::store::{key, on_redis, partition, raw_store};

/// Takes the partition away from whoever has it.
async fn seize(redis: &RedisServer, store: &RedisStore) -> Lease {
    let mut connection = redis.client();
    let other = ReplicaId::new("second");
    loop {
        // As if the lease had run out.
        let _: () = connection.del(key("lease")).unwrap();
        let claim = store
            .claim(&partition(), &other, PATIENCE, Some(Epoch(0)))
            .await;
        if let Claim::Granted(lease) = claim.unwrap() {
            return lease;
        }
    }
}

/// A batch with a message.
fn one_event(text: &str) -> Batch {
    let text = v1::TextElement { text: text.into() };
    let element = v1::Element {
        kind: Some(v1::element::Kind::Text(text)),
    };
    let event = v1::Event {
        account: "theirs".into(),
        kind: Some(v1::event::Kind::Message(v1::Message {
            elements: vec![element],
            ..v1::Message::default()
        })),
        ..v1::Event::default()
    };
    Batch {
        now: WallClock.now(),
        events: vec![event.encode_to_vec()],
        ..Batch::default()
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_parks_its_session_alone_until_a_login() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(on_redis(&redis, &upstream))
        .await
        .ready()
        .await;
    let client = gateway.client().await;
    for account in ["garbage", "good", "short"] {
        client.online(account).await;
    }
    let mut config = gateway.stop().await;
    // One record of another key: by a gateway that cannot read the others'.
    config.seal = Seal::Keys(seal_keys(9));
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    let listed = client.list(0, "").await.unwrap().sessions;
    assert_eq!(listed.len(), 3);
    for session in listed {
        assert_eq!(session.park_reason(), ParkReason::CorruptRecord);
    }
    client.online("foreign").await;
    let mut config = gateway.stop().await;
    let mut connection = redis.client();
    let sessions = key("sessions");
    let _: () = connection
        .hset(&sessions, "garbage", b"\xff\x00garbage")
        .unwrap();
    let short: Vec<u8> = connection.hget(&sessions, "short").unwrap();
    let _: () = connection
        .hset(&sessions, "short", &short[..short.len() / 2])
        .unwrap();

    config.seal = Seal::Keys(seal_keys(7));
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    client.until_state("good", SessionState::Online).await;
    let before = upstream.sim.stats();
    for account in ["garbage", "short", "foreign"] {
        let session = client.session(account).await.unwrap();
        assert_eq!(session.state(), SessionState::Parked, "{account}");
        assert_eq!(session.park_reason(), ParkReason::CorruptRecord);
        assert!(!session.desc.is_empty());
    }
    assert_eq!(before.logins, 4);
    let corrupt = "imgate_session_corrupt_records_total";
    assert_eq!(gateway.metrics.sum(corrupt, ""), 3.0 + 3.0);
    for account in ["garbage", "short", "foreign"] {
        // When the last login was is lost with the record, and so this one may come too soon for the upstream.
        let answer = client.login(account, &sig(account)).await.unwrap();
        assert!(matches!(answer.code, 0 | 70402), "{answer:?}");
        client.until_state(account, SessionState::Online).await;
    }
    let gateway = gateway.restart().await;
    let client = gateway.client().await;
    for account in ["garbage", "short", "foreign", "good"] {
        client.until_state(account, SessionState::Online).await;
    }
    assert_eq!(upstream.sim.stats().logins, 7);
}

#[tokio::test]
async fn a_partition_that_another_replica_takes_is_let_go_at_once() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let mut config = on_redis(&redis, &upstream);
    config.tenants.push(tenant("other", upstream.url()));
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    let other = gateway.client_of("other").await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    other.online("theirs").await;
    upstream.texts("friend", "bot", ["before".into()]);
    assert_eq!(events.text("bot").await, "before");

    let store = raw_store(&redis).await;
    let lease = seize(&redis, &store).await;
    // What the other one appends is delivered here all the same.
    for number in ["1", "2"] {
        store.commit(&lease, &one_event(number)).await.unwrap();
        assert_eq!(events.text("theirs").await, number);
    }
    let noted = StoredSession {
        account: AccountId::new("mark"),
        record: b"the second replica's".to_vec(),
    };
    let mark = Batch {
        now: WallClock.now(),
        records: vec![noted],
        events: vec![],
        ..Batch::default()
    };
    store.commit(&lease, &mark).await.unwrap();
    let bounds = store.log_bounds(&partition()).await.unwrap();
    let records = store.sessions(&partition()).await.unwrap();
    upstream.texts("friend", "bot", ["meanwhile".into()]);
    until("its socket stays open", || !upstream.user("bot").online).await;
    assert_store_away(client.session("bot").await);
    assert_store_away(client.login("bot", &sig("bot")).await);
    assert_store_away(client.list(0, "").await);
    assert_eq!(
        gateway.metrics.sum("imgate_cluster_leases_lost_total", ""),
        1.0
    );
    assert!(upstream.user("theirs").online);
    assert_eq!(upstream.user("theirs").connections, 1);
    // Nothing more was written, and what was not written was not acknowledged.
    assert_eq!(store.log_bounds(&partition()).await.unwrap(), bounds);
    assert_eq!(store.sessions(&partition()).await.unwrap(), records);
    assert_eq!(upstream.user("bot").acked, 1);

    store.release(&lease).await.unwrap();
    assert_eq!(events.text("bot").await, "meanwhile");
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.resumes), (1, 1));
    let mark = client.session("mark").await.unwrap();
    assert_eq!(mark.park_reason(), ParkReason::CorruptRecord);
}
