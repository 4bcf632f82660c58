//! A tenant at its limits: it is told which and when to come back, and nobody else notices.

use std::time::Duration;

use futures_util::future::join_all;
use imgate::config::{CommandList, DailyActiveUsersAction, Tenant};
use imgate::proto::v1;
use imgate::proto::v1::subscribe_request::Start;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::fixture::*;
use crate::redis_server::RedisServer;
use crate::store::on_redis;

fn noisy(upstream: &Upstream) -> Tenant {
    let mut noisy = tenant("noisy", upstream.url());
    noisy.limits.logins_per_minute = 3;
    noisy.limits.sends_per_second = 5;
    noisy.limits.subscribers = 2;
    noisy
}

fn quiet(upstream: &Upstream) -> Tenant {
    Tenant {
        invoke_commands: CommandList::every(),
        ..tenant("quiet", upstream.url())
    }
}

/// Asserts that a call was refused by this quota with all details, and answers when to come back.
#[track_caller]
fn exceeded(status: &Status, tenant: &str, reason: &str, key: &str) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, reason);
    let violation = &details.quota_failure().unwrap().violations[0];
    assert_eq!(violation.subject, format!("tenants/{tenant}"));
    assert!(violation.description.contains(key), "{violation:?}");
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(!wait.is_zero());
    wait
}

fn refused<T>(answers: Vec<Result<T, Status>>) -> Vec<Status> {
    answers.into_iter().filter_map(Result::err).collect()
}

fn latest() -> Start {
    Start::At(v1::StartAt::Latest.into())
}

/// Calls of every kind, none of which is refused.
async fn calls_succeed(quiet: &Client) {
    for number in 0..30 {
        let sent = quiet.send("calm", "friend", &number.to_string(), "").await;
        assert_eq!(sent.unwrap().code, 0);
        let invoked = quiet.invoke("calm", "im_any.thing").await;
        invoked.unwrap();
        quiet.subscribe_from(latest()).await.unwrap();
        quiet.session("calm").await.unwrap();
    }
    for name in numbered("calm", 5) {
        quiet.online(&name).await;
    }
}

#[tokio::test]
async fn a_tenant_that_floods_is_refused_with_details_and_another_ones_calls_all_succeed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![noisy(&upstream), quiet(&upstream)]).await;
    let (noisy, quiet) = (
        gateway.client_of("noisy").await,
        gateway.client_of("quiet").await,
    );
    upstream.sim.account("friend").unwrap();
    noisy.online("loud").await;
    quiet.online("calm").await;

    let began = Instant::now();
    let sends = (0..300).map(|n| {
        let noisy = &noisy;
        async move { noisy.send("loud", "friend", &format!("{n}"), "").await }
    });
    let names = numbered("loud", 300);
    let logins = names.iter().map(|name| noisy.login(name, "no-good"));
    let subscribes = (0..50).map(|_| noisy.subscribe_from(latest()));
    let calm = calls_succeed(&quiet);
    let (sends, logins, subscribes, ()) = tokio::join!(
        join_all(sends),
        join_all(logins),
        join_all(subscribes),
        calm
    );
    let took = began.elapsed();

    let sends = refused(sends);
    for status in &sends {
        let wait = exceeded(
            status,
            "noisy",
            "SENDS_PER_SECOND",
            "limits.sends_per_second",
        );
        assert!(wait <= Duration::from_secs(1));
    }
    // As many as the limit has it in this time went through, and a second's worth.
    assert!((300 - sends.len()) as f64 <= 5.0 * took.as_secs_f64() + 6.0);
    let logins = refused(logins);
    for status in &logins {
        let wait = exceeded(
            status,
            "noisy",
            "LOGINS_PER_MINUTE",
            "limits.logins_per_minute",
        );
        assert!(wait <= Duration::from_secs(20));
    }
    assert!((300 - logins.len()) as f64 <= took.as_secs_f64() / 20.0 + 3.0);
    let open = subscribes.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(open, 2);
    let refused_subscribes: Vec<_> = subscribes
        .iter()
        .filter_map(|it| it.as_ref().err())
        .collect();
    for status in &refused_subscribes {
        exceeded(status, "noisy", "SUBSCRIBERS", "limits.subscribers");
    }
    for (quota, count) in [
        ("sends_per_second", sends.len()),
        ("logins_per_minute", logins.len()),
        ("subscribers", refused_subscribes.len()),
    ] {
        let name = "imgate_tenant_quota_refusals_total";
        let counted = gateway.metrics.sum(name, &format!("quota=\"{quota}\""));
        assert_eq!(counted, count as f64, "{quota}");
    }

    // It may go on when it was told so.
    drop(subscribes);
    let again = poll(async || noisy.subscribe_from(latest()).await.ok()).await;
    again.expect("a stream that has ended still counts");
    let mut wait = Duration::ZERO;
    loop {
        tokio::time::sleep(wait).await;
        match noisy.send("loud", "friend", "again", "").await {
            Ok(_) => break,
            Err(status) => {
                wait = exceeded(&status, "noisy", "SENDS_PER_SECOND", "limits.");
            }
        }
        assert!(began.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn other_limits_are_told_with_details_as_well() {
    let upstream = Upstream::start().await;
    let mut tenant = tenant("acme", upstream.url());
    tenant.limits.sessions = 1;
    tenant.limits.subscriptions = 0;
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    let status = client.login("more", &sig("more")).await.unwrap_err();
    exceeded(&status, "acme", "SESSIONS", "limits.sessions");
    let named = Start::Subscription("main".into());
    let status = client.subscribe_from(named).await.err().unwrap();
    exceeded(&status, "acme", "SUBSCRIPTIONS", "limits.subscriptions");
}

#[tokio::test]
async fn the_count_of_a_days_accounts_outlives_the_process() {
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let mut config = on_redis(&redis, &upstream);
    config.tenants[0].limits.daily_active_users = Some(2);
    config.tenants[0].limits.daily_active_users_action = DailyActiveUsersAction::Refuse;
    let gateway = Gateway::start(config).await.ready().await;
    let client = gateway.client().await;
    client.online("a").await;
    client.online("b").await;
    let full = async |client: &Client| {
        let status = client.login("c", &sig("c")).await.unwrap_err();
        let key = "limits.daily_active_users";
        let wait = exceeded(&status, "acme", "DAILY_ACTIVE_USERS", key);
        assert!(wait <= Duration::from_secs(24 * 3600));
    };
    full(&client).await;
    // Who was counted logs in again, by signature.
    client.logout("a").await.unwrap();
    client.online("a").await;
    let used = "imgate_tenant_daily_active_users";
    let limit = "imgate_tenant_daily_active_users_limit";
    let shows = |gateway: &Gateway, name| gateway.metrics.sum(name, "tenant=\"acme\"");
    until("the gauge does not show it", || {
        (shows(&gateway, used), shows(&gateway, limit)) == (2.0, 2.0)
    })
    .await;

    let gateway = gateway.restart().await;
    let client = gateway.client().await;
    client.until_state("b", SessionState::Online).await;
    let refused = poll(async || client.login("c", "no-good").await.err()).await;
    assert_eq!(refused.unwrap().code(), Code::ResourceExhausted);
    full(&client).await;
    client.logout("b").await.unwrap();
    client.online("b").await;
}
