//! What an operator does with a gateway that runs, and what is written down of who does what. Every part is a process of
//! its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and show what a process logged"
)]

#[path = "operator/admin.rs"]
mod admin;
#[path = "operator/audit.rs"]
mod audit;
#[path = "support/control.rs"]
mod control;
#[path = "support/program.rs"]
mod program;
#[path = "operator/rotation.rs"]
mod rotation;
#[path = "operator/world.rs"]
mod world;
