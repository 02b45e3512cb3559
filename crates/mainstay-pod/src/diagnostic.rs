//! What is wrong with a manifest, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::source::Source;
use crate::tree::Span;

pub mod wire;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The manifest is refused.
    Error,
    /// The manifest is accepted, but not as written.
    Warning,
}

/// What sort of trouble a diagnostic reports.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    /// The text is neither YAML nor JSON, or too large.
    Syntax,
    /// The document is not a Pod.
    Kind,
    /// The Kubernetes API has no such field.
    UnknownField,
    /// A field is set twice.
    DuplicateField,
    /// A value has another type than its field.
    WrongType,
    /// An API server would not create such a Pod.
    Invalid,
    /// A static pod cannot have it, now or later.
    Prohibited,
    /// Kubernetes has it, this version of mainstay not yet.
    Unsupported,
    /// Something was read otherwise than written: fields dropped, nulls filled in.
    Adjusted,
}

/// One finding about one place in a manifest.
///
/// `Display` is the one-line form for logs and status:
/// `web.yaml:14:5: spec.containers[0].workdir: unknown field (did you mean workingDir?)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Whether the manifest is refused for it.
    pub severity: Severity,
    /// What sort of trouble it is.
    pub cause: Cause,
    /// The file's name, as it was given.
    pub file: Arc<str>,
    /// Which document of the file, counted from one; zero if it concerns the file as a whole.
    pub document: usize,
    /// Line, counted from one; zero if no place in the file can be named.
    pub line: usize,
    /// Column in characters, counted from one; zero if no place in the file can be named.
    pub column: usize,
    /// The path of the field (`spec.containers[0].image`); empty for trouble with the syntax.
    pub field: String,
    /// What is wrong, without place or field.
    pub message: String,
    /// What to write instead, or where to look.
    pub hint: Option<String>,
    span: Option<Range<usize>>,
    /// Where it was set before, if it is set twice.
    first: Option<Range<usize>>,
}

/// A finding before its place is turned into line and column.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) cause: Cause,
    pub(crate) span: Span,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Where it was set before, if it is set twice.
    pub(crate) first: Option<Span>,
}

// === impl Finding ===

impl Finding {
    pub(crate) fn error(span: Span, field: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            cause: Cause::Invalid,
            span,
            field: field.to_string(),
            message: message.into(),
            hint: None,
            first: None,
        }
    }

    pub(crate) fn duplicate(key: Span, field: impl fmt::Display, first: Span) -> Self {
        let cause = Cause::DuplicateField;
        Self { cause, first: Some(first), ..Self::error(key, field, "duplicate field") }
    }

    pub(crate) fn warning(
        span: Span,
        field: impl fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        let cause = Cause::Adjusted;
        Self { severity: Severity::Warning, cause, ..Self::error(span, field, message) }
    }

    pub(crate) fn cause(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<Option<String>>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub(crate) fn into_diagnostic(self, source: &Source<'_>, document: usize) -> Diagnostic {
        let (line, column) = source.position(self.span.start);
        let range = |span: Span| span.start as usize..span.end as usize;
        let message = match self.first {
            Some(first) => {
                format!("{}, already set on line {}", self.message, source.position(first.start).0)
            }
            None => self.message,
        };
        Diagnostic {
            severity: self.severity,
            cause: self.cause,
            file: Arc::clone(&source.file),
            document,
            line,
            column,
            field: self.field,
            message,
            hint: self.hint,
            span: Some(range(self.span)),
            first: self.first.map(range),
        }
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    /// Something to know about a file as a whole.
    pub fn warning(file: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        let (severity, cause) = (Severity::Warning, Cause::Adjusted);
        Self { severity, cause, ..Self::error(file, message, hint) }
    }

    /// The same that keeps what the file says from being used.
    pub fn error(file: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            severity: Severity::Error,
            cause: Cause::Syntax,
            file: file.into(),
            document: 0,
            line: 0,
            column: 0,
            field: String::new(),
            message: message.into(),
            hint,
            span: None,
            first: None,
        }
    }

    /// The form that a compiler prints: the line of the file, a caret, the hint.
    ///
    /// `source` is the text of the file that was read; with a text that is not that file, or none, the
    /// one-line form is returned.
    pub fn render(&self, source: &str, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let span = self.span.clone().filter(|span| source.get(span.clone()).is_some());
        let (Some(span), renderer) =
            (span, if color { Renderer::styled() } else { Renderer::plain() })
        else {
            return self.to_string();
        };
        let title = if self.field.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.field, self.message)
        };
        let mut snippet = Snippet::source(source)
            .path(&*self.file)
            .annotation(AnnotationKind::Primary.span(one_line(source, span)));
        if let Some(first) = self.first.clone().filter(|span| source.get(span.clone()).is_some()) {
            snippet = snippet.annotation(
                AnnotationKind::Context.span(one_line(source, first)).label("first set here"),
            );
        }
        let mut group = level.primary_title(title).element(snippet);
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The part of a span that stands on its first line; at least one character where there is one.
fn one_line(source: &str, span: Range<usize>) -> Range<usize> {
    let text = &source[span.clone()];
    let end = text.find('\n').map_or(span.end, |at| span.start + at);
    if end > span.start {
        return span.start..end;
    }
    let next = source[span.start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    span.start..span.start + next
}

#[cfg(test)]
mod tests;
