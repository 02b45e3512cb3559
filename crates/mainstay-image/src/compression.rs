//! Compressed streams, told apart by their first bytes: media types and file names are often wrong.

use std::io::{self, BufRead, BufReader, Cursor, Read};

/// How much is read from a compressed stream at a time, in bytes.
const BUFFER: usize = 128 << 10;
/// How many bytes at the start tell how a stream is compressed.
pub(crate) const START: usize = 6;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several. Frames with a window of more than 128 MiB, which the decoder
    /// would have to hold in memory, are refused: that is the decoder's own limit.
    Zstd,
}

/// Why a stream cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// Its first bytes could not be read.
    #[error("reading the first bytes failed")]
    Read(#[source] io::Error),
    /// A format that images do not use.
    #[error("compressed with {0}, which is not supported: use gzip or zstd")]
    Unsupported(&'static str),
    /// The decompressor could not be set up.
    #[error("setting up zstd failed")]
    Zstd(#[source] io::Error),
}

impl Compression {
    /// What a stream that starts with `bytes` is compressed with.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, CompressionError> {
        Ok(match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame in front of the first one, as pzstd writes it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => return Err(CompressionError::Unsupported("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                return Err(CompressionError::Unsupported("xz"));
            }
            _ => Self::None,
        })
    }
}

/// The decompressed content of `reader`.
pub(crate) fn decompress<'a>(
    mut reader: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, CompressionError> {
    let mut start = Vec::with_capacity(START);
    let mut head = reader.by_ref().take(START as u64);
    head.read_to_end(&mut start).map_err(CompressionError::Read)?;
    let compression = Compression::of(&start)?;
    let whole = Cursor::new(start).chain(reader);
    let content: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(buffered(whole));
            Box::new(decoder.map_err(CompressionError::Zstd)?)
        }
    };
    Ok(content)
}

fn buffered<'a>(reader: impl Read + Send + 'a) -> impl BufRead + Send + 'a {
    BufReader::with_capacity(BUFFER, reader)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(bytes: &[u8], content: &[u8]) {
        let mut read = Vec::new();
        decompress(bytes).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
    }

    #[test]
    fn the_first_bytes_tell() {
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skippable = [0x5e, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        check(b"", b"");
        check(b"x", b"x");
        check(b"plain text", b"plain text");
        check(&gzip(b"a"), b"a");
        check(&[gzip(b"a"), gzip(b"b")].concat(), b"ab");
        check(&zstd(b"a"), b"a");
        check(&[&skippable[..], &zstd(b"a"), &zstd(b"b")].concat(), b"ab");
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, name) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz")] {
            let error = decompress(bytes).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn broken_streams_end_with_an_error() {
        for whole in [gzip(&[7; 5000]), zstd::encode_all(&[7; 5000][..], 1).unwrap()] {
            let mut reader = decompress(&whole[..whole.len() - 3]).unwrap();
            assert!(reader.read_to_end(&mut Vec::new()).is_err());
        }
    }
}
