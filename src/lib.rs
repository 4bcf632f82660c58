//! imgate holds many upstream IM sessions on behalf of server-side bots.

pub mod config;
pub mod connectors;
pub mod error;
pub mod observability;
pub mod proto;
pub mod runtime;
pub mod store;
pub mod types;
