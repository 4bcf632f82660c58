//! Who may do what: tenants, their API keys, and the tokens they are handed.

pub mod auth;
pub mod directory;
pub mod metrics;
pub mod quotas;
pub mod token;
