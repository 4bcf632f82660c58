//! Which replica owns which partition.

pub mod ownership;
pub mod purge;
