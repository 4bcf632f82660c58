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

fn issue(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Answers the caller's address, and the names of its certificate.
async fn who(Extension(peer): Extension<Peer>) -> String {
    let names = peer.names.map_or_else(
        || "nobody".into(),
        |names| names.iter().collect::<Vec<_>>().join(" "),
    );
    format!("{} is {names}", peer.address.ip())
}

/// What the server says of a client with this configuration.
async fn seen(address: SocketAddr, tls: ClientTlsConfig) -> String {
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
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_knows_the_peer_and_the_certificate_that_it_has_shown() {
    let (servers, clients) = (authority(), authority());
    let (certificate, key) = issue(&servers, "imgate.test");
    let tls = Tls {
        certificate: certificate.into_bytes(),
        key: Secret::new(key.into_bytes()),
        clients: Some(ClientCertificates {
            authority: clients.pem().into_bytes(),
            optional: true,
        }),
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
    let nobody = seen(address, trusting()).await;
    assert_eq!(nobody, "127.0.0.1 is nobody");
    for name in ["one.test", "two.test"] {
        let (shown, key) = issue(&clients, name);
        let identity = Identity::from_pem(shown, key);
        let seen = seen(address, trusting().identity(identity)).await;
        assert_eq!(seen, format!("127.0.0.1 is {name}"));
    }
    tasks.stop();
    tasks.ended().await;
}
