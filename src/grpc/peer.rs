//! What is known of the other end of a request's connection.

use std::net::SocketAddr;

use axum::http::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use crate::tenants::peer::PeerNames;

/// The names of the client certificate, if the connection has shown one.
pub(super) fn names(extensions: &Extensions) -> Option<PeerNames> {
    if let Some(names) = extensions.get::<PeerNames>() {
        return Some(names.clone());
    }
    let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certificates = connection.peer_certs()?;
    let leaf = certificates.first()?;
    Some(PeerNames::of_certificate(leaf))
}

/// From where the connection comes.
pub(super) fn address(extensions: &Extensions) -> Option<SocketAddr> {
    let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let tcp = tls.map(TlsConnectInfo::get_ref);
    tcp.or_else(|| extensions.get::<TcpConnectInfo>())?
        .remote_addr()
}
