//! Maps of sparse files: which parts of a file the archive has, the others being holes.

use super::header::BLOCK;
use super::pax::decimal;

/// The most segments that a sparse file may have: 16 bytes of memory each.
pub(crate) const SEGMENTS_MAX: usize = 65_536;

/// A part of a file that has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it starts, in bytes from the start of the file.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// The map at the start of the content, as version 1.0 of the pax format has it: decimal numbers,
/// one a line, the count of segments first; the rest of the last block is filled up.
#[derive(Default)]
pub(super) struct InContent {
    pub(super) segments: Vec<Segment>,
    line: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
}

/// Whether `segments` are a map of a file of `size` bytes whose content has `content` bytes:
/// ascending, within the file, no two of them overlapping.
pub(super) fn check(segments: &[Segment], size: u64, content: u64) -> Option<()> {
    let mut end = 0_u64;
    let mut total = 0_u64;
    for segment in segments {
        if segment.offset < end {
            return None;
        }
        end = segment.offset.checked_add(segment.length)?;
        total = total.checked_add(segment.length)?;
    }
    (segments.len() <= SEGMENTS_MAX && end <= size && total == content).then_some(())
}

// === impl InContent ===

impl InContent {
    /// Reads one block of the map; whether that was the last. `None` if it is broken.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Option<bool> {
        for byte in block {
            if self.done() {
                break;
            }
            if *byte != b'\n' {
                if self.line.len() >= 20 {
                    return None;
                }
                self.line.push(*byte);
                continue;
            }
            let value = decimal(&self.line)?;
            self.line.clear();
            match (self.count, self.offset) {
                (None, _) => {
                    if value > SEGMENTS_MAX as u64 {
                        return None;
                    }
                    self.count = Some(value);
                }
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => {
                    self.segments.push(Segment { offset, length: value });
                    self.offset = None;
                }
            }
        }
        Some(self.done())
    }

    fn done(&self) -> bool {
        self.count == Some(self.segments.len() as u64)
    }
}
