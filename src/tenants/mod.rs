//! Who may do what, and who did what: tenants, their API keys, the tokens they are handed, and the audit.

pub mod audit;
pub mod auth;
pub mod directory;
pub mod token;
