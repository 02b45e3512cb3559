//! Errors about fields, in the words of Kubernetes.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation/field/errors.go`.

use std::fmt;

use mainstay_schema::go;

use crate::path::Path;

/// What kind of error a field has; an API server's status calls it the cause's reason.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// Something that the field refers to is not there.
    NotFound,
    /// The field must be set.
    Required,
    /// The value must be unique and is not.
    Duplicate,
    /// The value is malformed or out of bounds.
    Invalid,
    /// The value is none of those that the field takes.
    NotSupported,
    /// The value is well formed but not permitted here.
    Forbidden,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
}

/// One field that is wrong. `Display` is the text that an API server gives:
/// `spec.containers[0].name: Required value`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// What kind of error.
    pub kind: ErrorKind,
    /// The path as Kubernetes writes it. In a few places that is not quite the path of the field
    /// (`spec.HostPID`).
    pub field: String,
    /// Everything after the path: `Invalid value: "x": must be ...`.
    pub message: String,
    /// Where to look, if that is not what Kubernetes says: the label, not all labels.
    pub(crate) place: Option<String>,
}

/// Errors of one pod that are kept: nobody reads more, and hostile pods have hundreds of thousands.
const MAX_ERRORS: usize = 200;

/// The errors found so far.
#[derive(Debug, Default)]
pub struct Errors(pub Vec<FieldError>);

/// A value as Kubernetes shows it in an error.
pub trait Show {
    /// The text.
    fn show(self) -> String;
}

/// Text of a Go type of its own (an enumeration, a pointer), which is shown as JSON.
pub struct Json<'a>(pub &'a str);

/// A value that is already shown.
pub struct Shown(pub String);

// === impl ErrorKind ===

impl ErrorKind {
    /// The reason in the causes of an API server's status: `FieldValueInvalid`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

// === impl Errors ===

impl Errors {
    fn add(&mut self, kind: ErrorKind, path: &Path<'_>, value: Option<String>, detail: &str) {
        if self.0.len() >= MAX_ERRORS {
            return;
        }
        let mut message = kind.text().to_owned();
        if let Some(value) = value {
            message.push_str(": ");
            message.push_str(&value);
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        self.0.push(FieldError { kind, field: path.to_string(), message, place: None });
    }

    /// Runs checks whose errors are to be shown at a more exact place than Kubernetes' paths name.
    pub(super) fn placed(&mut self, place: &Path<'_>, check: impl FnOnce(&mut Self)) {
        let before = self.0.len();
        check(self);
        for error in self.0.iter_mut().skip(before).filter(|error| error.place.is_none()) {
            error.place = Some(place.to_string());
        }
    }

    /// The field must be set.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(ErrorKind::Required, path, None, detail);
    }

    /// The value may not be there.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.add(ErrorKind::Forbidden, path, None, detail);
    }

    /// The value is not as it must be.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl Show, detail: &str) {
        self.add(ErrorKind::Invalid, path, Some(value.show()), detail);
    }

    /// One error for each message.
    pub fn invalid_all(
        &mut self,
        path: &Path<'_>,
        value: &str,
        messages: impl IntoIterator<Item = String>,
    ) {
        for message in messages {
            self.invalid(path, value, &message);
        }
    }

    /// The value is none of `supported`.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Show, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().copied().map(Show::show).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.add(ErrorKind::NotSupported, path, Some(value.show()), &detail);
    }

    /// An enumeration's value, which must be one of `supported`.
    pub fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(path, Json(value), supported);
        }
    }

    /// What the value names is not there.
    pub(super) fn not_found(&mut self, path: &Path<'_>, value: impl Show, detail: &str) {
        self.add(ErrorKind::NotFound, path, Some(value.show()), detail);
    }

    /// The value is there twice.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Show) {
        self.add(ErrorKind::Duplicate, path, Some(value.show()), "");
    }

    /// The value has more than `max` bytes.
    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.add(ErrorKind::TooLong, path, None, &format!("may not be more than {max} {unit}"));
    }

    /// The list has more than `max` items.
    pub fn too_many(&mut self, path: &Path<'_>, found: usize, max: usize) {
        let items = if max == 1 { "item" } else { "items" };
        self.add(
            ErrorKind::TooMany,
            path,
            Some(found.show()),
            &format!("must have at most {max} {items}"),
        );
    }
}

impl Show for &str {
    /// As Go's `%q`.
    fn show(self) -> String {
        go::quote(self)
    }
}

impl Show for Json<'_> {
    fn show(self) -> String {
        go::json(&self.0)
    }
}

impl Show for Shown {
    fn show(self) -> String {
        self.0
    }
}

macro_rules! show_as_displayed {
    ($($type:ty),*) => {
        $(impl Show for $type {
            fn show(self) -> String {
                self.to_string()
            }
        })*
    };
}

show_as_displayed!(i32, i64, usize, bool);
