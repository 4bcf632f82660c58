//! What `build.rs` generates from `proto/`.

#![expect(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]

pub mod time;

/// The bot-facing API.
pub mod v1 {
    tonic::include_proto!("imgate.v1");
}

/// What is stored.
pub mod record {
    tonic::include_proto!("imgate.store.v1");
}

/// The descriptor set of the API, for reflection.
pub const DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/imgate_descriptor.bin"));
