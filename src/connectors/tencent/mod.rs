//! Tencent Cloud Chat, by the WebSocket protocol of its web SDK.

pub mod frame;
pub mod usersig;
