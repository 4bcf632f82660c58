//! Tenants are walls, seen from outside (guarantee G10): for each method of the API, what one tenant learns of another's
//! account, cursor, subscription or page is what it learns of one that there is not, to the letter.
//!
//! The methods come from the service descriptors, and each has a rule: a new one without a rule fails here.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and show what a process logged"
)]

#[path = "support/control.rs"]
mod control;
#[path = "support/program.rs"]
mod process;
#[path = "isolation/raw.rs"]
mod raw;
#[path = "isolation/rules.rs"]
mod rules;
#[path = "support/following.rs"]
mod world;

use std::collections::BTreeSet;

use prost::Message as _;
use raw::{Answer, Raw};
use rules::{MARKERS, VICTIM};
use serde_json::json;
use world::{World, tenant};

/// All methods of the services that the gateway serves, as `Service/Method`.
fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(imgate::proto::DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "imgate.v1");
    let services = files.flat_map(|file| &file.service);
    services
        // The tenants implement this one.
        .filter(|service| service.name() != "SignatureIssuerService")
        .flat_map(|service| {
            let methods = service.method.iter();
            methods.map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

#[test]
fn every_method_has_a_rule() {
    let ruled: BTreeSet<String> = rules::ALL
        .iter()
        .map(|(method, _)| (*method).to_owned())
        .collect();
    assert_eq!(ruled, methods());
}

#[tokio::test]
async fn what_is_anothers_is_as_if_it_were_not_there() {
    let everything = |text: String| {
        let all = "scopes = [\"sessions\", \"events\", \"messages\"]";
        text.replace("scopes = [\"sessions\"]", all)
            .replace("partitions", "invoke_commands = [\"*\"]\npartitions")
    };
    let victim = everything(tenant("victim", "victim-key"));
    // It has as many sessions as it may: a Login of whichever other account is refused, and costs nothing upstream.
    let attacker = everything(tenant("attacker", "attacker-key"))
        .replace("partitions", "limits = { sessions = 1 }\npartitions");
    let mut world = World::start(&[("victim", victim), ("attacker", attacker)]).await;
    world.log_in("victim-key", VICTIM).await;
    world.log_in("attacker-key", "own").await;
    world.control.make_account("human").await;
    let theirs = rules::Theirs::gather(&Raw::new(&world, "victim-key")).await;
    let before = world.session("victim-key", VICTIM).await.unwrap();

    let attacker = Raw::new(&world, "attacker-key");
    for (method, rule) in rules::ALL {
        for probe in rule(&theirs) {
            let (foreign, absent) = (
                attacker.ask(method, probe.foreign.clone()).await,
                attacker.ask(method, probe.absent.clone()).await,
            );
            let what = format!("{method}: {}", probe.what);
            assert_eq!(probe.unnamed(&foreign), probe.unnamed(&absent), "{what}");
            for marker in MARKERS.iter().filter(|marker| !probe.names(marker)) {
                assert!(!foreign.contains(marker), "{what}: {marker} in {foreign:?}");
            }
        }
        // Another tenant's name beside the own key, one that there is and one that there is not.
        let empty = Vec::new();
        let named = attacker.named("victim").ask(method, empty.clone()).await;
        let made_up = attacker.named("nobody").ask(method, empty).await;
        assert!(named.is_refused(), "{method}: {named:?}");
        assert_eq!(named, made_up, "{method}");
        // Without a key, and with one that nobody has.
        for key in [None, Some("nonsense")] {
            let answer = Raw::with(&world, key).ask(method, Vec::new()).await;
            assert!(answer.is_refused(), "{method}: {answer:?}");
            assert!(MARKERS.iter().all(|marker| !answer.contains(marker)));
        }
    }

    // What happens to the victim now does not reach the attacker, and what the attacker did has not reached the victim.
    let message = json!({ "from": "human", "to": VICTIM, "text": "for-the-victim" });
    world.control.post("/message", message).await;
    let seen = rules::reads_until(&Raw::new(&world, "victim-key"), "for-the-victim").await;
    assert!(seen, "the victim reads its own");
    let page = attacker
        .ask("EventService/Subscribe", rules::from_the_beginning())
        .await;
    assert!(
        MARKERS.iter().all(|marker| !page.contains(marker)),
        "{page:?}"
    );
    let after = world.session("victim-key", VICTIM).await.unwrap();
    assert_eq!((after.state(), after.since), (before.state(), before.since));
    let upstream = world.control.user(VICTIM).await;
    assert_eq!((upstream.connections, upstream.online), (1, true));
    rules::untouched(&Raw::new(&world, "victim-key"), &theirs).await;

    // Nor do metrics name accounts.
    let metrics = world.metrics().await;
    for account in [VICTIM, "own", "human"] {
        let label = format!("\"{account}\"");
        assert!(!metrics.contains(&label), "{label} in {metrics}");
    }
    assert!(world.stop().await);
}

/// The comparison would see a difference: an answer that tells more of what there is.
#[test]
fn a_difference_would_be_seen() {
    let probe = rules::Probe::named("probe", VICTIM, |account| account.as_bytes().to_vec());
    let told = Answer::refusal(5, "no session for this account of another tenant");
    let plain = Answer::refusal(5, "no session for this account");
    assert_ne!(probe.unnamed(&told), probe.unnamed(&plain));
    let named = |name: &str| Answer::refusal(5, &format!("no session for {name}"));
    assert_eq!(
        probe.unnamed(&named(VICTIM)),
        probe.unnamed(&named(rules::NOBODY))
    );
}
