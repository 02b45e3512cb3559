//! Diagnostics as `-o json` prints them. Fields are only ever added.

use serde::Serialize;

use super::{Cause, Severity};

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic<'a> {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What sort of trouble it is: `invalid`, `unsupported` and so on.
    pub cause: &'static str,
    /// The file's name, as it was given.
    pub file: &'a str,
    /// Which document of the file, counted from one; absent if it concerns the file as a whole.
    #[serde(skip_serializing_if = "is_zero")]
    pub document: usize,
    /// Line, counted from one; absent if unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: usize,
    /// Column in characters, counted from one; absent if unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub column: usize,
    /// The path of the field; absent for trouble with the syntax.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub field: &'a str,
    /// What is wrong.
    pub message: &'a str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

impl<'a> From<&'a super::Diagnostic> for Diagnostic<'a> {
    fn from(diagnostic: &'a super::Diagnostic) -> Self {
        Self {
            severity: match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            cause: match diagnostic.cause {
                Cause::Syntax => "syntax",
                Cause::Kind => "kind",
                Cause::UnknownField => "unknownField",
                Cause::DuplicateField => "duplicateField",
                Cause::WrongType => "wrongType",
                Cause::Invalid => "invalid",
                Cause::Prohibited => "prohibited",
                Cause::Unsupported => "unsupported",
                Cause::Adjusted => "adjusted",
            },
            file: &diagnostic.file,
            document: diagnostic.document,
            line: diagnostic.line,
            column: diagnostic.column,
            field: &diagnostic.field,
            message: &diagnostic.message,
            hint: diagnostic.hint.as_deref(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}
