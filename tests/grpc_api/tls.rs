//! TLS and mutual TLS, with certificates made here, and their replacement while the server runs.

use imgate::grpc::listener::tls::TlsError;
use imgate::grpc::server::{ClientCertificates, ServerError, ServerOptions, Tls};
use imgate::proto::v1;
use imgate::tenants::auth::Scope;
use imgate::tenants::directory;
use imgate::types::Secret;
use metrics_exporter_prometheus::PrometheusBuilder;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::fixture::{Served, clients, open_tenant, refusal, start, tenant};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name` until the first day of `year`, and its key, in PEM.
fn issue_until(authority: &Authority, name: &str, year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.into()]).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// One that does not end while this is of use.
fn issue(authority: &Authority, name: &str) -> (String, String) {
    issue_until(authority, name, 2100)
}

fn material(pair: (String, String), client_ca: Option<&Authority>) -> Tls {
    Tls {
        certificate: pair.0.into_bytes(),
        key: Secret::new(pair.1.into_bytes()),
        client_ca: client_ca.map(|authority| authority.pem().into_bytes()),
        client_certificates: ClientCertificates::Required,
    }
}

async fn serve(tls: Tls) -> Result<Served, ServerError> {
    let options = ServerOptions {
        tls: Some(tls),
        ..ServerOptions::default()
    };
    start("127.0.0.1:0", vec![open_tenant("dev")], options).await
}

async fn health(served: &Served, tls: ClientTlsConfig) -> Option<HealthClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("https://{}", served.address)).unwrap();
    let endpoint = endpoint.tls_config(tls.domain_name("imgate.test")).unwrap();
    Some(HealthClient::new(endpoint.connect().await.ok()?))
}

/// Whether a client with this configuration gets an answer on a new connection.
async fn answered(served: &Served, tls: ClientTlsConfig) -> bool {
    match health(served, tls).await {
        Some(mut health) => health.check(HealthCheckRequest::default()).await.is_ok(),
        None => false,
    }
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

/// A client that trusts `servers` and shows a certificate of `clients`.
fn showing(servers: &Authority, clients: &Authority) -> ClientTlsConfig {
    let (certificate, key) = issue(clients, "bot.test");
    trusting(servers).identity(Identity::from_pem(certificate, key))
}

#[tokio::test]
async fn a_client_that_trusts_the_server_is_answered() {
    let authority = authority();
    let served = serve(material(issue(&authority, "imgate.test"), None))
        .await
        .unwrap();
    assert!(answered(&served, trusting(&authority)).await);
    assert!(!answered(&served, trusting(&self::authority())).await);
    // Plain text gets no answer.
    let plain = Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
    let mut health = HealthClient::new(plain.connect_lazy());
    assert!(health.check(HealthCheckRequest::default()).await.is_err());
}

#[tokio::test]
async fn with_a_client_authority_a_client_needs_its_certificate() {
    let (servers, clients) = (authority(), authority());
    let material = material(issue(&servers, "imgate.test"), Some(&clients));
    let served = serve(material).await.unwrap();
    assert!(answered(&served, showing(&servers, &clients)).await);
    assert!(!answered(&served, showing(&servers, &servers)).await);
    assert!(!answered(&served, trusting(&servers)).await);
}

/// A certificate of `authority` with one URI name.
fn issue_uri(authority: &Authority, name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    let certificate = params.signed_by(&key, authority).unwrap();
    Identity::from_pem(certificate.pem(), key.serialize_pem())
}

const ECHO: &str = "spiffe://cluster.test/ns/bots/sa/echo";

/// `acme`, whose caller is [`ECHO`] for its sessions, and `other`. Both have keys besides.
async fn serve_mapped(servers: &Authority, clients: &Authority, optional: bool) -> Served {
    let mut acme = tenant("acme");
    acme.callers.certificates = vec![directory::ClientCertificate {
        id: "echo".into(),
        name: ECHO.into(),
        scopes: vec![Scope::Sessions],
    }];
    let options = ServerOptions {
        tls: Some(Tls {
            client_certificates: if optional {
                ClientCertificates::Optional
            } else {
                ClientCertificates::Required
            },
            ..material(issue(servers, "imgate.test"), Some(clients))
        }),
        ..ServerOptions::default()
    };
    let tenants = vec![acme, tenant("other")];
    start("127.0.0.1:0", tenants, options).await.unwrap()
}

/// A connection with this certificate, or with none; `None` if there is no connection to be had.
async fn channel(
    served: &Served,
    servers: &Authority,
    identity: Option<Identity>,
) -> Option<Channel> {
    let tls = trusting(servers).domain_name("imgate.test");
    let tls = match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", served.address)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.ok()
}

/// What calls of both services lead to: INVALID_FIELD where the caller is let in.
async fn reasons(channel: &Channel, key: Option<&str>) -> [String; 2] {
    let mut clients = clients(channel.clone(), key);
    let request = v1::GetSessionRequest::default();
    let (_, sessions, _) = refusal(clients.sessions.get_session(request).await);
    let request = v1::AcknowledgeRequest::default();
    let (_, events, _) = refusal(clients.events.acknowledge(request).await);
    [sessions, events]
}

#[tokio::test]
async fn a_certificate_that_is_mapped_is_its_tenants_caller() {
    let (servers, authority) = (authority(), authority());
    let served = serve_mapped(&servers, &authority, true).await;
    let echo = channel(&served, &servers, Some(issue_uri(&authority, ECHO)));
    let echo = echo.await.unwrap();
    assert_eq!(
        reasons(&echo, None).await,
        ["INVALID_FIELD", "SCOPE_MISSING"]
    );
    // A key decides, also where it says less than the certificate.
    let all = ["INVALID_FIELD", "INVALID_FIELD"];
    assert_eq!(reasons(&echo, Some("other-key")).await, all);
    let less = reasons(&echo, Some("other-events")).await;
    assert_eq!(less, ["SCOPE_MISSING", "INVALID_FIELD"]);
    let wrong = reasons(&echo, Some("wrong")).await;
    assert_eq!(wrong, ["API_KEY_UNKNOWN", "API_KEY_UNKNOWN"]);
    // The tenant that is named must be the certificate's.
    let mut sessions = clients(echo.clone(), None).sessions;
    for (named, reason) in [("acme", "INVALID_FIELD"), ("other", "TENANT_MISMATCH")] {
        let mut request = Request::new(v1::GetSessionRequest::default());
        let named = named.parse().unwrap();
        request.metadata_mut().insert("imgate-tenant", named);
        let (_, said, _) = refusal(sessions.get_session(request).await);
        assert_eq!(said, reason);
    }

    let nobody = issue_uri(&authority, "spiffe://cluster.test/ns/bots/sa/other");
    let nobody = channel(&served, &servers, Some(nobody)).await.unwrap();
    let unknown = ["CERTIFICATE_UNKNOWN", "CERTIFICATE_UNKNOWN"];
    assert_eq!(reasons(&nobody, None).await, unknown);
    assert_eq!(reasons(&nobody, Some("acme-key")).await, all);

    let bare = channel(&served, &servers, None).await.unwrap();
    let missing = ["API_KEY_MISSING", "API_KEY_MISSING"];
    assert_eq!(reasons(&bare, None).await, missing);
    assert_eq!(reasons(&bare, Some("acme-key")).await, all);
}

/// The name alone is worth nothing: optional is the certificate, not its signature.
#[tokio::test]
async fn a_certificate_of_another_authority_gets_nobody_in() {
    let (servers, authority) = (authority(), authority());
    for optional in [true, false] {
        let served = serve_mapped(&servers, &authority, optional).await;
        let forged = channel(&served, &servers, Some(issue_uri(&servers, ECHO))).await;
        if let Some(forged) = forged {
            // TLS 1.3 tells the client of it at the first call.
            let mut sessions = clients(forged, None).sessions;
            let answer = sessions.get_session(v1::GetSessionRequest::default());
            let status = answer.await.unwrap_err();
            let text = status.get_error_details();
            assert!(text.error_info().is_none(), "{status:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_may_be_left_out_must_still_be_good_when_it_is_shown() {
    let (servers, clients) = (authority(), authority());
    let tls = Tls {
        client_certificates: ClientCertificates::Optional,
        ..material(issue(&servers, "imgate.test"), Some(&clients))
    };
    let served = serve(tls).await.unwrap();
    assert!(answered(&served, trusting(&servers)).await);
    assert!(answered(&served, showing(&servers, &clients)).await);
    assert!(!answered(&served, showing(&servers, &servers)).await);
}

#[tokio::test]
async fn unusable_material_is_refused_and_says_what_is_wrong() {
    let authority = authority();
    let (certificate, key) = issue(&authority, "imgate.test");
    let (_, other_key) = issue(&authority, "imgate.test");
    let bad_authority = Tls {
        client_ca: Some(b"junk".to_vec()),
        ..material((certificate.clone(), key.clone()), None)
    };
    for (tls, word) in [
        (material((certificate.clone(), "junk".into()), None), "key"),
        (material(("junk".into(), key), None), "certificate"),
        (material((certificate, other_key), None), "together"),
        (bad_authority, "authority"),
    ] {
        let error = serve(tls).await.err().unwrap();
        assert!(matches!(error, ServerError::Tls(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn new_material_is_for_new_connections_and_the_old_ones_go_on() {
    let (old, new) = (authority(), authority());
    let (old_clients, new_clients) = (authority(), authority());
    let served = serve(material(issue(&old, "imgate.test"), Some(&old_clients)))
        .await
        .unwrap();
    let mut open = health(&served, showing(&old, &old_clients)).await.unwrap();
    open.check(HealthCheckRequest::default()).await.unwrap();

    let fresh = material(issue(&new, "imgate.test"), Some(&new_clients));
    let reload = served.tls.as_ref().unwrap();
    reload.prepare(&fresh).unwrap().put_in_force();
    assert!(answered(&served, showing(&new, &new_clients)).await);
    assert!(!answered(&served, showing(&old, &old_clients)).await);
    // Neither half of the old is of use any more.
    assert!(!answered(&served, showing(&new, &old_clients)).await);
    open.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn bad_new_material_is_refused_as_a_whole_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    imgate::grpc::metrics::describe_metrics();

    let (authority, clients) = (authority(), authority());
    let pair = issue(&authority, "imgate.test");
    let served = serve(material(pair.clone(), None)).await.unwrap();
    let reload = served.tls.clone().unwrap();
    // The certificate is there already, its key is not: a Secret that is half written.
    let half = material((issue(&authority, "imgate.test").0, pair.1), Some(&clients));
    let refused = reload.prepare(&half).unwrap_err();
    assert!(matches!(refused, TlsError::Pair(_)), "{refused}");
    let ended = material(issue_until(&authority, "imgate.test", 2020), Some(&clients));
    assert!(matches!(reload.prepare(&ended), Err(TlsError::Ended)));
    assert!(answered(&served, trusting(&authority)).await);

    let fresh = material(issue_until(&authority, "imgate.test", 2096), None);
    reload.prepare(&fresh).unwrap().put_in_force();
    assert!(answered(&served, trusting(&authority)).await);
    let text = shown.render();
    for line in [
        "imgate_grpc_tls_reloads_total{outcome=\"ok\"} 1",
        "imgate_grpc_tls_reloads_total{outcome=\"refused\"} 2",
        // The first day of 2096.
        "imgate_grpc_certificate_expiry_timestamp_seconds 3976214400",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
}
