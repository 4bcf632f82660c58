//! Tencent Cloud Chat, by the WebSocket protocol of its web SDK.

pub mod frame;
