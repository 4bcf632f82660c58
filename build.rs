//! Compiles `proto/` without protoc: protox parses, prost and tonic generate, and the descriptor set
//! that reflection serves comes out of the same step.

use std::path::PathBuf;

use prost::Message as _;

/// Messages that carry a credential: `src/proto.rs` prints them without it.
const WITH_SECRETS: [&str; 5] = [
    "imgate.v1.LoginRequest",
    "imgate.v1.RenewSignatureRequest",
    "imgate.v1.IssueSignatureResponse",
    "imgate.store.v1.Secrets",
    "imgate.store.v1.TencentTicket",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let api = protox::compile(
        [
            "imgate/v1/session.proto",
            "imgate/v1/event.proto",
            "imgate/v1/message.proto",
            "imgate/v1/admin.proto",
            "imgate/v1/signature_issuer.proto",
        ],
        ["proto"],
    )?;
    std::fs::write(out.join("imgate_descriptor.bin"), api.encode_to_vec())?;
    tonic_prost_build::configure()
        .skip_debug(WITH_SECRETS)
        .compile_fds(api.clone())?;
    // The services once more, for a server whose answer has events that are encoded already.
    let encoded = out.join("encoded");
    std::fs::create_dir_all(&encoded)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".imgate.v1", "crate::proto::v1")
        .extern_path(
            ".imgate.v1.SubscribeResponse",
            "crate::proto::encoded::SubscribeResponse",
        )
        .out_dir(encoded)
        .compile_fds(api)?;

    let stored = protox::compile(["imgate/store/v1/record.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .skip_debug(WITH_SECRETS)
        .compile_fds(stored)?;
    Ok(())
}
