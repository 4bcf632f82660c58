//! Who may do what, and who did what: tenants and operators, what their callers are known by, the tokens they are handed,
//! and the audit.

pub mod audit;
pub mod auth;
pub mod directory;
pub mod jwt;
pub mod keys;
pub mod metrics;
pub mod peer;
pub mod quotas;
pub mod token;
