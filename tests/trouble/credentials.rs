//! Signatures that are wrong, that end, and that are refused again and again.

use std::time::Duration;

use imgate::connectors::tencent::usersig;
use imgate::proto::v1::event::Kind;
use imgate::types::{UnixMillis, WallClock};
use tonic::Code;

use crate::fixture::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A signature whose seconds begin now, so that little of the first one is lost.
async fn fresh_sig(account: &str, lifetime: Duration) -> String {
    let began = WallClock.now().as_secs();
    until("the clock stands still", || {
        WallClock.now().as_secs() > began
    })
    .await;
    sig_for(account, lifetime)
}

/// Logs in with a signature that is refused for good, with and without an issuer, and mends it.
async fn parks(signature: &str, code: i32) {
    let upstream = Upstream::start().await;
    let tenants = vec![
        tenant("acme", upstream.url()),
        issuing_tenant("other", upstream.url()),
    ];
    let gateway = Gateway::with(tenants).await;
    for (who, account) in [("acme", "bot1"), ("other", "bot1")] {
        let before = upstream.sim.stats().refused;
        let client = gateway.client_of(who).await;
        let answer = client.login(account, signature).await.unwrap();
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(!answer.desc.is_empty());
        let session = answer.session.unwrap();
        assert_eq!(session.state(), SessionState::Parked);
        assert_eq!(session.park_reason(), ParkReason::Refused);
        assert_eq!((session.code, session.desired), (code, true));
        assert_eq!(client.session(account).await.unwrap(), session);
        assert_eq!(upstream.sim.stats().refused, before + 1);

        let sent = client.send(account, "bot2", "hello", "").await;
        let (status, reason, _) = refusal(sent);
        assert_eq!(status, Code::FailedPrecondition);
        assert_eq!(reason, "NOT_LOGGED_IN");

        // Mended, it logs in; what was refused was not counted.
        client.online(account).await;
        assert_eq!(client.session(account).await.unwrap().logins, 1);
        client.logout(account).await.unwrap();
    }
}

#[tokio::test]
async fn a_signature_of_another_key_parks_the_session() {
    parks(&sig_of(APP, "another-key", "bot1", HOUR), 70009).await;
}

#[tokio::test]
async fn a_signature_for_another_app_parks_the_session() {
    parks(&sig_of(APP + 1, KEY, "bot1", HOUR), 70014).await;
}

#[tokio::test]
async fn a_signature_of_another_user_parks_the_session() {
    parks(&sig("bot2"), 70013).await;
}

#[tokio::test]
async fn a_damaged_signature_asks_for_another_or_makes_one() {
    let upstream = Upstream::start().await;
    let tenants = vec![
        tenant("acme", upstream.url()),
        issuing_tenant("other", upstream.url()),
    ];
    let gateway = Gateway::with(tenants).await;
    let (client, other) = (gateway.client().await, gateway.client_of("other").await);
    let mut events = client.subscribe().await;
    let good = sig("bot");
    for (number, damaged) in [&good[..good.len() / 2], "garbage", "*", "eJw"]
        .into_iter()
        .enumerate()
    {
        let (mine, theirs) = (format!("bot-{number}"), format!("other-{number}"));
        let answer = client.login(&mine, damaged).await.unwrap();
        assert_eq!(answer.code, 70003, "{damaged}: {answer:?}");
        let session = answer.session.unwrap();
        assert_eq!(session.state(), SessionState::RenewingSignature);
        assert_eq!(session.code, 70003);
        assert_eq!(events.signature_expired(&mine).await.code, 70003);
        let renewed = client.renew(&mine, &sig(&mine)).await.unwrap();
        assert!(renewed.desired);
        client.until_state(&mine, SessionState::Online).await;
        assert_eq!(upstream.user(&mine).logins, 1);

        let answer = other.login(&theirs, damaged).await.unwrap();
        assert_eq!(answer.code, 0, "{damaged}: {answer:?}");
        assert_eq!(upstream.user(&theirs).logins, 1);
    }
    assert_eq!(upstream.sim.stats().refused, 8);
}

#[tokio::test]
async fn an_empty_or_over_long_user_id_is_refused_by_the_name_of_its_field() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let long = "x".repeat(65);
    let cut = "é".repeat(33);
    for bad in ["", &long, &cut, "a\nb", "a\0b"] {
        let wrong = |answer| {
            let (code, _, field) = refusal(answer);
            assert_eq!((code, field.as_str()), (Code::InvalidArgument, "account"));
        };
        wrong(client.login(bad, &sig("bot")).await.map(drop));
        wrong(client.logout(bad).await.map(drop));
        wrong(client.renew(bad, &sig("bot")).await.map(drop));
        wrong(client.session(bad).await.map(drop));
        wrong(client.send(bad, "bot", "text", "").await.map(drop));
        wrong(client.invoke(bad, "profile.x").await.map(drop));
    }
    let stats = upstream.sim.stats();
    assert_eq!((stats.connections, stats.refused), (0, 0));
    // The longest that there may be is good.
    client.online(&"x".repeat(64)).await;
}

#[tokio::test]
async fn an_expired_signature_is_not_taken_to_the_upstream() {
    let upstream = Upstream::start().await;
    let proxy = crate::proxy::Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    let an_hour_ago = UnixMillis(WallClock.now().0 - 3_600_000);
    let minute = Duration::from_secs(60);
    let expired = usersig::mint(APP.into(), &secret(KEY), "bot", an_hour_ago, minute, None);

    let answer = client.login("bot", expired.expose()).await.unwrap();
    assert_eq!(answer.code, 6206);
    let session = answer.session.unwrap();
    assert_eq!(session.state(), SessionState::RenewingSignature);
    let told = events.signature_expired("bot").await;
    assert_eq!(told.code, 6206);
    let ended = told.expires_at.unwrap().seconds;
    assert_eq!(ended.unsigned_abs(), an_hour_ago.as_secs() + 60);
    let (code, _, field) = refusal(client.renew("bot", expired.expose()).await);
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "signature"));
    assert_eq!((proxy.accepted(), upstream.sim.stats().refused), (0, 0));

    client.renew("bot", &sig("bot")).await.unwrap();
    client.until_state("bot", SessionState::Online).await;
    assert_eq!((proxy.accepted(), upstream.user("bot").logins), (1, 1));
}

#[tokio::test]
async fn a_session_whose_signature_ends_goes_on_with_the_one_that_the_bot_brings_late() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    let signature = fresh_sig("bot", Duration::from_secs(2)).await;
    assert_eq!(client.login("bot", &signature).await.unwrap().code, 0);

    // The end is near, it has come by the gateway's clock, and the upstream says so too.
    for code in [0, 6206, 70001] {
        assert_eq!(events.signature_expired("bot").await.code, code);
    }
    let waiting = client
        .until_state("bot", SessionState::RenewingSignature)
        .await;
    assert_eq!(waiting.code, 70001);
    upstream.texts("friend", "bot", ["meanwhile".into()]);

    client.renew("bot", &sig("bot")).await.unwrap();
    assert_eq!(events.text("bot").await, "meanwhile");
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.online), (2, true));
}

#[tokio::test]
async fn a_session_whose_signature_ends_goes_on_with_the_one_that_the_bot_brought_in_time() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    let signature = fresh_sig("bot", Duration::from_secs(3)).await;
    assert_eq!(client.login("bot", &signature).await.unwrap().code, 0);
    let before = client.session("bot").await.unwrap().signature_expires_at;
    assert_eq!(events.signature_expired("bot").await.code, 0);

    // It is kept for its moment: a login costs.
    client.renew("bot", &sig("bot")).await.unwrap();
    assert_eq!(upstream.user("bot").logins, 1);
    client
        .until("bot", |bot| bot.signature_expires_at != before)
        .await;
    client.until_state("bot", SessionState::Online).await;
    until("no second login", || upstream.user("bot").logins == 2).await;
    upstream.texts("friend", "bot", ["after".into()]);
    let expired = |kind| match kind {
        Kind::SignatureExpired(expired) => Some(Err(expired)),
        kind => text_of(kind).map(Ok),
    };
    assert_eq!(events.next_of("bot", expired).await, Ok("after".into()));
}

#[tokio::test]
async fn messages_come_in_order_while_the_gateway_renews_signatures_that_end_within_seconds() {
    let upstream = Upstream::start().await;
    let mut tenant = issuing_tenant("acme", upstream.url());
    tenant.signature_lifetime = Duration::from_secs(2);
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    assert_eq!(client.login("bot", "").await.unwrap().code, 0);

    // A steady stream, until the session has lived through three signatures.
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut sent = Vec::new();
    while upstream.user("bot").logins < 4 {
        pace.tick().await;
        assert!(sent.len() < 1000, "the signatures do not end");
        let text = format!("text-{}", sent.len());
        upstream.texts("friend", "bot", [text.clone()]);
        sent.push(text);
    }
    let last = sent.last().unwrap();
    assert_eq!(events.texts_until("bot", last).await, sent);
    assert_eq!(upstream.sim.stats().refused, 0);
    assert_eq!(client.session("bot").await.unwrap().code, 0);
}

#[tokio::test]
async fn a_bot_that_brings_one_bad_signature_after_the_other_is_paced() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let began = tokio::time::Instant::now();
    for number in 0..3 {
        let damaged = client.login("bot", &format!("damaged-{number}")).await;
        assert_eq!(damaged.unwrap().code, 70003);
        let foreign = sig_of(APP, &format!("key-{number}"), "bot", HOUR);
        assert_eq!(client.login("bot", &foreign).await.unwrap().code, 70009);
    }
    client.online("bot").await;
    assert!(began.elapsed() >= Duration::from_millis(6 * 300));
    let stats = upstream.sim.stats();
    assert_eq!((stats.refused, stats.logins), (6, 1));
}

#[tokio::test]
async fn a_renewed_signature_that_is_refused_again_and_again_is_paced_and_then_parked() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![issuing_tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    // As often as a session tries, so that one more would succeed.
    upstream.sim.account("bot").unwrap();
    upstream.sim.refuse(Some("bot"), 70001, 6).unwrap();
    let began = tokio::time::Instant::now();
    let login = client.login("bot", "");
    let seen = async {
        let waiting = client
            .until_state("bot", SessionState::RenewingSignature)
            .await;
        assert_eq!((waiting.code, waiting.logins), (70001, 0));
    };
    let (answer, ()) = tokio::join!(login, seen);
    let answer = answer.unwrap();
    assert_eq!(answer.code, 70001);
    let session = answer.session.unwrap();
    assert_eq!(session.state(), SessionState::Parked);
    assert_eq!(session.park_reason(), ParkReason::Signature);
    let user = upstream.user("bot");
    assert_eq!((user.refused, user.logins), (6, 0));
    // Six logins have five spaces between them.
    assert!(began.elapsed() >= Duration::from_millis(5 * 300));
    let metrics = &gateway.metrics;
    let refused = "outcome=\"refused\"";
    assert_eq!(metrics.sum("imgate_session_logins_total", refused), 6.0);
    assert!(metrics.sum("imgate_session_renewals_total", "outcome=\"ok\"") >= 5.0);
    assert_eq!(metrics.sum("imgate_session_parked_total", ""), 1.0);
    let parked = "state=\"parked\"";
    assert_eq!(metrics.sum("imgate_session_sessions", parked), 1.0);

    // The bot begins anew.
    client.online("bot").await;
    assert_eq!(upstream.user("bot").logins, 1);
}
