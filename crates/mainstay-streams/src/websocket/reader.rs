//! WebSocket messages out of a stream of bytes, piece by piece.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{Header, Opcode, apply_mask};
use crate::link::ReadError;

/// How much is read at once, in bytes. A message may be longer; it is handed on in pieces, so
/// its length needs no limit.
const READ_MAX: usize = 16 << 10;

/// Reads messages.
#[derive(Debug)]
pub(crate) struct MessageReader<R> {
    from: R,
    /// Whether the other end is a client, whose frames are masked.
    from_client: bool,
    read: BytesMut,
    /// The data frame that is being read.
    frame: Option<Payload>,
    /// Whether a message has begun and not ended.
    in_message: bool,
}

/// What comes one after the other. A message is a start, any number of pieces and an end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Start { binary: bool },
    Data(Bytes),
    End,
    Ping(Bytes),
    Pong,
    Close,
}

#[derive(Debug)]
struct Payload {
    fin: bool,
    mask: Option<[u8; 4]>,
    offset: u64,
    remaining: u64,
}

// === impl MessageReader ===

impl<R: AsyncRead + Unpin> MessageReader<R> {
    pub(crate) fn new(from: R, from_client: bool) -> Self {
        Self { from, from_client, read: BytesMut::new(), frame: None, in_message: false }
    }

    /// Waits for the next event; `None` when the connection ended between two messages. Cancel
    /// safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            if let Some(event) = self.take().map_err(ReadError::Violation)? {
                return Ok(Some(event));
            }
            self.read.reserve(READ_MAX);
            if self.from.read_buf(&mut self.read).await? == 0 {
                let between = self.read.is_empty() && self.frame.is_none() && !self.in_message;
                return if between {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// An event out of what has been read.
    fn take(&mut self) -> Result<Option<Event>, &'static str> {
        loop {
            if let Some(frame) = &mut self.frame {
                if frame.remaining > 0 {
                    return Ok(Self::take_piece(&mut self.read, frame));
                }
                let fin = frame.fin;
                self.frame = None;
                if fin {
                    self.in_message = false;
                    return Ok(Some(Event::End));
                }
            }
            let Some((header, at)) = Header::decode(&self.read)? else { return Ok(None) };
            if header.mask.is_some() != self.from_client {
                return Err("a WebSocket frame of a client has no mask");
            }
            if header.opcode.is_control() {
                return Ok(self.take_control(header, at));
            }
            let starts = header.opcode != Opcode::Continuation;
            if starts == self.in_message {
                return Err("WebSocket fragments are out of order");
            }
            let _ = self.read.split_to(at);
            let Header { fin, mask, length: remaining, .. } = header;
            self.frame = Some(Payload { fin, mask, offset: 0, remaining });
            self.in_message = true;
            if starts {
                return Ok(Some(Event::Start { binary: header.opcode == Opcode::Binary }));
            }
        }
    }

    fn take_piece(read: &mut BytesMut, frame: &mut Payload) -> Option<Event> {
        if read.is_empty() {
            return None;
        }
        let length = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        let mut piece = read.split_to(length.min(read.len()));
        if let Some(mask) = frame.mask {
            apply_mask(mask, frame.offset, &mut piece);
        }
        frame.offset += piece.len() as u64;
        frame.remaining -= piece.len() as u64;
        Some(Event::Data(piece.freeze()))
    }

    fn take_control(&mut self, header: Header, at: usize) -> Option<Event> {
        let end = at + usize::try_from(header.length).ok()?;
        if self.read.len() < end {
            return None;
        }
        let mut payload = self.read.split_to(end).split_off(at);
        if let Some(mask) = header.mask {
            apply_mask(mask, 0, &mut payload);
        }
        Some(match header.opcode {
            Opcode::Ping => Event::Ping(payload.freeze()),
            Opcode::Close => Event::Close,
            // The data opcodes never come here.
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => Event::Pong,
        })
    }
}
