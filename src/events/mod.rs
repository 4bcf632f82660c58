//! The way of an event from an upstream push to a subscriber.
//!
//! - [`log`] appends: one writer per partition, which commits in groups and answers when the store has it.
//! - [`hub`] brings writers and subscribers together. It keeps the newest entries of the logs that are read, in a
//!   bounded memory that all subscribers share, and hears from [`follower`] of what other replicas write. Of these
//!   `listeners` wakes who listens to an event's account, and no others.
//! - [`subscription`] reads: from a cursor on, in batches, with heartbeats, and with a gap where something is
//!   missing.
//! - [`service`] is the way in for the API, also to the named subscriptions.
//! - `share` splits the partitions of a shared subscription among its members, as `assignment` says.
//! - [`cursor`] is the token between the two sides of a resumed subscription.
//! - [`payload`] is how an event lies in the store, [`entry`] how it is read there, [`encoded`] how subscribers get it.
//! - [`sealed`] counts what earlier keys have sealed in a log.
//! - [`canary`] sends an event of the replica's own all this way, again and again, to see that it comes through.
//! - [`upkeep`] watches the named subscriptions: how far they are behind, and which nobody uses any more.
//!
//! A slow subscriber holds one batch and delays nobody: who falls behind the shared entries reads the log alone.

mod assignment;
pub mod canary;
pub mod cursor;
pub mod encoded;
pub mod entry;
pub mod follower;
pub mod hub;
mod listeners;
pub mod log;
pub mod metrics;
mod named;
pub mod payload;
mod place;
pub mod sealed;
pub mod service;
mod share;
mod source;
pub mod subscription;
mod tail;
pub mod upkeep;
mod window;

#[cfg(test)]
mod testing;
