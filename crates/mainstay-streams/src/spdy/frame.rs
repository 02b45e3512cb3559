//! Frames. Source: SPDY protocol draft 3.1, section 2.2 and 2.6.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Headers, Inflater, Storer};
use crate::link::{Framing, Outgoing};

/// The head of any frame, in bytes.
pub(super) const HEAD: usize = 8;
/// The largest payload, in bytes: the length has 24 bits.
const LENGTH_MAX: usize = 0xff_ffff;
const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;

/// What a control frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// `fin`: the sender sends nothing on it; `unidirectional`: the receiver must not.
    SynStream {
        stream: u32,
        headers: Headers,
        fin: bool,
        unidirectional: bool,
    },
    SynReply {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    Settings,
    Ping {
        id: u32,
    },
    GoAway {
        last_good: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A type of which nothing is known, which is passed over.
    Unknown,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Control { kind: u16, flags: u8, length: usize },
    Data { stream: u32, fin: bool, length: usize },
}

/// Why a stream was reset. Source: section 2.6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum RstStatus {
    ProtocolError = 1,
    RefusedStream = 3,
    Cancel = 5,
}

/// Why a connection was closed. Source: section 2.6.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum GoAwayStatus {
    Ok = 0,
    ProtocolError = 1,
}

/// A stream to the client.
#[derive(Debug)]
pub(super) struct DataFrames {
    pub(super) stream: u32,
}

// === impl Head ===

impl Head {
    pub(super) fn decode(bytes: [u8; HEAD]) -> Result<Self, &'static str> {
        let mut bytes = bytes.as_slice();
        let (word, flags) = (bytes.get_u32(), bytes.get_u32());
        let [flags, length @ ..] = flags.to_be_bytes();
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if word >> 31 == 0 {
            return match word {
                0 => Err("a SPDY data frame is for stream 0"),
                stream => Ok(Self::Data { stream, fin: flags & FLAG_FIN != 0, length }),
            };
        }
        let [high, low, kind @ ..] = word.to_be_bytes();
        if u16::from_be_bytes([high & 0x7f, low]) != 3 {
            return Err("the version of a SPDY frame is not 3");
        }
        Ok(Self::Control { kind: u16::from_be_bytes(kind), flags, length })
    }
}

// === impl Control ===

impl Control {
    /// Reads what follows the head. Header blocks have to be read in the order they come in.
    pub(super) fn decode(
        kind: u16,
        flags: u8,
        mut payload: Bytes,
        inflater: &mut Inflater,
    ) -> Result<Self, &'static str> {
        const SHORT: &str = "a SPDY control frame is too short";
        let fin = flags & FLAG_FIN != 0;
        let payload = &mut payload;
        let word = |payload: &mut Bytes| payload.try_get_u32().map_err(|_| SHORT);
        let id = |payload: &mut Bytes| Ok::<_, &'static str>(word(payload)? & 0x7fff_ffff);
        Ok(match kind {
            1 => {
                let stream = id(payload)?;
                let _associated = word(payload)?;
                let _priority_and_slot = payload.try_get_u16().map_err(|_| SHORT)?;
                let headers = inflater.headers(payload)?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Self::SynStream { stream, headers, fin, unidirectional }
            }
            2 => Self::SynReply { stream: id(payload)?, headers: inflater.headers(payload)?, fin },
            3 => Self::RstStream { stream: id(payload)?, status: word(payload)? },
            4 => Self::Settings,
            6 => Self::Ping { id: word(payload)? },
            7 => Self::GoAway { last_good: id(payload)?, status: word(payload)? },
            8 => Self::Headers { stream: id(payload)?, headers: inflater.headers(payload)?, fin },
            9 => Self::WindowUpdate { stream: id(payload)?, delta: id(payload)? },
            _ => Self::Unknown,
        })
    }

    pub(crate) fn encode(&self, storer: &mut Storer) -> Outgoing {
        let mut payload = BytesMut::new();
        let flag = |fin: bool| if fin { FLAG_FIN } else { 0 };
        let (kind, flags) = match self {
            Self::SynStream { stream, headers, fin, unidirectional } => {
                payload.put_u32(*stream);
                payload.put_u32(0);
                payload.put_u16(0);
                storer.store(headers, &mut payload);
                (1, flag(*fin) | if *unidirectional { FLAG_UNIDIRECTIONAL } else { 0 })
            }
            Self::SynReply { stream, headers, fin } => {
                payload.put_u32(*stream);
                storer.store(headers, &mut payload);
                (2, flag(*fin))
            }
            Self::RstStream { stream, status } => {
                payload.put_u32(*stream);
                payload.put_u32(*status);
                (3, 0)
            }
            Self::Settings => {
                payload.put_u32(0);
                (4, 0)
            }
            Self::Ping { id } => {
                payload.put_u32(*id);
                (6, 0)
            }
            Self::GoAway { last_good, status } => {
                payload.put_u32(*last_good);
                payload.put_u32(*status);
                (7, 0)
            }
            Self::Headers { stream, headers, fin } => {
                payload.put_u32(*stream);
                storer.store(headers, &mut payload);
                (8, flag(*fin))
            }
            Self::WindowUpdate { stream, delta } => {
                payload.put_u32(*stream);
                payload.put_u32(*delta);
                (9, 0)
            }
            // NOOP of older versions.
            Self::Unknown => (5, 0),
        };
        let mut head = BytesMut::with_capacity(HEAD);
        head.put_u16(0x8003);
        head.put_u16(kind);
        put_length(&mut head, flags, payload.len());
        Outgoing::new(head, payload)
    }
}

/// A data frame. `bytes` are at most 16 MiB.
pub(crate) fn data_frame(stream: u32, bytes: Bytes, fin: bool) -> Outgoing {
    let mut head = BytesMut::with_capacity(HEAD);
    head.put_u32(stream);
    put_length(&mut head, u8::from(fin) * FLAG_FIN, bytes.len());
    Outgoing::new(head, bytes)
}

/// A reset of one stream.
pub(crate) fn reset(stream: u32, status: RstStatus) -> Outgoing {
    Control::RstStream { stream, status: status as u32 }.encode(&mut Storer::default())
}

/// The frame that ends a connection.
pub(crate) fn go_away(last_good: u32, status: GoAwayStatus) -> Outgoing {
    let frame = Control::GoAway { last_good, status: status as u32 };
    frame.encode(&mut Storer::default()).then_nothing()
}

fn put_length(head: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length.min(LENGTH_MAX)).unwrap_or(0);
    head.put_u32(u32::from(flags) << 24 | length);
}

impl Framing for DataFrames {
    fn data(&self, bytes: Bytes) -> Outgoing {
        data_frame(self.stream, bytes, false)
    }

    fn end(&self) -> Option<Outgoing> {
        Some(data_frame(self.stream, Bytes::new(), true))
    }

    fn reset(&self) -> Option<Outgoing> {
        Some(reset(self.stream, RstStatus::Cancel))
    }
}
