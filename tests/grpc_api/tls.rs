//! TLS and mutual TLS, with certificates made here.

use std::path::Path;

use imgate::grpc::server::{ServerError, ServerOptions, TlsFiles};
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

async fn serve(folder: &Path, client_ca: Option<&Authority>) -> Result<Served, ServerError> {
    let client_ca = client_ca.map(|authority| {
        let path = folder.join("clients.pem");
        std::fs::write(&path, authority.pem()).unwrap();
        path
    });
    let options = ServerOptions {
        tls: Some(TlsFiles {
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            client_ca,
        }),
        ..ServerOptions::default()
    };
    start("127.0.0.1:0", vec![open_tenant("dev")], options).await
}

fn server_files(folder: &Path, authority: &Authority) {
    let (certificate, key) = issue(authority, "imgate.test");
    std::fs::write(folder.join("server.pem"), certificate).unwrap();
    std::fs::write(folder.join("server.key"), key).unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    server_files(folder.path(), &authority);
    let served = serve(folder.path(), None).await.unwrap();
    assert!(answered(&served, trusting(&authority)).await);
    assert!(!answered(&served, trusting(&self::authority())).await);
    // Plain text gets no answer.
    let plain = Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
    let mut health = HealthClient::new(plain.connect_lazy());
    assert!(health.check(HealthCheckRequest::default()).await.is_err());
}

#[tokio::test]
async fn with_a_client_authority_a_client_needs_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (authority(), authority());
    server_files(folder.path(), &servers);
    let served = serve(folder.path(), Some(&clients)).await.unwrap();
    let with = |issuer: &Authority| {
        let (certificate, key) = issue(issuer, "bot.test");
        trusting(&servers).identity(Identity::from_pem(certificate, key))
    };
    assert!(answered(&served, with(&clients)).await);
    assert!(!answered(&served, with(&servers)).await);
    assert!(!answered(&served, trusting(&servers)).await);
}

#[tokio::test]
async fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = serve(folder.path(), None).await.err().unwrap();
    assert!(error.to_string().contains("server.pem"), "{error}");
    server_files(folder.path(), &authority());
    std::fs::write(folder.path().join("server.key"), "junk").unwrap();
    let error = serve(folder.path(), None).await.err().unwrap();
    assert!(matches!(error, ServerError::Tls(_)), "{error}");
}
