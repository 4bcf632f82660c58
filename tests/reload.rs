//! The configuration while the gateway runs, seen from outside: tenants come, change and go, and those that did not change
//! are not touched; a configuration that is wrong changes nothing. Everything is a process of its own.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and show what a process logged"
)]

#[path = "reload/certificates.rs"]
mod certificates;
#[path = "support/control.rs"]
mod control;
#[path = "support/program.rs"]
mod process;
#[path = "support/following.rs"]
mod world;

use serde_json::json;
use tonic::Code;
use world::{Signer, World, tenant, until};

#[tokio::test]
async fn tenants_come_change_and_go_and_others_are_not_touched() {
    let mut world = World::start(&[("acme", tenant("acme", "acme-key"))]).await;
    world.log_in("acme-key", "steady").await;

    world.write("tenants/other.toml", &tenant("other", "other-key"));
    world.hang_up().await;
    world.reloaded("applied", 1.0).await;
    world.log_in("other-key", "bot").await;

    // A key is exchanged: the old one opens nothing any more.
    world.write("tenants/other.toml", &tenant("other", "second-key"));
    world.hang_up().await;
    world.reloaded("applied", 2.0).await;
    let refused = world.session("other-key", "bot").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let session = world.session("second-key", "bot").await.unwrap();
    assert_eq!(session.state(), world::ONLINE);

    // Removed: logged out upstream, and nobody may call. Declared again: its data was kept.
    world.remove("tenants/other.toml");
    world.hang_up().await;
    world.reloaded("applied", 3.0).await;
    let bot = world.control.user("bot").await;
    assert_eq!((bot.online, bot.logins), (false, 1));
    let refused = world.session("second-key", "bot").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    world.write("tenants/other.toml", &tenant("other", "second-key"));
    world.hang_up().await;
    world.reloaded("applied", 4.0).await;
    until("the partitions are held again", async || {
        let session = world.session("second-key", "bot").await;
        session.is_ok_and(|session| session.logins == 1 && !session.desired)
    })
    .await;

    // Its data goes when an operator says so, and not while it is declared.
    let (purged, said) = world.purge("other").await;
    assert!(!purged && said.contains("the tenant is declared"), "{said}");
    world.remove("tenants/other.toml");
    world.hang_up().await;
    world.reloaded("applied", 5.0).await;
    let (purged, said) = world.purge("other").await;
    assert!(purged, "{said}");
    assert_eq!(said, "other: all data of 2 partitions is deleted\n");
    let (purged, said) = world.purge("other").await;
    assert!(
        !purged && said.contains("the store has no data of this tenant"),
        "{said}"
    );
    world.write("tenants/other.toml", &tenant("other", "second-key"));
    world.hang_up().await;
    world.reloaded("applied", 6.0).await;
    until("it begins anew", async || {
        let session = world.session("second-key", "bot").await;
        session.is_err_and(|refused| refused.code() == Code::NotFound)
    })
    .await;

    let steady = world.control.user("steady").await;
    assert_eq!((steady.online, steady.connections), (true, 1));
    assert!(world.stop().await);
}

#[tokio::test]
async fn what_a_tenant_may_set_holds_for_sessions_that_live() {
    let mut world = World::start(&[("acme", tenant("acme", "key"))]).await;
    world.log_in("key", "bot").await;
    let limits = "limits = { sessions = 1 }\nkick_policy = \"retake\"\nretake_delay = \"1s\"\n";
    let changed = tenant("acme", "key").replace("partitions", &format!("{limits}partitions"));
    // Nobody asks: the files have changed.
    world.write("tenants/acme.toml", &changed);
    world.reloaded("applied", 1.0).await;
    let refused = world.try_log_in("key", "second").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // The session has heard of it: a kick is taken back now.
    world
        .control
        .post("/kick", json!({ "user_id": "bot" }))
        .await;
    until("the account is taken back", async || {
        let bot = world.control.user("bot").await;
        bot.online && bot.kicked == 1 && bot.logins == 2
    })
    .await;
    assert!(world.stop().await);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_as_a_whole() {
    let acme = tenant("acme", "key");
    let mut world = World::start(&[("acme", acme.clone())]).await;
    world.log_in("key", "bot").await;
    let half = &acme[..acme.find("api_keys").unwrap()];
    let other_app = acme.replace("1400000001", "1400000002");
    let other_partitions = acme.replace("partitions = 2", "partitions = 3");
    let mut refused = 0.0;
    for (text, said) in [
        (half, "acme.toml has a problem:"),
        (
            &other_app,
            "tenants[acme].sdk_app_id = 1400000002: cannot change from 1400000001, for",
        ),
        (
            &other_partitions,
            "tenants[acme].partitions = 3: cannot change from 2, for",
        ),
    ] {
        // Something else that would be right is not put in force either.
        world.write("tenants/new.toml", &tenant("new", "new-key"));
        world.write("tenants/acme.toml", text);
        world.hang_up().await;
        refused += 1.0;
        world.reloaded("refused", refused).await;
        assert_eq!(world.metric("imgate_config_in_force", "").await, 0.0);
        let log = world.log();
        assert!(
            log.contains("the configuration is refused; the one in force stays"),
            "{log}"
        );
        assert!(log.contains(said), "{said} is not in {log}");
        let unknown = world.session("new-key", "bot").await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unauthenticated);
        let session = world.session("key", "bot").await.unwrap();
        assert_eq!(session.state(), world::ONLINE);
    }
    world.write("tenants/acme.toml", &acme);
    world.hang_up().await;
    world.reloaded("applied", 1.0).await;
    assert_eq!(world.metric("imgate_config_in_force", "").await, 1.0);
    world.log_in("new-key", "newcomer").await;
    let bot = world.control.user("bot").await;
    assert_eq!((bot.online, bot.connections), (true, 1));
    assert!(world.stop().await);
}

/// Who signs for callers, and whose callers they are, comes and goes like tenants do.
#[tokio::test]
async fn issuers_and_operators_come_and_go_and_issuers_that_stay_keep_their_keys() {
    let acme = tenant("acme", "key");
    let mut world = World::start(&[("acme", acme.clone())]).await;
    world.log_in("key", "bot").await;
    let signer = Signer::new();
    let token = signer.token();
    let refused = world.session(&token, "bot").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    world.write("jwks.json", &signer.set());
    world.write("tenants/issuers.toml", world::ISSUER_AND_OPERATOR);
    let with_subject = format!("{acme}{}", world::SUBJECT);
    world.write("tenants/acme.toml", &with_subject);
    world.hang_up().await;
    world.reloaded("applied", 1.0).await;
    until("the issuer's keys are read", async || {
        world.session(&token, "bot").await.is_ok()
    })
    .await;
    let refused = world.session("operators-key", "bot").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    // Another change, at a time when the keys could not be read anew.
    world.write("jwks.json", "half of it");
    world.write(
        "tenants/acme.toml",
        &with_subject.replace("partitions", "retake_delay = \"1s\"\npartitions"),
    );
    world.hang_up().await;
    world.reloaded("applied", 2.0).await;
    let session = world.session(&token, "bot").await.unwrap();
    assert_eq!(session.state(), world::ONLINE);

    world.write("tenants/acme.toml", &acme);
    world.remove("tenants/issuers.toml");
    world.hang_up().await;
    world.reloaded("applied", 3.0).await;
    for gone in [&token, "operators-key"] {
        let refused = world.session(gone, "bot").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let session = world.session("key", "bot").await.unwrap();
    assert_eq!(session.state(), world::ONLINE);
    assert!(world.stop().await);
}
