//! A socket that two write to: its connection, and the load. Each writes whole frames.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The writing half. What was accepted and the system does not take yet waits in it, and goes first. Bounded by its two writers: the
/// connection flushes after each frame, and the load is refused while anything waits.
#[derive(Debug)]
pub(super) struct Wire {
    half: OwnedWriteHalf,
    unsent: Mutex<Vec<u8>>,
    /// Pushes of loads that the client has acknowledged.
    acknowledged: AtomicU64,
}

impl Wire {
    /// How many pushes of loads the client has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The client has acknowledged one.
    pub(super) fn note_acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends whole frames of the load, without waiting. False if something waits already: nothing is sent then.
    pub(super) fn offer(&self, frames: &[u8]) -> io::Result<bool> {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.send_unsent(&mut unsent)? {
            return Ok(false);
        }
        let sent = self.send(frames)?;
        unsent.extend_from_slice(frames.get(sent..).unwrap_or_default());
        Ok(true)
    }

    /// Waits until the system may take more.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.half.writable().await
    }

    fn accept(&self, bytes: &[u8]) -> io::Result<()> {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = if self.send_unsent(&mut unsent)? {
            self.send(bytes)?
        } else {
            0
        };
        unsent.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        Ok(())
    }

    /// Sends what waits. Whether nothing waits any more.
    pub(super) fn flush(&self) -> io::Result<bool> {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        self.send_unsent(&mut unsent)
    }

    /// Whether nothing waits any more.
    fn send_unsent(&self, unsent: &mut Vec<u8>) -> io::Result<bool> {
        if !unsent.is_empty() {
            let sent = self.send(unsent)?;
            unsent.drain(..sent);
        }
        Ok(unsent.is_empty())
    }

    /// How much the system takes at once, perhaps nothing.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.half.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }
}

/// Both halves, for the connection.
#[derive(Debug)]
pub(super) struct Duplex {
    read: OwnedReadHalf,
    wire: Arc<Wire>,
}

impl Duplex {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (read, half) = stream.into_split();
        let wire = Wire {
            half,
            unsent: Mutex::default(),
            acknowledged: AtomicU64::new(0),
        };
        Self {
            read,
            wire: Arc::new(wire),
        }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Duplex {
    /// Takes all of it, so that no frame of the load comes in between; a flush waits for it.
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.wire.accept(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wire.flush()? {
            ready!(self.wire.half.as_ref().poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_mut().poll_flush(cx)
    }
}
