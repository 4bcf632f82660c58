//! What a request knows of its connection.

use std::future::poll_fn;

use axum::http::Request;
use axum::routing::post;
use axum::{Extension, Router};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::tls::{ClientCertificates, Tls};
use super::*;
use crate::types::Secret;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(authority: &Authority, name: &str) -> (rcgen::Certificate, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate, key.serialize_pem())
}

/// Answers the caller's address, and the certificate.
async fn who(Extension(peer): Extension<Peer>) -> Vec<u8> {
    let mut answer = format!("{} ", peer.address).into_bytes();
    if let Some(leaf) = &peer.certificate {
        answer.extend(leaf.iter());
    }
    answer
}

/// What the server says of a client with this configuration, without the port.
async fn seen(address: SocketAddr, tls: ClientTlsConfig) -> (String, Vec<u8>) {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let endpoint = endpoint.tls_config(tls.domain_name("imgate.test")).unwrap();
    let mut channel = endpoint.connect().await.unwrap();
    poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let request = Request::post("/who").body(Body::empty()).unwrap();
    let response = channel.call(request).await.unwrap();
    let body = axum::body::Body::new(response.into_body());
    let body = axum::body::to_bytes(body, 10_000).await.unwrap();
    let space = body.iter().position(|byte| *byte == b' ').unwrap();
    let address: SocketAddr = str::from_utf8(&body[..space]).unwrap().parse().unwrap();
    (address.ip().to_string(), body[space + 1..].to_vec())
}

#[tokio::test]
async fn a_request_knows_the_peer_and_the_certificate_that_it_has_shown() {
    let (servers, clients) = (authority(), authority());
    let (certificate, key) = issue(&servers, "imgate.test");
    let tls = Tls {
        certificate: certificate.pem().into_bytes(),
        key: Secret::new(key.into_bytes()),
        client_ca: Some(clients.pem().into_bytes()),
        client_certificates: ClientCertificates::Optional,
    };
    let bound = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = bound.local_addr().unwrap();
    let tasks = Tasks::new();
    let listener = Listener {
        limits: Arc::new(Limits::default()),
        tls: Some(TlsReload::begin(&tls).unwrap()),
        routes: Routes::from(Router::new().route("/who", post(who))),
        tasks: tasks.clone(),
        connections: Tasks::new(),
    };
    tasks.spawn("listener", TaskKind::Work, listener.accept(bound));

    let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(servers.pem()));
    let loopback = String::from("127.0.0.1");
    assert_eq!(seen(address, trusting()).await, (loopback.clone(), vec![]));
    for name in ["one.test", "two.test"] {
        let (shown, key) = issue(&clients, name);
        let identity = Identity::from_pem(shown.pem(), key);
        let seen = seen(address, trusting().identity(identity)).await;
        assert_eq!(seen, (loopback.clone(), shown.der().to_vec()));
    }
    tasks.stop();
    tasks.ended().await;
}
