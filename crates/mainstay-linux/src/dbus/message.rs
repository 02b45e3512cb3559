//! Messages as bytes.
//!
//! Source: the D-Bus specification, "Message Protocol" and "Type System".

use std::io;
use std::os::fd::OwnedFd;

/// The longest message that is read or written, in bytes. The protocol allows 128 MiB, of which nobody here
/// needs any.
const LONGEST: usize = 256 << 10;

/// The part of a message that tells how long the rest is.
pub(super) const FIXED: usize = 16;

/// How deep a type may be. Source: "Valid Signatures": 32 arrays and 32 structures.
const DEEPEST: usize = 64;

/// The order of the bytes in numbers.
const LITTLE_ENDIAN: u8 = b'l';
const BIG_ENDIAN: u8 = b'B';

/// The version of the protocol.
const VERSION: u8 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Something is asked for.
    Call,
    /// The answer.
    Return,
    /// There is none, and why.
    Error,
    /// Something happened.
    Signal,
    /// One that this version of the protocol does not have; to be ignored.
    Unknown,
}

/// A message that was received.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// To which call it answers.
    pub reply_to: Option<u32>,
    /// The object that it is from or to.
    pub path: String,
    /// The interface that has the member.
    pub interface: String,
    /// What is called, or what happened.
    pub member: String,
    /// The name of an error.
    pub error: String,
    /// Who sent it, by the one name that nobody else has. The bus itself writes it.
    pub sender: String,
    /// The types of what it says.
    pub signature: String,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    /// How many it says that there are.
    pub(super) promised: usize,
    big: bool,
    body: Vec<u8>,
}

/// What a call or a signal says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Body {
    signature: String,
    bytes: Vec<u8>,
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Whose object it is; a name.
    pub destination: &'a str,
    /// Which.
    pub path: &'a str,
    /// The interface that has the member.
    pub interface: &'a str,
    /// What is called.
    pub member: &'a str,
    /// With what.
    pub body: Body,
}

/// Reads values one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

// === impl Body ===

impl Body {
    /// And a text. One with a zero byte ends there for who reads it.
    #[must_use]
    pub fn string(mut self, text: &str) -> Self {
        self.signature.push('s');
        put_string(&mut self.bytes, text);
        self
    }

    /// And a number.
    #[must_use]
    pub fn int32(mut self, number: i32) -> Self {
        self.signature.push('i');
        pad(&mut self.bytes, 4);
        self.bytes.extend(number.to_le_bytes());
        self
    }
}

// === impl Call ===

impl Call<'_> {
    /// As it is sent.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is too long.
    pub(super) fn encode(&self, serial: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![LITTLE_ENDIAN, 1, 0, VERSION];
        put_length(&mut bytes, self.body.bytes.len())?;
        bytes.extend(serial.to_le_bytes());
        // The array of fields is a multiple of eight into the message, and so are they in it.
        let mut fields = Vec::new();
        for (code, kind, text) in [
            (1, "o", self.path),
            (2, "s", self.interface),
            (3, "s", self.member),
            (6, "s", self.destination),
        ] {
            put_field(&mut fields, code, kind);
            put_string(&mut fields, text);
        }
        if !self.body.signature.is_empty() {
            put_field(&mut fields, 8, "g");
            put_signature(&mut fields, &self.body.signature);
        }
        put_length(&mut bytes, fields.len())?;
        bytes.append(&mut fields);
        pad(&mut bytes, 8);
        bytes.extend(&self.body.bytes);
        match bytes.len() <= LONGEST {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long")),
        }
    }
}

fn put_field(bytes: &mut Vec<u8>, code: u8, signature: &str) {
    pad(bytes, 8);
    bytes.push(code);
    put_signature(bytes, signature);
}

/// One that is written here is never longer than 255 bytes.
fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    bytes.extend(signature.bytes());
    bytes.push(0);
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    // Longer ones make the message too long.
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(text.bytes());
    bytes.push(0);
}

fn put_length(bytes: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let length = u32::try_from(length)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    bytes.extend(length.to_le_bytes());
    Ok(())
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

// === impl Message ===

impl Message {
    /// How long a message is that begins with these bytes.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is none, or too long.
    pub(super) fn length(fixed: &[u8; FIXED]) -> io::Result<usize> {
        let big = is_big(fixed)?;
        let mut reader = Reader { bytes: fixed, at: 4, big };
        let body = reader.length()?;
        reader.at = 12;
        let fields = reader.length()?;
        let length = FIXED.saturating_add(fields).next_multiple_of(8).saturating_add(body);
        if length > LONGEST {
            return Err(invalid("the message is too long"));
        }
        Ok(length)
    }

    /// Reads a whole message.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is none.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let big = is_big(bytes)?;
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => Kind::Unknown,
        };
        let mut message = Self {
            kind,
            reply_to: None,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            sender: String::new(),
            signature: String::new(),
            descriptors: Vec::new(),
            promised: 0,
            big,
            body: Vec::new(),
        };
        let mut reader = Reader { bytes, at: 12, big };
        let length = reader.length()?;
        let end = FIXED.saturating_add(length);
        let fields = bytes.get(..end).ok_or_else(|| invalid("the fields do not end"))?;
        reader.bytes = fields;
        while reader.at < end {
            reader.align(8)?;
            message.field(&mut reader)?;
        }
        let body = bytes.get(end.next_multiple_of(8)..);
        message.body = body.ok_or_else(|| invalid("the body is missing"))?.to_vec();
        Ok(message)
    }

    fn field(&mut self, reader: &mut Reader<'_>) -> io::Result<()> {
        let code = reader.byte()?;
        let signature = reader.signature()?;
        match (code, signature) {
            (1, "o") => self.path = reader.string()?.to_owned(),
            (2, "s") => self.interface = reader.string()?.to_owned(),
            (3, "s") => self.member = reader.string()?.to_owned(),
            (4, "s") => self.error = reader.string()?.to_owned(),
            (5, "u") => self.reply_to = Some(reader.uint32()?),
            (7, "s") => self.sender = reader.string()?.to_owned(),
            (8, "g") => self.signature = reader.signature()?.to_owned(),
            (9, "u") => {
                let count = reader.uint32()?;
                self.promised = usize::try_from(count).unwrap_or(usize::MAX);
            }
            // Anybody on the bus may add others, which are to be ignored.
            (10.., signature) | (6, signature @ "s") => reader.skip_one(signature)?,
            _ => return Err(invalid("a field of the message has a type of another one")),
        }
        Ok(())
    }

    /// What it says.
    pub fn body(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big: self.big }
    }

    /// The first thing that it says, if that is a text; of an error mostly what went wrong.
    pub fn text(&self) -> &str {
        let text = || self.body().string().ok();
        self.signature.starts_with('s').then(text).flatten().unwrap_or_default()
    }
}

/// Whether the first byte of a number is that of the largest power.
fn is_big(bytes: &[u8]) -> io::Result<bool> {
    let big = match bytes.first() {
        Some(&LITTLE_ENDIAN) => false,
        Some(&BIG_ENDIAN) => true,
        _ => return Err(invalid("it is no message")),
    };
    match bytes.get(3) {
        Some(&VERSION) => Ok(big),
        _ => Err(invalid("the message is of another version of the protocol")),
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(|| invalid("a length is too large"))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| invalid("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> io::Result<()> {
        let padding = self.at.next_multiple_of(to) - self.at;
        match self.take(padding)?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(invalid("a padding is not zero")),
        }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.align(N)?;
        let bytes = self.take(N)?;
        <[u8; N]>::try_from(bytes).map_err(|_| invalid("it ends too early"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// As all here: `InvalidData` when there is none.
    pub fn uint32(&mut self) -> io::Result<u32> {
        let bytes = self.array()?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A larger number.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn uint64(&mut self) -> io::Result<u64> {
        let bytes = self.array()?;
        Ok(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// Whether something is so.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn boolean(&mut self) -> io::Result<bool> {
        match self.uint32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(invalid("a boolean is neither true nor false")),
        }
    }

    /// A text, or the path of an object.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn string(&mut self) -> io::Result<&'a str> {
        let length = self.length()?;
        self.text(length)
    }

    /// The type of what a variant has, which comes next.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn signature(&mut self) -> io::Result<&'a str> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> io::Result<&'a str> {
        let text = self.take(length)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(invalid("a text does not end where it says"));
        }
        std::str::from_utf8(text).map_err(|_| invalid("a text is not UTF-8"))
    }

    fn length(&mut self) -> io::Result<usize> {
        usize::try_from(self.uint32()?).map_err(|_| invalid("a length is too large"))
    }

    /// Skips what a variant has, of exactly one type.
    fn skip_one(&mut self, signature: &str) -> io::Result<()> {
        match self.skip(signature.as_bytes(), 0)? {
            [] => Ok(()),
            _ => Err(invalid("a variant has more than one type")),
        }
    }

    /// Skips a value of the first type; answers the types after it.
    fn skip<'s>(&mut self, types: &'s [u8], depth: usize) -> io::Result<&'s [u8]> {
        let bad = || invalid("a type is none");
        let (first, rest) = types.split_first().ok_or_else(bad)?;
        if depth > DEEPEST {
            return Err(invalid("a type is too deep"));
        }
        match first {
            b'y' => drop(self.byte()?),
            b'n' | b'q' => drop(self.array::<2>()?),
            b'b' | b'i' | b'u' | b'h' => drop(self.array::<4>()?),
            b'x' | b't' | b'd' => drop(self.array::<8>()?),
            b's' | b'o' => drop(self.string()?),
            b'g' => drop(self.signature()?),
            b'v' => {
                let signature = self.signature()?;
                if !self.skip(signature.as_bytes(), depth + 1)?.is_empty() {
                    return Err(bad());
                }
            }
            b'a' => return self.skip_array(rest, depth + 1),
            b'(' | b'{' => {
                self.align(8)?;
                let end = if *first == b'(' { b')' } else { b'}' };
                let mut types = rest;
                while types.first() != Some(&end) {
                    types = self.skip(types, depth + 1)?;
                }
                return Ok(types.get(1..).unwrap_or_default());
            }
            _ => return Err(bad()),
        }
        Ok(rest)
    }

    /// What is in it is skipped as a whole, so that time does not follow from what it says of itself.
    fn skip_array<'s>(&mut self, types: &'s [u8], depth: usize) -> io::Result<&'s [u8]> {
        let length = self.length()?;
        self.align(alignment(types))?;
        self.take(length)?;
        after(types, depth)
    }
}

/// To what a value of the first type is aligned.
fn alignment(types: &[u8]) -> usize {
    match types.first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// The types after the first one.
fn after(types: &[u8], depth: usize) -> io::Result<&[u8]> {
    let bad = || invalid("a type is none");
    let (first, rest) = types.split_first().ok_or_else(bad)?;
    if depth > DEEPEST {
        return Err(invalid("a type is too deep"));
    }
    match first {
        b'a' => after(rest, depth + 1),
        b'(' | b'{' => {
            let end = if *first == b'(' { b')' } else { b'}' };
            let mut types = rest;
            while types.first() != Some(&end) {
                types = after(types, depth + 1)?;
            }
            Ok(types.get(1..).unwrap_or_default())
        }
        b'y' | b'n' | b'q' | b'b' | b'i' | b'u' | b'h' | b'x' | b't' | b'd' | b's' | b'o'
        | b'g' | b'v' => Ok(rest),
        _ => Err(bad()),
    }
}

pub(super) fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
