//! The wire format: tags, integers of variable length, and bytes behind their length.

use super::ProtobufError;

/// What is left of a message.
pub(super) struct Reader<'a>(&'a [u8]);

/// What stands before a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    /// The field's number, at least 1.
    pub(super) number: i32,
    /// How the value is written.
    pub(super) wire_type: u8,
}

pub(super) const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;
const GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field's tag, or `None` at the end of the message, of which Go's type is told.
    pub(super) fn tag(&mut self, message: &'static str) -> Result<Option<Tag>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = low_half(tag >> 3);
        let wire_type = wire_type(tag);
        if wire_type == END_GROUP {
            return Err(ProtobufError::EndGroup(message));
        }
        if number <= 0 {
            return Err(ProtobufError::IllegalTag { message, number, tag });
        }
        Ok(Some(Tag { number, wire_type }))
    }

    /// An integer.
    pub(super) fn integer(&mut self, tag: Tag, field: &str) -> Result<u64, ProtobufError> {
        tag.expect(VARINT, field)?;
        self.varint()
    }

    /// Bytes: a string, a message, or several numbers.
    pub(super) fn bytes(&mut self, tag: Tag, field: &str) -> Result<&'a [u8], ProtobufError> {
        tag.expect(LENGTH, field)?;
        self.delimited()
    }

    /// Text; each byte that is no UTF-8 is replaced, as Go does when it writes JSON.
    pub(super) fn text(&mut self, tag: Tag, field: &str) -> Result<String, ProtobufError> {
        let bytes = self.bytes(tag, field)?;
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        Ok(text)
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, tag: Tag) -> Result<(), ProtobufError> {
        let (mut depth, mut next) = (0_usize, tag.wire_type);
        loop {
            match next {
                VARINT => _ = self.varint()?,
                FIXED64 => _ = self.take(8)?,
                LENGTH => _ = self.delimited()?,
                FIXED32 => _ = self.take(4)?,
                GROUP => depth += 1,
                // The first is none, see above.
                END_GROUP => depth = depth.saturating_sub(1),
                other => return Err(ProtobufError::IllegalWireType(other)),
            }
            if depth == 0 {
                return Ok(());
            }
            next = wire_type(self.varint()?);
        }
    }

    /// An integer of up to 64 bits; more in its tenth byte are passed over.
    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::UnexpectedEnd)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Overflow)
    }

    fn delimited(&mut self) -> Result<&'a [u8], ProtobufError> {
        let length = self.varint()?;
        if i64::try_from(length).is_err() {
            return Err(ProtobufError::NegativeLength);
        }
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ProtobufError::UnexpectedEnd)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl Tag {
    fn expect(self, wire_type: u8, field: &str) -> Result<(), ProtobufError> {
        if self.wire_type == wire_type {
            return Ok(());
        }
        let (first, rest) = field.split_at_checked(1).unwrap_or_default();
        let field = first.to_ascii_uppercase() + rest;
        Err(ProtobufError::WrongWireType { wire_type: self.wire_type, field })
    }
}

/// The low 32 bits, as Go converts integers.
pub(super) fn low_half(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn wire_type(tag: u64) -> u8 {
    let [low, ..] = tag.to_le_bytes();
    low & 7
}
