//! TLS and mutual TLS, with certificates made here.

use imgate::grpc::server::{ClientCertificates, ServerError, ServerOptions, Tls};
use imgate::proto::v1;
use imgate::tenants::auth::Scope;
use imgate::tenants::directory;
use imgate::types::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
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

/// A certificate for `name` and its key, in PEM.
fn issue(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

async fn serve(
    authority: &Authority,
    client_ca: Option<&Authority>,
) -> Result<Served, ServerError> {
    let (certificate, key) = issue(authority, "imgate.test");
    serve_with(certificate, key, client_ca).await
}

async fn serve_with(
    certificate: String,
    key: String,
    client_ca: Option<&Authority>,
) -> Result<Served, ServerError> {
    let options = ServerOptions {
        tls: Some(Tls {
            certificate: certificate.into_bytes(),
            key: Secret::new(key.into_bytes()),
            clients: client_ca.map(|authority| ClientCertificates {
                authority: authority.pem().into_bytes(),
                optional: false,
            }),
        }),
        ..ServerOptions::default()
    };
    start("127.0.0.1:0", vec![open_tenant("dev")], options).await
}

/// Whether a client with this configuration gets an answer.
async fn answered(served: &Served, tls: ClientTlsConfig) -> bool {
    let endpoint = Endpoint::from_shared(format!("https://{}", served.address)).unwrap();
    let endpoint = endpoint.tls_config(tls.domain_name("imgate.test")).unwrap();
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let mut health = HealthClient::new(channel);
    health.check(HealthCheckRequest::default()).await.is_ok()
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

#[tokio::test]
async fn a_client_that_trusts_the_server_is_answered() {
    let authority = authority();
    let served = serve(&authority, None).await.unwrap();
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
    let served = serve(&servers, Some(&clients)).await.unwrap();
    let with = |issuer: &Authority| {
        let (certificate, key) = issue(issuer, "bot.test");
        trusting(&servers).identity(Identity::from_pem(certificate, key))
    };
    assert!(answered(&served, with(&clients)).await);
    assert!(!answered(&served, with(&servers)).await);
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
    let (certificate, key) = issue(servers, "imgate.test");
    let mut acme = tenant("acme");
    acme.callers.certificates = vec![directory::ClientCertificate {
        id: "echo".into(),
        name: ECHO.into(),
        scopes: vec![Scope::Sessions],
    }];
    let options = ServerOptions {
        tls: Some(Tls {
            certificate: certificate.into_bytes(),
            key: Secret::new(key.into_bytes()),
            clients: Some(ClientCertificates {
                authority: clients.pem().into_bytes(),
                optional,
            }),
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
async fn an_unusable_key_is_refused() {
    let (certificate, _) = issue(&authority(), "imgate.test");
    let error = serve_with(certificate, "junk".into(), None)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ServerError::Tls(_)), "{error}");
}
