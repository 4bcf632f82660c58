//! A mounted Secret with the API's certificate that is replaced while the gateway runs.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::process::Program;
use crate::world::{PATIENCE, tenant, until};

type Pair = CertifiedKey<KeyPair>;

fn pair() -> Pair {
    generate_simple_self_signed(vec!["imgate.test".into()]).unwrap()
}

/// A Secret as Kubernetes mounts it: the files are links into a folder behind a link that is replaced.
fn mount(folder: &Path, version: &str, certificate: &Pair, key: &Pair) {
    let data = folder.join(version);
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("tls.crt"), certificate.cert.pem()).unwrap();
    std::fs::write(data.join("tls.key"), key.signing_key.serialize_pem()).unwrap();
    symlink(version, folder.join("..new")).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
}

/// A new connection of a client that trusts no other certificate.
async fn connect(gateway: SocketAddr, trusted: &Pair) -> Option<HealthClient<Channel>> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.cert.pem()))
        .domain_name("imgate.test");
    let endpoint = Endpoint::from_shared(format!("https://{gateway}")).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.ok()?;
    Some(HealthClient::new(channel))
}

#[tokio::test]
async fn a_secret_that_is_replaced_is_used_and_half_of_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (old, new) = (pair(), pair());
    let secret = path.join("secret");
    std::fs::create_dir(&secret).unwrap();
    mount(&secret, "..1", &old, &old);
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), secret.join(file)).unwrap();
    }
    std::fs::write(path.join("app.key"), "the app's secret key").unwrap();
    let text = format!(
        "replica_id = \"r\"\nops.listen = \"127.0.0.1:0\"\nstore.kind = \"memory\"\n\
         [grpc]\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ cert_file = \"secret/tls.crt\", key_file = \"secret/tls.key\" }}\n{}",
        tenant("acme", "key").replace("UPSTREAM", "ws://127.0.0.1:1")
    );
    let config = path.join("imgate.toml");
    std::fs::write(&config, text).unwrap();
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let log = path.join("imgate.log");
    let mut gateway = Program::start(&arguments, &log);
    let address = gateway.address("imgate grpc on ").await;
    let mut open = connect(address, &old).await.unwrap();
    assert!(connect(address, &new).await.is_none());

    mount(&secret, "..2", &new, &old);
    gateway.signal("HUP").await;
    until("the half is refused", async || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.contains("do not go together")
    })
    .await;
    assert!(connect(address, &old).await.is_some());

    // Nobody asks: the files have changed.
    mount(&secret, "..3", &new, &new);
    until("the new certificate is shown", async || {
        connect(address, &new).await.is_some()
    })
    .await;
    assert!(connect(address, &old).await.is_none());
    open.check(HealthCheckRequest::default()).await.unwrap();
    gateway.signal("TERM").await;
    assert!(gateway.ended(PATIENCE).await.success());
}
