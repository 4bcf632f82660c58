//! TLS in front of the simulator's connections, as the real service has it.

use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::SimError;
use crate::types::Secret;

/// What the simulator shows its clients.
#[derive(Clone, Debug)]
pub struct SimTls {
    /// Its certificate, with the chain behind it, in PEM.
    pub certificate: Vec<u8>,
    /// The certificate's private key, in PEM.
    pub key: Secret<Vec<u8>>,
}

pub(super) fn server_config(tls: &SimTls) -> Result<Arc<ServerConfig>, SimError> {
    let refuse = |error: &dyn std::fmt::Display| SimError::Tls(error.to_string());
    let chain = CertificateDer::pem_slice_iter(&tls.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(&error))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.expose()).map_err(|error| refuse(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| refuse(&error))?;
    Ok(Arc::new(config))
}
