//! One folder per upstream protocol: bytes in, meaning out, and back.

pub mod tencent;
