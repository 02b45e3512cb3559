//! The Kubernetes channel protocol: the first byte of a message says whose the rest is.
//!
//! Source: `staging/src/k8s.io/streaming/pkg/httpstream/wsstream/conn.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::frame::Opcode;
use super::server_frame;
use crate::link::{Framing, Outgoing};

/// The first byte of a message that closes a channel, from version 5 on.
const CLOSE: u8 = 255;

/// How channels are in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// The number of the channel, and bytes. Either type of message is taken.
    Raw,
    /// The same where the byte 255 closes the channel that follows: `v5.channel.k8s.io`.
    RawWithClose,
    /// The digit of the channel, and base64, in text messages.
    Base64,
}

/// What is said to a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Data(u8, Bytes),
    /// No more data will come.
    Close(u8),
}

/// Finds the channels of a sequence of messages.
#[derive(Debug)]
pub(super) struct Demux {
    codec: Codec,
    at: At,
    /// Base64 characters that make no whole group yet.
    rest: Vec<u8>,
}

/// A channel that is written to.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) codec: Codec,
    pub(super) index: u8,
}

#[derive(Debug)]
enum At {
    /// The next byte is the channel.
    Start,
    Data(u8),
    /// The next byte is the channel that is closed.
    Close,
    Closed(u8),
}

// === impl Codec ===

impl Codec {
    /// The channels that have a number of their own.
    pub(crate) fn max_channels(self) -> usize {
        match self {
            Self::Raw => 256,
            Self::RawWithClose => 255,
            // As one ASCII character.
            Self::Base64 => usize::from(0x7f - b'0'),
        }
    }
}

// === impl Demux ===

impl Demux {
    pub(super) fn new(codec: Codec) -> Self {
        Self { codec, at: At::Start, rest: Vec::new() }
    }

    pub(super) fn data(&mut self, mut bytes: Bytes) -> Result<Option<Item>, &'static str> {
        while !bytes.is_empty() {
            match self.at {
                At::Start => {
                    let first = bytes.split_to(1)[0];
                    self.at = match self.codec {
                        Codec::RawWithClose if first == CLOSE => At::Close,
                        Codec::Raw | Codec::RawWithClose => At::Data(first),
                        Codec::Base64 => At::Data(first.wrapping_sub(b'0')),
                    };
                }
                At::Data(channel) => {
                    let data = match self.codec {
                        Codec::Raw | Codec::RawWithClose => bytes,
                        Codec::Base64 => self.decode(&bytes)?,
                    };
                    return Ok((!data.is_empty()).then_some(Item::Data(channel, data)));
                }
                At::Close => self.at = At::Closed(bytes.split_to(1)[0]),
                At::Closed(_) => return Err("a close signal names more than one channel"),
            }
        }
        Ok(None)
    }

    /// The message is over.
    pub(super) fn end(&mut self) -> Result<Option<Item>, &'static str> {
        if !self.rest.is_empty() {
            return Err("the base64 of a message is incomplete");
        }
        match std::mem::replace(&mut self.at, At::Start) {
            At::Start | At::Data(_) => Ok(None),
            At::Close => Err("a close signal names no channel"),
            At::Closed(channel) => Ok(Some(Item::Close(channel))),
        }
    }

    fn decode(&mut self, text: &[u8]) -> Result<Bytes, &'static str> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.len() / 4 * 4;
        let decoded = STANDARD.decode(&self.rest[..whole]);
        self.rest.drain(..whole);
        decoded.map(Bytes::from).map_err(|_| "the base64 of a message is invalid")
    }
}

// === impl Channel ===

impl Framing for Channel {
    fn data(&self, bytes: Bytes) -> Outgoing {
        match self.codec {
            Codec::Raw | Codec::RawWithClose => server_frame(Opcode::Binary, &[self.index], bytes),
            Codec::Base64 => {
                let digit = [b'0'.wrapping_add(self.index)];
                server_frame(Opcode::Text, &digit, STANDARD.encode(bytes).into())
            }
        }
    }

    /// Servers never close a single channel; clients take the end of the connection for it.
    fn end(&self) -> Option<Outgoing> {
        None
    }

    fn reset(&self) -> Option<Outgoing> {
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use proptest::prelude::*;

    fn items(demux: &mut Demux, message: &[&[u8]]) -> Result<Vec<Item>, &'static str> {
        let mut items = Vec::new();
        for piece in message {
            items.extend(demux.data(Bytes::copy_from_slice(piece))?);
        }
        items.extend(demux.end()?);
        Ok(items)
    }

    fn data(channel: u8, bytes: &'static [u8]) -> Item {
        Item::Data(channel, Bytes::from_static(bytes))
    }

    #[test]
    fn messages() {
        type Case = (Codec, &'static [&'static [u8]], Result<Vec<Item>, &'static str>);
        let cases: Vec<Case> = vec![
            (Codec::Raw, &[b"\x00foo\n"], Ok(vec![data(0, b"foo\n")])),
            (Codec::Raw, &[b"\x00", b"fo", b"o"], Ok(vec![data(0, b"fo"), data(0, b"o")])),
            (Codec::Raw, &[], Ok(vec![])),
            (Codec::Raw, &[b"\x01"], Ok(vec![])),
            (Codec::Raw, &[b"\xff\x00"], Ok(vec![data(255, b"\0")])),
            (Codec::RawWithClose, &[b"\xff\x00"], Ok(vec![Item::Close(0)])),
            (Codec::RawWithClose, &[b"\xff", b"\x04"], Ok(vec![Item::Close(4)])),
            (Codec::RawWithClose, &[b"\xff"], Err("a close signal names no channel")),
            (
                Codec::RawWithClose,
                &[b"\xff\x00\x00"],
                Err("a close signal names more than one channel"),
            ),
            // The example of wsstream's documentation.
            (Codec::Base64, &[b"0Zm9vCgo="], Ok(vec![data(0, b"foo\n\n")])),
            (Codec::Base64, &[b"0Zm", b"9vC", b"go="], Ok(vec![data(0, b"foo"), data(0, b"\n\n")])),
            (Codec::Base64, &[b"0Zm9"], Err("the base64 of a message is incomplete")),
            (Codec::Base64, &[b"0????"], Err("the base64 of a message is invalid")),
        ];
        for (codec, message, expected) in cases {
            assert_eq!(items(&mut Demux::new(codec), message), expected, "{codec:?} {message:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_channel_sends_is_found_again(
            bytes: Vec<u8>,
            index in 0_u8..5,
            codec in prop::sample::select(vec![Codec::Raw, Codec::RawWithClose, Codec::Base64]),
            cut: prop::sample::Index,
        ) {
            let sent = Channel { codec, index }.data(Bytes::from(bytes.clone()));
            let (header, at) = super::super::frame::Header::decode(&sent.head).unwrap().unwrap();
            let mut message = BytesMut::from(&sent.head[at..]);
            message.extend_from_slice(&sent.payload);
            prop_assert_eq!(header.length, message.len() as u64);
            let (left, right) = message.split_at(cut.index(message.len()));
            let mut found = Vec::new();
            for item in items(&mut Demux::new(codec), &[left, right]).unwrap() {
                let Item::Data(channel, data) = item else { panic!("{item:?}") };
                prop_assert_eq!(channel, index);
                found.extend_from_slice(&data);
            }
            prop_assert_eq!(found, bytes);
        }
    }
}
