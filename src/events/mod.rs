//! The way of an event from an upstream push to a subscriber.
//!
//! - [`log`] appends: one writer per partition, which commits in groups and answers when the store has it.
//! - [`hub`] tells subscribers that a log has grown; it holds no events.
//! - [`subscription`] reads: from a cursor on, in batches, with heartbeats, and with a gap where something is
//!   missing.
//! - [`service`] is the way in for the API, also to the named subscriptions.
//! - [`share`] splits the partitions of a shared subscription among its members, as [`assignment`] says.
//! - [`cursor`] is the token between the two sides of a resumed subscription.
//! - [`canary`] sends an event of the replica's own all this way, again and again, to see that it comes through.
//! - [`upkeep`] watches the named subscriptions: how far they are behind, and which nobody uses any more.
//!
//! A slow subscriber holds one batch and delays nobody: everybody reads the log at their own place.

mod assignment;
pub mod canary;
pub mod cursor;
pub mod hub;
pub mod log;
pub mod metrics;
mod named;
mod payload;
mod place;
pub mod service;
mod share;
pub mod subscription;
pub mod upkeep;

#[cfg(test)]
mod testing;
