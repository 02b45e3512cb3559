//! The 512 bytes in front of every entry.

use super::TarError;
use super::sparse::Segment;

pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

// === impl Header ===

impl Header {
    pub(super) fn parse(block: [u8; BLOCK]) -> Option<Self> {
        let stored = number(&block[148..156])?;
        // The checksum counts its own field as spaces. Some old tools summed signed bytes.
        let bytes = || block.iter().enumerate();
        let own = |i: usize| (148..156).contains(&i);
        let unsigned: i64 = bytes().map(|(i, b)| if own(i) { 32 } else { i64::from(*b) }).sum();
        let signed: i64 =
            bytes().map(|(i, b)| if own(i) { 32 } else { i64::from(b.cast_signed()) }).sum();
        (stored == unsigned || stored == signed).then_some(Self(block))
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        // Only POSIX has a prefix; GNU uses the space for other things, and star for times too.
        let prefix = match (&self.0[257..263], &self.0[508..512]) {
            (b"ustar\0", b"tar\0") => text(&self.0[345..476]),
            (b"ustar\0", _) => text(&self.0[345..500]),
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn size(&self, position: u64) -> Result<u64, TarError> {
        self.unsigned(124..136, "size", position)
    }

    pub(super) fn mode(&self, position: u64) -> Result<u32, TarError> {
        // The upper bits repeat the kind of file in archives of some tools.
        Ok(self.narrow(100..108, "mode", position)? & 0o7777)
    }

    pub(super) fn uid(&self, position: u64) -> Result<u32, TarError> {
        self.narrow(108..116, "uid", position)
    }

    pub(super) fn gid(&self, position: u64) -> Result<u32, TarError> {
        self.narrow(116..124, "gid", position)
    }

    pub(super) fn mtime(&self, position: u64) -> Result<i64, TarError> {
        number(&self.0[136..148]).ok_or(TarError::Number { field: "mtime", position })
    }

    pub(super) fn device(&self, position: u64) -> Result<(u32, u32), TarError> {
        let major = self.narrow(329..337, "device major", position)?;
        Ok((major, self.narrow(337..345, "device minor", position)?))
    }

    /// The length of an old GNU sparse file, holes included.
    pub(super) fn real_size(&self, position: u64) -> Result<u64, TarError> {
        self.unsigned(483..495, "real size", position)
    }

    /// Adds the segments in this header; whether a block with more of them follows.
    pub(super) fn sparse_segments(
        &self,
        segments: &mut Vec<Segment>,
        position: u64,
    ) -> Result<bool, TarError> {
        add_segments(&self.0[386..482], segments, position)?;
        Ok(self.0[482] != 0)
    }

    fn unsigned(
        &self,
        field: std::ops::Range<usize>,
        name: &'static str,
        position: u64,
    ) -> Result<u64, TarError> {
        let value = number(&self.0[field]).and_then(|value| u64::try_from(value).ok());
        value.ok_or(TarError::Number { field: name, position })
    }

    fn narrow(
        &self,
        field: std::ops::Range<usize>,
        name: &'static str,
        position: u64,
    ) -> Result<u32, TarError> {
        let value = self.unsigned(field, name, position)?;
        u32::try_from(value).map_err(|_| TarError::Number { field: name, position })
    }
}

/// Adds the segments of an extension block; whether another one follows.
pub(super) fn extended_segments(
    block: &[u8; BLOCK],
    segments: &mut Vec<Segment>,
    position: u64,
) -> Result<bool, TarError> {
    add_segments(&block[..504], segments, position)?;
    Ok(block[504] != 0)
}

fn add_segments(fields: &[u8], segments: &mut Vec<Segment>, position: u64) -> Result<(), TarError> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let value = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
        let (Some(offset), Some(length)) = (value(&pair[..12]), value(&pair[12..])) else {
            return Err(TarError::Sparse(position));
        };
        segments.push(Segment { offset, length });
    }
    Ok(())
}

/// A number: octal digits between spaces and NULs, or GNU's base 256 in two's complement.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 of the first byte is the sign; the bytes before the last eight only repeat it.
        let start =
            if first & 0x40 == 0 { i64::from(first & 0x3f) } else { -1 - i64::from(!first & 0x3f) };
        return rest
            .iter()
            .try_fold(start, |value, byte| Some(value.checked_mul(256)? | i64::from(*byte)));
    }
    let padding = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !padding(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(padding).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"    644 "), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777"), Some(0o77_777_777_777));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-1      "), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(
            number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            None
        );
    }
}
