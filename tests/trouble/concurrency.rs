//! Two things at once.

use std::time::Duration;

use imgate::config::StoreKind;
use tokio::net::TcpListener;
use tonic::Code;

use crate::fixture::*;
use crate::process::{Process, write_config};
use crate::proxy::Proxy;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn logins_at_once_are_one_login() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let (one, other) = (gateway.client().await, gateway.client().await);
    proxy.hold();
    let signature = sig("bot");
    let joined = async {
        one.until_state("bot", SessionState::Connecting).await;
        until("nothing is dialled", || proxy.accepted() == 1).await;
        // A caller that does not wait for the end does not end it.
        assert_late(other.login_within(SHORT, "bot", &signature).await);
        proxy.release();
    };
    let (first, second, third, ()) = tokio::join!(
        one.login("bot", &signature),
        other.login("bot", &signature),
        one.login("bot", ""),
        joined
    );
    for answer in [first, second, third] {
        assert_eq!(answer.unwrap().code, 0);
    }
    // Neither does one after it cost anything.
    other.online("bot").await;
    assert_eq!((proxy.accepted(), upstream.user("bot").logins), (1, 1));
}

#[tokio::test]
async fn a_login_during_a_renewal_joins_it_or_brings_the_signature() {
    let upstream = Upstream::start().await;
    let tenants = vec![
        tenant("acme", upstream.url()),
        issuing_tenant("other", upstream.url()),
    ];
    let gateway = Gateway::with(tenants).await;
    let (client, other) = (gateway.client().await, gateway.client_of("other").await);
    client.online("bot").await;
    upstream.sim.expire("bot").unwrap();
    client
        .until_state("bot", SessionState::RenewingSignature)
        .await;
    // Without a signature there is nothing to do but to say why.
    let answer = client.login("bot", "").await.unwrap();
    assert_eq!(answer.code, 70001);
    let another = sig_for("bot", Duration::from_secs(7200));
    let answer = client.login("bot", &another).await.unwrap();
    assert_eq!(answer.code, 0);
    assert_eq!(upstream.user("bot").logins, 2);

    // The second refusal makes the gateway wait before it makes a third signature.
    upstream.sim.account("issued").unwrap();
    upstream.sim.refuse(Some("issued"), 70001, 2).unwrap();
    let join = async {
        other
            .until_state("issued", SessionState::RenewingSignature)
            .await;
        other.login("issued", "").await
    };
    let (first, second) = tokio::join!(other.login("issued", ""), join);
    assert_eq!((first.unwrap().code, second.unwrap().code), (0, 0));
    let user = upstream.user("issued");
    assert_eq!((user.logins, user.refused), (1, 2));
}

#[tokio::test]
async fn a_logout_during_a_login_ends_it() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let client = gateway.client().await;
    proxy.hold();
    let logout = async {
        until("nothing is dialled", || proxy.accepted() == 1).await;
        let out = client.logout("bot").await.unwrap();
        assert_eq!((out.state(), out.desired), (SessionState::LoggedOut, false));
    };
    let signature = sig("bot");
    let (login, ()) = tokio::join!(client.login("bot", &signature), logout);
    let (code, reason, _) = refusal(login);
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(reason, "LOGGED_OUT");
    proxy.release_emptied().await;

    // Another login through the same proxy comes after anything that was still under way.
    client.online("other").await;
    assert_eq!(upstream.user("bot").connections, 0);
    assert_eq!(upstream.sim.stats().connections, 1);
    client.online("bot").await;
    assert_eq!(upstream.user("bot").logins, 1);
}

#[tokio::test]
async fn a_logout_during_a_back_off_keeps_the_session_out() {
    let place = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let gateway = Gateway::with(vec![tenant("acme", format!("ws://{address}"))]).await;
    let client = gateway.client().await;
    let logout = async {
        client.until_state("bot", SessionState::BackingOff).await;
        client.logout("bot").await.unwrap()
    };
    let signature = sig("bot");
    let (login, out) = tokio::join!(client.login("bot", &signature), logout);
    assert_eq!(out.state(), SessionState::LoggedOut);
    assert_eq!(refusal(login).1, "LOGGED_OUT");

    assert_late(client.login_within(SHORT, "other", &sig("other")).await);
    let upstream = Upstream::start_at(address).await;
    client.until_state("other", SessionState::Online).await;
    assert_eq!(upstream.user("bot").connections, 0);
    let still = client.session("bot").await.unwrap();
    assert_eq!(still.state(), SessionState::LoggedOut);
    // Logging out twice is logging out.
    client.logout("bot").await.unwrap();
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_login_is_made_good_by_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imgate.redb");
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let tenants = vec![tenant("acme", proxy.url())];
    let mut config = config(StoreKind::Embedded { path }, tenants);
    config.shutdown.grace = Duration::from_secs(3);
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    client.online("before").await;
    proxy.hold();
    let signature = sig("bot");
    let stop = async {
        until("nothing is dialled", || proxy.accepted() == 2).await;
        client.until_state("bot", SessionState::Connecting).await;
        gateway.stop().await
    };
    let (login, config) = tokio::join!(client.login("bot", &signature), stop);
    let (code, reason, _) = refusal(login);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "DRAINING"));
    proxy.release_emptied().await;

    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    for account in ["bot", "before"] {
        client.until_state(account, SessionState::Online).await;
        assert_eq!(upstream.user(account).logins, 1, "{account}");
    }
    assert_eq!(upstream.user("before").resumes, 1);
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_login_is_made_good_by_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let config = write_config(folder.path(), proxy.url());
    let gateway = Process::start(&config);
    gateway.ready().await;
    let client = Client::connect(gateway.grpc, "acme").await;
    proxy.hold();
    let signature = sig("bot");
    let kill = async {
        until("no login is sent", || proxy.kept() > 0).await;
        drop(gateway);
    };
    let (login, ()) = tokio::join!(client.login("bot", &signature), kill);
    login.unwrap_err();
    proxy.release_emptied().await;

    let gateway = Process::start(&config);
    gateway.ready().await;
    let client = Client::connect(gateway.grpc, "acme").await;
    let online = client.until_state("bot", SessionState::Online).await;
    assert_eq!((online.logins, online.resumes), (1, 0));
    let user = upstream.user("bot");
    assert_eq!((user.logins, user.refused), (1, 0));
}

#[tokio::test]
async fn calls_in_any_order_at_once_leave_the_session_as_the_last_one_wants_it() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    for round in 0..4 {
        let call = async |number: u64| {
            let fresh = sig_for("bot", Duration::from_secs(3600 + number));
            // Each may be overtaken by another, which its answer then says.
            match number % 4 {
                0 => drop(client.logout("bot").await),
                1 => drop(client.renew("bot", &fresh).await),
                _ => drop(client.login("bot", &fresh).await),
            }
        };
        let calls = (0..20).map(|number| call(round * 20 + number));
        let all = within(futures_util::future::join_all(calls));
        let cut = async {
            until("nothing comes online", || {
                upstream.sim.stats().logins > round
            })
            .await;
            let _none_to_cut = upstream.sim.drop_connections(None);
        };
        tokio::join!(all, cut);
        let last = sig_for("bot", Duration::from_secs(10_000 + round));
        assert_eq!(client.login("bot", &last).await.unwrap().code, 0);
        until("the upstream does not know", || upstream.user("bot").online).await;
        assert_eq!(upstream.sim.stats().connections, 1);
    }
    client.logout("bot").await.unwrap();
    until("it stays", || upstream.sim.stats().connections == 0).await;
    // Not once was a login sent too soon after the one before, or after the account had been logged out.
    let user = upstream.user("bot");
    assert_eq!((user.refused, user.kicked, user.online), (0, 0, false));
}
