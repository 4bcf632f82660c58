//! What the upstream refuses for a while, and what it takes away.

use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event::Kind;
use tokio::time::Instant;

use crate::fixture::*;

fn kick_of(kind: Kind) -> Option<v1::KickedOffline> {
    match kind {
        Kind::KickedOffline(kicked) => Some(kicked),
        _ => None,
    }
}

#[tokio::test]
async fn a_throttled_login_says_so_and_comes_online_later_by_itself() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let throttled = async |account: &str, code: u32| {
        upstream.sim.account(account).unwrap();
        upstream.sim.refuse(Some(account), code, 1).unwrap();
        let began = Instant::now();
        let answer = client.login(account, &sig(account)).await.unwrap();
        assert_eq!(answer.code.unsigned_abs(), code);
        let session = answer.session.unwrap();
        assert_eq!(session.state(), SessionState::BackingOff);
        assert_eq!(session.code.unsigned_abs(), code);
        let online = client.until_state(account, SessionState::Online).await;
        assert_eq!((online.code, online.logins), (0, 1));
        // What the upstream asks for is bounded by ten times the greatest back-off.
        assert!(began.elapsed() >= 10 * MAX_BACKOFF, "{code}");
        let user = upstream.user(account);
        assert_eq!((user.logins, user.refused), (1, 1));
    };
    tokio::join!(throttled("often", 70050), throttled("soon", 70402));
}

#[tokio::test]
async fn a_kicked_session_yields() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    upstream.sim.kick("bot", 2).unwrap();
    let told = events.next_of("bot", kick_of).await;
    assert_eq!((told.kick_type, told.retaking), (2, false));
    let parked = client.until_state("bot", SessionState::Parked).await;
    assert_eq!(parked.park_reason(), ParkReason::Kicked);

    // It stays where it is until the bot wants it back.
    let waiting = client.session("bot").await.unwrap();
    assert_eq!((waiting.desired, waiting.logins), (true, 1));
    client.online("bot").await;
    assert_eq!(upstream.user("bot").logins, 2);
}

#[tokio::test]
async fn a_kicked_session_retakes_once_and_then_yields() {
    let upstream = Upstream::start().await;
    let mut tenant = tenant("acme", upstream.url());
    tenant.kick_policy = imgate::config::KickPolicy::Retake;
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;

    upstream.sim.kick("bot", 1).unwrap();
    let told = events.next_of("bot", kick_of).await;
    assert_eq!((told.kick_type, told.retaking), (1, true));
    until("it is not retaken", || upstream.user("bot").logins == 2).await;
    client.until_state("bot", SessionState::Online).await;

    upstream.sim.kick("bot", 1).unwrap();
    assert!(!events.next_of("bot", kick_of).await.retaking);
    let parked = client.until_state("bot", SessionState::Parked).await;
    assert_eq!(parked.park_reason(), ParkReason::Kicked);
    // Another account's retake is due later than a second one of this account would be.
    client.online("other").await;
    upstream.sim.kick("other", 1).unwrap();
    until("it is not retaken", || upstream.user("other").logins == 2).await;
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.kicked, user.online), (2, 2, false));
    assert_eq!(gateway.metrics.sum("imgate_session_kicks_total", ""), 3.0);
}

#[tokio::test]
async fn a_connection_that_is_cut_whenever_it_is_up_costs_one_login_and_is_dialled_less_and_less() {
    let upstream = Upstream::start().await;
    let proxy = crate::proxy::Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    let began = Instant::now();
    let window = Duration::from_secs(2);
    while began.elapsed() < window {
        upstream.sim.drop_connections(Some("bot")).unwrap();
        tokio::task::yield_now().await;
    }
    let seen = client.session("bot").await.unwrap();
    assert!(seen.attempt >= 3, "{seen:?}");
    let user = upstream.user("bot");
    assert_eq!(user.logins, 1);
    // Each attempt waits for a tenth of its bound at least, and the bound has grown to its greatest by the third.
    let most = 3 + window.as_millis() / (MAX_BACKOFF.as_millis() / 10);
    assert!(u128::from(proxy.accepted()) <= most, "{}", proxy.accepted());

    client.until_state("bot", SessionState::Online).await;
    upstream.texts("friend", "bot", ["after".into()]);
    until("the message is not acknowledged", || {
        upstream.user("bot").acked == 1
    })
    .await;
}
