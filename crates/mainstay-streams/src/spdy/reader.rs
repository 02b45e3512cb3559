//! Frames out of a stream of bytes; those with data piece by piece.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{Control, HEAD, Head};
use super::headers::Inflater;
use crate::link::ReadError;

/// How much is read at once, in bytes.
const READ_MAX: usize = 16 << 10;
/// The longest control frame, in bytes. Those of Kubernetes' clients have some hundred.
const CONTROL_MAX: usize = 64 << 10;

/// Reads frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    from: R,
    read: BytesMut,
    inflater: Inflater,
    /// The data frame that is being read.
    data: Option<Data>,
}

/// What comes one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Control(Control),
    /// A piece of a data frame. `fin`: nothing comes after it on the stream.
    Data {
        stream: u32,
        bytes: Bytes,
        fin: bool,
    },
}

#[derive(Debug)]
struct Data {
    stream: u32,
    fin: bool,
    remaining: usize,
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, read: BytesMut::new(), inflater: Inflater::new(), data: None }
    }

    /// Waits for the next event; `None` when the connection ended between two frames. Cancel
    /// safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            if let Some(event) = self.take().map_err(ReadError::Violation)? {
                return Ok(Some(event));
            }
            self.read.reserve(READ_MAX);
            if self.from.read_buf(&mut self.read).await? == 0 {
                return if self.read.is_empty() && self.data.is_none() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    fn take(&mut self) -> Result<Option<Event>, &'static str> {
        if let Some(data) = &mut self.data {
            if self.read.is_empty() {
                return Ok(None);
            }
            let bytes = self.read.split_to(data.remaining.min(self.read.len())).freeze();
            data.remaining -= bytes.len();
            let (stream, last) = (data.stream, data.remaining == 0);
            let fin = data.fin && last;
            if last {
                self.data = None;
            }
            return Ok(Some(Event::Data { stream, bytes, fin }));
        }
        let Some(head) = self.read.first_chunk::<HEAD>() else { return Ok(None) };
        match Head::decode(*head)? {
            Head::Data { stream, fin, length } => {
                let _ = self.read.split_to(HEAD);
                if length == 0 {
                    return Ok(Some(Event::Data { stream, bytes: Bytes::new(), fin }));
                }
                self.data = Some(Data { stream, fin, remaining: length });
                self.take()
            }
            Head::Control { length, .. } if length > CONTROL_MAX => {
                Err("a SPDY control frame is too long")
            }
            Head::Control { length, .. } if self.read.len() < HEAD + length => Ok(None),
            Head::Control { kind, flags, length } => {
                let payload = self.read.split_to(HEAD + length).split_off(HEAD).freeze();
                let control = Control::decode(kind, flags, payload, &mut self.inflater)?;
                Ok(Some(Event::Control(control)))
            }
        }
    }
}
