//! TLS and mutual TLS, with certificates made here.

use imgate::grpc::server::{ServerError, ServerOptions, Tls};
use imgate::types::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fixture::{Served, open_tenant, start};

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
            client_ca: client_ca.map(|authority| authority.pem().into_bytes()),
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

#[tokio::test]
async fn an_unusable_key_is_refused() {
    let (certificate, _) = issue(&authority(), "imgate.test");
    let error = serve_with(certificate, "junk".into(), None)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ServerError::Tls(_)), "{error}");
}
