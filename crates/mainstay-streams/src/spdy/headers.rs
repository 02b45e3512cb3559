//! Header blocks: names and values in one zlib stream per direction.
//!
//! Source: SPDY protocol draft 3.1, section 2.6.10.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::dictionary;

/// The Adler-32 of the dictionary.
pub(super) const DICTIONARY_ID: u32 = 0xe3c6_a7c2;
/// The most bytes that a header block may have when inflated.
const BLOCK_MAX: usize = 64 << 10;
/// A deflate block without content, which makes a reader hand out what came before it.
const SYNC: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// The headers of a stream, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

/// The header blocks that a peer sends. One broken block breaks all that follow.
pub(crate) struct Inflater {
    stream: Decompress,
}

/// The header blocks that are sent, which are stored without compression: those of a server
/// are empty, and a compressor needs a quarter of a megabyte.
#[derive(Debug, Default)]
pub(crate) struct Storer {
    begun: bool,
}

// === impl Headers ===

impl Headers {
    /// The first value of a header, whose name is compared without regard to case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        value.split('\0').next().filter(|value| !value.is_empty())
    }

    fn parse(mut block: &[u8]) -> Option<Self> {
        let count = block.try_get_u32().ok()?;
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((string(&mut block)?, string(&mut block)?));
        }
        block.is_empty().then_some(Self(headers))
    }

    fn encode(&self) -> BytesMut {
        let mut block = BytesMut::new();
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        block.put_u32(length(self.0.len()));
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(length(text.len()));
            block.put_slice(text.as_bytes());
        }
        block
    }
}

fn string(block: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(block.try_get_u32().ok()?).ok()?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

// === impl Inflater ===

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { stream: Decompress::new(true) }
    }

    /// The headers in the next block.
    pub(crate) fn headers(&mut self, block: &[u8]) -> Result<Headers, &'static str> {
        let inflated = self.inflate(block)?;
        Headers::parse(&inflated).ok_or("a SPDY header block is malformed")
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut inflated = Vec::new();
        let mut out = [0; 1024];
        loop {
            let (read, written) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(block, &mut out, FlushDecompress::Sync);
            let count = |from, to: u64| usize::try_from(to - from).unwrap_or(usize::MAX);
            let read = count(read, self.stream.total_in());
            let written = count(written, self.stream.total_out());
            block = block.get(read..).unwrap_or_default();
            inflated.extend_from_slice(out.get(..written).unwrap_or_default());
            if inflated.len() > BLOCK_MAX {
                return Err("a SPDY header block is too large");
            }
            match status {
                Ok(Status::StreamEnd) => return Err("the SPDY header stream ended"),
                Ok(Status::Ok | Status::BufError) if read == 0 && written == 0 => {
                    return if block.is_empty() {
                        Ok(inflated)
                    } else {
                        Err("a SPDY header block cannot be inflated")
                    };
                }
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary() == Some(DICTIONARY_ID) => {
                    self.stream
                        .set_dictionary(&dictionary())
                        .map_err(|_| "the SPDY dictionary does not fit")?;
                }
                Err(_) => return Err("a SPDY header block cannot be inflated"),
            }
        }
    }
}

// === impl Storer ===

impl Storer {
    /// Appends the next block.
    pub(crate) fn store(&mut self, headers: &Headers, to: &mut BytesMut) {
        if !self.begun {
            // Deflate with a window of 32 KiB and a preset dictionary.
            to.put_slice(&[0x78, 0x20]);
            to.put_u32(DICTIONARY_ID);
            self.begun = true;
        }
        for piece in headers.encode().chunks(usize::from(u16::MAX)) {
            let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            to.put_u8(0);
            to.put_u16_le(length);
            to.put_u16_le(!length);
            to.put_slice(piece);
        }
        to.put_slice(&SYNC);
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}
