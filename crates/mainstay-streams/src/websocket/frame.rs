//! The header of a WebSocket frame. Source: RFC 6455, section 5.2.

use bytes::{BufMut, BytesMut};

/// The longest header, in bytes.
pub(crate) const HEADER_MAX: usize = 14;
/// The longest payload of a control frame, in bytes.
pub(crate) const CONTROL_MAX: u64 = 125;

/// What is before the payload of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether the message ends with this frame.
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    /// What the payload is combined with; clients' frames have one.
    pub(crate) mask: Option<[u8; 4]>,
    /// Of the payload, in bytes.
    pub(crate) length: u64,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

// === impl Header ===

impl Header {
    /// Reads a header and says how long it is; `None` when bytes are missing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err("a reserved bit of a WebSocket frame is set");
        }
        let Some(opcode) = Opcode::new(first & 0x0f) else {
            return Err("the opcode of a WebSocket frame is unknown");
        };
        let (length, at) = match second & 0x7f {
            126 => match bytes.get(2..4).and_then(|length| length.try_into().ok()) {
                Some(length) => (u64::from(u16::from_be_bytes(length)), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (u64::from_be_bytes(length), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        let (mask, at) = if second & 0x80 == 0 {
            (None, at)
        } else {
            match bytes.get(at..at + 4).and_then(|mask| mask.try_into().ok()) {
                Some(mask) => (Some(mask), at + 4),
                None => return Ok(None),
            }
        };
        if length >> 63 != 0 {
            return Err("the length of a WebSocket frame is negative");
        }
        let fin = first & 0x80 != 0;
        if opcode.is_control() && (!fin || length > CONTROL_MAX) {
            return Err("a WebSocket control frame is fragmented or longer than 125 bytes");
        }
        Ok(Some((Self { fin, opcode, mask, length }, at)))
    }

    pub(crate) fn encode(&self, to: &mut BytesMut) {
        to.put_u8(u8::from(self.fin) << 7 | self.opcode as u8);
        let masked = u8::from(self.mask.is_some()) << 7;
        match (u8::try_from(self.length), u16::try_from(self.length)) {
            (Ok(length), _) if length < 126 => to.put_u8(masked | length),
            (_, Ok(length)) => {
                to.put_u8(masked | 126);
                to.put_u16(length);
            }
            _ => {
                to.put_u8(masked | 127);
                to.put_u64(self.length);
            }
        }
        if let Some(mask) = self.mask {
            to.put_slice(&mask);
        }
    }
}

// === impl Opcode ===

impl Opcode {
    fn new(value: u8) -> Option<Self> {
        let all =
            [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong];
        all.into_iter().find(|opcode| *opcode as u8 == value)
    }

    pub(crate) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Masks or unmasks a part of a payload that begins `offset` bytes after the payload's start.
pub(crate) fn apply_mask(mask: [u8; 4], offset: u64, payload: &mut [u8]) {
    let mut key = mask;
    // Only the place within the mask counts.
    key.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
            word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // Section 5.7: a masked "Hello", the lengths 256 and 65536.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let (header, at) = Header::decode(&hello).unwrap().unwrap();
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        assert_eq!(header, Header { fin: true, opcode: Opcode::Text, mask: Some(mask), length: 5 });
        let mut payload = hello[at..].to_vec();
        apply_mask(mask, 0, &mut payload);
        assert_eq!(payload, b"Hello");

        for (bytes, length) in [
            (&[0x82, 0x7e, 0x01, 0x00][..], 256),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0][..], 65536),
        ] {
            let header = Header { fin: true, opcode: Opcode::Binary, mask: None, length };
            assert_eq!(Header::decode(bytes), Ok(Some((header, bytes.len()))));
            let mut encoded = BytesMut::new();
            header.encode(&mut encoded);
            assert_eq!(encoded, bytes);
        }
    }

    #[test]
    fn refusals() {
        for bytes in [
            // A reserved bit; opcodes 3 and 11.
            &[0xc2, 0x00][..],
            &[0x83, 0x00],
            &[0x8b, 0x00],
            // A fragmented ping; a close frame of 126 bytes.
            &[0x09, 0x00],
            &[0x88, 0x7e, 0x00, 0x7e],
            // More than 2^63.
            &[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(Header::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(
            fin: bool,
            opcode in 0_usize..3,
            mask: Option<[u8; 4]>,
            length in prop_oneof![0_u64..300, 65_000_u64..66_000, 0..=i64::MAX as u64],
        ) {
            let opcode = [Opcode::Continuation, Opcode::Text, Opcode::Binary][opcode];
            let header = Header { fin, opcode, mask, length };
            let mut bytes = BytesMut::new();
            header.encode(&mut bytes);
            prop_assert!(bytes.len() <= HEADER_MAX);
            prop_assert_eq!(Header::decode(&bytes), Ok(Some((header, bytes.len()))));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Header::decode(&bytes[..cut]), Ok(None));
            }
        }

        #[test]
        fn masking_in_parts_is_masking_at_once(
            mask: [u8; 4],
            payload: Vec<u8>,
            cut: prop::sample::Index,
        ) {
            let mut whole = payload.clone();
            apply_mask(mask, 0, &mut whole);
            let mut parts = payload.clone();
            let cut = cut.index(payload.len() + 1);
            let (left, right) = parts.split_at_mut(cut);
            apply_mask(mask, 0, left);
            apply_mask(mask, cut as u64, right);
            prop_assert_eq!(&whole, &parts);
            apply_mask(mask, 0, &mut whole);
            prop_assert_eq!(whole, payload);
        }
    }
}
