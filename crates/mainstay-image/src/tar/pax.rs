//! The records of a pax extended header: `<length> <key>=<value>\n`.

use super::sparse::{SEGMENTS_MAX, Segment};
use super::{TarError, Time};

const XATTR: &[u8] = b"SCHILY.xattr.";
/// The most attributes that an entry may have: far more than any file has, and few enough to look
/// through them for each.
const XATTRS_MAX: usize = 256;

/// What an extended header says about the entry after it, as far as it matters here.
#[derive(Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<SparseMap>,
    /// The real name of a sparse file; the header has a made-up one for tools that know no better.
    pub(super) sparse_name: Option<Vec<u8>>,
}

/// A sparse file in one of the pax formats.
pub(super) struct SparseMap {
    /// The file's length, holes included, in bytes.
    pub(super) size: u64,
    /// The map, unless it stands in front of the content (version 1.0).
    pub(super) segments: Option<Vec<Segment>>,
}

/// The keys of the three sparse formats, gathered until the header has been read.
#[derive(Default)]
struct SparseKeys {
    in_content: bool,
    size: Option<u64>,
    /// Version 0.1, or the pairs of version 0.0.
    numbers: Option<Vec<u64>>,
}

// === impl Records ===

impl Records {
    /// Reads the extended header of the entry at `position`.
    pub(super) fn parse(mut bytes: &[u8], position: u64) -> Result<Self, TarError> {
        let mut records = Self::default();
        let mut sparse = SparseKeys::default();
        // Some tools fill the last block up with NULs and count them.
        while let Some(first) = bytes.first()
            && *first != 0
        {
            let (key, value, rest) = split_record(bytes).ok_or(TarError::Pax(position))?;
            records.take(key, value, &mut sparse).ok_or(TarError::Pax(position))?;
            bytes = rest;
        }
        records.sparse = sparse.map().ok_or(TarError::Sparse(position))?;
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8], sparse: &mut SparseKeys) -> Option<()> {
        // An empty value takes back what a global header said; there is nothing to take back.
        if value.is_empty() && !key.starts_with(XATTR) {
            return Some(());
        }
        match key {
            b"path" => self.path = Some(without_nul(value)?),
            b"linkpath" => self.link = Some(without_nul(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?.try_into().ok()?),
            b"gid" => self.gid = Some(decimal(value)?.try_into().ok()?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => sparse.in_content = value != b"0",
            b"GNU.sparse.name" => self.sparse_name = Some(without_nul(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.size = Some(decimal(value)?),
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                sparse.numbers = Some(numbers?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                sparse.numbers.get_or_insert_default().push(decimal(value)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    let name = without_nul(name)?;
                    // Of two values for one attribute the last counts.
                    self.xattrs.retain(|(other, _)| *other != name);
                    if self.xattrs.len() == XATTRS_MAX {
                        return None;
                    }
                    self.xattrs.push((name, value.to_vec()));
                }
            }
        }
        Some(())
    }
}

// === impl SparseKeys ===

impl SparseKeys {
    /// The map that the keys describe: `Some(None)` if the file is not sparse, `None` if the keys
    /// contradict each other.
    fn map(self) -> Option<Option<SparseMap>> {
        let segments = match (self.in_content, self.numbers) {
            (true, _) => None,
            (false, None) => return Some(None),
            (false, Some(numbers)) => {
                if numbers.len() % 2 != 0 || numbers.len() / 2 > SEGMENTS_MAX {
                    return None;
                }
                let pairs = numbers.chunks_exact(2);
                Some(pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
            }
        };
        Some(Some(SparseMap { size: self.size?, segments }))
    }
}

/// The first record and what follows it. A value may hold anything, newlines and NULs included,
/// so only the length tells where it ends.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = decimal(&bytes[..space])?.try_into().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    let (key, value) = record.split_at(equals);
    (!key.is_empty()).then_some((key, &value[1..], rest))
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Seconds since 1970 with an optional sign and fraction.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0_u32;
    for i in 0..9 {
        let digit = match fraction.get(i) {
            Some(byte @ b'0'..=b'9') => u32::from(byte - b'0'),
            Some(_) => return None,
            None => 0,
        };
        nanoseconds = nanoseconds * 10 + digit;
    }
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => {
            Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }
        }
    })
}

fn without_nul(bytes: &[u8]) -> Option<Vec<u8>> {
    (!bytes.contains(&0)).then(|| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_nuls() {
        let records = Records::parse(b"31 SCHILY.xattr.user.a=\n\0b 1=2\n", 0).ok().unwrap();
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"\n\0b 1=2".to_vec())]);
    }

    #[test]
    fn broken_records_are_refused() {
        let broken: [&[u8]; 8] = [
            b"9 path=x",
            b"99 path=x\n",
            b"0 path=x\n",
            b"x path=x\n",
            b"99999999999999999999 path=x\n",
            b"5 =x\n",
            b"11 path=a\0\n",
            b"14 size=-12345\n",
        ];
        for bytes in broken {
            assert!(Records::parse(bytes, 0).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn attributes_are_not_without_end() {
        let of = |count: usize| {
            let record = |n: usize| format!("28 SCHILY.xattr.user.{n:04}=x\n");
            // The last of them twice, which makes no more of them.
            let records: String = (0..count).chain([count - 1]).map(record).collect();
            Records::parse(records.as_bytes(), 0).ok().map(|records| records.xattrs.len())
        };
        assert_eq!((of(256), of(257)), (Some(256), None));
    }

    #[test]
    fn times_have_signs_and_fractions() {
        assert_eq!(time(b"12.5"), Some(Time { seconds: 12, nanoseconds: 500_000_000 }));
        assert_eq!(time(b"-12.25"), Some(Time { seconds: -13, nanoseconds: 750_000_000 }));
        assert_eq!(time(b"-3"), Some(Time { seconds: -3, nanoseconds: 0 }));
        assert_eq!(time(b"1.1234567891"), Some(Time { seconds: 1, nanoseconds: 123_456_789 }));
        for broken in [&b""[..], b".5", b"1.x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(broken), None);
        }
    }
}
