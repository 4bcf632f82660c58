//! Tencent Cloud Chat, by the WebSocket protocol of its web SDK: plain JSON in binary frames.
//!
//! The protocol has no public specification. What is known of it was seen with the vendor's own SDKs, which
//! `tests/vendor_sdk.rs` runs against the simulator, so that the wire here is the real one.

mod catchup;
pub mod codes;
pub mod frame;
mod left_out;
pub mod message;
pub mod outgoing;
pub mod protocol;
pub mod push;
mod recent;
mod requests;
pub mod sync;
pub mod ticket;
pub mod usersig;
