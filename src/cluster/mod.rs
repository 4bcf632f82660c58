//! Which replica owns which partition.

pub mod ownership;
