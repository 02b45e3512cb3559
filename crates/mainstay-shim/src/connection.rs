//! One connection of the engine: frames in, frames out, descriptors with them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use mainstay_linux::socket;
use mainstay_shim_protocol::{Message, decode, encode, frame_length};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How much may wait to be read by the other side before the connection is given up. The
/// other side is the engine; if it does not read this much, it is not coming back.
const MAX_UNSENT: usize = 4 << 20;

pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    unsent: Vec<u8>,
    pub(crate) subscribed: bool,
}

/// The connection is of no more use.
#[derive(Debug)]
pub(crate) struct Closed;

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            descriptors: Vec::new(),
            unsent: Vec::new(),
            subscribed: false,
        })
    }

    /// Accepts a client and greets it. `None` if it is gone again, or no descriptors are left: the others are
    /// served all the same.
    pub(crate) fn accept(listener: &UnixListener, hello: &impl Serialize) -> Option<Self> {
        let (stream, _) = listener.accept().ok()?;
        let mut connection = Self::new(stream).ok()?;
        connection.send_frame(&encode(hello).ok()?).ok()?;
        Some(connection)
    }

    /// Goes on sending, and takes in what has come.
    pub(crate) fn hear(&mut self, buffer: &mut [u8]) -> Result<(), Closed> {
        self.flush()?;
        self.fill(buffer)
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Closed> {
        loop {
            match socket::receive(&self.stream, buffer, &mut self.descriptors) {
                Ok(0) => return Err(Closed),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
    }

    /// The next whole request. Descriptors are the business of whoever carries it out; see
    /// [`Self::take_descriptors`].
    pub(crate) fn next_request<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Closed> {
        let Some((header, rest)) = self.received.split_first_chunk::<4>() else { return Ok(None) };
        // A peer that breaks the framing cannot be answered any more.
        let length = frame_length(*header).map_err(|_| Closed)?;
        let Some(json) = rest.get(..length) else { return Ok(None) };
        let request = decode(json).map_err(|_| Closed)?;
        self.received.drain(..4 + length);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Ok(Some(request))
    }

    /// The descriptors that have come so far. A client sends its next frame with descriptors when
    /// the one before has been answered, so they belong to the request at hand.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Sends a message, or as much of it as goes now.
    pub(crate) fn send(&mut self, message: &Message) -> Result<(), Closed> {
        self.send_frame(&encode(message).map_err(|_| Closed)?)
    }

    pub(crate) fn send_frame(&mut self, frame: &[u8]) -> Result<(), Closed> {
        self.unsent.extend_from_slice(frame);
        if self.unsent.len() > MAX_UNSENT { Err(Closed) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Closed> {
        while !self.unsent.is_empty() {
            match socket::send(&self.stream, &self.unsent, &[]) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
