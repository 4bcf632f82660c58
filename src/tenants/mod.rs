//! Who may do what: tenants and operators, what their callers are known by, and the tokens they are handed.

pub mod auth;
pub mod directory;
pub mod jwt;
pub mod keys;
pub mod metrics;
pub mod peer;
pub mod token;
