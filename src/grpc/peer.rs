//! What is known of the other end of a request's connection.

use std::net::SocketAddr;

use axum::http::Extensions;

use super::listener::Peer;
use crate::tenants::peer::PeerNames;

/// The names of the client certificate, if the connection has shown one.
pub(super) fn names(extensions: &Extensions) -> Option<PeerNames> {
    extensions.get::<PeerNames>().cloned()
}

/// From where the connection comes.
pub(super) fn address(extensions: &Extensions) -> Option<SocketAddr> {
    Some(extensions.get::<Peer>()?.address)
}
