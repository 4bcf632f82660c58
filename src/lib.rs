//! imgate holds many upstream IM sessions on behalf of server-side bots.

pub mod connectors;
pub mod error;
pub mod events;
pub mod grpc;
pub mod proto;
pub mod runtime;
pub mod store;
pub mod tenants;
pub mod types;
