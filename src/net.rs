//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be taken, where the system allows it (`net.core.somaxconn`, 4,096 on Linux). The
/// standard library asks for 128: of a crowd that comes back at once, as all clients do after a restart, the others' first
/// packets are dropped, and come again after 1 s, 3 s, 7 s.
const BACKLOG: u32 = 4096;

/// Listens on an address; on one whose last listener has just gone, too.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
