//! The `imgate` binary.

fn main() {}
