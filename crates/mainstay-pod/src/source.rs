//! The text of a file, and the lines and columns in it.

use crate::tree::Span;

/// Bytes from one count of characters to the next: what is counted anew for each column.
const BLOCK: usize = 1024;

/// A file's name and text, with an index of its lines and characters: a file may have a thousand
/// diagnostics on a line of megabytes.
pub(crate) struct Source<'a> {
    pub(crate) file: std::sync::Arc<str>,
    pub(crate) text: &'a str,
    line_starts: Vec<usize>,
    /// Characters that begin before each multiple of [`BLOCK`].
    characters: Vec<usize>,
}

// === impl Source ===

impl<'a> Source<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1),
            )
            .collect();
        let characters = text
            .as_bytes()
            .chunks(BLOCK)
            .scan(0, |before, block| Some(std::mem::replace(before, *before + count(block))))
            .collect();
        Self { file: file.into(), text, line_starts, characters }
    }

    /// Line and column of a byte, both counted from one, columns in characters.
    pub(crate) fn position(&self, offset: u32) -> (usize, usize) {
        let offset = (offset as usize).min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.line_starts[line];
        (line + 1, self.characters_before(offset) - self.characters_before(start) + 1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = (offset / BLOCK).min(self.characters.len().saturating_sub(1));
        let before = self.characters.get(block).copied().unwrap_or(0);
        before + count(&self.text.as_bytes()[block * BLOCK..offset])
    }

    /// What was written in a span.
    pub(crate) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or("")
    }
}

/// Characters that begin in a part of a text.
fn count(part: &[u8]) -> usize {
    part.iter().filter(|byte| !matches!(**byte, 0x80..=0xbf)).count()
}
