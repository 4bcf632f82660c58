//! Cursors that a gateway did not hand out to the tenant: refused by the name of the field, and without any effect.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use imgate::config::{Seal, StoreKind};
use imgate::proto::v1::subscribe_request::Start;
use tonic::{Code, Status};

use crate::fixture::*;
use crate::subscriber::{Books, Connection, Traffic, latest};

const NAME: &str = "books";

/// Asserts that a call was refused for its cursor.
fn assert_refused<T>(answer: Result<T, Status>, what: &str) {
    let Err(status) = answer else {
        panic!("{what}: taken");
    };
    assert!(status.message().contains("cursor"), "{what}: {status:?}");
    let refused = refusal(Err::<(), _>(status));
    let expected = (
        Code::InvalidArgument,
        "INVALID_CURSOR".into(),
        "cursor".into(),
    );
    assert_eq!(refused, expected, "{what}");
}

/// Asserts that nobody can begin at a cursor or acknowledge it.
async fn assert_no_cursor(connection: &Connection, cursor: &str, what: &str) {
    let subscribed = connection.subscribe(Start::Cursor(cursor.into()), 0).await;
    assert_refused(subscribed, what);
    assert_refused(connection.acknowledge(NAME, cursor).await, what);
}

/// A good cursor, with each of its bytes altered in turn: other places, of the past and of the future, among them.
fn altered(cursor: &str) -> impl Iterator<Item = String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
    (0..bytes.len()).flat_map(move |at| {
        [1, 0x80].map(|bit| {
            let mut bytes = bytes.clone();
            bytes[at] ^= bit;
            URL_SAFE_NO_PAD.encode(bytes)
        })
    })
}

#[tokio::test]
async fn a_cursor_that_is_not_the_tenants_own_is_refused_by_its_name() {
    let traffic = Traffic { bots: 2, bytes: 20 };
    let upstream = Upstream::start().await;
    let tenants = ["acme", "other"].map(|id| tenant(id, upstream.url()));
    let gateway = Gateway::with(tenants.into()).await;
    traffic.online(&gateway.client().await).await;
    let connection = Connection::open(gateway.grpc_address()).await;
    let named = Start::Subscription(NAME.into());
    drop(connection.subscribe(named.clone(), 0).await.unwrap());
    let mut subscriber = connection.subscribe(latest(), 0).await.unwrap();
    traffic.push(&upstream, 0..10);
    let mut books = Books::from(traffic, 0);
    books.read(&mut subscriber, 6).await;
    let good = subscriber.cursor.clone();

    let of_other = gateway.client_of("other").await.subscribe().await.cursor;
    assert_no_cursor(&connection, &of_other, "another tenant's").await;
    for cursor in altered(&good) {
        assert_no_cursor(&connection, &cursor, "an altered one").await;
    }
    for end in 0..good.len() {
        assert_no_cursor(&connection, &good[..end], "one cut short").await;
    }
    for more in ["A", "AAAA", "=", " ", "\n", "ü"] {
        assert_no_cursor(&connection, &format!("{good}{more}"), "a longer one").await;
        assert_no_cursor(&connection, &format!("{more}{good}"), "a longer one").await;
    }
    for nonsense in ["0", "latest", "{}", "../..", &"A".repeat(30_000)] {
        assert_no_cursor(&connection, nonsense, "nonsense").await;
    }

    // The named subscription stands where it stood, and the good cursor is good.
    let mut by_name = connection.subscribe(named, 0).await.unwrap();
    Books::from(traffic, 0).read(&mut by_name, 10).await;
    connection.acknowledge(NAME, &good).await.unwrap();
    let mut subscriber = connection.subscribe(Start::Cursor(good), 0).await.unwrap();
    books.read(&mut subscriber, 10).await;
}

#[tokio::test]
async fn a_cursor_of_a_gateway_with_other_keys_is_refused() {
    let upstream = Upstream::start().await;
    let mut cursors: Vec<String> = Vec::new();
    for key in [7, 9] {
        let mut config = config(StoreKind::Memory, vec![tenant("acme", upstream.url())]);
        config.seal = Seal::Keys(seal_keys(key));
        let gateway = Gateway::start(config).await.ready().await;
        let connection = Connection::open(gateway.grpc_address()).await;
        let named = Start::Subscription(NAME.into());
        drop(connection.subscribe(named, 0).await.unwrap());
        for cursor in &cursors {
            assert_no_cursor(&connection, cursor, "another gateway's").await;
        }
        cursors.push(connection.subscribe_to_latest().await.cursor);
        gateway.stop().await;
    }
}
