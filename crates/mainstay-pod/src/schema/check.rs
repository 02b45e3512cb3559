//! The walk that holds a manifest against the schema.

use std::collections::HashMap;

use super::{Shape, Type, describe, hint};
use crate::Validation;
use crate::diagnostic::{Cause, Finding, Severity};
use crate::path::Path;
use crate::quantity::Quantity;
use crate::source::Source;
use crate::tree::{Entry, Node, Span, Value};

/// The objects around the one that is being looked at, for hints about fields one level off.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) object: &'static Type,
    pub(super) path: &'a Path<'a>,
    pub(super) parent: Option<&'a Around<'a>>,
}

/// Findings of one severity that are kept; a manifest with more is not read for the rest of them.
const MAX_FINDINGS: usize = 1000;

/// Unknown fields for which a hint is looked for.
const MAX_HINTS: usize = 100;

struct Walk<'a> {
    source: &'a Source<'a>,
    validation: Validation,
    findings: &'a mut Vec<Finding>,
    errors: usize,
    warnings: usize,
}

/// Reports what does not fit the schema and leaves a tree that does, unless false is returned.
///
/// Nulls and all but the last of equal keys are taken out. Unknown fields are left in, since they belong to
/// what was written; decoding passes them over. False means that a value is of the wrong type, so that the
/// tree cannot be decoded.
pub(crate) fn check(
    node: &mut Node,
    object: &'static Type,
    source: &Source<'_>,
    validation: Validation,
    findings: &mut Vec<Finding>,
) -> bool {
    let mut walk = Walk { source, validation, findings, errors: 0, warnings: 0 };
    walk.object(node, object, &Path::ROOT, None)
}

// === impl Walk ===

impl Walk<'_> {
    fn value(
        &mut self,
        node: &mut Node,
        shape: Shape,
        path: &Path<'_>,
        around: Option<&Around<'_>>,
    ) -> bool {
        match (shape, &mut node.value) {
            (Shape::Any, _)
            | (Shape::Bool, Value::Bool(_))
            | (
                Shape::String | Shape::Bytes | Shape::IntOrString | Shape::Time | Shape::MicroTime,
                Value::String(_),
            ) => true,
            (Shape::Int32 | Shape::IntOrString, Value::Number(text))
                if text.parse::<i32>().is_ok() =>
            {
                true
            }
            (Shape::Int64, Value::Number(text)) if text.parse::<i64>().is_ok() => true,
            (Shape::Quantity, Value::String(text) | Value::Number(text)) => {
                match Quantity::parse(text) {
                    Ok(_) => true,
                    Err(error) => {
                        let finding = Finding::error(node.span, path, error.to_string());
                        self.findings
                            .push(finding.hint(hint::quantity(text)).cause(Cause::WrongType));
                        false
                    }
                }
            }
            (Shape::Object(object), Value::Map(_)) => self.object(node, object, path, around),
            (Shape::Map(inner), Value::Map(_)) => self.map(node, inner.shape(), path, around),
            (Shape::List(inner), Value::List(items)) => {
                let inner = inner.shape();
                let mut fits = true;
                for (index, item) in items.iter_mut().enumerate() {
                    let path = path.index(index);
                    if item.is_null() {
                        self.fill_null(item, inner, &path);
                    }
                    fits &= self.value(item, inner, &path, around);
                }
                fits
            }
            _ => {
                self.wrong_type(node, shape, path);
                false
            }
        }
    }

    fn object(
        &mut self,
        node: &mut Node,
        object: &'static Type,
        path: &Path<'_>,
        parent: Option<&Around<'_>>,
    ) -> bool {
        let Value::Map(entries) = &mut node.value else {
            self.wrong_type(node, Shape::Object(object), path);
            return false;
        };
        self.drop_duplicates(entries, |key| path.field(key).to_string());
        let around = Around { object, path, parent };
        let mut fits = true;
        entries.retain_mut(|entry| {
            let path = path.field(&entry.key);
            let Some(field) = object.field(&entry.key) else {
                self.unknown(entry, &path, &around);
                return true;
            };
            // Nothing written after the colon means the same as no field at all.
            if entry.node.is_null() {
                return false;
            }
            fits &= self.value(&mut entry.node, field.shape(), &path, Some(&around));
            true
        });
        fits
    }

    fn unknown(&mut self, entry: &Entry, path: &Path<'_>, around: &Around<'_>) {
        if self.validation == Validation::Ignore {
            return;
        }
        let finding = Finding::error(entry.key_span, path, "unknown field");
        // A hint takes long to find; nobody reads the thousandth.
        let hint = if self.errors.max(self.warnings) < MAX_HINTS {
            hint::unknown_field(&entry.key, around)
        } else {
            None
        };
        self.lenient(finding.hint(hint).cause(Cause::UnknownField));
    }

    fn map(
        &mut self,
        node: &mut Node,
        inner: Shape,
        path: &Path<'_>,
        around: Option<&Around<'_>>,
    ) -> bool {
        let Value::Map(entries) = &mut node.value else { return false };
        self.drop_duplicates(entries, |key| path.key(key).to_string());
        let mut fits = true;
        for entry in entries {
            let path = path.key(&entry.key);
            if entry.node.is_null() {
                entry.node.span = entry.key_span;
                self.fill_null(&mut entry.node, inner, &path);
            }
            fits &= self.value(&mut entry.node, inner, &path, around);
        }
        fits
    }

    /// Kubernetes reads a null in a list or map as the empty value of the type.
    fn fill_null(&mut self, node: &mut Node, shape: Shape, path: &Path<'_>) {
        let (value, what) = match shape {
            Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime => {
                (Value::String("".into()), "an empty string")
            }
            Shape::Object(_) | Shape::Map(_) => (Value::Map(Vec::new()), "an empty object"),
            Shape::Quantity | Shape::Int32 | Shape::Int64 | Shape::IntOrString => {
                (Value::Number("0".into()), "0")
            }
            Shape::Bool => (Value::Bool(false), "false"),
            Shape::List(_) => (Value::List(Vec::new()), "an empty list"),
            Shape::Any => return,
        };
        self.push(Finding::warning(node.span, path, format!("null is read as {what}")));
        node.value = value;
    }

    /// Keeps the last of equal keys, as Kubernetes does when it is not strict.
    fn drop_duplicates(&mut self, entries: &mut Vec<Entry>, path: impl Fn(&str) -> String) {
        let mut seen: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        let mut twice = false;
        for entry in entries.iter() {
            if let Some(first) = seen.insert(&entry.key, entry.key_span) {
                twice = true;
                self.lenient(Finding::duplicate(entry.key_span, path(&entry.key), first));
            }
        }
        if !twice {
            return;
        }
        let mut kept = std::collections::HashSet::new();
        let mut last = Vec::with_capacity(entries.len());
        for entry in std::mem::take(entries).into_iter().rev() {
            if kept.insert(entry.key.clone()) {
                last.push(entry);
            }
        }
        last.reverse();
        *entries = last;
    }

    fn wrong_type(&mut self, node: &Node, shape: Shape, path: &Path<'_>) {
        let written = self.source.slice(node.span);
        let message = match (&node.value, shape) {
            (Value::Number(text), Shape::Int32 | Shape::Int64 | Shape::IntOrString)
                if is_integer(text) =>
            {
                let bits = if matches!(shape, Shape::Int64) { 64 } else { 32 };
                format!("{text} does not fit a {bits}-bit integer")
            }
            _ => format!("expected {}, found {}", describe(shape), node.describe()),
        };
        let span = match node.value {
            Value::List(_) | Value::Map(_) => Span { end: node.span.start + 1, ..node.span },
            _ => node.span,
        };
        let finding =
            Finding::error(span, path, message).hint(hint::wrong_type(node, shape, written));
        self.push(finding.cause(Cause::WrongType));
    }

    fn push(&mut self, finding: Finding) {
        let count = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// An error, a warning or nothing, as the user asked.
    fn lenient(&mut self, finding: Finding) {
        match self.validation {
            Validation::Strict => self.push(finding),
            Validation::Warn => {
                self.push(Finding { severity: Severity::Warning, ..finding });
            }
            Validation::Ignore => {}
        }
    }
}

fn is_integer(text: &str) -> bool {
    text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
