//! Who is whose: by keys, certificates and openness. JWTs have tests of their own, in `tenants::jwt`.

use super::*;
use crate::tenants::jwt::{IssuerOptions, Issuers, Source};
use crate::tenants::keys::{KeyDigest, Validity};

const NOW: UnixMillis = UnixMillis::from_secs(1_700_000_000);

fn key(text: &str) -> Key {
    Key::new(format!("{text}-id"), KeyDigest::of(text))
}

fn tenant(id: &str, keys: &[(&str, &[Scope])]) -> Tenant {
    Tenant {
        id: TenantId::new(id),
        partitions: 8,
        max_subscriptions: 100,
        callers: Callers {
            keys: keys
                .iter()
                .map(|(text, scopes)| ApiKey {
                    key: key(text),
                    scopes: scopes.to_vec(),
                })
                .collect(),
            ..Callers::default()
        },
        open: false,
    }
}

fn with_certificates(mut tenant: Tenant, names: &[&str]) -> Tenant {
    tenant.callers.certificates = names
        .iter()
        .map(|name| ClientCertificate {
            id: format!("{name}-id"),
            name: (*name).to_owned(),
            scopes: vec![Scope::Events],
        })
        .collect();
    tenant
}

fn open(id: &str) -> Tenant {
    Tenant {
        open: true,
        ..tenant(id, &[])
    }
}

fn call<'a>(key: Option<&'a str>, tenant: Option<&'a str>) -> Credentials<'a> {
    Credentials {
        authorization: key,
        tenant,
        ..Credentials::default()
    }
}

fn who(directory: &Directory, credentials: Credentials<'_>) -> Result<Principal, AuthError> {
    match directory.authenticate(NOW, credentials)? {
        Caller::Tenant(principal) => Ok(principal),
        Caller::Operator(operator) => panic!("{operator:?}"),
    }
}

#[test]
fn a_key_says_whose_the_caller_is_and_what_it_may() {
    let directory = Directory::new(vec![
        tenant("a", &[("k1", &[Scope::Sessions]), ("k2", &Scope::ALL)]),
        tenant("b", &[("k3", &[Scope::Events])]),
    ])
    .unwrap();
    let who = |key| who(&directory, call(Some(key), None));

    let first = who("Bearer k1").unwrap();
    assert_eq!((first.tenant.as_str(), &*first.key_id), ("a", "k1-id"));
    assert_eq!(first.means, Means::ApiKey);
    assert_eq!(first.require(Scope::Sessions), Ok(()));
    let refused = Err(AuthError::ScopeMissing(Scope::Events));
    assert_eq!(first.require(Scope::Events), refused);
    assert_eq!(who("Bearer k3").unwrap().tenant.as_str(), "b");
    assert_eq!(who("Bearer k4"), Err(AuthError::KeyUnknown));
    assert_eq!(who("k1"), Err(AuthError::NotBearer));
    // Nobody's JWT is believed here, so it is a key like any other.
    assert_eq!(who("Bearer a.b.c"), Err(AuthError::KeyUnknown));
}

#[test]
fn without_a_key_nobody_comes_in_unless_a_tenant_is_open() {
    let closed = Directory::new(vec![tenant("a", &[("k1", &Scope::ALL)])]).unwrap();
    for named in [None, Some("a"), Some("b")] {
        let refused = who(&closed, call(None, named));
        assert_eq!(refused, Err(AuthError::KeyMissing));
    }
    assert!(!closed.has_open_tenant());

    let one = Directory::new(vec![tenant("a", &[("k1", &Scope::ALL)]), open("dev")]).unwrap();
    let caller = who(&one, call(None, None)).unwrap();
    assert_eq!(caller.tenant.as_str(), "dev");
    assert_eq!(caller.means, Means::Nothing);
    assert_eq!(caller.require(Scope::Messages), Ok(()));
    // A closed tenant cannot be had by naming it.
    let named = who(&one, call(None, Some("a")));
    assert_eq!(named, Err(AuthError::KeyMissing));
    // A wrong key is not a way in either.
    let wrong = who(&one, call(Some("Bearer no"), None));
    assert_eq!(wrong, Err(AuthError::KeyUnknown));
}

#[test]
fn of_several_open_tenants_one_must_be_named() {
    let two = Directory::new(vec![open("x"), open("y")]).unwrap();
    let unnamed = who(&two, call(None, None));
    assert_eq!(unnamed, Err(AuthError::TenantNotNamed));
    let named = who(&two, call(None, Some("y"))).unwrap();
    assert_eq!(named.tenant.as_str(), "y");
}

#[test]
fn a_key_does_not_reach_another_tenant() {
    let directory = Directory::new(vec![
        tenant("a", &[("k1", &Scope::ALL)]),
        tenant("b", &[("k2", &Scope::ALL)]),
    ])
    .unwrap();
    let own = who(&directory, call(Some("Bearer k1"), Some("a")));
    assert_eq!(own.unwrap().tenant.as_str(), "a");
    for other in ["b", "nobody", ""] {
        let refused = who(&directory, call(Some("Bearer k1"), Some(other)));
        assert_eq!(refused, Err(AuthError::OtherTenant));
    }
}

#[test]
fn a_certificate_says_whose_the_caller_is_where_no_key_does() {
    let directory = Directory::new(vec![
        with_certificates(tenant("a", &[("k1", &Scope::ALL)]), &["a.test", "both.a"]),
        with_certificates(tenant("b", &[]), &["b.test", "both.b"]),
    ])
    .unwrap();
    let who = |authorization, names: &[&str], tenant| {
        let names: PeerNames = names.iter().copied().collect();
        let credentials = Credentials {
            authorization,
            certificate: Some(&names),
            tenant,
        };
        let caller = who(&directory, credentials)?;
        Ok((caller.tenant.to_string(), caller.key_id.to_string()))
    };
    let known = |tenant: &str, id: &str| Ok((tenant.to_owned(), id.to_owned()));
    let (key, wrong) = (Some("Bearer k1"), Some("Bearer no"));
    for (authorization, names, tenant, expected) in [
        (None, &["a.test"][..], None, known("a", "a.test-id")),
        (None, &["x", "b.test"], None, known("b", "b.test-id")),
        (None, &["b.test"], Some("b"), known("b", "b.test-id")),
        (None, &["b.test"], Some("a"), Err(AuthError::OtherTenant)),
        (None, &["x"], None, Err(AuthError::CertificateUnknown)),
        (None, &[], None, Err(AuthError::CertificateUnknown)),
        (None, &["A.TEST"], None, Err(AuthError::CertificateUnknown)),
        // Of two tenants, and so for the caller to say.
        (
            None,
            &["both.a", "both.b"],
            None,
            Err(AuthError::TenantNotNamed),
        ),
        (
            None,
            &["both.a", "both.b"],
            Some("b"),
            known("b", "both.b-id"),
        ),
        // A key decides, the right one and the wrong one.
        (key, &["b.test"], None, known("a", "k1-id")),
        (key, &["b.test"], Some("b"), Err(AuthError::OtherTenant)),
        (wrong, &["b.test"], None, Err(AuthError::KeyUnknown)),
        (Some("k1"), &["b.test"], None, Err(AuthError::NotBearer)),
    ] {
        let found = who(authorization, names, tenant);
        assert_eq!(found, expected, "{authorization:?} {names:?} {tenant:?}");
    }
}

#[test]
fn a_certificate_that_nobody_has_is_no_harm_to_an_open_tenant() {
    let directory = Directory::new(vec![open("dev")]).unwrap();
    let names: PeerNames = ["x"].into_iter().collect();
    let credentials = Credentials {
        certificate: Some(&names),
        ..Credentials::default()
    };
    assert_eq!(who(&directory, credentials).unwrap().tenant.as_str(), "dev");
}

#[test]
fn an_operator_is_known_by_a_key_apart_from_the_tenants() {
    let directory = Directory::new(Contents {
        tenants: vec![tenant("a", &[("k1", &Scope::ALL)])],
        operators: vec![Key {
            validity: Validity {
                not_before: None,
                not_after: Some(NOW.plus(std::time::Duration::from_secs(1))),
            },
            ..key("ops")
        }],
        issuers: vec![],
    })
    .unwrap();
    for named in [None, Some("a")] {
        let caller = directory.authenticate(NOW, call(Some("Bearer ops"), named));
        let Ok(Caller::Operator(operator)) = caller else {
            panic!("{caller:?}");
        };
        assert_eq!(&*operator.id, "ops-id");
    }
    let later = UnixMillis::from_secs(1_700_000_001);
    let late = directory.authenticate(later, call(Some("Bearer ops"), None));
    assert_eq!(late, Err(AuthError::KeyExpired));
}

#[test]
fn what_is_replaced_holds_for_every_handle_at_once() {
    let directory = Directory::new(vec![tenant("a", &[("k1", &Scope::ALL)])]).unwrap();
    let handle = directory.clone();
    directory
        .replace(vec![tenant("a", &[("k2", &Scope::ALL)])])
        .unwrap();
    let old = who(&handle, call(Some("Bearer k1"), None));
    assert_eq!(old, Err(AuthError::KeyUnknown));
    assert!(who(&handle, call(Some("Bearer k2"), None)).is_ok());

    // What is refused changes nothing.
    let twice = vec![open("a"), open("a")];
    assert!(directory.replace(twice).is_err());
    assert!(who(&handle, call(Some("Bearer k2"), None)).is_ok());
    assert_eq!(handle.tenants().len(), 1);
    assert!(handle.tenant(&TenantId::new("a")).is_some());
}

fn issuers(names: &[&str]) -> Vec<Arc<Issuer>> {
    let options = names.iter().enumerate().map(|(place, name)| IssuerOptions {
        id: format!("issuer-{place}"),
        issuer: (*name).to_owned(),
        audience: "imgate".to_owned(),
        source: Source::File("jwks.json".into()),
        refresh: std::time::Duration::from_secs(300),
        clock_skew: std::time::Duration::ZERO,
    });
    Issuers::new(&crate::runtime::supervisor::Tasks::new()).prepare(options.collect())
}

fn with_subjects(mut tenant: Tenant, subjects: &[(&str, &str)]) -> Tenant {
    tenant.callers.subjects = subjects
        .iter()
        .map(|(issuer, subject)| JwtSubject {
            id: format!("{subject}-id"),
            issuer: (*issuer).to_owned(),
            subject: (*subject).to_owned(),
            scopes: vec![Scope::Events],
        })
        .collect();
    tenant
}

#[test]
fn contradictory_contents_are_refused() {
    let a = TenantId::new("a");
    let refused = |contents: Contents| Directory::new(contents).unwrap_err();
    let of_tenants = |tenants: Vec<Tenant>| refused(tenants.into());

    let twice = of_tenants(vec![open("a"), open("a")]);
    assert_eq!(twice, DirectoryError::DuplicateTenant(a.clone()));
    for partitions in [0, MAX_PARTITIONS + 1] {
        let tenant = Tenant {
            partitions,
            ..tenant("a", &[])
        };
        assert_eq!(
            of_tenants(vec![tenant]),
            DirectoryError::Partitions(a.clone())
        );
    }
    let issuer_unknown = with_subjects(tenant("a", &[]), &[("issuer-0", "s")]);
    assert!(matches!(
        of_tenants(vec![issuer_unknown]),
        DirectoryError::UnknownIssuer { .. }
    ));
    assert_eq!(
        refused(Contents {
            issuers: issuers(&["https://one", "https://one"]),
            ..Contents::default()
        }),
        DirectoryError::DuplicateIssuer("https://one".to_owned())
    );
}

#[test]
fn nobody_is_two_tenants_caller() {
    let duplicate = |contents: Contents, expected: &str| {
        let error = Directory::new(contents).unwrap_err();
        assert!(
            matches!(&error, DirectoryError::DuplicateCaller { owner, caller }
                if format!("{owner} {caller}") == expected),
            "{error}"
        );
    };
    let shared = ["b", "a"].map(|id| tenant(id, &[("k", &Scope::ALL)]));
    duplicate(shared.to_vec().into(), "tenant a the key k-id");
    let shared = ["b", "a"].map(|id| with_certificates(tenant(id, &[]), &["x.test"]));
    duplicate(shared.to_vec().into(), "tenant a the certificate x.test-id");
    let shared = ["b", "a"].map(|id| with_subjects(tenant(id, &[]), &[("issuer-0", "s")]));
    duplicate(
        Contents {
            tenants: shared.to_vec(),
            operators: vec![],
            issuers: issuers(&["https://one"]),
        },
        "tenant a the subject s-id",
    );
    duplicate(
        Contents {
            tenants: vec![tenant("a", &[("k", &Scope::ALL)])],
            operators: vec![key("k")],
            issuers: vec![],
        },
        "tenant a the key k-id",
    );
    // The same subject of two issuers is two callers.
    let apart = [("a", "issuer-0"), ("b", "issuer-1")]
        .map(|(id, issuer)| with_subjects(tenant(id, &[]), &[(issuer, "s")]));
    let contents = Contents {
        tenants: apart.to_vec(),
        operators: vec![],
        issuers: issuers(&["https://one", "https://two"]),
    };
    assert!(Directory::new(contents).is_ok());
}

#[test]
fn an_open_tenant_has_no_callers_of_its_own() {
    let keyed = tenant("a", &[("k", &Scope::ALL)]);
    let certified = with_certificates(tenant("a", &[]), &["x.test"]);
    let subjects = with_subjects(tenant("a", &[]), &[("issuer-0", "s")]);
    for mut tenant in [keyed, certified, subjects] {
        tenant.open = true;
        let contents = Contents {
            tenants: vec![tenant],
            operators: vec![],
            issuers: issuers(&["https://one"]),
        };
        let error = Directory::new(contents).unwrap_err();
        assert_eq!(error, DirectoryError::OpenWithCallers(TenantId::new("a")));
    }
}

#[test]
fn prefixes_that_begin_alike_are_refused() {
    let with = |prefix: &str, text: &str| Key {
        prefix: Some(prefix.to_owned()),
        ..key(text)
    };
    let contents = Contents {
        operators: vec![with("imgate_a", "k1"), with("imgate_ab", "k2")],
        ..Contents::default()
    };
    let error = Directory::new(contents).unwrap_err();
    assert!(matches!(error, DirectoryError::Prefix { .. }), "{error}");
}
