//! Turns the effects of sessions into actions. The only room that spawns tasks.

pub mod handle;
pub mod supervisor;
