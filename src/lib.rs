//! imgate holds many upstream IM sessions on behalf of server-side bots.

pub mod cli;
pub mod connectors;
pub mod error;
pub mod proto;
pub mod runtime;
pub mod sim;
pub mod store;
pub mod types;
