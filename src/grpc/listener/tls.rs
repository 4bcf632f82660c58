//! The TLS material of the API: checked as a whole before it is used, and replaced while the server runs.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tracing::{info, warn};
use x509_parser::parse_x509_certificate;

use crate::grpc::metrics as names;
use crate::types::{Secret, WallClock};

/// A certificate that ends sooner than this is warned of.
const NEAR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The TLS material, all of it PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate, with the chain behind it.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Secret<Vec<u8>>,
    /// The authorities that sign clients' certificates. When none are given, clients are not asked for one.
    pub client_ca: Option<Vec<u8>>,
    /// Whether a client must show a certificate. Of no meaning without `client_ca`.
    pub client_certificates: ClientCertificates,
}

/// Whether a client must show a certificate. One that is shown must always be of a client authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client without one is refused at the handshake.
    #[default]
    Required,
    /// A client may do without.
    Optional,
}

/// Why TLS material cannot be used. The texts name the remedy, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is no certificate, or one that cannot be read.
    #[error("the certificate is not usable ({0}): give the certificate and its chain in PEM")]
    Certificate(String),
    /// There is no key, or one that cannot be read.
    #[error("the private key is not usable ({0}): give one key in PEM")]
    Key(String),
    /// The key is not the certificate's, or of a kind that is not known.
    #[error(
        "the certificate and the private key do not go together ({0}): replace both at the same time"
    )]
    Pair(String),
    /// The certificate has ended. Only what replaces another is refused for it.
    #[error("the certificate has ended already: give a fresh one")]
    Ended,
    /// There is no client authority, or one that cannot be read.
    #[error("the client authority is not usable ({0}): give its certificate in PEM")]
    ClientAuthority(String),
}

/// Replaces the TLS material of a running server. Cheap to clone; clones replace the same.
#[derive(Clone, Debug)]
pub struct TlsReload(Arc<ArcSwap<ServerConfig>>);

/// Material that was checked and is not in use yet.
#[derive(Debug)]
pub struct Replacement {
    reload: TlsReload,
    material: Material,
}

impl TlsReload {
    /// Begins with this material. A certificate that has ended is taken, with a warning: whoever does not check it
    /// can go on.
    pub(crate) fn begin(tls: &Tls) -> Result<Self, TlsError> {
        let material = Material::check(tls)?;
        material.announce();
        Ok(Self(Arc::new(ArcSwap::new(material.config))))
    }

    /// Checks new material as a whole, and changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong with it, which is counted too. A certificate that has ended is refused here.
    pub fn prepare(&self, tls: &Tls) -> Result<Replacement, TlsError> {
        let checked = Material::check(tls).and_then(|material| {
            if material.left().is_zero() {
                return Err(TlsError::Ended);
            }
            Ok(Replacement {
                reload: self.clone(),
                material,
            })
        });
        if checked.is_err() {
            counter!(names::TLS_RELOADS, "outcome" => "refused").increment(1);
        }
        checked
    }

    /// What a new connection is to use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl Replacement {
    /// Has connections from now on use it; those that are open keep theirs until they retire.
    pub fn put_in_force(self) {
        counter!(names::TLS_RELOADS, "outcome" => "ok").increment(1);
        info!("new connections of the API use a new certificate, key and client authority");
        self.material.announce();
        // TLS sessions that were begun under the old material cannot be resumed under the new one, so that who is no
        // longer trusted has to show a certificate anew.
        self.reload.0.store(self.material.config);
    }
}

/// Material that can be used.
#[derive(Debug)]
struct Material {
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends, in Unix seconds.
    ends: u64,
}

impl Material {
    fn check(tls: &Tls) -> Result<Self, TlsError> {
        let chain = certificates(&tls.certificate).map_err(TlsError::Certificate)?;
        let mut ends = u64::MAX;
        for certificate in &chain {
            let end = end_of(certificate).map_err(TlsError::Certificate)?;
            ends = ends.min(end);
        }
        let key = PrivateKeyDer::from_pem_slice(tls.key.expose())
            .map_err(|error| TlsError::Key(error.to_string()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Pair(error.to_string()))?;
        let builder = match &tls.client_ca {
            Some(authorities) => {
                let roots = authorities_of(authorities).map_err(TlsError::ClientAuthority)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match tls.client_certificates {
                    ClientCertificates::Required => verifier,
                    ClientCertificates::Optional => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| TlsError::ClientAuthority(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Pair(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            ends,
        })
    }

    /// How long it is good yet.
    fn left(&self) -> Duration {
        let now = WallClock.now().0 / 1000;
        Duration::from_secs(self.ends.saturating_sub(now))
    }

    fn announce(&self) {
        #[expect(clippy::cast_precision_loss, reason = "seconds, for a gauge")]
        gauge!(names::CERTIFICATE_EXPIRY).set(self.ends as f64);
        let left = self.left();
        if left.is_zero() {
            warn!("the API's certificate has ended: clients that check it refuse it");
        } else if left < NEAR {
            warn!(?left, "the API's certificate ends soon");
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("there is none".into());
    }
    Ok(chain)
}

fn authorities_of(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error: rustls::Error| error.to_string())?;
    }
    Ok(roots)
}

/// When a certificate ends, in Unix seconds.
fn end_of(certificate: &CertificateDer<'_>) -> Result<u64, String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let end = parsed.validity().not_after.timestamp();
    Ok(u64::try_from(end).unwrap_or_default())
}
