//! TLS over TCP, without a buffer while nothing is on its way.
//!
//! The usual stream keeps buffers for records that come and go: 4 KiB and more in each idle connection, and as much as the
//! largest burst needed in one that was busy. The library's unbuffered interface leaves the buffers to its caller. All
//! connections of a thread share one for reading here, and only the beginning of a record that has not come whole is kept.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::UnbufferedClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

/// The most that is read at once; more than two records.
const READ_AT_ONCE: usize = 64 * 1024;
/// The most that is encrypted at once: the content of one record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;
/// The longest handshake message that is waited for. Certificate chains are a few KiB.
const MAX_INCOMPLETE: usize = READ_AT_ONCE / 2;
/// What a record has beyond its content, and a key update before it, with room to spare.
const OVERHEAD: usize = 256;

thread_local! {
    /// Lent to a connection while it reads, never across an await.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]);
}

/// A TLS connection whose handshake is done.
pub(super) struct TlsStream {
    tcp: TcpStream,
    tls: Tls,
    /// Nothing comes any more.
    ended: bool,
}

/// The TLS side of a connection.
struct Tls {
    connection: Box<UnbufferedClientConnection>,
    /// What has arrived and is no whole record yet.
    incoming: BytesMut,
    /// What has been decrypted and not been asked for yet.
    received: BytesMut,
    /// Records that are not, or not wholly, written.
    outgoing: BytesMut,
}

/// Where a connection stands when all that has arrived is taken in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// More must come before the handshake goes on.
    Handshaking,
    /// Data may go both ways.
    Open,
    /// The server has said that nothing more will come.
    Closed,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsStream")
    }
}

impl TlsStream {
    /// Makes a TLS connection of a TCP connection. Errors if the server is not the one that is named, or not trusted.
    pub(super) async fn connect(
        mut tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tls = Tls {
            connection: Box::new(connection),
            incoming: BytesMut::new(),
            received: BytesMut::new(),
            outgoing: BytesMut::new(),
        };
        loop {
            let mut incoming = std::mem::take(&mut tls.incoming);
            let taken_in = tls.take_in(&mut incoming, &[]);
            // An alert goes out before the error is told.
            tcp.write_all(&tls.outgoing).await?;
            tls.outgoing = BytesMut::new();
            let (taken, standing) = taken_in?;
            incoming.advance(taken);
            match standing {
                Standing::Handshaking => {}
                Standing::Open => {
                    tls.keep(&incoming);
                    return Ok(Self {
                        tcp,
                        tls,
                        ended: false,
                    });
                }
                Standing::Closed => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            if incoming.len() > MAX_INCOMPLETE {
                return Err(io::Error::other("a handshake message is too long"));
            }
            if tcp.read_buf(&mut incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            tls.incoming = incoming;
        }
    }

    /// Reads what has arrived, and decrypts what of it is whole.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        READ.with_borrow_mut(|buffer| {
            let kept = self.tls.incoming.len();
            let Some(room) = buffer.get_mut(kept..).filter(|room| !room.is_empty()) else {
                return Poll::Ready(Err(io::Error::other("a TLS message is too long")));
            };
            let mut read = ReadBuf::new(room);
            ready!(Pin::new(&mut self.tcp).poll_read(context, &mut read))?;
            let arrived = read.filled().len();
            self.ended |= arrived == 0;
            let incoming = &mut buffer[..kept + arrived];
            incoming[..kept].copy_from_slice(&self.tls.incoming);
            let (taken, standing) = self.tls.take_in(incoming, &[])?;
            self.ended |= standing == Standing::Closed;
            self.tls.keep(&incoming[taken..]);
            Poll::Ready(Ok(()))
        })
    }

    /// Writes the records that wait for that.
    fn poll_records(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.tls.outgoing.is_empty() {
            let tcp = Pin::new(&mut self.tcp);
            let written = ready!(tcp.poll_write(context, &self.tls.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.tls.outgoing.advance(written);
        }
        self.tls.outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl Tls {
    /// Takes in the records that are whole, and encrypts `data` behind what the connection itself has to say. Answers how
    /// much of `incoming` is done with.
    fn take_in(&mut self, incoming: &mut [u8], data: &[u8]) -> io::Result<(usize, Standing)> {
        let Self {
            connection,
            received,
            outgoing,
            ..
        } = self;
        let mut taken = 0;
        let mut failure = None;
        loop {
            let status = connection.process_tls_records(&mut incoming[taken..]);
            let UnbufferedStatus { mut discard, state } = status;
            let mut standing = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        received.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(outgoing, 0, |room| message.encode(room))?;
                }
                // What is encoded is written in its order, before anything that is encrypted later.
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    if !data.is_empty() {
                        let room = data.len() + OVERHEAD;
                        append(outgoing, room, |room| traffic.encrypt(data, room))?;
                    }
                    standing = Some(Standing::Open);
                }
                Ok(ConnectionState::BlockedHandshake) => standing = Some(Standing::Handshaking),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    standing = Some(Standing::Closed);
                }
                // The library says it again when its alert is encoded.
                Err(error) if failure.is_none() => failure = Some(invalid(error)),
                Err(_) | Ok(_) => standing = Some(Standing::Closed),
            }
            taken += discard;
            match (standing, failure.take()) {
                (None, before) => failure = before,
                (Some(_), Some(failure)) => return Err(failure),
                (Some(standing), None) => return Ok((taken, standing)),
            }
        }
    }

    /// Keeps what is no whole record yet.
    fn keep(&mut self, incomplete: &[u8]) {
        self.incoming = BytesMut::from(incomplete);
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.tls.received.is_empty() && !self.ended {
            ready!(self.poll_fill(context))?;
            // What the connection itself has to say, to a key update for example.
            if let Poll::Ready(Err(error)) = self.poll_records(context) {
                return Poll::Ready(Err(error));
            }
        }
        let received = &mut self.tls.received;
        let length = received.len().min(buffer.remaining());
        buffer.put_slice(&received[..length]);
        received.advance(length);
        if received.is_empty() {
            *received = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One record waits at the most.
        ready!(self.poll_records(context))?;
        let data = &data[..data.len().min(RECORD)];
        let mut incoming = std::mem::take(&mut self.tls.incoming);
        let (taken, _) = self.tls.take_in(&mut incoming, data)?;
        incoming.advance(taken);
        self.tls.incoming = incoming;
        if let Poll::Ready(Err(error)) = self.poll_records(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_records(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_records(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// An error that may say how much room was needed.
trait MayNeedRoom: std::error::Error + Send + Sync + 'static {
    fn needed(&self) -> Option<usize>;
}

impl MayNeedRoom for EncodeError {
    fn needed(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl MayNeedRoom for EncryptError {
    fn needed(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Has something written behind what is there, in as much room as it takes.
fn append<E: MayNeedRoom>(
    outgoing: &mut BytesMut,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> io::Result<()> {
    let before = outgoing.len();
    loop {
        outgoing.resize(before + room, 0);
        match write(&mut outgoing[before..]) {
            Ok(written) => {
                outgoing.truncate(before + written);
                return Ok(());
            }
            Err(error) => match error.needed() {
                Some(needed) if needed > room => room = needed,
                Some(_) | None => return Err(io::Error::other(error)),
            },
        }
    }
}

fn invalid(error: tokio_rustls::rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
