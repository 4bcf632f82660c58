//! Turns the effects of sessions into actions. The only room that spawns tasks.

mod gateway;
pub mod handle;
pub mod issuer;
pub mod metrics;
pub mod pacer;
mod purge;
pub mod record;
mod registry;
mod reseal;
mod sends;
mod session_actor;
mod steady;
pub mod supervisor;
pub mod tenant;
pub mod usage;
