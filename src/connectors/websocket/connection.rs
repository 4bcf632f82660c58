//! An open WebSocket connection, which owns no buffer while nothing is on its way.
//!
//! There are tens of thousands of connections, idle nearly always. Every library keeps a read buffer for each, and keeps
//! it as large as the largest message has made it: 4 KiB in an idle connection and 70 KiB after one long answer. Here all
//! connections of a thread read into one buffer, and only what has arrived is copied out of it.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::Transport;

/// The most that is read at once.
const READ_AT_ONCE: usize = 64 * 1024;

/// The most that waits to be written before an answer to a ping is left out. RFC 6455 lets one answer the latest only.
const MAX_UNWRITTEN: usize = 64 * 1024;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;

thread_local! {
    /// Lent to a connection while it reads, never across an await.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]);
}

/// An open connection.
pub struct Connection {
    stream: Box<dyn Transport>,
    /// The longest message that is read, in bytes.
    max_message: usize,
    /// What has arrived and is no whole frame yet, or has not been asked for.
    unread: BytesMut,
    /// The fragments of a message whose end has not arrived.
    fragments: Option<BytesMut>,
    /// Frames that are not, or not wholly, written.
    unwritten: BytesMut,
    /// What is written may still wait in the stream.
    unflushed: bool,
    ended: Option<Ended>,
}

/// Why a connection gives no frame any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In words.
    pub reason: String,
    /// It was cut because a frame is over the bound: what follows the frame's head cannot be told from its content.
    pub too_large: bool,
}

impl Ended {
    fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            too_large: false,
        }
    }

    fn too_large(size: u64, max: usize) -> Self {
        Self {
            reason: format!("a message of {size} bytes is over the bound of {max}"),
            too_large: true,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// A connection whose handshake is done. `unread` is what came behind it.
    pub(super) fn new(stream: Box<dyn Transport>, unread: BytesMut, max_message: usize) -> Self {
        Self {
            stream,
            max_message,
            unread,
            fragments: None,
            unwritten: BytesMut::new(),
            unflushed: false,
            ended: None,
        }
    }

    /// The next message's bytes; the reason when there will be none any more. The upstream speaks binary; a text is read
    /// all the same. Safe to cancel.
    pub async fn receive(&mut self) -> Result<Bytes, Ended> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// Writes messages, all of them at once. What is left when this is cancelled is written by what comes next.
    pub async fn send(&mut self, messages: impl IntoIterator<Item = Vec<u8>>) -> Result<(), Ended> {
        for message in messages {
            let opcode = OpCode::Data(Data::Binary);
            self.queue(Frame::message(message, opcode, true));
        }
        poll_fn(|context| self.poll_write(context)).await
    }

    /// Says goodbye, without waiting for an answer.
    pub async fn close(&mut self) {
        self.queue(Frame::close(None));
        // The peer may be gone, and then there is nobody to say it to.
        let _gone = poll_fn(|context| self.poll_write(context)).await;
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        if let Some(ended) = &self.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        let received = ready!(self.poll_message(context));
        if let Err(ended) = &received {
            self.ended = Some(ended.clone());
            // What has come is of no use any more, and a goodbye is answered if it can be at once.
            self.unread = BytesMut::new();
            self.fragments = None;
            let _answered = self.poll_write(context);
        }
        Poll::Ready(received)
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        loop {
            while let Some(frame) = self.next_frame()? {
                if let Some(message) = self.take(frame)? {
                    return Poll::Ready(Ok(message));
                }
            }
            if let Poll::Ready(Err(ended)) = self.poll_write(context) {
                return Poll::Ready(Err(ended));
            }
            ready!(self.poll_read(context))?;
        }
    }

    /// Reads what has arrived.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        READ.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let stream = Pin::new(&mut *self.stream);
            Poll::Ready(match ready!(stream.poll_read(context, &mut read)) {
                Ok(()) if read.filled().is_empty() => {
                    Err(Ended::because("the upstream has cut the connection"))
                }
                Ok(()) => {
                    self.unread.extend_from_slice(read.filled());
                    Ok(())
                }
                Err(error) => Err(Ended::because(error.to_string())),
            })
        })
    }

    /// The first frame of what has arrived, if it is whole.
    fn next_frame(&mut self) -> Result<Option<(FrameHeader, Bytes)>, Ended> {
        let mut cursor = Cursor::new(&self.unread[..]);
        let parsed = FrameHeader::parse(&mut cursor);
        let head = cursor.position();
        let Some((header, length)) = parsed.map_err(|error| Ended::because(error.to_string()))?
        else {
            return Ok(None);
        };
        self.check(&header, length)?;
        // Both are within the bounds that have just been looked at.
        let (head, whole) = (head as usize, (head + length) as usize);
        if self.unread.len() < whole {
            return Ok(None);
        }
        let mut frame = if self.unread.len() == whole {
            std::mem::take(&mut self.unread)
        } else {
            self.unread.split_to(whole)
        };
        frame.advance(head);
        Ok(Some((header, frame.freeze())))
    }

    /// Whether a frame may come, by its head: nothing of one that may not is kept.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<(), Ended> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Ended::because("a frame has bits of an extension set"));
        }
        if header.mask.is_some() {
            return Err(Ended::because("the upstream masks its frames"));
        }
        match header.opcode {
            OpCode::Control(_) if length > MAX_CONTROL || !header.is_final => {
                return Err(Ended::because("a control frame is too long or a fragment"));
            }
            OpCode::Data(Data::Continue) if self.fragments.is_none() => {
                return Err(Ended::because("a message goes on that has not begun"));
            }
            OpCode::Data(Data::Text | Data::Binary) if self.fragments.is_some() => {
                return Err(Ended::because("a message begins within another"));
            }
            OpCode::Control(_) | OpCode::Data(_) => {}
        }
        let before = self.fragments.as_ref().map_or(0, BytesMut::len);
        let size = length.saturating_add(before as u64);
        if size > self.max_message as u64 {
            return Err(Ended::too_large(size, self.max_message));
        }
        Ok(())
    }

    /// Takes in a frame; a message if it is one, or the end of one.
    fn take(&mut self, (header, payload): (FrameHeader, Bytes)) -> Result<Option<Bytes>, Ended> {
        match header.opcode {
            OpCode::Data(_) if header.is_final && self.fragments.is_none() => Ok(Some(payload)),
            OpCode::Data(_) => {
                let mut message = self.fragments.take().unwrap_or_default();
                message.extend_from_slice(&payload);
                if header.is_final {
                    return Ok(Some(message.freeze()));
                }
                self.fragments = Some(message);
                Ok(None)
            }
            OpCode::Control(Control::Ping) => {
                if self.unwritten.len() <= MAX_UNWRITTEN {
                    self.queue(Frame::pong(payload));
                }
                Ok(None)
            }
            OpCode::Control(Control::Close) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.queue(Frame::close(None));
                Err(Ended::because(match code {
                    Some(code) => format!("closed by the upstream: {code}"),
                    None => "closed by the upstream".to_owned(),
                }))
            }
            OpCode::Control(_) => Ok(None),
        }
    }

    fn queue(&mut self, mut frame: Frame) {
        frame.header_mut().mask = Some(rand::random());
        let mut unwritten = std::mem::take(&mut self.unwritten).writer();
        // Memory takes all that is written to it.
        let _written = frame.format(&mut unwritten);
        self.unwritten = unwritten.into_inner();
    }

    /// Writes what waits for that.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let mut stream = Pin::new(&mut *self.stream);
        let broken = |error: std::io::Error| Ended::because(error.to_string());
        while !self.unwritten.is_empty() {
            let written = ready!(stream.as_mut().poll_write(context, &self.unwritten));
            match written.map_err(broken)? {
                0 => return Poll::Ready(Err(Ended::because("the upstream takes nothing"))),
                written => self.unwritten.advance(written),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            self.unwritten = BytesMut::new();
            ready!(stream.poll_flush(context)).map_err(broken)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
