//! The text of a file, and the lines and columns in it.

use crate::tree::Span;

/// A file's name and text, with an index of its lines.
pub(crate) struct Source<'a> {
    pub(crate) file: std::sync::Arc<str>,
    pub(crate) text: &'a str,
    line_starts: Vec<usize>,
}

// === impl Source ===

impl<'a> Source<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1),
            )
            .collect();
        Self { file: file.into(), text, line_starts }
    }

    /// Line and column of a byte, both counted from one, columns in characters.
    pub(crate) fn position(&self, offset: u32) -> (usize, usize) {
        let offset = (offset as usize).min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.line_starts[line];
        let before = self.text.get(start..offset).unwrap_or("");
        (line + 1, before.chars().count() + 1)
    }

    /// What was written in a span.
    pub(crate) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or("")
    }
}
