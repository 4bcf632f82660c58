//! imgate holds many upstream IM sessions on behalf of server-side bots.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connectors;
pub mod error;
pub mod events;
pub mod grpc;
pub mod observability;
pub mod proto;
pub mod runtime;
pub mod session;
pub mod sim;
pub mod store;
pub mod tenants;
pub mod types;
